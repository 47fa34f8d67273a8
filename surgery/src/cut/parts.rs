//! Which tensors go in which part of a split file; pure.
//!
//! As llama.cpp's gguf-split writes it: all keys in the first part, in each the
//! part's number, the count, and how many tensors there are.  The alignment is
//! in all of them, so that slices which are whole pages stay so.

use std::ops::Range;

use engine::gguf::Value;
use engine::gguf::write::{Entry, Layout};

use super::CutError;

const ALIGNMENT: &str = "general.alignment";

/// One layout without `most`, else of parts that are no larger, in bytes.  With
/// each the tensors in it.
pub(super) fn deal(
    metadata: &[(String, Value)],
    entries: &[Entry],
    most: Option<u64>,
) -> Result<Vec<(Layout, Range<usize>)>, CutError> {
    let Some(most) = most else {
        return Ok(vec![(Layout::plan(metadata, entries)?, 0..entries.len())]);
    };
    // The count is not known yet; any number takes the same room.
    let empty = |first| Ok::<u64, CutError>(header(metadata, first, (0, 0), 0, &[])?.bytes());
    let sizes = entries.iter().map(|entry| room(metadata, entry)).collect::<Result<Vec<_>, _>>()?;
    let ranges = ranges([empty(true)?, empty(false)?], &sizes, most).map_err(|(at, need)| {
        CutError::PartTooSmall { tensor: entries[at].name.clone(), need, most }
    })?;
    let parts = ranges.len();
    let count = u16::try_from(parts).map_err(|_| CutError::TooManyParts { parts })?;
    let layout = |(no, range): (u16, Range<usize>)| {
        let tensors = &entries[range.clone()];
        let layout = header(metadata, no == 0, (no, count), entries.len(), tensors)?;
        Ok((layout, range))
    };
    (0..count).zip(ranges).map(layout).collect()
}

/// The layout of one part.
fn header(
    metadata: &[(String, Value)],
    first: bool,
    (no, count): (u16, u16),
    tensors: usize,
    entries: &[Entry],
) -> Result<Layout, CutError> {
    let own = metadata.iter().filter(|(key, _)| first || key == ALIGNMENT);
    let mut keys: Vec<(String, Value)> = own.cloned().collect();
    // In the types that gguf-split gives them.
    keys.push(("split.no".to_owned(), Value::U16(no)));
    keys.push(("split.count".to_owned(), Value::U16(count)));
    keys.push(("split.tensors.count".to_owned(), Value::I32(tensors as i32)));
    Ok(Layout::plan(&keys, entries)?)
}

/// Bytes that a tensor takes at most, its row in the table with it.
fn room(metadata: &[(String, Value)], entry: &Entry) -> Result<u64, CutError> {
    let alignment: Vec<_> = metadata.iter().filter(|(key, _)| key == ALIGNMENT).cloned().collect();
    let without = Layout::plan(&alignment, &[])?.bytes();
    // What it adds to a file without tensors is its row, rounded up, and its data.
    Ok(Layout::plan(&alignment, std::slice::from_ref(entry))?.bytes() - without
        + 24
        + entry.name.len() as u64
        + 8 * entry.dims.len() as u64)
}

/// Fills part after part.  `empty` is a header without tensors, of the first
/// part and of others.  On failure the tensor that fits in none, and what it
/// needs.
fn ranges(empty: [u64; 2], sizes: &[u64], most: u64) -> Result<Vec<Range<usize>>, (usize, u64)> {
    let (mut all, mut begun, mut filled) = (Vec::new(), 0, empty[0]);
    for (at, size) in sizes.iter().enumerate() {
        if filled.saturating_add(*size) > most && at > begun {
            all.push(begun..at);
            (begun, filled) = (at, empty[1]);
        }
        filled = filled.saturating_add(*size);
        if filled > most {
            return Err((at, filled));
        }
    }
    all.push(begun..sizes.len());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_filled_in_order() {
        #[track_caller]
        fn check(sizes: &[u64], most: u64, want: Result<&[(usize, usize)], (usize, u64)>) {
            let got = ranges([10, 2], sizes, most);
            let got = got.map(|all| all.iter().map(|r| (r.start, r.end)).collect::<Vec<_>>());
            assert_eq!(got.as_deref(), want.as_ref().map(|w| &**w));
        }
        check(&[5, 5, 5], 100, Ok(&[(0, 3)]));
        check(&[5, 5, 5], 20, Ok(&[(0, 2), (2, 3)]));
        check(&[5, 5, 5], 15, Ok(&[(0, 1), (1, 3)]));
        check(&[], 10, Ok(&[(0, 0)]));
        // The first part has the keys; a tensor that fits in no other part either is named.
        check(&[5, 5], 14, Err((0, 15)));
        check(&[1, 50, 1], 40, Err((1, 52)));
        check(&[u64::MAX, 1], 40, Err((0, u64::MAX)));
    }
}
