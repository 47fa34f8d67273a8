//! What the header of a cut file says: the parent's keys in their order, the
//! counts that changed, and where it comes from.

use engine::arch::Arch;
use engine::gguf::{Array, Gguf, Value};

use crate::provenance::{self, Provenance};

/// What is no longer as in the parent.
pub(super) struct Changed<'a> {
    pub arch: &'a Arch,
    /// Experts of a layer, the most that one keeps.
    pub experts: usize,
    /// Blocks, in the parent and in what is written.
    pub blocks: (usize, usize),
}

/// The keys to write; provenance comes last.
pub(super) fn metadata(
    parent: &Gguf,
    changed: &Changed<'_>,
    provenance: &Provenance,
) -> Vec<(String, Value)> {
    let Changed { arch, experts, blocks: (before, after) } = *changed;
    let [count, blocks, ahead] =
        [arch.expert_count_key(), arch.block_count_key(), arch.ahead_key()];
    let own = parent.metadata().iter().filter(|(key, _)| !key.starts_with(provenance::PREFIX));
    let patch = |(key, value): &(String, Value)| {
        let value = match () {
            () if *key == count => number(value, experts),
            () if before == after => value.clone(),
            () if *key == blocks => number(value, after),
            // All of them were dropped, or none.
            () if *key == ahead => number(value, 0),
            () if arch.is_by_block(key) => first(value, before, after),
            () => value.clone(),
        };
        (key.clone(), value)
    };
    own.map(patch).chain(provenance.keys()).collect()
}

/// `n` in the type that the parent gives it, so that a reader that is strict
/// about it is content.
fn number(was: &Value, n: usize) -> Value {
    match was {
        Value::U64(_) => Value::U64(n as u64),
        Value::I64(_) => Value::I64(n as i64),
        Value::I32(_) => Value::I32(n as i32),
        Value::U16(_) => Value::U16(n as u16),
        _ => Value::U32(n as u32),
    }
}

/// The first `after` entries of a list with one for each of `before` blocks:
/// llama.cpp wants exactly one for each.  Anything else stays.
fn first(value: &Value, before: usize, after: usize) -> Value {
    fn cut<T: Clone>(list: &[T], before: usize, after: usize) -> Vec<T> {
        list[..if list.len() == before { after } else { list.len() }].to_vec()
    }
    let Value::Array(array) = value else { return value.clone() };
    Value::Array(match array {
        Array::U8(list) => Array::U8(cut(list, before, after)),
        Array::I8(list) => Array::I8(cut(list, before, after)),
        Array::U16(list) => Array::U16(cut(list, before, after)),
        Array::I16(list) => Array::I16(cut(list, before, after)),
        Array::U32(list) => Array::U32(cut(list, before, after)),
        Array::I32(list) => Array::I32(cut(list, before, after)),
        Array::F32(list) => Array::F32(cut(list, before, after)),
        Array::Bool(list) => Array::Bool(cut(list, before, after)),
        Array::Text(list) => Array::Text(cut(list, before, after)),
        Array::U64(list) => Array::U64(cut(list, before, after)),
        Array::I64(list) => Array::I64(cut(list, before, after)),
        Array::F64(list) => Array::F64(cut(list, before, after)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of three blocks one is left out.
    #[test]
    fn lists_by_block_get_shorter() {
        #[track_caller]
        fn check(list: Array, want: Array) {
            assert_eq!(first(&Value::Array(list), 3, 2), Value::Array(want));
        }
        check(Array::U32(vec![1, 2, 3]), Array::U32(vec![1, 2]));
        check(Array::Bool(vec![true, false, true]), Array::Bool(vec![true, false]));
        check(Array::F32(vec![1.0, 2.0, 3.0]), Array::F32(vec![1.0, 2.0]));
        // One that is not of blocks has another length.
        check(Array::U32(vec![1, 2, 3, 4]), Array::U32(vec![1, 2, 3, 4]));
        assert_eq!(first(&Value::U32(3), 3, 2), Value::U32(3));
    }
}
