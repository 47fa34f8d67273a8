//! Rotary positions (RoFormer, 2104.09864), with the scalings that files ask for: linear, YaRN (2309.00071), and
//! factors per frequency as in Llama 3.

use crate::keys::{Keys, ShapeError};

/// Which numbers of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairs {
    /// Number i and i + dims / 2.
    Halves,
    /// Number 2i and 2i + 1.
    Neighbours,
}

/// How positions turn queries and keys.
#[derive(Clone)]
pub(crate) struct Rope {
    /// Numbers of a head that turn, the first ones.
    pub dims: usize,
    pub base: f32,
    pub pairs: Pairs,
    /// Angles are multiplied by it.
    pub scale: f32,
    /// [dims / 2], angles are divided by it.
    pub factors: Option<Vec<f32>>,
    /// [dims / 2], how much of the unscaled angle is taken; all zero without YaRN.
    ramp: Vec<f32>,
    /// Cosine and sine are multiplied by it.
    magnitude: f32,
}

/// Cosine and sine of a position: each [dims / 2].
pub(crate) struct Rotation {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: Pairs,
}

impl Rope {
    /// Without any scaling.
    pub fn plain(dims: usize, base: f32, pairs: Pairs) -> Rope {
        let ramp = vec![0.0; dims / 2];
        Rope { dims, base, pairs, scale: 1.0, factors: None, ramp, magnitude: 1.0 }
    }

    /// With the scaling that the file's keys ask for; a head has `head_dim` numbers.
    pub fn read(keys: &Keys<'_>, head_dim: usize, pairs: Pairs) -> Result<Rope, ShapeError> {
        let dims = keys.count_or("rope.dimension_count", head_dim)?;
        if dims > head_dim || !dims.is_multiple_of(2) {
            let want = "it must be even and not above the length of a head";
            return Err(keys.wrong("rope.dimension_count", dims, want));
        }
        let base = keys.float_or("rope.freq_base", 10_000.0);
        let mut rope = Rope::plain(dims, base, pairs);
        let factor = keys.float("rope.scaling.factor").or_else(|| keys.float("rope.scale_linear"));
        let factor = factor.filter(|f| *f > 0.0).unwrap_or(1.0);
        match keys.text("rope.scaling.type").unwrap_or("linear") {
            "none" => {}
            "linear" => rope.scale = 1.0 / factor,
            "yarn" => {
                let made_for = keys.count_or("rope.scaling.original_context_length", 0)?;
                let made_for = if made_for == 0 { keys.count("context_length")? } else { made_for };
                rope.scale = 1.0 / factor;
                rope.yarn(keys, made_for as f32);
            }
            _ => {
                let want = "this engine knows none, linear and yarn";
                return Err(keys.wrong_text("rope.scaling.type", want));
            }
        }
        rope.magnitude *= keys.float_or("rope.scaling.attn_factor", 1.0);
        Ok(rope)
    }

    /// Interpolates slow frequencies, keeps fast ones; as ggml's `rope_yarn`.
    fn yarn(&mut self, keys: &Keys<'_>, made_for: f32) {
        let fast = keys.float_or("rope.scaling.yarn_beta_fast", 32.0);
        let slow = keys.float_or("rope.scaling.yarn_beta_slow", 1.0);
        let extrapolate = keys.float_or("rope.scaling.yarn_ext_factor", 1.0);
        // The pair that turns `turns` times over the context the model was made for.
        let pair = |turns: f32| {
            let n = self.dims as f32;
            n * (made_for / (turns * 2.0 * std::f32::consts::PI)).ln() / (2.0 * self.base.ln())
        };
        let (low, high) =
            (pair(fast).floor().max(0.0), pair(slow).ceil().min(self.dims as f32 - 1.0));
        for (i, ramp) in self.ramp.iter_mut().enumerate() {
            let y = (i as f32 - low) / (high - low).max(0.001);
            *ramp = (1.0 - y.clamp(0.0, 1.0)) * extrapolate;
        }
        if extrapolate != 0.0 {
            self.magnitude *= 1.0 + 0.1 * (1.0 / self.scale).ln();
        }
    }

    pub fn at(&self, position: usize) -> Rotation {
        // As ggml does: a running product of one factor, in F32.
        let step = self.base.powf(-2.0 / self.dims as f32);
        let factors = self.factors.as_deref();
        let mut theta = position as f32;
        let half = self.dims / 2;
        let (mut cos, mut sin) = (Vec::with_capacity(half), Vec::with_capacity(half));
        for i in 0..half {
            let far = factors.map_or(theta, |f| theta / f[i]);
            let near = self.scale * far;
            let ramp = self.ramp[i];
            let angle = if ramp == 0.0 { near } else { near * (1.0 - ramp) + far * ramp };
            cos.push(angle.cos() * self.magnitude);
            sin.push(angle.sin() * self.magnitude);
            theta *= step;
        }
        Rotation { cos, sin, pairs: self.pairs }
    }
}

impl Rotation {
    /// Cosines and sines, and which numbers turn together.
    #[cfg(feature = "cuda")]
    pub fn parts(&self) -> (&[f32], &[f32], Pairs) {
        (&self.cos, &self.sin, self.pairs)
    }

    /// Turns one head, [head_dim]; what lies beyond the dimensions that turn stays.
    pub fn apply(&self, head: &mut [f32]) {
        let half = self.cos.len();
        for i in 0..half {
            let (a, b) = match self.pairs {
                Pairs::Halves => (i, i + half),
                Pairs::Neighbours => (2 * i, 2 * i + 1),
            };
            let (x, y) = (head[a], head[b]);
            head[a] = x * self.cos[i] - y * self.sin[i];
            head[b] = x * self.sin[i] + y * self.cos[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::l2_norm;

    #[test]
    fn rotation_keeps_length_and_turns_by_the_position() {
        #[track_caller]
        fn check(pairs: Pairs, dims: usize, want: [f32; 4]) {
            let mut head = [1.0, 0.0, 0.0, 0.0];
            let rope = Rope::plain(dims, 10_000.0, pairs);
            rope.at(2).apply(&mut head);
            head.iter().zip(want).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{head:?}"));
            rope.at(0).apply(&mut head);
            assert!((l2_norm(&head) - 1.0).abs() < 1e-6);
        }
        let (cos, sin) = (2f32.cos(), 2f32.sin());
        check(Pairs::Halves, 4, [cos, 0.0, sin, 0.0]);
        check(Pairs::Neighbours, 4, [cos, sin, 0.0, 0.0]);
        // Only the first two numbers turn.
        check(Pairs::Halves, 2, [cos, sin, 0.0, 0.0]);
    }
}
