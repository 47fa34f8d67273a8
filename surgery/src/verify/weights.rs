//! That every number that is computed with is one.

use engine::arch::{Arch, Fate};
use engine::finite;
use engine::gguf::Gguf;

/// Looks through a file's tensors; of those with experts, through the slices of
/// `kept`, by layer, or through all without.
pub(super) fn finite(
    gguf: &Gguf,
    arch: &Arch,
    kept: Option<&[Vec<u32>]>,
) -> Result<String, String> {
    let mut bytes = 0u64;
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        let ids = match arch.fate(&tensor.name) {
            Fate::Slice { block } => kept.and_then(|kept| kept.get(block)),
            Fate::Keep | Fate::Unknown => None,
        };
        let experts = tensor.dims.last().map_or(0, |n| *n as usize);
        let pieces: Vec<(usize, &[u8])> = match ids {
            Some(ids) if experts > 0 => {
                let size = data.len() / experts;
                let slice = |id: &u32| {
                    let start = (*id as usize).checked_mul(size)?;
                    Some((start, data.get(start..start.checked_add(size)?)?))
                };
                ids.iter().filter_map(slice).collect()
            }
            _ => vec![(0, data)],
        };
        for (start, piece) in pieces {
            if let Some(found) = finite::find(tensor.kind, piece) {
                let block = start as u64 / tensor.kind.block_bytes() + found.block;
                return Err(format!("tensor {:?}: block {block} is {}", tensor.name, found.what));
            }
            bytes += piece.len() as u64;
        }
    }
    Ok(format!("{bytes} bytes hold no NaN and nothing infinite"))
}
