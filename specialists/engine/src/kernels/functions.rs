//! Functions of single numbers, written so that loops over them become vector instructions; the same bits on every
//! processor.

use std::sync::LazyLock;

use half::f16;

/// `e^x` within two units in the last place; zero below -87.3, infinite above 88.3.
///
/// `2^n` times a polynomial on half a factor of two around one.  Source: Cephes, `expf`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the lowest bits.
    const INTEGERS: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, INTEGERS);
    let n = shifted - INTEGERS;
    // ln 2 in two parts, of which the first has few bits.
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = 1.987_569_1e-4f32
        .mul_add(r, 1.398_199_9e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_5e-1)
        .mul_add(r, 0.5);
    let p = p.mul_add(r * r, r + 1.0);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let value = p * power;
    let value = if x < -87.3 { 0.0 } else { value };
    if x > 88.3 { f32::INFINITY } else { value }
}

/// The logistic function.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x * sigmoid(x)`
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Gaussian error linear unit by its tanh approximation (1606.08415), out of a table of F16 as in ggml: what models are
/// run with elsewhere.
pub fn gelu(x: f32) -> f32 {
    static TABLE: LazyLock<Vec<f16>> = LazyLock::new(|| {
        const ROOT: f32 = 0.797_884_6; // sqrt(2 / pi)
        let exact = |x: f32| 0.5 * x * (1.0 + (ROOT * x * (1.0 + 0.044_715 * x * x)).tanh());
        (0..=u16::MAX).map(|bits| f16::from_f32(exact(f16::from_bits(bits).to_f32()))).collect()
    });
    match x {
        x if x <= -10.0 => 0.0,
        x if x >= 10.0 => x,
        // Not a number stays what it is: its bits have a place in the table too.
        x => TABLE[usize::from(f16::from_f32(x).to_bits())].to_f32(),
    }
}

/// What a gate does to what it gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `silu(gate) * up`
    Silu,
    /// `gelu(gate) * up`
    Gelu,
    /// gpt-oss: `g sigmoid(1.702 g) (u + 1)`, g at most 7, u within 7 of zero.
    ClampedSwiglu,
}

impl Activation {
    /// `gate = act(gate, up)`, number by number.
    #[inline(always)]
    pub(super) fn apply(self, gate: &mut [f32], up: &[f32]) {
        let pairs = gate.iter_mut().zip(up);
        match self {
            Activation::Silu => pairs.for_each(|(g, u)| *g = silu(*g) * u),
            Activation::Gelu => pairs.for_each(|(g, u)| *g = gelu(*g) * u),
            Activation::ClampedSwiglu => pairs.for_each(|(g, u)| {
                const ALPHA: f32 = 1.702;
                const LIMIT: f32 = 7.0;
                let (x, y) = (g.min(LIMIT), u.clamp(-LIMIT, LIMIT));
                *g = x * sigmoid(ALPHA * x) * (y + 1.0);
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let mut worst = 0f64;
        for i in -873_000..=883_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 1.3e-7, "{worst:e}");
        assert_eq!([exp(0.0), exp(-0.0)], [1.0, 1.0]);
        assert_eq!([exp(f32::NEG_INFINITY), exp(-1e30), exp(-88.0)], [0.0; 3]);
        assert_eq!([exp(f32::INFINITY), exp(1e30), exp(89.0)], [f32::INFINITY; 3]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for f in [sigmoid, silu, gelu] {
            assert!(f(f32::NAN).is_nan());
        }
        assert_eq!([silu(-100.0), sigmoid(-100.0), sigmoid(100.0)], [-0.0, 0.0, 1.0]);
    }
}
