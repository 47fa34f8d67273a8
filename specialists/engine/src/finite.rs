//! Whether the numbers that a tensor stands for are numbers.
//!
//! In come blocks of any format, out comes the first value that is NaN or infinite, and its block.  Whole numbers in a
//! block always are; what can spoil them are the block's scales, and of these only floats.  Nothing is dequantised, so
//! that this runs as fast as memory is read.
//!
//! To add a format: its row in [`FLOATS`], and the test that every format is there.  Source of the places: ggml's
//! block structures.

use crate::ggml::Kind;

/// A float in a block.
#[derive(Clone, Copy, Debug)]
enum Float {
    F64(usize),
    F32(usize),
    F16(usize),
    BF16(usize),
    /// A power of two; all bits set stand for no number (OCP Microscaling 1.0).
    E8M0(usize),
}
use Float::{BF16, E8M0, F16, F32, F64};

/// Where the floats of a block are, by name of the format.  Formats with none have an empty row; so has IQ1_M, whose
/// scale is spread over other fields, and NVFP4, whose scales stand for zero where they are no number.
const FLOATS: &[(&str, &[Float])] = &[
    ("F64", &[F64(0)]),
    ("F32", &[F32(0)]),
    ("F16", &[F16(0)]),
    ("BF16", &[BF16(0)]),
    ("I8", &[]),
    ("I16", &[]),
    ("I32", &[]),
    ("I64", &[]),
    ("Q1_0", &[F16(0)]),
    ("Q2_0", &[F16(0)]),
    ("Q4_0", &[F16(0)]),
    ("Q4_1", &[F16(0), F16(2)]),
    ("Q5_0", &[F16(0)]),
    ("Q5_1", &[F16(0), F16(2)]),
    ("Q8_0", &[F16(0)]),
    ("Q8_1", &[F16(0), F16(2)]),
    ("Q2_K", &[F16(80), F16(82)]),
    ("Q3_K", &[F16(108)]),
    ("Q4_K", &[F16(0), F16(2)]),
    ("Q5_K", &[F16(0), F16(2)]),
    ("Q6_K", &[F16(208)]),
    ("Q8_K", &[F32(0)]),
    ("IQ1_S", &[F16(0)]),
    ("IQ1_M", &[]),
    ("IQ2_XXS", &[F16(0)]),
    ("IQ2_XS", &[F16(0)]),
    ("IQ2_S", &[F16(0)]),
    ("IQ3_XXS", &[F16(0)]),
    ("IQ3_S", &[F16(0)]),
    ("IQ4_NL", &[F16(0)]),
    ("IQ4_XS", &[F16(0)]),
    ("TQ1_0", &[F16(52)]),
    ("TQ2_0", &[F16(64)]),
    ("MXFP4", &[E8M0(0)]),
    ("NVFP4", &[]),
];

/// A value that is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// Index of the block.
    pub block: u64,
    /// `NaN` or `infinite`.
    pub what: &'static str,
}

/// The first block of `bytes` with a float that is NaN or infinite; a part of a block at the end is not looked at.
pub fn find(kind: Kind, bytes: &[u8]) -> Option<NotFinite> {
    let floats = FLOATS.iter().find(|(name, _)| *name == kind.name()).map_or(&[][..], |row| row.1);
    // One loop for each kind of float, so that each is a compare of a few bits.
    floats
        .iter()
        .filter_map(|float| first(kind.block_bytes() as usize, *float, bytes))
        .min_by_key(|f| f.block)
}

fn first(block: usize, float: Float, bytes: &[u8]) -> Option<NotFinite> {
    match float {
        F64(at) => scan(block, at, bytes, |b| bits(u64::from_le_bytes(b), 52, 11)),
        F32(at) => scan(block, at, bytes, |b| bits(u32::from_le_bytes(b).into(), 23, 8)),
        F16(at) => scan(block, at, bytes, |b| bits(u16::from_le_bytes(b).into(), 10, 5)),
        BF16(at) => scan(block, at, bytes, |b| bits(u16::from_le_bytes(b).into(), 7, 8)),
        E8M0(at) => scan(block, at, bytes, |[b]| (b == u8::MAX).then_some("NaN")),
    }
}

#[inline(always)]
fn scan<const N: usize>(
    block: usize,
    at: usize,
    bytes: &[u8],
    judge: impl Fn([u8; N]) -> Option<&'static str>,
) -> Option<NotFinite> {
    let field = |block: &[u8]| block.get(at..at + N).and_then(|b| b.try_into().ok());
    let mut blocks = bytes.chunks_exact(block).enumerate();
    blocks
        .find_map(|(i, block)| judge(field(block)?).map(|what| NotFinite { block: i as u64, what }))
}

/// All bits of the exponent set: infinite without a fraction, else NaN.
#[inline(always)]
fn bits(value: u64, fraction: u32, exponent: u32) -> Option<&'static str> {
    let most = (1u64 << exponent) - 1;
    if value >> fraction & most != most {
        return None;
    }
    Some(if value & ((1 << fraction) - 1) == 0 { "infinite" } else { "NaN" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_row() {
        for kind in Kind::all() {
            let rows: Vec<_> = FLOATS.iter().filter(|(name, _)| *name == kind.name()).collect();
            assert_eq!(rows.len(), 1, "{kind:?}");
            // In the block, and it is found where it is said to be.
            for float in rows[0].1 {
                let (at, spoilt): (usize, Vec<u8>) = match *float {
                    F64(at) => (at, f64::NAN.to_le_bytes().into()),
                    F32(at) => (at, f32::NAN.to_le_bytes().into()),
                    F16(at) => (at, vec![0x00, 0x7e]),
                    BF16(at) => (at, vec![0xc0, 0x7f]),
                    E8M0(at) => (at, vec![0xff]),
                };
                let size = kind.block_bytes() as usize;
                let mut blocks = vec![0; 3 * size];
                assert_eq!(find(kind, &blocks), None, "{kind:?}");
                blocks[2 * size + at..][..spoilt.len()].copy_from_slice(&spoilt);
                assert_eq!(
                    find(kind, &blocks),
                    Some(NotFinite { block: 2, what: "NaN" }),
                    "{kind:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_number() {
        #[track_caller]
        fn check(kind: Kind, bytes: &[u8], want: Option<&'static str>) {
            assert_eq!(find(kind, bytes).map(|found| found.what), want);
        }
        let f32 = |v: f32| v.to_le_bytes();
        check(Kind::F32, &f32(1.5), None);
        check(Kind::F32, &f32(f32::MAX), None);
        check(Kind::F32, &f32(f32::INFINITY), Some("infinite"));
        check(Kind::F32, &f32(f32::NEG_INFINITY), Some("infinite"));
        check(Kind::F32, &f32(-f32::NAN), Some("NaN"));
        check(Kind::F16, &[0xff, 0x7b], None);
        check(Kind::F16, &[0x00, 0xfc], Some("infinite"));
        check(Kind::BF16, &[0x80, 0x7f], Some("infinite"));
        // Quants may have any bits.
        let mut block = [0xff; 34];
        block[..2].copy_from_slice(&[0x00, 0x3c]);
        check(Kind::Q8_0, &block, None);
    }
}
