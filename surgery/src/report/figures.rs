//! The plots of a page, each at the head of the section it belongs to.

use super::content::{self, AT_HOME, EXPERTS, SIZES, TRANSFER};
use super::numbers::percent;
use super::plots::{Ink, coverage, experts, home, scatter, sizes};
use super::{Block, Figure, ReportError, Section};
use crate::evaluate::Evaluation;
use crate::evaluate::document::{Family, Kind, Measure, Predictor, Subject};

/// Small plots of one kind on a page at most: it stays readable, and its size bounded.
const MOST: usize = 26;

pub fn add(evaluation: &Evaluation, sections: &mut Vec<Section>) -> Result<(), ReportError> {
    let mut put = |title: &str, figures: Vec<Figure>| {
        if figures.is_empty() {
            return;
        }
        let blocks: Vec<Block> = figures.into_iter().map(Block::Figure).collect();
        match sections.iter_mut().find(|section| section.title == title) {
            Some(section) => {
                // After the sentence that says what it is about.
                let at = section.blocks.iter().position(|b| !matches!(b, Block::Text(_)));
                let at = at.unwrap_or(section.blocks.len());
                section.blocks.splice(at..at, blocks);
            }
            None => sections.push(Section { title: title.to_owned(), blocks }),
        }
    };
    put(AT_HOME, at_home(evaluation)?);
    put(SIZES, size(evaluation)?);
    put(TRANSFER, transfer(evaluation)?);
    put(EXPERTS, kept(evaluation)?);
    Ok(())
}

fn masks(evaluation: &Evaluation) -> Vec<(usize, &Subject)> {
    let all = evaluation.subjects.iter().enumerate();
    all.filter(|(_, subject)| subject.kind == Kind::Mask).collect()
}

fn y_name(measure: Measure) -> &'static str {
    match measure {
        Measure::Accuracy => "accuracy, parent = 1",
        Measure::Likelihood => "likelihood a token, parent = 1",
    }
}

fn at_home(evaluation: &Evaluation) -> Result<Vec<Figure>, ReportError> {
    let mut figures = Vec::new();
    for measure in content::measures(evaluation) {
        let mut rows = Vec::new();
        for (at, subject) in masks(evaluation) {
            let Some(own) = content::home(evaluation, measure, at) else { continue };
            let beside = |kind| content::controls(evaluation, measure, at, kind);
            let (random, frequency) = (beside(Kind::Random), beside(Kind::Frequency));
            let (name, frequency) = (subject.name.clone(), frequency.first().copied());
            rows.push(home::Row { name, own, random, frequency });
        }
        if rows.is_empty() {
            continue;
        }
        figures.push(Figure {
            svgs: vec![home::plot(&rows, y_name(measure))?],
            caption:
                "On each mask's own domain, with the 95 % interval; the parent is the line at 1."
                    .to_owned(),
            legend: vec![
                (Ink::Series(0), "the mask".to_owned()),
                (Ink::Series(1), "as many experts by frequency".to_owned()),
                (Ink::Soft, "as many experts by lot".to_owned()),
            ],
            small: false,
        });
    }
    Ok(figures)
}

/// A point a mask at its domain, lines where a domain has several.
fn size(evaluation: &Evaluation) -> Result<Vec<Figure>, ReportError> {
    let Some(measure) = content::measures(evaluation).into_iter().next() else {
        return Ok(Vec::new());
    };
    let parent = evaluation.subjects.first().map_or(0, |parent| parent.expert_bytes);
    let backbone = evaluation.origin.backbone_bytes;
    let share = |bytes: u64| (backbone + bytes) as f64 / (backbone + parent).max(1) as f64;
    let mut domains: Vec<&str> = Vec::new();
    let mut lines: Vec<sizes::Line> = Vec::new();
    let mut by_lot = Vec::new();
    for (at, subject) in masks(evaluation) {
        let (Some(own), Some(domain)) = (content::home(evaluation, measure, at), &subject.domain)
        else {
            continue;
        };
        let x = share(subject.expert_bytes);
        let random = content::controls(evaluation, measure, at, Kind::Random);
        by_lot.extend(random.into_iter().map(|y| (x, y)));
        match domains.iter().position(|name| name == domain) {
            Some(line) => lines[line].points.push((x, own.value)),
            None => {
                let ink = sizes::ink(domains.len());
                domains.push(domain);
                lines.push(sizes::Line { ink, points: vec![(x, own.value)], control: false });
            }
        }
    }
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let mut legend: Vec<(Ink, String)> =
        domains.iter().enumerate().map(|(at, name)| (sizes::ink(at), name.to_string())).collect();
    legend.push((Ink::Soft, "by lot".to_owned()));
    // Below the masks.
    lines.insert(0, sizes::Line { ink: Ink::Soft, points: by_lot, control: true });
    Ok(vec![Figure {
        svgs: vec![sizes::plot(&lines, y_name(measure))?],
        caption: "Bytes of backbone and kept experts, and what each mask is worth on its own domain; the cross is the parent."
            .to_owned(),
        legend,
        small: false,
    }])
}

fn transfer(evaluation: &Evaluation) -> Result<Vec<Figure>, ReportError> {
    let mut figures = Vec::new();
    for transfer in &evaluation.transfer {
        for family in &transfer.families {
            let mut svgs = Vec::new();
            for (with, name) in [
                (Predictor::F, "F, without what all keep"),
                (Predictor::Cosine, "cosine of gate mass"),
            ] {
                let points = points(family, with);
                if points.len() < 2 {
                    continue;
                }
                let fit =
                    family.correlations.iter().find(|r| r.with == with).map(|r| &r.correlation);
                svgs.push(scatter::plot(&points, (name, y_name(transfer.measure)), fit)?);
            }
            let masks = family.masks.len();
            let caption = format!(
                "{masks} masks on each other's domains, with one standard error; the line is of least squares, home left out."
            );
            let legend = vec![
                (Ink::Series(0), "visitor on target".to_owned()),
                (Ink::Series(1), "at home".to_owned()),
            ];
            figures.push(Figure { svgs, caption, legend, small: false });
        }
    }
    Ok(figures)
}

fn points(family: &Family, with: Predictor) -> Vec<scatter::Point> {
    let point = |pair: &crate::evaluate::document::Pair| {
        let x = pair.overlap.by(with)?;
        // A mask has all of itself.
        Some(scatter::Point { x, y: pair.y, home: pair.overlap.jaccard >= 1.0 })
    };
    family.pairs.iter().filter_map(point).collect()
}

fn kept(evaluation: &Evaluation) -> Result<Vec<Figure>, ReportError> {
    let masks: Vec<&Subject> = masks(evaluation).into_iter().map(|(_, subject)| subject).collect();
    let count = evaluation.origin.experts;
    let mut figures = Vec::new();
    if masks.is_empty() || count == 0 {
        return Ok(figures);
    }
    // A plot for each size, and a colour for each domain.
    let mut domains: Vec<&str> = masks.iter().filter_map(|mask| mask.domain.as_deref()).collect();
    domains.sort_unstable();
    domains.dedup();
    let ink = |mask: &Subject| {
        sizes::ink(domains.iter().position(|d| Some(*d) == mask.domain.as_deref()).unwrap_or(0))
    };
    let mut svgs = Vec::new();
    for members in content::sizes(evaluation).values() {
        let of = members.iter().map(|at| &evaluation.subjects[*at]);
        let lines: Vec<(Ink, &[f64])> = of
            .filter(|mask| !mask.coverage.is_empty())
            .map(|mask| (ink(mask), &mask.coverage[..]))
            .collect();
        if !lines.is_empty() {
            let experts = masks_size(evaluation, members);
            svgs.push(coverage::layers(&experts, &lines)?);
        }
    }
    svgs.truncate(MOST);
    if !svgs.is_empty() {
        let legend =
            domains.iter().enumerate().map(|(at, name)| (sizes::ink(at), name.to_string()));
        figures.push(Figure {
            svgs,
            caption: "Coverage by layer: the share of the domain's gate mass on kept experts, as the masks say."
                .to_owned(),
            legend: legend.collect(),
            small: true,
        });
    }
    let mean_kept = |domain: &str| {
        let mask = masks.iter().find(|m| m.domain.as_deref() == Some(domain))?;
        let layers = mask.kept.iter().filter(|ids| !ids.is_empty()).count();
        Some(mask.total() as f64 / layers.max(1) as f64)
    };
    let curve = |usage: &crate::evaluate::document::Usage| {
        coverage::curves(&usage.domain, &usage.mass, mean_kept(&usage.domain))
    };
    let svgs: Vec<String> =
        evaluation.usage.iter().take(MOST).map(curve).collect::<Result<_, _>>()?;
    if !svgs.is_empty() {
        figures.push(Figure {
            svgs,
            caption: "Share of the gate mass that so many experts carry, a line a layer; the upright line is what the mask keeps."
                .to_owned(),
            legend: vec![(Ink::Kept(0), "first layers".to_owned()), (Ink::Kept(4), "last layers".to_owned())],
            small: true,
        });
    }
    if masks.len() > 1 {
        let kept: Vec<&[Vec<u32>]> = masks.iter().map(|mask| &mask.kept[..]).collect();
        figures.push(Figure {
            svgs: vec![experts::keepers(count, &kept)?],
            caption: format!("How many of the {} masks keep each expert.", masks.len()),
            legend: vec![
                (Ink::Dropped(0), "none".to_owned()),
                (Ink::Kept(0), "few".to_owned()),
                (Ink::Kept(4), "all".to_owned()),
            ],
            small: false,
        });
    }
    let map = |mask: &&Subject| {
        let usage = evaluation.usage.iter().find(|u| Some(&u.domain) == mask.domain.as_ref());
        experts::mask(&mask.name, count, &mask.kept, usage.map(|usage| &usage.mass[..]))
    };
    let shown = masks.len().min(MOST);
    let left = match masks.len() - shown {
        0 => String::new(),
        n => format!(" {n} masks more are not drawn."),
    };
    figures.push(Figure {
        svgs: masks.iter().take(MOST).map(map).collect::<Result<_, _>>()?,
        caption: format!(
            "Layers down, experts across. The stronger, the more of the layer's gate mass on the domain's tokens: the middle is even use.{left}"
        ),
        legend: vec![
            (Ink::Kept(0), "kept, hardly used".to_owned()),
            (Ink::Kept(4), "kept, much used".to_owned()),
            (Ink::Dropped(0), "dropped, hardly used".to_owned()),
            (Ink::Dropped(4), "dropped, much used".to_owned()),
        ],
        small: true,
    });
    Ok(figures)
}

/// How many experts these masks keep, and how much they cover in the mean.
fn masks_size(evaluation: &Evaluation, members: &[usize]) -> String {
    let of = || members.iter().map(|at| &evaluation.subjects[*at]);
    let total = of().next().map_or(0, Subject::total);
    let all: Vec<f64> = of().flat_map(|mask| mask.coverage.iter().copied()).collect();
    let mean = crate::evaluate::statistics::mean(&all);
    format!("{total} experts kept: {} in the mean", percent(mean))
}
