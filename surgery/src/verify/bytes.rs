//! That a cut file holds its parent's bytes: keys, backbone, slices.

use engine::arch::{self, Arch, Fate};
use engine::gguf::{Array, Gguf, Tensor, Value};

use crate::provenance;

/// Two files, and what the one says it kept of the other.
pub(super) struct Pair<'a> {
    pub arch: &'a Arch,
    pub whole: &'a Gguf,
    pub cut: &'a Gguf,
    /// Ids by block of the cut file; blocks beyond were left out.
    pub kept: &'a [Vec<u32>],
    /// Blocks of the parent.
    pub blocks: usize,
}

impl Pair<'_> {
    /// All keys but ours are the parent's, and those that count what is left do.
    pub fn keys(&self) -> Result<String, String> {
        let own = |gguf: &Gguf| {
            let keys = gguf.metadata().iter().map(|(key, _)| key.clone());
            keys.filter(|key| !key.starts_with(provenance::PREFIX)).collect::<Vec<_>>()
        };
        let (old, new) = (own(self.whole), own(self.cut));
        for key in &old {
            let (want, got) = (self.whole.meta(key), self.cut.meta(key));
            match (want, got) {
                (Some(want), Some(got)) if self.follows(key, want, got) => {}
                _ => return Err(format!("key {key:?} is not the parent's")),
            }
        }
        match new.len() == old.len() {
            true => Ok(format!("{} keys are the parent's", old.len())),
            false => Err(format!("{} keys, the parent has {}", new.len(), old.len())),
        }
    }

    fn follows(&self, key: &str, want: &Value, got: &Value) -> bool {
        let (arch, blocks) = (self.arch, self.kept.len());
        let counts = |n: usize| got.int() == Some(n as u64);
        if key == arch.expert_count_key() {
            return counts(self.kept.iter().map(Vec::len).max().unwrap_or(0));
        }
        if blocks == self.blocks {
            return want == got;
        }
        // The blocks behind the layers were left out.
        if key == arch.block_count_key() {
            return counts(blocks);
        }
        if key == arch.ahead_key() {
            return counts(0);
        }
        want == got || arch.is_by_block(key) && begins(want, got, self.blocks, blocks)
    }

    /// Every tensor is the parent's, or the slices of its kept experts.
    pub fn tensors(&self) -> Result<String, String> {
        let (mut same, mut sliced, mut dropped) = (0u64, 0u64, 0u64);
        for old in self.whole.tensors() {
            let name = &old.name;
            let new = self.cut.tensor(name);
            if arch::block_of(name).is_some_and(|block| block >= self.kept.len()) {
                if new.is_some() {
                    return Err(format!("tensor {name:?} is there, and its block was left out"));
                }
                dropped += 1;
                continue;
            }
            let new = new.ok_or_else(|| format!("tensor {name:?} is missing"))?;
            if new.kind != old.kind {
                return Err(format!(
                    "tensor {name:?} is {:?}, the parent's is {:?}",
                    new.kind, old.kind
                ));
            }
            let ids = match self.arch.fate(name) {
                Fate::Slice { block } => self.kept.get(block).filter(|ids| !ids.is_empty()),
                Fate::Keep | Fate::Unknown => None,
            };
            match ids {
                None if new.dims != old.dims || self.cut.data(new) != self.whole.data(old) => {
                    return Err(format!("tensor {name:?} is not the parent's"));
                }
                None => same += 1,
                Some(ids) => {
                    self.slices(old, new, ids)
                        .map_err(|what| format!("tensor {name:?}: {what}"))?;
                    sliced += ids.len() as u64;
                }
            }
        }
        let (got, want) = (self.cut.tensors().len() as u64, self.whole.tensors().len() as u64);
        if got + dropped != want {
            return Err(format!(
                "{got} tensors, the parent has {want} and {dropped} were left out"
            ));
        }
        let left_out = match dropped {
            0 => String::new(),
            _ => format!("; {dropped} of blocks that predict further tokens were left out"),
        };
        Ok(format!("{same} tensors and {sliced} expert slices are the parent's bytes{left_out}"))
    }

    pub fn slices(&self, old: &Tensor, new: &Tensor, ids: &[u32]) -> Result<(), String> {
        let (Some((experts, row)), Some((kept, new_row))) =
            (old.dims.split_last(), new.dims.split_last())
        else {
            return Err("it has no dimensions".to_owned());
        };
        if row != new_row || *kept != ids.len() as u64 || *experts == 0 {
            return Err(format!("its shape is {:?}, the parent's {:?}", new.dims, old.dims));
        }
        let (from, to) = (self.whole.data(old), self.cut.data(new));
        let size = from.len() / *experts as usize;
        for (at, id) in ids.iter().enumerate() {
            // A missing range is a difference too: ids come from the file.
            let (want, got) = (slice(from, *id as usize, size), slice(to, at, size));
            if want.is_none() || want != got {
                return Err(format!("expert {at} is not the parent's expert {id}"));
            }
        }
        Ok(())
    }
}

/// The slice of expert `at`, if it is there.
fn slice(data: &[u8], at: usize, size: usize) -> Option<&[u8]> {
    let start = at.checked_mul(size)?;
    data.get(start..start.checked_add(size)?)
}

/// Whether a list with an entry for each of `blocks` begins with what is left.
fn begins(want: &Value, got: &Value, blocks: usize, left: usize) -> bool {
    macro_rules! same {
        ($($kind:ident),*) => {
            match (want, got) {
                $((Value::Array(Array::$kind(want)), Value::Array(Array::$kind(got))) => {
                    want.len() == blocks && want.get(..left) == Some(&got[..])
                })*
                _ => false,
            }
        };
    }
    same!(U8, I8, U16, I16, U32, I32, F32, Bool, Text, U64, I64, F64)
}
