//! What a report says: sections of sentences and tables.
//!
//! Pure functions of an [`Evaluation`]; a section whose numbers were not
//! measured is left out.  Titles are constants, since figures find their section
//! by them.

use std::collections::BTreeMap;

use super::numbers::{bytes, count, p, percent, sigma, signed, signed_interval};
use super::{Block, Cell, Grid, Section};
use crate::evaluate::Evaluation;
use crate::evaluate::document::{
    By, Family, Kind, Measure, Predictor, QuestionCell, Subject, TextCell, Transfer,
};
use crate::evaluate::statistics::{Estimate, mcnemar, mean};

pub const AT_HOME: &str = "At home";
pub const SIZES: &str = "Size against quality";
pub const TRANSFER: &str = "Near and far";
pub const EXPERTS: &str = "Experts";

pub fn title(evaluation: &Evaluation) -> String {
    match evaluation.origin.name.is_empty() {
        true => "Evaluation of specialists".to_owned(),
        false => format!("Evaluation of specialists of {}", evaluation.origin.name),
    }
}

pub fn sections(evaluation: &Evaluation) -> Vec<Section> {
    [
        summary(evaluation),
        at_home(evaluation),
        questions(evaluation),
        everywhere(evaluation),
        transfer(evaluation),
        provenance(evaluation),
    ]
    .into_iter()
    .flatten()
    .flat_map(|section| match section.title == EVERYWHERE {
        // Its place for the plots that have no table.
        true => vec![section, plots(SIZES), plots(EXPERTS)],
        false => vec![section],
    })
    .collect()
}

const EVERYWHERE: &str = "All against all";

fn plots(title: &str) -> Section {
    Section { title: title.to_owned(), blocks: Vec::new() }
}

/// What Y is a ratio of.
pub fn measures(evaluation: &Evaluation) -> Vec<Measure> {
    let accuracy = evaluation.by_accuracy().then_some(Measure::Accuracy);
    let text = evaluation.text.as_ref().map(|_| Measure::Likelihood);
    accuracy.into_iter().chain(text).collect()
}

/// Names of the columns.
fn domains(evaluation: &Evaluation, measure: Measure) -> Vec<&str> {
    let columns = match measure {
        Measure::Accuracy => evaluation.questions.as_ref().map(|q| &q.columns),
        Measure::Likelihood => evaluation.text.as_ref().map(|t| &t.columns),
    };
    columns.into_iter().flatten().map(|column| column.name.as_str()).collect()
}

/// What a subject is worth on a column, the parent being 1.
fn worth(
    evaluation: &Evaluation,
    measure: Measure,
    subject: usize,
    column: usize,
) -> Option<Estimate> {
    match measure {
        Measure::Accuracy => asked(evaluation, subject, column)?.paired?.ratio,
        Measure::Likelihood => Some(read(evaluation, subject, column)?.ratio),
    }
}

fn asked(evaluation: &Evaluation, subject: usize, column: usize) -> Option<&QuestionCell> {
    evaluation.questions.as_ref()?.cells.get(subject)?.get(column)?.as_ref()
}

fn read(evaluation: &Evaluation, subject: usize, column: usize) -> Option<&TextCell> {
    evaluation.text.as_ref()?.cells.get(subject)?.get(column)?.as_ref()
}

/// The column of a subject's own domain.
fn home_at(evaluation: &Evaluation, measure: Measure, subject: usize) -> Option<usize> {
    let domain = evaluation.subjects.get(subject)?.domain.as_deref()?;
    domains(evaluation, measure).iter().position(|name| *name == domain)
}

/// What a mask is worth at home.
pub fn home(evaluation: &Evaluation, measure: Measure, subject: usize) -> Option<Estimate> {
    worth(evaluation, measure, subject, home_at(evaluation, measure, subject)?)
}

/// What the controls of a mask are worth at its home, by draw.
pub fn controls(evaluation: &Evaluation, measure: Measure, mask: usize, kind: Kind) -> Vec<f64> {
    let Some(column) = home_at(evaluation, measure, mask) else { return Vec::new() };
    let beside = beside(evaluation, mask, kind);
    beside.filter_map(|at| Some(worth(evaluation, measure, at, column)?.value)).collect()
}

/// Controls of a mask: of its sizes by layer, or of itself.
fn beside(evaluation: &Evaluation, mask: usize, kind: Kind) -> impl Iterator<Item = usize> {
    let own = &evaluation.subjects[mask];
    let sizes = |s: &Subject| s.kept.iter().map(Vec::len).collect::<Vec<_>>();
    let all = evaluation.subjects.iter().enumerate();
    all.filter(move |(_, s)| {
        s.kind == kind
            && match kind {
                Kind::Frequency => s.beside.as_ref() == Some(&own.name),
                _ => sizes(s) == sizes(own),
            }
    })
    .map(|(at, _)| at)
}

fn masks(evaluation: &Evaluation) -> impl Iterator<Item = (usize, &Subject)> {
    evaluation.subjects.iter().enumerate().filter(|(_, s)| s.kind == Kind::Mask)
}

fn table(caption: &str, head: &[&str], rows: Vec<Vec<Cell>>, folded: bool) -> Block {
    let head = head.iter().map(|name| name.to_string()).collect();
    Block::Table(Grid { caption: caption.to_owned(), head, rows, folded, prose: false })
}

fn cells(texts: Vec<String>) -> Vec<Cell> {
    texts.into_iter().map(Cell::from).collect()
}

/// The few sentences that are worth reading first, a paragraph for each size of mask.
fn summary(evaluation: &Evaluation) -> Option<Section> {
    let origin = &evaluation.origin;
    let mut blocks = vec![Block::Text(format!(
        "{} masks of a parent with {} layers of {} experts, of which the router picks {}.",
        masks(evaluation).count(),
        origin.layers,
        origin.experts,
        origin.top_k
    ))];
    for (total, members) in sizes(evaluation) {
        let whole = origin.layers * origin.experts;
        let words: Vec<String> = [
            read_by(evaluation, &members),
            asked_by(evaluation, &members),
            related_by(evaluation, &members),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !words.is_empty() {
            let share = percent(total as f64 / whole.max(1) as f64);
            let words = words.join(" ");
            blocks.push(Block::Text(format!("With {share} of the experts: {words}")));
        }
    }
    Some(Section { title: "In short".to_owned(), blocks })
}

/// Masks by how many experts they keep, the smallest first.
pub fn sizes(evaluation: &Evaluation) -> BTreeMap<usize, Vec<usize>> {
    let mut sizes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, subject) in masks(evaluation) {
        sizes.entry(subject.total()).or_default().push(at);
    }
    sizes
}

/// Masks on held-out text of their own domains.
fn read_by(evaluation: &Evaluation, members: &[usize]) -> Option<String> {
    let home = |at: usize| home_at(evaluation, Measure::Likelihood, at);
    let own: Vec<&TextCell> =
        members.iter().filter_map(|at| read(evaluation, *at, home(*at)?)).collect();
    if own.is_empty() {
        return None;
    }
    let of =
        |f: &dyn Fn(&TextCell) -> f64| mean(&own.iter().map(|cell| f(cell)).collect::<Vec<_>>());
    let control = |kind, name: &str| {
        let costs = |at: &usize| -> Vec<f64> {
            let cost = |c| Some(read(evaluation, c, home(*at)?)?.cost.value);
            beside(evaluation, *at, kind).filter_map(cost).collect()
        };
        let costs: Vec<f64> = members.iter().flat_map(costs).collect();
        if costs.is_empty() {
            String::new()
        } else {
            format!(", as many {name} {}", signed(mean(&costs), 3))
        }
    };
    Some(format!(
        "on held-out text of its own domain a mask costs {} nats a token{}{} (means over {} masks); its most probable token is the parent's {} of the time, and KL(parent || mask) is {:.3} nats.",
        signed(of(&|cell| cell.cost.value), 3),
        control(Kind::Frequency, "by frequency"),
        control(Kind::Random, "by lot"),
        own.len(),
        percent(of(&|cell| cell.agreement.value)),
        of(&|cell| cell.kl.value),
    ))
}

/// Masks on questions of their own domains.
fn asked_by(evaluation: &Evaluation, members: &[usize]) -> Option<String> {
    let home = |at: usize| home_at(evaluation, Measure::Accuracy, at);
    let own: Vec<&QuestionCell> =
        members.iter().filter_map(|at| asked(evaluation, *at, home(*at)?)).collect();
    let sum = |f: &dyn Fn(&QuestionCell) -> usize| own.iter().map(|cell| f(cell)).sum::<usize>();
    let (gained, lost) =
        (sum(&|c| c.paired.map_or(0, |p| p.gained)), sum(&|c| c.paired.map_or(0, |p| p.lost)));
    (!own.is_empty()).then(|| {
        format!(
            "Of {} questions of their own domains the masks answer {} right; they lose {lost} that the parent has right, and gain {gained} (McNemar p {}).",
            sum(&|c| c.n),
            sum(&|c| c.right),
            p(mcnemar(gained, lost))
        )
    })
}

/// Overlap and worth, of the family that these masks are.
fn related_by(evaluation: &Evaluation, members: &[usize]) -> Option<String> {
    let name = &evaluation.subjects[*members.first()?].name;
    let families = evaluation.transfer.iter().flat_map(|t| &t.families);
    let family = families.into_iter().find(|family| family.masks.contains(name))?;
    let c = family.correlations.iter().find(|r| r.with == Predictor::F)?.correlation;
    Some(format!(
        "What a mask is worth on another's domain goes with the overlap of the two: r = {:.3} over {} pairs.",
        c.pearson, c.n
    ))
}

fn at_home(evaluation: &Evaluation) -> Option<Section> {
    evaluation.text.as_ref()?;
    let backbone = evaluation.origin.backbone_bytes;
    let row = |(at, subject): (usize, &Subject)| {
        let column = home_at(evaluation, Measure::Likelihood, at)?;
        let (cell, parent) = (read(evaluation, at, column)?, read(evaluation, 0, column)?);
        let heading = &evaluation.text.as_ref()?.columns[column];
        let control = |kind| {
            let costs: Vec<f64> = beside(evaluation, at, kind)
                .filter_map(|c| Some(read(evaluation, c, column)?.cost.value))
                .collect();
            if costs.is_empty() { "–".to_owned() } else { signed(mean(&costs), 3) }
        };
        Some(cells(vec![
            subject.name.clone(),
            signed_interval(&cell.cost, 3),
            sigma(&cell.ratio, 3),
            control(Kind::Frequency),
            control(Kind::Random),
            percent(cell.agreement.value),
            format!("{:.3}", cell.kl.value),
            format!("{:.2}", parent.nats.value.exp()),
            format!("{:.2}", cell.nats.value.exp()),
            format!(
                "{} of {}",
                subject.total(),
                evaluation.origin.layers * evaluation.origin.experts
            ),
            bytes(backbone + subject.expert_bytes),
            count(heading.tokens),
        ]))
    };
    let rows: Vec<Vec<Cell>> = masks(evaluation).filter_map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let head = [
        "mask",
        "cost, nats a token (95\u{a0}%)",
        "Y ± σ",
        "cost by frequency",
        "cost by lot",
        "top-1 agreement",
        "KL, nats",
        "parent's perplexity",
        "its own",
        "experts",
        "size",
        "tokens",
    ];
    let words = "Each mask on held-out text of the domain it was made for. Cost is nats a token above the parent on the same tokens, with the interval of a paired bootstrap over stretches of 128 tokens; neighbours are alike, so that it is a little narrow. Y is exp(-cost), the parent's perplexity by the mask's. Agreement is the share of tokens for which the most probable token is the parent's; KL is of the parent's distribution from the mask's, exact over the vocabulary.";
    let blocks =
        vec![Block::Text(words.to_owned()), table("Held-out text at home", &head, rows, false)];
    Some(Section { title: AT_HOME.to_owned(), blocks })
}

fn questions(evaluation: &Evaluation) -> Option<Section> {
    let asked_all = evaluation.questions.as_ref()?;
    let how = match asked_all.by {
        By::Answer => format!(
            "Answers are written with thinking off at temperature {}, at most {} tokens, and the letter is read from them; an answer that goes round in circles or does not end is asked once more with another seed, and is wrong if it loops again.",
            asked_all.temperature.unwrap_or_default(),
            asked_all.max_tokens.unwrap_or_default()
        ),
        By::Likelihood => "The choice is the option whose text costs the fewest nats a token after the question; nothing is generated, so nothing can loop.".to_owned(),
    };
    let row = |subject: usize, column: usize| {
        let cell = asked(evaluation, subject, column)?;
        let parent = asked(evaluation, 0, column)?;
        let pair = cell.paired?;
        Some(cells(vec![
            evaluation.subjects[subject].name.clone(),
            asked_all.columns[column].name.clone(),
            cell.n.to_string(),
            percent(asked_all.guessing.get(column).copied().unwrap_or_default()),
            percent(parent.accuracy.value),
            interval(&cell.accuracy),
            percentage_points(&pair.difference),
            format!("{} / {}", pair.gained, pair.lost),
            p(pair.p),
            format!("{} ({} recovered)", cell.loops, cell.recovered),
            cell.unread.to_string(),
        ]))
    };
    let head = [
        "subject",
        "questions of",
        "n",
        "guessing",
        "parent",
        "accuracy (95\u{a0}%)",
        "difference (95\u{a0}%)",
        "gained / lost",
        "McNemar p",
        "loops",
        "unread",
    ];
    let at_home: Vec<Vec<Cell>> = masks(evaluation)
        .filter_map(|(at, _)| row(at, home_at(evaluation, Measure::Accuracy, at)?))
        .collect();
    let parent = |(column, heading): (usize, &crate::evaluate::document::Heading)| {
        let cell = asked(evaluation, 0, column)?;
        Some(cells(vec![
            heading.name.clone(),
            cell.n.to_string(),
            interval(&cell.accuracy),
            percent(asked_all.guessing.get(column).copied().unwrap_or_default()),
            format!("{} ({} recovered)", cell.loops, cell.recovered),
            cell.unread.to_string(),
        ]))
    };
    let parents = asked_all.columns.iter().enumerate().filter_map(parent).collect();
    let columns = 0..asked_all.columns.len();
    let all = (1..evaluation.subjects.len())
        .flat_map(|at| columns.clone().map(move |column| (at, column)))
        .filter_map(|(at, column)| row(at, column))
        .collect();
    let words = format!(
        "{how} Parent and subject answer the same questions: gained and lost count those that one alone has right, McNemar's p is the exact binomial of that split, and the difference is in percentage points with Agresti and Min's interval."
    );
    let mut blocks = vec![Block::Text(words)];
    if !asked_all.beats_guessing() {
        let words = "The parent is not clearly better than a guess, so that right answers are luck: nothing else here is made of them where there is text.";
        blocks.push(Block::Text(words.to_owned()));
    }
    if !at_home.is_empty() {
        blocks.push(table("Each mask on its own questions", &head, at_home, false));
    }
    blocks.push(table(
        "The parent",
        &["questions of", "n", "accuracy (95\u{a0}%)", "guessing", "loops", "unread"],
        parents,
        true,
    ));
    blocks.push(table("Everybody on everything", &head, all, true));
    Some(Section { title: "Multiple choice".to_owned(), blocks })
}

fn interval(share: &Estimate) -> String {
    match share.spread {
        Some(s) => {
            format!("{} ({:.1} to {:.1})", percent(share.value), s.low * 100.0, s.high * 100.0)
        }
        None => percent(share.value),
    }
}

fn percentage_points(difference: &Estimate) -> String {
    let hundred = |value: f64| value * 100.0;
    let spread = difference.spread.map(|s| crate::evaluate::statistics::Spread {
        sigma: hundred(s.sigma),
        low: hundred(s.low),
        high: hundred(s.high),
    });
    signed_interval(&Estimate { value: hundred(difference.value), spread }, 1)
}

fn everywhere(evaluation: &Evaluation) -> Option<Section> {
    let mut blocks = Vec::new();
    for measure in measures(evaluation) {
        let names = domains(evaluation, measure);
        let mut head = vec!["subject"];
        head.extend(&names);
        let mut rows: Vec<Vec<Cell>> = Vec::new();
        let mut past: Vec<&str> = Vec::new();
        for (at, subject) in evaluation.subjects.iter().enumerate() {
            let label = subject.beside.as_deref().unwrap_or(&subject.name);
            let group: Vec<usize> = match subject.kind {
                Kind::Mask => vec![at],
                Kind::Random if !past.contains(&label) => (0..evaluation.subjects.len())
                    .filter(|r| evaluation.subjects[*r].beside.as_deref() == Some(label))
                    .filter(|r| evaluation.subjects[*r].kind == Kind::Random)
                    .collect(),
                _ => continue,
            };
            past.push(label);
            let name = match group.len() {
                1 => label.to_owned(),
                n => format!("{label}, mean of {n}"),
            };
            let cell = |column: usize| {
                let values: Vec<Estimate> =
                    group.iter().filter_map(|at| worth(evaluation, measure, *at, column)).collect();
                if values.is_empty() {
                    return Cell::from("–".to_owned());
                }
                let value = mean(&values.iter().map(|v| v.value).collect::<Vec<_>>());
                let text = match &values[..] {
                    [one] => sigma(one, 2),
                    _ => format!("{value:.2}"),
                };
                let strong = home_at(evaluation, measure, at) == Some(column);
                // A half of the parent's worth is as bad as can be told apart.
                Cell { text, strong, shade: ((value - 1.0) * 2.0).clamp(-1.0, 1.0) }
            };
            rows.push(
                std::iter::once(Cell::from(name)).chain((0..names.len()).map(cell)).collect(),
            );
        }
        if rows.is_empty() || names.is_empty() {
            continue;
        }
        let caption = match measure {
            Measure::Accuracy => "Accuracy as a ratio to the parent's, ± one standard error",
            Measure::Likelihood => {
                "Likelihood a token as a ratio to the parent's, exp(-cost), ± one standard error"
            }
        };
        blocks.push(table(caption, &head, rows, false));
    }
    if blocks.is_empty() {
        return None;
    }
    let words = "Masks down, the items of every domain across; the parent is 1, and a mask on its own domain is bold.";
    blocks.insert(0, Block::Text(words.to_owned()));
    Some(Section { title: EVERYWHERE.to_owned(), blocks })
}

fn transfer(evaluation: &Evaluation) -> Option<Section> {
    if evaluation.transfer.is_empty() {
        return None;
    }
    let words = "Is a mask worth the more on another domain, the more of that domain's own mask it keeps? Masks of one size are compared. Overlap is pooled over layers; F is 2|A ∩ B| / (|A| + |B|) without the experts that every mask of the family keeps; two random halves have F 0.5 and Jaccard 0.333. The cosine is of gate masses, by layer, weighted by the visitor's experts. Correlations leave out each mask on its own domain; pairs share masks and domains, so that their intervals are narrower than the truth.";
    let mut blocks = vec![Block::Text(words.to_owned())];
    for Transfer { measure, families } in &evaluation.transfer {
        for family in families {
            let what = match measure {
                Measure::Accuracy => "accuracy",
                Measure::Likelihood => "likelihood",
            };
            let size = evaluation.subjects.iter().find(|s| Some(&s.name) == family.masks.first());
            let size = size.map_or(0, Subject::total);
            let name = format!(
                "{} masks of {} experts, Y by {what}",
                family.masks.len(),
                count(size as u64)
            );
            blocks.push(related(&name, family));
            blocks.push(pairs(&name, family));
        }
    }
    Some(Section { title: TRANSFER.to_owned(), blocks })
}

fn related(name: &str, family: &Family) -> Block {
    let row = |r: &crate::evaluate::document::Related| {
        let c = r.correlation;
        let with = match r.with {
            Predictor::F => "F, without what all keep",
            Predictor::Jaccard => "Jaccard",
            Predictor::Cosine => "cosine of gate mass",
        };
        let interval = c.interval.map(|[low, high]| format!(" ({low:.3} to {high:.3})"));
        cells(vec![
            with.to_owned(),
            c.n.to_string(),
            format!("{:.3}{}", c.pearson, interval.unwrap_or_default()),
            format!("{:.3}", c.spearman),
            format!("{:.3} + {:.3} x", c.intercept, c.slope),
        ])
    };
    let rows = family.correlations.iter().map(row).collect();
    let head = ["Y with", "pairs", "Pearson r (95\u{a0}%)", "Spearman", "least squares"];
    let caption =
        format!("{name}: correlations; experts common to all: {}", count(family.common as u64));
    table(&caption, &head, rows, false)
}

fn pairs(name: &str, family: &Family) -> Block {
    let row = |pair: &crate::evaluate::document::Pair| {
        let o = pair.overlap;
        cells(vec![
            pair.visitor.clone(),
            pair.target.clone(),
            sigma(&pair.y, 3),
            format!("{:.3}", o.f),
            format!("{:.3}", o.jaccard),
            o.cosine.map_or("–".to_owned(), |c| format!("{c:.3}")),
        ])
    };
    let rows = family.pairs.iter().map(row).collect();
    let head = ["visitor", "on the items of", "Y ± σ", "F", "Jaccard", "cosine"];
    table(&format!("{name}: every pair"), &head, rows, true)
}

fn provenance(evaluation: &Evaluation) -> Option<Section> {
    let origin = &evaluation.origin;
    let row = |name: &str, value: String| cells(vec![name.to_owned(), value]);
    let mut rows = vec![
        row(
            "parent",
            format!("{} ({}), sha256 {}", origin.name, origin.architecture, origin.parent),
        ),
        row("version", origin.version.clone()),
        row("seed", origin.seed.to_string()),
    ];
    if !origin.command.is_empty() {
        rows.push(row("command", origin.command.clone()));
    }
    for file in &origin.files {
        rows.push(row(&file.role, format!("{}, sha256 {}", file.name, file.sha256)));
    }
    for (_, mask) in masks(evaluation) {
        let sha256 = mask.mask_sha256.as_deref().unwrap_or("–");
        let score = mask.score.as_deref().unwrap_or("–");
        rows.push(row(&format!("mask {}", mask.name), format!("score {score}, sha256 {sha256}")));
    }
    let items = |what: &str, columns: &[crate::evaluate::document::Heading]| {
        let row = |c: &crate::evaluate::document::Heading| {
            let size = match what {
                "text" => format!("{} tokens in {} stretches", count(c.tokens), count(c.items)),
                _ => format!("{} questions", count(c.items)),
            };
            row(&format!("{what} {}", c.name), format!("{size}, sha256 {}", c.sha256))
        };
        columns.iter().map(row).collect::<Vec<_>>()
    };
    rows.extend(evaluation.text.iter().flat_map(|t| items("text", &t.columns)));
    rows.extend(evaluation.questions.iter().flat_map(|q| items("questions", &q.columns)));
    let (caption, head) =
        ("What this was made from".to_owned(), ["what", "which"].map(str::to_owned));
    let grid = Grid { caption, head: head.to_vec(), rows, folded: false, prose: true };
    let blocks = vec![Block::Table(grid)];
    Some(Section { title: "Provenance".to_owned(), blocks })
}
