//! What a number is worth: intervals, paired tests, correlations.
//!
//! In: one number an item.  Out: an [`Estimate`] with its interval, the p of a
//! paired test, a [`Correlation`].  Pure; a seed makes the bootstrap repeatable.
//!
//! Subject and parent always read the same items, so differences are resampled
//! as differences: an item that is hard for both says nothing about either.

use serde::{Deserialize, Serialize};

use crate::compare::table::{pearson, spearman};

/// Times that the bootstrap draws anew; the ends of a 95 % interval then rest on 25 draws each.
const RESAMPLES: usize = 1000;
/// Items are joined to so many blocks at most: resampling stays cheap for corpora of any size, and an interval
/// changes little beyond a few hundred.
const BLOCKS: usize = 512;
/// Of the normal distribution, two-sided 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// A number and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    /// Absent where there were not enough items to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// Standard error and the ends of the 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub sigma: f64,
    pub low: f64,
    pub high: f64,
}

/// How two rows of numbers go together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// Pairs.
    pub n: usize,
    pub pearson: f64,
    /// Of `pearson`, 95 %, by Fisher's z; for four pairs or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    pub spearman: f64,
    /// The line of least squares.
    pub slope: f64,
    pub intercept: f64,
}

/// A sum over items for each unit of another sum, such as nats a token, with draws of it from items drawn anew.
#[derive(Clone, Debug)]
pub struct Ratio {
    value: f64,
    draws: Vec<f64>,
}

impl Ratio {
    /// `of` and `per` are [items], of one length.  `None` if `per` sums to nothing.
    pub fn new(of: &[f64], per: &[f64], seed: u64) -> Option<Ratio> {
        let (of, per) = (blocks(of), blocks(per));
        let all: f64 = per.iter().sum();
        if all == 0.0 {
            return None;
        }
        let value = of.iter().sum::<f64>() / all;
        let mut random = fastrand::Rng::with_seed(seed);
        let n = if per.len() < 2 { 0 } else { RESAMPLES };
        let mut draw = |_| {
            let (mut x, mut w) = (0.0, 0.0);
            for _ in 0..per.len() {
                let item = random.usize(..per.len());
                x += of[item];
                w += per[item];
            }
            x / w
        };
        // A draw of items that have nothing to count says nothing.
        let draws = (0..n).map(&mut draw).filter(|v: &f64| v.is_finite()).collect();
        Some(Ratio { value, draws })
    }

    /// As it is.
    pub fn estimate(&self) -> Estimate {
        self.map(|v| v)
    }

    /// Of a function of it.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Estimate {
        let mut draws: Vec<f64> = self.draws.iter().map(|v| f(*v)).collect();
        draws.sort_by(f64::total_cmp);
        Estimate { value: f(self.value), spread: spread(&draws) }
    }
}

/// Percentiles and standard deviation of sorted draws.
fn spread(draws: &[f64]) -> Option<Spread> {
    if draws.len() < 2 {
        return None;
    }
    let n = draws.len() as f64;
    let mean = draws.iter().sum::<f64>() / n;
    let sigma = (draws.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let at = |share: f64| draws[((n - 1.0) * share).round() as usize];
    Some(Spread { sigma, low: at(0.025), high: at(0.975) })
}

/// Sums of neighbours, [`BLOCKS`] at most.
fn blocks(items: &[f64]) -> Vec<f64> {
    items.chunks(items.len().div_ceil(BLOCKS).max(1)).map(|block| block.iter().sum()).collect()
}

/// A share with Wilson's interval, which stays within 0 and 1.
pub fn share(hits: usize, n: usize) -> Estimate {
    if n == 0 {
        return Estimate { value: 0.0, spread: None };
    }
    let (p, n) = (hits as f64 / n as f64, n as f64);
    let scale = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let sigma = (p * (1.0 - p) / n).sqrt();
    let spread = Spread { sigma, low: (centre - half).max(0.0), high: (centre + half).min(1.0) };
    Estimate { value: p, spread: Some(spread) }
}

/// The difference of two shares on the same `n` items, of which the first alone has `gained` and the other alone has
/// `lost`.  The interval is Agresti and Min's: half an item is added to each of the four cells (Statistics in Medicine
/// 24, 2005), since without that few items give intervals of no width.
pub fn difference(gained: usize, lost: usize, n: usize) -> Estimate {
    if n == 0 {
        return Estimate { value: 0.0, spread: None };
    }
    let value = (gained as f64 - lost as f64) / n as f64;
    let (b, c, n) = (gained as f64 + 0.5, lost as f64 + 0.5, n as f64 + 2.0);
    let centre = (b - c) / n;
    let sigma = ((b + c) - (b - c).powi(2) / n).sqrt() / n;
    let (low, high) = ((centre - Z * sigma).max(-1.0), (centre + Z * sigma).min(1.0));
    Estimate { value, spread: Some(Spread { sigma, low, high }) }
}

/// McNemar's test, two-sided: how probable a split at least as uneven is, if an item on which two differ is as likely
/// to go to either.  The exact binomial, whatever the numbers.
pub fn mcnemar(gained: usize, lost: usize) -> f64 {
    let n = gained + lost;
    // ln C(n, i) - n ln 2, from one term to the next.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for i in 0..=gained.min(lost) {
        tail += term.exp();
        term += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// `None` for fewer than three pairs, or where one side does not vary.
pub fn correlation(x: &[f64], y: &[f64]) -> Option<Correlation> {
    let n = x.len().min(y.len());
    if n < 3 {
        return None;
    }
    let pearson = pearson(x, y)?;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let slope = covariance(x, y) / covariance(x, x);
    let interval = (n > 3).then(|| {
        let (z, half) = (pearson.clamp(-0.999_999, 0.999_999).atanh(), Z / (n as f64 - 3.0).sqrt());
        [(z - half).tanh(), (z + half).tanh()]
    });
    Some(Correlation {
        n,
        pearson,
        interval,
        spearman: spearman(x, y)?,
        slope,
        intercept: mean_y - slope * mean_x,
    })
}

fn covariance(x: &[f64], y: &[f64]) -> f64 {
    let (mean_x, mean_y) = (mean(x), mean(y));
    x.iter().zip(y).map(|(a, b)| (a - mean_x) * (b - mean_y)).sum()
}

/// Of nothing, 0.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(got: f64, want: f64, within: f64) {
        assert!((got - want).abs() <= within, "{got}, not {want}");
    }

    #[test]
    fn mcnemar_by_hand() {
        #[track_caller]
        fn check(gained: usize, lost: usize, want: f64) {
            near(mcnemar(gained, lost), want, 1e-12);
            near(mcnemar(lost, gained), want, 1e-12);
        }
        check(0, 0, 1.0);
        check(5, 5, 1.0);
        // 2 / 2^5.
        check(0, 5, 0.0625);
        // 2 (1 + 10 + 45) / 2^10.
        check(2, 8, 0.109375);
        // 2 (1 + 12) / 2^12.
        check(1, 11, 26.0 / 4096.0);
        // Far beyond what 2^-n can be told from nothing.
        assert!(mcnemar(5000, 5000) == 1.0 && mcnemar(4000, 6000) < 1e-80);
    }

    #[test]
    fn correlations_by_hand() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let exact = correlation(&x, &[3.0, 5.0, 7.0, 9.0]).unwrap();
        near(exact.pearson, 1.0, 1e-12);
        near(exact.slope, 2.0, 1e-12);
        near(exact.intercept, 1.0, 1e-12);
        // Deviations -1.5 -0.5 0.5 1.5 and -1 0 -1 2: 4 / sqrt(5 x 6); tied ranks 1.5 3 1.5 4.
        let got = correlation(&x, &[1.0, 2.0, 1.0, 4.0]).unwrap();
        near(got.pearson, 4.0 / 30f64.sqrt(), 1e-12);
        near(got.spearman, 3.0 / (5.0 * 4.5f64).sqrt(), 1e-12);
        // A rank knows no distance.
        near(correlation(&x, &[1.0, 2.0, 3.0, 400.0]).unwrap().spearman, 1.0, 1e-12);
        // atanh(0.5) = 0.5493 and 1.96 / sqrt(28 - 3).
        let many: Vec<f64> = (0..28).map(f64::from).collect();
        let [low, high] = correlation(&many, &many).unwrap().interval.unwrap();
        assert!(low > 0.99 && high <= 1.0);
        assert_eq!(correlation(&x, &[1.0; 4]), None);
        assert_eq!(correlation(&[1.0, 2.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn shares_and_differences_by_hand() {
        // Wilson, 8 of 10: 0.4902 to 0.9433.
        let got = share(8, 10).spread.unwrap();
        near(got.low, 0.4902, 5e-5);
        near(got.high, 0.9433, 5e-5);
        near(share(0, 10).spread.unwrap().low, 0.0, 1e-12);
        near(share(10, 10).spread.unwrap().high, 1.0, 1e-12);
        assert_eq!(share(0, 0).spread, None);
        // Gained 2, lost 8 of 50: (2.5 - 8.5) / 52 -+ 1.96 sqrt(11 - 36 / 52) / 52.
        let got = difference(2, 8, 50);
        near(got.value, -0.12, 1e-12);
        near(got.spread.unwrap().low, -0.23640, 5e-5);
        near(got.spread.unwrap().high, 0.00563, 5e-5);
    }

    /// An interval of 95 % has the truth in it about 95 times in a hundred.
    #[test]
    fn the_bootstrap_covers() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut covered = 0;
        for round in 0..200 {
            // Items of unlike lengths, whose nats a token are 2 in the mean.
            let per: Vec<f64> = (0..80).map(|_| random.f64() * 50.0 + 10.0).collect();
            let of: Vec<f64> = per.iter().map(|w| w * (1.0 + 2.0 * random.f64())).collect();
            let got = Ratio::new(&of, &per, round).unwrap().estimate().spread.unwrap();
            covered += usize::from(got.low <= 2.0 && 2.0 <= got.high);
        }
        assert!((180..=199).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn ratios_of_sums() {
        let got = Ratio::new(&[1.0, 5.0], &[1.0, 2.0], 1).unwrap();
        near(got.estimate().value, 2.0, 1e-12);
        near(got.map(|v| (-v).exp()).value, (-2f64).exp(), 1e-12);
        // One item cannot tell how others would be.
        assert_eq!(
            Ratio::new(&[1.0], &[2.0], 1).unwrap().estimate(),
            Estimate { value: 0.5, spread: None }
        );
        assert!(
            Ratio::new(&[1.0, 1.0], &[0.0, 0.0], 1).is_none() && Ratio::new(&[], &[], 1).is_none()
        );
        // Joined to blocks: the sum stays.
        let many: Vec<f64> = (0..5000).map(f64::from).collect();
        assert!(blocks(&many).len() <= BLOCKS);
        near(Ratio::new(&many, &vec![1.0; 5000], 1).unwrap().estimate().value, 2499.5, 1e-9);
    }
}
