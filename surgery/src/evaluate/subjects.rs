//! Who is measured: the parent, the masks, and controls of the same sizes.
//!
//! A score that does not beat as many experts drawn by lot has found nothing;
//! one that does not beat plain counting was not worth its name.  Random masks
//! read every domain, masks by frequency only the one they were made for, since
//! that is where they are compared.

use engine::{ExpertMask, MaskFile, Masking, Profile, Shape};

use super::document::{Kind, Subject};
use crate::mask::random;

/// A mask as it was given.
#[derive(Clone, Debug)]
pub struct Given {
    pub file: MaskFile,
    /// SHA-256 of its file.
    pub sha256: String,
}

/// How the controls are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Controls {
    /// Random masks for each size of mask.
    pub draws: u32,
    pub seed: u64,
}

/// The parent, the masks, random masks, masks by frequency; `bytes` are of their experts.
pub fn subjects(
    shape: &Shape,
    given: &[Given],
    profiles: &[Profile],
    controls: Controls,
    bytes: &dyn Fn(&[Vec<u32>]) -> u64,
) -> Vec<Subject> {
    let of = |name: String, kind, kept: Vec<Vec<u32>>| Subject {
        name,
        kind,
        domain: None,
        beside: None,
        score: None,
        mask_sha256: None,
        expert_bytes: bytes(&kept),
        kept,
        masking: Masking::default(),
        coverage: Vec::new(),
    };
    let full = ExpertMask::full(shape);
    let all = (0..shape.layers).map(|layer| full.kept(layer)).collect();
    let mut subjects = vec![of("parent".to_owned(), Kind::Parent, all)];
    let names = names(given);
    for (Given { file, sha256 }, name) in given.iter().zip(&names) {
        subjects.push(Subject {
            domain: Some(file.domain.clone()),
            score: Some(file.score.clone()),
            mask_sha256: Some(sha256.clone()),
            coverage: file.coverage.clone(),
            masking: file.masking,
            ..of(name.clone(), Kind::Mask, file.kept.clone())
        });
    }
    for (size, kept, masking) in distinct_sizes(given, &names) {
        for draw in 0..controls.draws {
            let seed = controls.seed.wrapping_add(draw.into());
            let drawn = random(kept, shape.experts as u32, seed);
            let name = match controls.draws {
                1 => format!("random {size}"),
                _ => format!("random {size}, draw {}", draw + 1),
            };
            let beside = Some(format!("random {size}"));
            subjects.push(Subject { beside, masking, ..of(name, Kind::Random, drawn) });
        }
    }
    for (Given { file, .. }, name) in given.iter().zip(&names) {
        let own = |p: &&Profile| p.domain == file.domain && p.parent == file.parent;
        let Some(profile) = profiles.iter().find(own).filter(|_| file.score != "frequency") else {
            continue;
        };
        let kept = by_frequency(profile, &file.kept);
        subjects.push(Subject {
            domain: Some(file.domain.clone()),
            beside: Some(name.clone()),
            score: Some("frequency".to_owned()),
            masking: file.masking,
            ..of(format!("frequency {name}"), Kind::Frequency, kept)
        });
    }
    subjects
}

/// The domain, with its size where a domain has several masks, with a number where that is not enough.
fn names(given: &[Given]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for Given { file, .. } in given {
        let alone = given.iter().filter(|other| other.file.domain == file.domain).count() == 1;
        let name = match alone {
            true => file.domain.clone(),
            false => format!("{} {}", file.domain, size(&file.kept)),
        };
        let mut unlike = name.clone();
        let mut n = 2;
        while names.contains(&unlike) || unlike == "parent" {
            unlike = format!("{name} #{n}");
            n += 1;
        }
        names.push(unlike);
    }
    names
}

/// How many experts a layer keeps, or how many in the mean.
fn size(kept: &[Vec<u32>]) -> String {
    let mut counts = kept.iter().map(Vec::len).filter(|n| *n > 0);
    let first = counts.next().unwrap_or(0);
    if counts.all(|n| n == first) {
        return first.to_string();
    }
    let layers = kept.iter().filter(|ids| !ids.is_empty()).count();
    format!("{:.1}", kept.iter().map(Vec::len).sum::<usize>() as f64 / layers as f64)
}

/// Masks that keep the same numbers, and act at the same place, share their random controls.
fn distinct_sizes<'a>(
    given: &'a [Given],
    names: &[String],
) -> Vec<(String, &'a [Vec<u32>], Masking)> {
    let sizes = |kept: &[Vec<u32>]| kept.iter().map(Vec::len).collect::<Vec<_>>();
    let mut distinct: Vec<(String, &[Vec<u32>], Masking)> = Vec::new();
    for (Given { file, .. }, name) in given.iter().zip(names) {
        let own = sizes(&file.kept);
        let same = |kept: &[Vec<u32>], at| sizes(kept) == own && at == file.masking;
        if !distinct.iter().any(|(_, kept, masking)| same(kept, *masking)) {
            let size = size(&file.kept);
            let label = match size.contains('.') {
                true => format!("as {name}"),
                false if file.masking != Masking::default() => {
                    format!("{size} {}", file.masking.name())
                }
                false => size,
            };
            distinct.push((label, &file.kept, file.masking));
        }
    }
    distinct
}

/// As many experts of each layer as `kept` has: those that most tokens chose, ties to the lower id.
fn by_frequency(profile: &Profile, kept: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let (experts, top_k) = (profile.experts, profile.top_k.max(1));
    let layer = |(layer, ids): (usize, &Vec<u32>)| {
        let counts = profile.all.counts.chunks(top_k).skip(layer * experts).take(experts);
        let counts: Vec<i64> = counts.map(|ranks| ranks.iter().sum()).collect();
        let mut order: Vec<u32> = (0..counts.len() as u32).collect();
        order.sort_by_key(|id| (std::cmp::Reverse(counts[*id as usize]), *id));
        order.truncate(ids.len());
        order.sort_unstable();
        order
    };
    kept.iter().enumerate().map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(domain: &str, kept: &[&[u32]]) -> Given {
        let file = MaskFile {
            format: engine::MASK_FORMAT.to_owned(),
            parent: "p".to_owned(),
            domain: domain.to_owned(),
            score: "gate".to_owned(),
            experts: kept.iter().map(|ids| ids.len()).collect(),
            kept: kept.iter().map(|ids| ids.to_vec()).collect(),
            coverage: vec![0.5; kept.len()],
            profile: String::new(),
            sources: Vec::new(),
            masking: Default::default(),
            passes: Vec::new(),
        };
        Given { file, sha256: domain.to_owned() }
    }

    #[track_caller]
    fn check(given: &[Given], profiles: &[Profile], draws: u32, want: &[&str]) {
        let shape = Shape::of_experts(2, 4, 2);
        let bytes = |kept: &[Vec<u32>]| kept.iter().map(Vec::len).sum::<usize>() as u64;
        let got = subjects(&shape, given, profiles, Controls { draws, seed: 1 }, &bytes);
        let show = |s: &Subject| format!("{}:{}", s.name, s.expert_bytes);
        assert_eq!(got.iter().map(show).collect::<Vec<_>>(), want);
        // Whatever is run has a mask that fits.
        assert!(got.iter().all(|s| ExpertMask::from_kept(&shape, &s.kept).is_ok()));
    }

    #[test]
    fn everybody_has_a_control_and_a_name() {
        let (law, math) = (given("law", &[&[0, 1], &[2, 3]]), given("math", &[&[1, 2], &[0, 3]]));
        let wide = given("law", &[&[0, 1, 2], &[1, 2, 3]]);
        let uneven = given("art", &[&[0, 1, 2], &[0, 1]]);
        check(&[], &[], 3, &["parent:8"]);
        check(&[law.clone(), math], &[], 1, &["parent:8", "law:4", "math:4", "random 2:4"]);
        check(
            &[law.clone(), wide, law.clone()],
            &[],
            2,
            &[
                "parent:8",
                "law 2:4",
                "law 3:6",
                "law 2 #2:4",
                "random 2, draw 1:4",
                "random 2, draw 2:4",
                "random 3, draw 1:6",
                "random 3, draw 2:6",
            ],
        );
        check(&[uneven], &[], 1, &["parent:8", "art:5", "random as art:5"]);
        // By frequency where there is a profile.
        let mut profile = Profile::new(&Shape::of_experts(2, 4, 2), "p", "law");
        // Layer 0: expert 2 seven times, 3 five, others never.
        (profile.all.counts[4], profile.all.counts[5], profile.all.counts[7]) = (3, 4, 5);
        check(
            std::slice::from_ref(&law),
            std::slice::from_ref(&profile),
            0,
            &["parent:8", "law:4", "frequency law:4"],
        );
        assert_eq!(by_frequency(&profile, &law.file.kept), [[2, 3], [0, 1]]);
        let other = Profile { parent: "q".to_owned(), ..profile };
        check(&[law], &[other], 0, &["parent:8", "law:4"]);
    }
}
