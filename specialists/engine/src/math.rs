//! The small numeric steps between matrices, each in one fixed order.

use crate::kernels::dot_f32;

/// `out = x / rms(x) * weight`; `x` is [dim].  Source: RMSNorm (1910.07467); the sum of squares in F64 as in ggml.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let squares: f64 = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    let scale = 1.0 / ((squares / x.len() as f64) as f32 + eps).sqrt();
    for ((o, v), w) in out.iter_mut().zip(x).zip(weight) {
        *o = v * scale * w;
    }
}

/// Root of the sum of squares.
pub fn l2_norm(x: &[f32]) -> f32 {
    dot_f32(x, x).sqrt()
}

/// `x * sigmoid(x)`
pub fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// Turns logits into probabilities.  A logit of -inf becomes exactly zero and leaves the others' bits as they would be
/// without it, since the sum runs in order and adding zero changes nothing.
pub fn softmax(x: &mut [f32]) {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f32;
    for v in x.iter_mut() {
        *v = (*v - most).exp();
        sum += *v;
    }
    x.iter_mut().for_each(|v| *v /= sum);
}

/// Indices of the `k` largest, largest first; ties go to the lower index.
pub fn top_k(x: &[f32], k: usize) -> Vec<usize> {
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

/// Cosine and sine of a position, for rotation in halves (NeoX style): each [head_dim / 2].
pub struct Rotation {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl Rotation {
    pub fn at(position: usize, head_dim: usize, base: f32) -> Rotation {
        // As ggml does: a running product of one factor, in F32.
        let factor = base.powf(-2.0 / head_dim as f32);
        let mut theta = position as f32;
        let mut rotation = Rotation { cos: Vec::new(), sin: Vec::new() };
        for _ in 0..head_dim / 2 {
            rotation.cos.push(theta.cos());
            rotation.sin.push(theta.sin());
            theta *= factor;
        }
        rotation
    }

    /// Rotates one head, [head_dim]; number i goes with number i + head_dim / 2.
    pub fn apply(&self, head: &mut [f32]) {
        let (a, b) = head.split_at_mut(head.len() / 2);
        for (i, (a, b)) in a.iter_mut().zip(b).enumerate() {
            let (x, y) = (*a, *b);
            *a = x * self.cos[i] - y * self.sin[i];
            *b = x * self.sin[i] + y * self.cos[i];
        }
    }
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

    #[test]
    fn rotation_keeps_length_and_turns_by_the_position() {
        let mut head = [1.0, 0.0, 0.0, 0.0];
        Rotation::at(2, 4, 10_000.0).apply(&mut head);
        assert!((head[0] - 2f32.cos()).abs() < 1e-6 && (head[2] - 2f32.sin()).abs() < 1e-6);
        Rotation::at(0, 4, 10_000.0).apply(&mut head);
        assert!((l2_norm(&head) - 1.0).abs() < 1e-6);
    }
}
