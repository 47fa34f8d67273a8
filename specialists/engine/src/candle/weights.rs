//! Matrices on a device of candle.
//!
//! Weights in blocks are held as they are in the file.  MXFP4, which candle does not know, becomes Q8_0 of the same
//! numbers, twice as large; numbers without blocks become F32, as candle's own products with them want it.  Nothing here
//! is rounded.
//!
//! To hold another format: its line in [`form`].

use std::borrow::Cow;

use candle::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle::{Device, Module, Result, Tensor};
use candle_core as candle;
use half::f16;

use crate::ggml::Kind;
use crate::kernels::{Activation, MXFP4_NUMBERS, Matrix, mxfp4_scale};

/// How a format's matrices lie on the device.
enum Form {
    /// As in the file.
    Blocks(GgmlDType),
    /// Blocks of MXFP4 as blocks of Q8_0.
    Doubled,
    /// F32.
    Floats,
}

fn form(kind: Kind) -> Form {
    match kind {
        Kind::Q4_0 => Form::Blocks(GgmlDType::Q4_0),
        Kind::Q4_1 => Form::Blocks(GgmlDType::Q4_1),
        Kind::Q5_0 => Form::Blocks(GgmlDType::Q5_0),
        Kind::Q5_1 => Form::Blocks(GgmlDType::Q5_1),
        Kind::Q8_0 => Form::Blocks(GgmlDType::Q8_0),
        Kind::Q2_K => Form::Blocks(GgmlDType::Q2K),
        Kind::Q3_K => Form::Blocks(GgmlDType::Q3K),
        Kind::Q4_K => Form::Blocks(GgmlDType::Q4K),
        Kind::Q5_K => Form::Blocks(GgmlDType::Q5K),
        Kind::Q6_K => Form::Blocks(GgmlDType::Q6K),
        Kind::MXFP4 => Form::Doubled,
        // F32, F16, BF16, and whatever else the host can read.
        _ => Form::Floats,
    }
}

/// A matrix on the device.
pub(super) struct Product {
    matrix: QMatMul,
    /// That it takes there.
    pub bytes: u64,
}

/// Bytes that a matrix takes on a device.
pub(super) fn bytes(matrix: &Matrix) -> u64 {
    let weights = (matrix.rows * matrix.k) as u64;
    let as_kind = |kind: Kind| kind.bytes(weights).unwrap_or_default();
    as_kind(match form(matrix.kind()) {
        Form::Blocks(_) => matrix.kind(),
        Form::Doubled => Kind::Q8_0,
        Form::Floats => Kind::F32,
    })
}

impl Product {
    pub fn new(device: &Device, matrix: &Matrix) -> Result<Product> {
        let shape = (matrix.rows, matrix.k);
        let of = match form(matrix.kind()) {
            Form::Blocks(dtype) => blocks(device, matrix.bytes(), dtype, shape)?,
            Form::Doubled => match doubled(matrix.bytes()) {
                Some(bytes) => blocks(device, &bytes, GgmlDType::Q8_0, shape)?,
                None => candle::bail!("an exponent of MXFP4 is out of F16's range"),
            },
            Form::Floats => {
                let mut numbers = vec![0f32; matrix.rows * matrix.k];
                for (i, row) in numbers.chunks_exact_mut(matrix.k).enumerate() {
                    matrix.dequantise_row(i, row);
                }
                QMatMul::Tensor(Tensor::from_vec(numbers, shape, device)?)
            }
        };
        let bytes = match &of {
            QMatMul::QTensor(blocks) => blocks.storage_size_in_bytes(),
            QMatMul::Tensor(floats) | QMatMul::TensorF16(floats) => {
                floats.elem_count() * floats.dtype().size_in_bytes()
            }
        };
        Ok(Product { matrix: of, bytes: bytes as u64 })
    }

    /// [rows, rows of the matrix]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.matrix.forward(x)
    }
}

fn blocks(
    device: &Device,
    bytes: &[u8],
    dtype: GgmlDType,
    shape: (usize, usize),
) -> Result<QMatMul> {
    // Candle looks at them as blocks of at least an F16, and panics if they lie elsewhere.
    let odd = |bytes: &[u8]| !(bytes.as_ptr() as usize).is_multiple_of(align_of::<f16>());
    let mut bytes = Cow::from(bytes);
    if odd(&bytes) {
        bytes = bytes.into_owned().into();
    }
    if odd(&bytes) {
        candle::bail!("memory at an odd address");
    }
    let storage = QStorage::from_data(bytes, device, dtype)?;
    Ok(QMatMul::QTensor(QTensor::new(storage, shape)?.into()))
}

/// The same numbers in Q8_0; `None` if a scale is no F16.
fn doubled(bytes: &[u8]) -> Option<Vec<u8>> {
    let (from, to) = (Kind::MXFP4.block_bytes() as usize, Kind::Q8_0.block_bytes() as usize);
    let mut out = Vec::with_capacity(bytes.len() / from * to);
    for block in bytes.chunks_exact(from) {
        let (exponent, nibbles) = (block[0], &block[1..]);
        let low = nibbles.iter().map(|b| MXFP4_NUMBERS[usize::from(b & 15)]);
        let high = nibbles.iter().map(|b| MXFP4_NUMBERS[usize::from(b >> 4)]);
        let numbers: Vec<i8> = low.chain(high).collect();
        let want = if numbers.iter().all(|n| *n == 0) { 0.0 } else { mxfp4_scale(exponent) };
        let scale = f16::from_f32(want);
        if scale.to_f32() != want {
            return None;
        }
        out.extend(scale.to_le_bytes());
        out.extend(numbers.iter().map(|n| n.cast_unsigned()));
    }
    Some(out)
}

/// `act(gate, up)`, number by number.
pub(super) fn activate(activation: Activation, gate: Tensor, up: Tensor) -> Result<Tensor> {
    match activation {
        Activation::Silu => gate.silu()?.mul(&up),
        Activation::Gelu => gate.gelu()?.mul(&up),
        Activation::ClampedSwiglu => {
            let (gate, up) = (gate.minimum(7.0)?, up.clamp(-7.0, 7.0)?);
            sigmoid(&(&gate * 1.702)?)?.mul(&gate)?.mul(&(up + 1.0)?)
        }
    }
}

pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::matmul;
    use crate::kernels::tests::{FORMATS, matrix, noise};

    #[test]
    fn matrices_are_held_without_rounding_and_multiply_as_the_hosts() {
        let (rows, k, n) = (24, 512, 5);
        let x = noise(n * k, 1);
        let on_device = Tensor::from_slice(&x, (n, k), &Device::Cpu).unwrap();
        for (kind, scales) in FORMATS {
            let matrix = matrix(kind, scales, rows, k, 7);
            let product = Product::new(&Device::Cpu, &matrix).unwrap();
            assert_eq!(product.bytes, bytes(&matrix), "{kind:?}");
            let held = match &product.matrix {
                QMatMul::QTensor(blocks) => blocks.dequantize(&Device::Cpu).unwrap(),
                QMatMul::Tensor(floats) | QMatMul::TensorF16(floats) => floats.clone(),
            };
            let mut want = vec![0f32; k];
            for (i, held) in held.to_vec2::<f32>().unwrap().into_iter().enumerate() {
                matrix.dequantise_row(i, &mut want);
                assert_eq!(held, want, "{kind:?}");
            }
            let mut host = vec![0f32; n * rows];
            matmul(&matrix, &mut crate::kernels::Activations::new(&x, k), &mut host);
            let got = product.forward(&on_device).unwrap().flatten_all().unwrap();
            let got = got.to_vec1::<f32>().unwrap();
            let largest = host.iter().fold(0f32, |most, v| most.max(v.abs()));
            let off = got.iter().zip(&host).map(|(a, b)| (a - b).abs());
            let worst = off.fold(0f32, f32::max) / largest;
            println!("{kind:?}: {worst:.1e}");
            assert!(worst < 4e-3, "{kind:?}: {worst:e}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let block = |exponent: u8, nibbles: u8| {
            let mut block = [nibbles; 17];
            block[0] = exponent;
            block
        };
        assert!(doubled(&block(144, 0x11)).is_none());
        assert!(doubled(&block(100, 0x11)).is_none());
        // Nothing but zeros fits whatever its scale.
        assert_eq!(doubled(&block(200, 0x80)), Some(vec![0; 34]));
    }
}
