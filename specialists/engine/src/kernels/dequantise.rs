//! What blocks stand for, as F32: the numbers that llama.cpp reads, bit for bit.

use half::{bf16, f16};

use super::blocks::{BLOCK, MXFP4_NUMBERS, mxfp4_scale};
use super::supers::SUPER;
use crate::ggml::Kind;

/// A row of `kind` as F32; lengths fit.
pub(super) fn row(kind: Kind, weights: &[u8], out: &mut [f32]) {
    let bytes = kind.block_bytes() as usize;
    let (blocks, outs) = (weights.chunks_exact(bytes), kind.block_weights() as usize);
    let each = blocks.zip(out.chunks_exact_mut(outs));
    match kind {
        Kind::F32 => each.for_each(|(w, o)| o[0] = f32::from_le_bytes([w[0], w[1], w[2], w[3]])),
        Kind::F16 => each.for_each(|(w, o)| o[0] = half(w)),
        Kind::BF16 => each.for_each(|(w, o)| o[0] = bf16::from_le_bytes([w[0], w[1]]).to_f32()),
        Kind::Q8_0 => each.for_each(|(w, o)| {
            let d = half(w);
            w[2..].iter().zip(o).for_each(|(&w, o)| *o = f32::from(w as i8) * d);
        }),
        Kind::Q4_0 => each.for_each(|(w, o)| {
            let d = half(w);
            put(o, |i| (f32::from(nibble(&w[2..], i)) - 8.0) * d);
        }),
        Kind::Q4_1 => each.for_each(|(w, o)| {
            let (d, m) = (half(w), half(&w[2..]));
            put(o, |i| f32::from(nibble(&w[4..], i)) * d + m);
        }),
        Kind::Q5_0 => each.for_each(|(w, o)| {
            let d = half(w);
            put(o, |i| (f32::from(nibble(&w[6..], i) | fifth(&w[2..], i)) - 16.0) * d);
        }),
        Kind::Q5_1 => each.for_each(|(w, o)| {
            let (d, m) = (half(w), half(&w[2..]));
            put(o, |i| f32::from(nibble(&w[8..], i) | fifth(&w[4..], i)) * d + m);
        }),
        Kind::MXFP4 => each.for_each(|(w, o)| {
            let d = mxfp4_scale(w[0]);
            put(o, |i| f32::from(MXFP4_NUMBERS[usize::from(nibble(&w[1..], i))]) * d);
        }),
        Kind::Q2_K => each.for_each(|(w, o)| {
            let (d, least) = (half(&w[80..]), half(&w[82..]));
            put(o, |i| {
                let small = w[i / 16];
                let two = w[16 + i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3;
                d * f32::from(small & 15) * f32::from(two) - least * f32::from(small >> 4)
            });
        }),
        Kind::Q3_K => each.for_each(|(w, o)| {
            let d = half(&w[108..]);
            put(o, |i| {
                let two = w[32 + i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3;
                let high = w[i % 32] >> (i / 32) & 1;
                let three = i32::from(two) - if high == 1 { 0 } else { 4 };
                d * (scale_of_q3(&w[96..], i / 16) as f32) * three as f32
            });
        }),
        Kind::Q4_K => each.for_each(|(w, o)| {
            let (d, least) = (half(w), half(&w[2..]));
            put(o, |i| {
                let (small, less) = six_bits(&w[4..], i / 32);
                let four = w[16 + i / 64 * 32 + i % 32] >> (4 * (i / 32 % 2)) & 15;
                d * f32::from(small) * f32::from(four) - least * f32::from(less)
            });
        }),
        Kind::Q5_K => each.for_each(|(w, o)| {
            let (d, least) = (half(w), half(&w[2..]));
            put(o, |i| {
                let (small, less) = six_bits(&w[4..], i / 32);
                let four = w[48 + i / 64 * 32 + i % 32] >> (4 * (i / 32 % 2)) & 15;
                let five = four | (w[16 + i % 32] >> (i / 32) & 1) << 4;
                d * f32::from(small) * f32::from(five) - least * f32::from(less)
            });
        }),
        Kind::Q6_K => each.for_each(|(w, o)| {
            let d = half(&w[208..]);
            put(o, |i| {
                let (half, part) = (i / 128, i / 32 % 4);
                let low = w[64 * half + 32 * (part % 2) + i % 32] >> (4 * (part / 2)) & 15;
                let high = w[128 + 32 * half + i % 32] >> (2 * part) & 3;
                let six = i32::from(low | high << 4) - 32;
                d * f32::from(w[192 + i / 16] as i8) * six as f32
            });
        }),
        kind => unreachable!("{kind:?} was refused when the matrix was made"),
    }
    debug_assert!(outs == 1 || outs == BLOCK || outs == SUPER);
}

fn put(out: &mut [f32], weight: impl Fn(usize) -> f32) {
    out.iter_mut().enumerate().for_each(|(i, o)| *o = weight(i));
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Nibble i of 32 in sixteen bytes.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 }
}

/// Bit i of 32, as 16.
fn fifth(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 8] >> (i % 8) & 1) << 4
}

/// Scale and least of small block `j`, in Q4_K and Q5_K.
fn six_bits(w: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (w[j] & 63, w[j + 4] & 63)
    } else {
        (w[j + 4] & 15 | w[j - 4] >> 6 << 4, w[j + 4] >> 4 | w[j] >> 6 << 4)
    }
}

/// Scale of small block `j` in Q3_K, -32 to 31.
fn scale_of_q3(w: &[u8], j: usize) -> i32 {
    let four = w[j % 8] >> (4 * (j / 8)) & 15;
    let two = w[8 + j % 4] >> (2 * (j / 4)) & 3;
    i32::from(four | two << 4) - 32
}
