//! The small numeric steps between matrices, each in one fixed order.

use crate::kernels::{dot_f32, exp, wide};

/// Partial sums of a norm: what is added in them runs side by side.
const SUMS: usize = 8;

/// The sum of squares in F64 as in ggml: number i goes to sum i mod 8.
#[inline(always)]
fn squares(x: &[f32]) -> f64 {
    let mut sums = [0f64; SUMS];
    let (whole, rest) = x.as_chunks::<SUMS>();
    for x in whole {
        for i in 0..SUMS {
            sums[i] += f64::from(x[i]) * f64::from(x[i]);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*x) * f64::from(*x);
    }
    sums.iter().sum()
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / ((squares(x) / x.len() as f64) as f32 + eps).sqrt()
}

wide! {
    /// `out = x / rms(x) * weight`; `x` is [dim].  Source: RMSNorm (1910.07467).
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let scale = inverse_rms(x, eps);
        for ((o, v), w) in out.iter_mut().zip(x).zip(weight) {
            *o = v * scale * w;
        }
    }

    /// The same, in place.
    pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
        let scale = inverse_rms(x, eps);
        x.iter_mut().zip(weight).for_each(|(v, w)| *v = *v * scale * w);
    }

    /// `x / rms(x)`
    pub fn unit_rms(x: &mut [f32], eps: f32) {
        let scale = inverse_rms(x, eps);
        x.iter_mut().for_each(|v| *v *= scale);
    }

    /// Scales to length one; `eps` is added to the square of the length.
    pub fn unit_length(x: &mut [f32], eps: f32) {
        let scale = 1.0 / (squares(x) as f32 + eps).sqrt();
        x.iter_mut().for_each(|v| *v *= scale);
    }

    /// Turns logits into probabilities.  A logit of -inf becomes exactly zero and leaves the others' bits as they would
    /// be without it, since the sum runs in order and adding zero changes nothing.
    pub fn softmax(x: &mut [f32]) {
        let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        x.iter_mut().for_each(|v| *v = exp(*v - most));
        let sum: f32 = x.iter().sum();
        x.iter_mut().for_each(|v| *v /= sum);
    }

    /// `to += from`, number by number.
    pub fn add(to: &mut [f32], from: &[f32]) {
        to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
    }

    /// `to += by * from`, number by number.
    pub fn add_scaled(to: &mut [f32], by: f32, from: &[f32]) {
        to.iter_mut().zip(from).for_each(|(t, f)| *t += by * f);
    }
}

/// Root of the sum of squares.
pub fn l2_norm(x: &[f32]) -> f32 {
    dot_f32(x, x).sqrt()
}

/// `ln(1 + e^x)`; above 20 it is x, as in ggml.
pub fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// From so many on, finding the largest first and sorting them is quicker than putting each in its place.
const MANY: usize = 64;

/// Indices of the `k` largest, or of all, largest first; ties go to the lower index.
pub fn top_k(x: &[f32], k: usize) -> Vec<usize> {
    let k = k.min(x.len());
    if k > MANY {
        // Zero has two signs and is one number.
        let order = |a: &usize, b: &usize| (x[*b] + 0.0).total_cmp(&(x[*a] + 0.0)).then(a.cmp(b));
        let mut all: Vec<usize> = (0..x.len()).collect();
        if k < all.len() {
            all.select_nth_unstable_by(k, order);
            all.truncate(k);
        }
        all.sort_unstable_by(order);
        return all;
    }
    let mut best: Vec<usize> = Vec::with_capacity(k + 1);
    for (i, v) in x.iter().enumerate() {
        if best.len() == k && best.last().is_some_and(|&last| x[last] >= *v) {
            continue;
        }
        let at = best.partition_point(|&j| x[j] >= *v);
        best.insert(at, i);
        best.truncate(k);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_first_and_ties_low() {
        #[track_caller]
        fn check(x: &[f32], k: usize, want: &[usize]) {
            assert_eq!(top_k(x, k), want);
        }
        check(&[1., 3., 2., 0.], 2, &[1, 2]);
        check(&[1., 1., 1., 1.], 2, &[0, 1]);
        check(&[0., 2., 1., 2.], 3, &[1, 3, 2]);
        // A masked expert is never better than one that is not.
        let no = f32::NEG_INFINITY;
        check(&[no, 0.5, no, 0.25], 2, &[1, 3]);
        check(&[1.], 3, &[0]);
        check(&[1., 2.], usize::MAX, &[1, 0]);
        check(&[], 3, &[]);
    }

    #[test]
    fn many_are_as_few() {
        let mut random = fastrand::Rng::with_seed(4);
        // Few values, so that there are ties, and zeros of both signs.
        let x: Vec<f32> = (0..500).map(|_| (random.i32(-9..9) as f32) * -0.5).collect();
        let mut want: Vec<usize> = (0..x.len()).collect();
        want.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).unwrap());
        for k in [1, MANY, MANY + 1, 499, 500, 9999] {
            assert_eq!(top_k(&x, k), want[..k.min(500)], "{k}");
        }
    }

    #[test]
    fn masked_logits_leave_the_others_as_they_were() {
        let mut few = [0.3, -1.2, 2.5];
        let no = f32::NEG_INFINITY;
        let mut all = [no, 0.3, no, no, -1.2, 2.5, no];
        softmax(&mut few);
        softmax(&mut all);
        assert_eq!([all[1], all[4], all[5]], few);
        assert_eq!(all[0], 0.0);
    }
}
