//! What a mask costs: parent, masks and controls on the same items.
//!
//! In: a parent, masks, and items that nothing was made from: text, questions
//! or both.  Out: an [`Evaluation`], subjects down, domains across:
//!
//! * text: nats a token, how often the most probable token is the parent's,
//!   KL(parent || subject);
//! * questions: accuracy beside the parent's on the same questions, and loops;
//! * transfer: what each mask is worth on every domain, and whether the overlap
//!   of masks tells it.
//!
//! Of a conversation only the last answer is scored, since that is what a
//! specialist is for; of a text, every token but the first.  The controls have
//! as many experts: a score that does not beat experts drawn by lot has found
//! nothing.
//!
//! * [`document`]: what is found, as it is kept.  [`crate::report`] shows it.
//! * [`subjects`]: who is measured.  [`text`], [`questions`]: how.
//! * [`statistics`]: intervals and tests.  [`transfer`]: near and far.
//! * [`parts`]: what is measured is kept, so that a run can go on.
//!
//! Absent: judgement.  What the numbers mean for whether to serve a specialist
//! is for who reads them.  To measure something new: a field of a cell in
//! [`document`], and a column in the report.

pub mod answers;
pub mod document;
mod findings;
pub mod parts;
pub mod questions;
pub mod statistics;
pub mod subjects;
mod table;
pub mod text;
pub mod transfer;

use std::io;

use engine::{
    ExpertMask, MaskError, MaskFile, MaskFileError, Masking, Model, Profile, TemplateError, hash,
};
use thiserror::Error;

pub use document::{Evaluation, FORMAT, Kind};
pub use parts::Parts;
pub use subjects::{Controls, Given};
pub use table::{Row, Table};

use document::{Heading, Origin, Source, Subject, Text};
use findings::{cell, digest, transfers};
use text::Sums;

use crate::tokens::{self, Reading, TokensError, Window};
use crate::{Parent, Progress};

/// Subjects that read one text side by side: each needs keys and values of its own, and the parent reads anew for
/// each such group.
const GROUP: usize = 6;

/// Texts of one domain, ready to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub windows: Vec<Window>,
}

#[derive(Debug, Error)]
pub enum EvaluateError {
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error(transparent)]
    Mask(#[from] MaskFileError),
    #[error(transparent)]
    Kept(#[from] MaskError),
    #[error("no memory for the keys and values of one window: {0}; free some")]
    Memory(io::Error),
    #[error("{name}: no token to score; the items are too short, or have no answer")]
    NoTokens { name: String },
    #[error(
        "{subject} on {domain}: stretch {stretch} of the text gives a number that is none; verify the file"
    )]
    NotFinite { subject: String, domain: String, stretch: usize },
    #[error("the profile of {domain:?} is of parent {profile:.12}…, this parent is {parent:.12}…")]
    OtherParent { domain: String, profile: String, parent: String },
    #[error("what was measured cannot be kept: {0}")]
    Keep(io::Error),
    #[error("{domain}: no question to ask; lines need \"question\", \"options\" and \"answer\"")]
    NoQuestions { domain: String },
    #[error("{domain}, question {question}: {error}")]
    Template { domain: String, question: usize, error: TemplateError },
    #[error("{domain}, question {question}: {error}")]
    Asked { domain: String, question: usize, error: engine::EngineError },
    #[error("the engine stopped while it answered; its log says why")]
    Stopped,
}

/// The texts of a corpus: a column for each label in it, or one named after the
/// file.
///
/// # Errors
///
/// [`TokensError`] with the bad line.
pub fn columns(model: &Model, reading: Reading) -> Result<Vec<Column>, TokensError> {
    let labels = reading.labels()?;
    if labels.is_empty() {
        let windows = tokens::collect(model, reading)?;
        return Ok(vec![Column { name: reading.corpus.name(), windows }]);
    }
    let column = |name: String| {
        let windows = tokens::collect(model, Reading { domain: Some(&name), ..reading })?;
        Ok(Column { name, windows })
    };
    labels.into_iter().map(column).collect()
}

/// Nats a token of parent, masks and random masks on every column.
///
/// # Errors
///
/// [`EvaluateError`] when a mask is not of this parent, or a column has nothing
/// to score.
pub fn evaluate(
    parent: &Parent,
    masks: &[MaskFile],
    columns: &[Column],
    controls: Controls,
    progress: Progress,
) -> Result<Table, EvaluateError> {
    let given: Vec<Given> =
        masks.iter().map(|file| Given { file: file.clone(), sha256: String::new() }).collect();
    let parts = Parts::none();
    let study = Study::new(parent, &given, &[], controls, &parts)?;
    let text = study.text(columns, progress)?;
    Ok(Table::new(&study.subjects, &text, parent.model.parent()))
}

/// Who is measured, and where what was measured is kept.
pub struct Study<'a> {
    pub(crate) parent: &'a Parent,
    pub(crate) parts: &'a Parts,
    pub(crate) seed: u64,
    /// With what each runs; the parent with all.
    pub subjects: Vec<Subject>,
    pub(crate) masks: Vec<Option<ExpertMask>>,
}

impl<'a> Study<'a> {
    /// `profiles` make the controls by frequency.
    ///
    /// # Errors
    ///
    /// [`EvaluateError`] when a mask or a profile is not of this parent.
    pub fn new(
        parent: &'a Parent,
        given: &[Given],
        profiles: &[Profile],
        controls: Controls,
        parts: &'a Parts,
    ) -> Result<Self, EvaluateError> {
        let (shape, own) = (parent.model.shape(), parent.model.parent());
        for Given { file, .. } in given {
            file.mask(shape, &own)?;
        }
        if let Some(p) = profiles.iter().find(|p| p.parent != own) {
            let (domain, profile) = (p.domain.clone(), p.parent.clone());
            return Err(EvaluateError::OtherParent { domain, profile, parent: own });
        }
        let bytes = |kept: &[Vec<u32>]| {
            ExpertMask::from_kept(shape, kept).map_or(0, |mask| parent.bank.bytes(&mask))
        };
        let subjects = subjects::subjects(shape, given, profiles, controls, &bytes);
        let mask = |subject: &Subject| match subject.kind {
            Kind::Parent => Ok(None),
            _ => {
                let mask = ExpertMask::from_kept(shape, &subject.kept)?;
                Ok::<_, EvaluateError>(Some(mask.acting(subject.masking)))
            }
        };
        let masks = subjects.iter().map(mask).collect::<Result<_, _>>()?;
        Ok(Self { parent, parts, seed: controls.seed, subjects, masks })
    }

    /// Everything about held-out text.
    ///
    /// # Errors
    ///
    /// [`EvaluateError`]; what was measured before is kept.
    pub fn text(&self, columns: &[Column], progress: Progress) -> Result<Text, EvaluateError> {
        let wanted = |column: &Column| -> Vec<usize> { self.wanted(&column.name) };
        let total: u64 = columns.iter().map(|c| text::scored(c) * wanted(c).len() as u64).sum();
        let mut done = 0;
        let mut headings = Vec::new();
        let mut cells = vec![vec![None; columns.len()]; self.subjects.len()];
        for (at, column) in columns.iter().enumerate() {
            let name = format!("evaluate {}", column.name);
            if text::scored(column) == 0 {
                return Err(EvaluateError::NoTokens { name: column.name.clone() });
            }
            let sha256 = digest(&column.windows);
            let mut step = |tokens: u64| {
                done += tokens;
                progress(done, total, &name);
            };
            let sums = self.sums(column, &sha256, &wanted(column), &mut step)?;
            // The parent reads everything.
            let Some((_, parent)) = sums.first() else { continue };
            for (subject, own) in &sums {
                cells[*subject][at] = cell(parent, own, self.seed);
            }
            headings.push(Heading {
                name: column.name.clone(),
                tokens: text::scored(column),
                items: parent.tokens.len() as u64,
                sha256,
            });
        }
        Ok(Text { columns: headings, cells })
    }

    /// Subjects that read a domain's items: controls by frequency only their own.
    pub(crate) fn wanted(&self, domain: &str) -> Vec<usize> {
        let reads = |s: &Subject| s.kind != Kind::Frequency || s.domain.as_deref() == Some(domain);
        (0..self.subjects.len()).filter(|at| reads(&self.subjects[*at])).collect()
    }

    /// What a part of a subject is made from.
    pub(crate) fn key(&self, what: &str, subject: usize, items: &str) -> Vec<String> {
        let Subject { kind, kept, masking, .. } = &self.subjects[subject];
        let kept = match (kind, masking) {
            (Kind::Parent, _) => "all".to_owned(),
            (_, Masking::BeforeSoftmax) => hash::hex(format!("{kept:?}").as_bytes()),
            (_, masking) => hash::hex(format!("{kept:?} {}", masking.name()).as_bytes()),
        };
        vec![
            what.to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
            self.parent.model.parent(),
            kept,
            items.to_owned(),
        ]
    }

    /// Sums of the wanted subjects on one column, the parent first.
    fn sums(
        &self,
        column: &Column,
        sha256: &str,
        wanted: &[usize],
        step: &mut dyn FnMut(u64),
    ) -> Result<Vec<(usize, Sums)>, EvaluateError> {
        let key = |subject: usize| self.key("text/1", subject, sha256);
        let mut found: Vec<(usize, Option<Sums>)> =
            wanted.iter().map(|at| (*at, self.parts.get(&key(*at)))).collect();
        let known = found.iter().filter(|(_, sums)| sums.is_some()).count() as u64;
        step(text::scored(column) * known);
        loop {
            let open: Vec<usize> =
                found.iter().filter(|(_, sums)| sums.is_none()).map(|(at, _)| *at).collect();
            let group: Vec<usize> = open.iter().copied().filter(|at| *at > 0).take(GROUP).collect();
            if open.is_empty() {
                break;
            }
            let masks: Vec<&ExpertMask> =
                group.iter().filter_map(|at| self.masks[*at].as_ref()).collect();
            let new = group.len() as u64 + u64::from(open.contains(&0));
            let mut each = |tokens| step(tokens * new);
            let sums = text::read(self.parent, &masks, column, &mut each)
                .map_err(EvaluateError::Memory)?;
            for (at, sums) in std::iter::once(0).chain(group).zip(sums) {
                if let Some(stretch) = sums.not_finite() {
                    let (subject, domain) = (self.subjects[at].name.clone(), column.name.clone());
                    return Err(EvaluateError::NotFinite { subject, domain, stretch });
                }
                self.parts.put(&key(at), &sums).map_err(EvaluateError::Keep)?;
                if let Some((_, place)) = found.iter_mut().find(|(own, _)| *own == at) {
                    *place = Some(sums);
                }
            }
        }
        Ok(found.into_iter().filter_map(|(at, sums)| Some((at, sums?))).collect())
    }

    /// All of it as one document.
    pub fn document(
        &self,
        found: Found,
        profiles: &[(Profile, String)],
        files: Vec<Source>,
        command: String,
    ) -> Evaluation {
        let model = &self.parent.model;
        let shape = model.shape();
        let usage: Vec<_> =
            profiles.iter().map(|(profile, sha256)| transfer::usage(profile, sha256)).collect();
        let mut all = Evaluation {
            format: FORMAT.to_owned(),
            origin: Origin {
                parent: model.parent(),
                name: shape.name.clone(),
                architecture: shape.architecture.clone(),
                layers: shape.layers,
                experts: shape.experts,
                top_k: shape.top_k,
                backbone_bytes: model.backbone_bytes(),
                files,
                seed: self.seed,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                command,
            },
            subjects: self.subjects.clone(),
            text: found.text,
            questions: found.questions,
            transfer: Vec::new(),
            usage,
        };
        all.transfer = transfers(&all);
        all
    }
}

/// What a study measured.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub text: Option<Text>,
    pub questions: Option<document::Questions>,
}

#[cfg(test)]
mod tests;
