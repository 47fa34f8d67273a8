//! What lies between matrix products.  Loops without branches and without fused
//! multiplications, so that they become vector instructions on any processor.

pub(super) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Mean 0 and variance 1, then scaled and moved.
pub(super) fn normalise(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let n = x.len() as f32;
    let mean = sum(x.iter().copied()) / n;
    x.iter_mut().for_each(|v| *v -= mean);
    let inverse = 1.0 / (sum(x.iter().map(|v| v * v)) / n + epsilon).sqrt();
    for ((v, w), b) in x.iter_mut().zip(weight).zip(bias) {
        *v = *v * inverse * w + b;
    }
}

pub(super) fn softmax(x: &mut [f32]) {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|v| *v = exp(*v - most));
    let whole = 1.0 / sum(x.iter().copied());
    x.iter_mut().for_each(|v| *v *= whole);
}

/// Several sums side by side, as one after the other is slow and less exact.
fn sum(values: impl Iterator<Item = f32>) -> f32 {
    let mut sums = [0f32; 8];
    values.enumerate().for_each(|(at, v)| sums[at % 8] += v);
    sums.iter().sum()
}

/// `x * Phi(x)`, the exact form rather than that with tanh.
pub(super) fn gelu(x: &mut [f32]) {
    x.iter_mut().for_each(|v| *v *= 0.5 + 0.5 * erf(*v * std::f32::consts::FRAC_1_SQRT_2));
}

/// Within 2e-7.  Source: Abramowitz and Stegun, 7.1.26.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t
        + 0.254_829_6)
        * t;
    (1.0 - p * exp(-a * a)).copysign(x)
}

/// `e^x` for x up to 0, within a few units in the last place; zero below -87.
///
/// `2^n` times a polynomial on half a factor of two around one.  Source: Cephes, `expf`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the lowest bits.
    const INTEGERS: f32 = 12_582_912.0;
    let within = x.clamp(-87.0, 88.0);
    let shifted = within * std::f32::consts::LOG2_E + INTEGERS;
    let n = shifted - INTEGERS;
    // ln 2 in two parts, of which the first has few bits.
    let r = within - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 1.666_666_5e-1)
        * r
        + 0.5;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < -87.0 { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_near_their_values() {
        for at in 0..2_000 {
            let x = -(at as f32) * 0.03;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= want * 5e-7 + 1e-37, "exp {x}");
        }
        // Values of the normal distribution, from tables.
        for (x, want) in [(0.0, 0.0), (1.0, 0.841_344_7), (-1.0, -0.158_655_3), (3.0, 2.995_950_2)]
        {
            let mut one = [x];
            gelu(&mut one);
            assert!((one[0] - want).abs() < 1e-6, "gelu {x} is {}", one[0]);
        }
        let mut far = [-40.0, 40.0];
        gelu(&mut far);
        assert_eq!(far, [-0.0, 40.0]);
    }

    #[test]
    fn shares_and_norms() {
        let mut x = [1.0, 2.0, 3.0, -200.0];
        softmax(&mut x);
        assert!((x.iter().sum::<f32>() - 1.0).abs() < 1e-6 && x[3] == 0.0, "{x:?}");
        assert!((x[1] / x[0] - std::f32::consts::E).abs() < 1e-5);
        let mut x = [1.0, 3.0];
        normalise(&mut x, &[2.0, 1.0], &[0.0, 5.0], 0.0);
        assert_eq!(x, [-2.0, 6.0]);
    }
}
