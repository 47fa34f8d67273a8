//! Finds where a smooth function is least: L-BFGS.
//!
//! The direction comes from how the slope changed over the last [`KEPT`] steps; a
//! step that does not go down far enough is halved.  For convex functions, which
//! is all that training asks for, that ends at the one valley.
//! Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 7.4 and 3.1.

use std::collections::VecDeque;

/// Steps that are remembered.
const KEPT: usize = 8;
/// Of the descent that the slope promises, what a step must bring.
const ENOUGH: f64 = 1e-4;
/// Halvings after which there is no way down.
const HALVINGS: usize = 20;

/// One remembered step: where it went, how the slope changed, one over their product.
struct Step {
    moved: Vec<f32>,
    turned: Vec<f32>,
    rho: f64,
}

/// Moves `x` to where `of` is least, in at most `steps` steps, fewer once one brings
/// less than `tolerance` of the value.  `of` gives the value and writes the slope;
/// `progress` is told the steps done.
pub(super) fn minimise(
    x: &mut [f32],
    steps: usize,
    tolerance: f64,
    of: &mut dyn FnMut(&[f32], &mut [f32]) -> f64,
    progress: &mut dyn FnMut(usize),
) {
    let mut slope = vec![0f32; x.len()];
    let mut value = of(x, &mut slope);
    let mut history: VecDeque<Step> = VecDeque::with_capacity(KEPT);
    let (mut next, mut next_slope) = (x.to_vec(), vec![0f32; x.len()]);
    for done in 0..steps {
        progress(done);
        let mut along = direction(&slope, &history);
        let mut descent = dot(&along, &slope);
        if descent >= 0.0 {
            history.clear();
            along = direction(&slope, &history);
            descent = dot(&along, &slope);
        }
        // Also where the slope is zero or no number.
        if descent >= 0.0 || descent.is_nan() {
            return;
        }
        // Without a history nothing says how far: as far as one is.
        let mut length = if history.is_empty() { 1.0 / dot(&slope, &slope).sqrt() } else { 1.0 };
        let mut new = f64::INFINITY;
        for _ in 0..HALVINGS {
            for ((next, x), d) in next.iter_mut().zip(&*x).zip(&along) {
                *next = *x + length as f32 * d;
            }
            new = of(&next, &mut next_slope);
            if new <= value + ENOUGH * length * descent {
                break;
            }
            length *= 0.5;
        }
        if new >= value || new.is_nan() {
            return;
        }
        let moved: Vec<f32> = next.iter().zip(&*x).map(|(a, b)| a - b).collect();
        let turned: Vec<f32> = next_slope.iter().zip(&slope).map(|(a, b)| a - b).collect();
        let product = dot(&moved, &turned);
        if product > 1e-10 * dot(&turned, &turned) {
            if history.len() == KEPT {
                history.pop_front();
            }
            history.push_back(Step { moved, turned, rho: 1.0 / product });
        }
        x.copy_from_slice(&next);
        std::mem::swap(&mut slope, &mut next_slope);
        let gain = value - new;
        value = new;
        if gain < tolerance * value.abs() {
            return;
        }
    }
}

/// Where to go: less the slope, as the last steps say that it bends.
fn direction(slope: &[f32], history: &VecDeque<Step>) -> Vec<f32> {
    let mut along: Vec<f32> = slope.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(history.len());
    for step in history.iter().rev() {
        let share = step.rho * dot(&step.moved, &along);
        add(&mut along, &step.turned, -share);
        shares.push(share);
    }
    if let Some(last) = history.back() {
        let scale = 1.0 / (last.rho * dot(&last.turned, &last.turned));
        along.iter_mut().for_each(|d| *d *= scale as f32);
    }
    for (step, share) in history.iter().zip(shares.into_iter().rev()) {
        let back = step.rho * dot(&step.turned, &along);
        add(&mut along, &step.moved, share - back);
    }
    along
}

fn add(to: &mut [f32], what: &[f32], times: f64) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += times as f32 * what);
}

/// In F64, and in eight sums, which is fast and always the same.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f64; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += f64::from(a[i]) * f64::from(b[i]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A valley a thousand times as steep one way as another.
    fn valley(x: &[f32], slope: &mut [f32]) -> f64 {
        let mut value = 0.0;
        for (at, (x, slope)) in x.iter().zip(slope).enumerate() {
            let steep = 10f64.powf(3.0 * at as f64 / 19.0);
            let off = f64::from(*x) - at as f64;
            value += 0.5 * steep * off * off;
            *slope = (steep * off) as f32;
        }
        value
    }

    #[test]
    fn finds_the_bottom() {
        let mut x = vec![0f32; 20];
        let mut calls = 0;
        let mut of = |x: &[f32], slope: &mut [f32]| {
            calls += 1;
            valley(x, slope)
        };
        minimise(&mut x, 300, 1e-9, &mut of, &mut |_| ());
        for (at, x) in x.iter().enumerate() {
            assert!((x - at as f32).abs() < 1e-2, "{at}: {x}");
        }
        // Steepest descent needs thousands.
        assert!(calls < 200, "{calls}");
    }

    #[test]
    fn ends_where_there_is_no_way_down() {
        let mut x = vec![1.0, 2.0];
        let mut flat = |_: &[f32], slope: &mut [f32]| {
            slope.fill(0.0);
            3.0
        };
        minimise(&mut x, 10, 1e-6, &mut flat, &mut |_| ());
        assert_eq!(x, [1.0, 2.0]);
        let mut wrong = |_: &[f32], slope: &mut [f32]| {
            slope.fill(f32::NAN);
            f64::NAN
        };
        minimise(&mut x, 10, 1e-6, &mut wrong, &mut |_| ());
        assert_eq!(x, [1.0, 2.0]);
    }
}
