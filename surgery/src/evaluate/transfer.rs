//! Near and far: is a mask worth the more on another domain, the more of that
//! domain's own mask it keeps?
//!
//! In: masks, what each is worth on each domain (Y), and profiles where there
//! are any.  Out: a row for each visitor and target, and how Y goes with the
//! overlap.  Pure.
//!
//! Only masks of one size are compared, since a larger one keeps more of
//! everything.  Overlap is pooled over layers, and F is counted without the
//! experts that every mask of the family keeps: those say nothing of any two.
//! Two random halves have F = 0.5 and Jaccard 1/3.

use std::collections::BTreeMap;

use super::document::{
    Family, Kind, Measure, Overlap, Pair, Predictor, Related, Subject, Transfer, Usage,
};
use super::statistics::{Estimate, correlation};
use crate::compare::overlap::{Counts, aggregate, budgets, common};

/// What each subject is worth, [subjects][columns].
pub type Worth = Vec<Vec<Option<Estimate>>>;

/// `None` if no two masks can be compared.
pub fn transfer(
    measure: Measure,
    subjects: &[Subject],
    columns: &[String],
    worth: &Worth,
    usage: &[Usage],
) -> Option<Transfer> {
    let families: Vec<Family> = families(subjects)
        .into_iter()
        .map(|members| family(&members, subjects, columns, worth, usage))
        .filter(|family| !family.pairs.is_empty())
        .collect();
    (!families.is_empty()).then_some(Transfer { measure, families })
}

/// Indices of masks of one size, one for each domain, two domains or more; all masks where no two have one size.
fn families(subjects: &[Subject]) -> Vec<Vec<usize>> {
    let mut by_size: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut any: Vec<usize> = Vec::new();
    let first = |members: &[usize], at: usize| {
        members.iter().all(|m| subjects[*m].domain != subjects[at].domain)
    };
    for (at, subject) in subjects.iter().enumerate().filter(|(_, s)| s.kind == Kind::Mask) {
        let members = by_size.entry(subject.total()).or_default();
        if first(members, at) {
            members.push(at);
        }
        if first(&any, at) {
            any.push(at);
        }
    }
    let several: Vec<_> = by_size.into_values().filter(|members| members.len() > 1).collect();
    match several.is_empty() && any.len() > 1 {
        true => vec![any],
        false => several,
    }
}

fn family(
    members: &[usize],
    subjects: &[Subject],
    columns: &[String],
    worth: &Worth,
    usage: &[Usage],
) -> Family {
    let kept = |at: usize| &subjects[at].kept;
    let common = common(members.iter().map(|m| &kept(*m)[..]));
    let mut pairs = Vec::new();
    for &visitor in members {
        for &target in members {
            let Some(domain) = &subjects[target].domain else { continue };
            let at = columns.iter().position(|name| name == domain);
            let Some(y) = at.and_then(|at| worth[visitor][at]) else { continue };
            let (own, other) = (&subjects[visitor], &subjects[target]);
            let overlap = overlap(&own.kept, &other.kept, &common, cosine(own, other, usage));
            pairs.push(Pair { visitor: own.name.clone(), target: domain.clone(), y, overlap });
        }
    }
    let home = |pair: &Pair| {
        members.iter().any(|m| {
            subjects[*m].name == pair.visitor && subjects[*m].domain.as_ref() == Some(&pair.target)
        })
    };
    let abroad: Vec<&Pair> = pairs.iter().filter(|pair| !home(pair)).collect();
    let correlations = [Predictor::F, Predictor::Jaccard, Predictor::Cosine]
        .into_iter()
        .filter_map(|with| {
            let both = |p: &&Pair| Some((p.overlap.by(with)?, p.y.value));
            let (x, y): (Vec<f64>, Vec<f64>) = abroad.iter().filter_map(both).unzip();
            Some(Related { with, correlation: correlation(&x, &y)? })
        })
        .collect();
    Family {
        masks: members.iter().map(|m| subjects[*m].name.clone()).collect(),
        common: common.iter().map(Vec::len).sum(),
        pairs,
        correlations,
    }
}

impl Overlap {
    /// By one of its measures.
    pub fn by(&self, predictor: Predictor) -> Option<f64> {
        match predictor {
            Predictor::F => Some(self.f),
            Predictor::Jaccard => Some(self.jaccard),
            Predictor::Cosine => self.cosine,
        }
    }
}

fn overlap(a: &[Vec<u32>], b: &[Vec<u32>], common: &[Vec<u32>], cosine: Option<f64>) -> Overlap {
    let counts = Counts::of(a, b);
    let distinct = counts.less(common.iter().map(Vec::len).sum());
    // Where nothing is left to differ in, they are one.
    Overlap { f: distinct.f().unwrap_or(1.0), jaccard: counts.jaccard().unwrap_or(1.0), cosine }
}

/// Of the gate masses of two domains, in the mean over layers, which weigh what the two masks keep there.
fn cosine(visitor: &Subject, target: &Subject, usage: &[Usage]) -> Option<f64> {
    let of = |s: &Subject| -> Option<Vec<Vec<f64>>> {
        let usage = usage.iter().find(|u| Some(&u.domain) == s.domain.as_ref())?;
        Some(usage.mass.iter().map(|row| row.iter().copied().map(f64::from).collect()).collect())
    };
    aggregate(&of(visitor)?, &of(target)?, &budgets(&visitor.kept, &target.kept))
        .map(|(mean, _)| mean)
}

/// Shares of each layer's gate mass.
pub fn usage(profile: &engine::Profile, sha256: &str) -> Usage {
    let layer = |layer: usize| {
        let mass = profile.layer_gate_mass(layer);
        let all: f64 = mass.iter().sum();
        // Six digits: a page need not carry more.
        let share = |v: &f64| if all > 0.0 { ((v / all) * 1e6).round() as f32 / 1e6 } else { 0.0 };
        mass.iter().map(share).collect()
    };
    Usage {
        domain: profile.domain.clone(),
        sha256: sha256.to_owned(),
        tokens: profile.tokens,
        mass: (0..profile.layers).map(layer).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(name: &str, domain: &str, kept: &[&[u32]]) -> Subject {
        Subject {
            name: name.to_owned(),
            kind: Kind::Mask,
            domain: Some(domain.to_owned()),
            beside: None,
            score: None,
            mask_sha256: None,
            expert_bytes: 0,
            kept: kept.iter().map(|ids| ids.to_vec()).collect(),
            masking: Default::default(),
            coverage: Vec::new(),
        }
    }

    #[test]
    fn overlaps_by_hand() {
        #[track_caller]
        fn check(a: &[&[u32]], b: &[&[u32]], common: &[&[u32]], want: (f64, f64)) {
            let own = |ids: &[&[u32]]| ids.iter().map(|ids| ids.to_vec()).collect::<Vec<_>>();
            let got = overlap(&own(a), &own(b), &own(common), None);
            assert!(
                (got.f - want.0).abs() < 1e-12 && (got.jaccard - want.1).abs() < 1e-12,
                "{got:?}"
            );
        }
        let nothing: &[&[u32]] = &[&[], &[]];
        // Two of four shared in each layer: 8 kept, 4 shared, 12 in all.
        check(
            &[&[0, 1, 2, 3], &[0, 1, 2, 3]],
            &[&[2, 3, 4, 5], &[2, 3, 4, 5]],
            nothing,
            (0.5, 1.0 / 3.0),
        );
        // Without expert 3, which all keep: 6 each, 2 shared.
        check(
            &[&[0, 1, 2, 3], &[0, 1, 2, 3]],
            &[&[2, 3, 4, 5], &[2, 3, 4, 5]],
            &[&[3], &[3]],
            (2.0 / 6.0, 1.0 / 3.0),
        );
        // Of unlike sizes: 2 x 2 of 4 + 2.
        check(&[&[0, 1, 2, 3]], &[&[0, 1]], &[&[]], (2.0 / 3.0, 0.5));
        // All is common.
        check(&[&[0, 1]], &[&[0, 1]], &[&[0, 1]], (1.0, 1.0));
    }

    #[test]
    fn cosines_by_hand() {
        let usage = |domain: &str, mass: &[&[f32]]| Usage {
            domain: domain.to_owned(),
            sha256: String::new(),
            tokens: 1,
            mass: mass.iter().map(|row| row.to_vec()).collect(),
        };
        let both = [
            usage("law", &[&[1.0, 0.0], &[0.5, 0.5], &[0.0, 0.0]]),
            usage("math", &[&[0.0, 1.0], &[0.5, 0.5], &[0.3, 0.7]]),
        ];
        // 0 and 1, of which the second has three times the experts; the third was never reached.
        let (law, math) = (
            mask("law", "law", &[&[0], &[0, 1, 2], &[]]),
            mask("math", "math", &[&[0], &[0, 1, 2], &[]]),
        );
        assert!((cosine(&law, &math, &both).unwrap() - 0.75).abs() < 1e-12);
        assert_eq!(cosine(&law, &mask("art", "art", &[]), &both), None);
    }

    #[test]
    fn rows_and_correlation() {
        let subjects = [
            mask("law", "law", &[&[0, 1, 7]]),
            mask("math", "math", &[&[1, 2, 7]]),
            mask("art", "art", &[&[4, 5, 7]]),
            // Of another size, and alone: nobody to be compared with.
            mask("law 1", "law", &[&[7]]),
        ];
        let y = |value| Some(Estimate { value, spread: None });
        let worth = vec![
            vec![y(1.0), y(0.9), y(0.4), None],
            vec![y(0.9), y(1.0), y(0.4), None],
            vec![y(0.4), y(0.4), y(1.0), None],
            vec![y(0.1); 4],
        ];
        let columns: Vec<String> = ["law", "math", "art", "other"].map(str::to_owned).to_vec();
        let got = transfer(Measure::Likelihood, &subjects, &columns, &worth, &[]).unwrap();
        let [family] = &got.families[..] else { panic!("{got:?}") };
        assert_eq!((family.masks.len(), family.common, family.pairs.len()), (3, 1, 9));
        let row = &family.pairs[1];
        assert_eq!((row.visitor.as_str(), row.target.as_str()), ("law", "math"));
        assert_eq!((row.overlap.f, row.overlap.jaccard), (0.5, 0.5));
        // F is 0.5 where Y is 0.9, and 0 where it is 0.4; home would have spoilt it.
        let f = &family.correlations[0];
        assert_eq!((f.with, f.correlation.n), (Predictor::F, 6));
        assert!(
            (f.correlation.pearson - 1.0).abs() < 1e-9 && (f.correlation.slope - 1.0).abs() < 1e-9
        );
        // One mask is no family.
        assert_eq!(transfer(Measure::Likelihood, &subjects[..1], &columns, &worth, &[]), None);
        // No two of one size: all together.
        let uneven = [subjects[0].clone(), mask("math", "math", &[&[1, 2, 3, 7]])];
        let got = transfer(Measure::Likelihood, &uneven, &columns, &worth, &[]).unwrap();
        assert_eq!(got.families[0].pairs.len(), 4);
    }
}
