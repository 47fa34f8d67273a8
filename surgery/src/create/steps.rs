//! The steps from the mask on, each of which leaves its file and is not done again where that is there.
//!
//! A file is taken for an earlier run's only where it names what it was made from, and that is the same.

use engine::{MaskFile, Profile};
use serde::{Deserialize, Serialize};
use specialists::Evaluation;

use super::folder::{io, read, write};
use super::{CONTROLS, CreateError, Made, PROBED, Recipe};
use crate::coherence;
use crate::evaluate::document::Source;
use crate::evaluate::{Column, Found, Given, Kind, Parts, Study, Table};
use crate::report;
use crate::tokens::{self, Reading, TokensError, Window};
use crate::verify;
use crate::{Parent, Progress};

/// Whether one mask will do, where the profile can say; its files are in a folder of their own.
pub(super) fn coherent(
    profile: &Profile,
    file: &MaskFile,
    recipe: &Recipe,
    made: &Made,
) -> Result<Option<coherence::Report>, CreateError> {
    let layers = file.experts.iter().filter(|kept| **kept > 0);
    let keep = layers.clone().sum::<usize>() / layers.count().max(1);
    let Ok(report) = coherence::judge(profile, coherence::Question { keep, seed: 1 }) else {
        // Profiles of traffic have no items, and short corpora too few.
        return Ok(None);
    };
    let corpus = made.texts.map(|(reading, _)| reading.corpus);
    report.write(&recipe.folder.join("coherence"), &profile.source, corpus)?;
    Ok(Some(report))
}

/// A mask on its way to be registered.
pub(super) struct Masked<'a> {
    pub parent: &'a Parent,
    pub file: &'a MaskFile,
    pub sha256: &'a str,
    /// What it was made from, and the hash of its file.
    pub profile: (&'a Profile, &'a str),
    pub recipe: &'a Recipe,
}

/// An evaluation and what it was made from.
#[derive(Serialize, Deserialize)]
struct Evaluated {
    mask_sha256: String,
    held_out: String,
    table: Table,
}

impl Masked<'_> {
    /// The report of an earlier run or a new one; it passed.
    pub fn verified(
        &self,
        reading: Option<Reading>,
        progress: Progress,
    ) -> Result<verify::Report, CreateError> {
        let path = self.recipe.folder.join("report.json");
        let same = |r: &verify::Report| {
            r.passed && r.subject == self.sha256 && r.parent == self.file.parent
        };
        if let Some(report) = read::<verify::Report>(&path).filter(same) {
            return Ok(report);
        }
        let windows = probed(self.parent, reading)?;
        let probes = verify::probes(self.parent.model.shape(), &windows);
        let report = verify::mask(self.parent, self.file, self.sha256, &probes, progress)?;
        write(&path, &report)?;
        match report.failure() {
            None => Ok(report),
            Some(check) => {
                let (check, detail) = (check.name.clone(), check.detail.clone());
                Err(CreateError::Unverified { check, detail })
            }
        }
    }

    /// The table of an earlier run or a new one; the page is in a folder of its own.
    pub fn evaluated(&self, held_out: Reading, progress: Progress) -> Result<Table, CreateError> {
        let folder = self.recipe.folder.join("evaluation");
        let path = folder.join("made.json");
        let source = held_out.source()?;
        let same = |e: &Evaluated| e.mask_sha256 == self.sha256 && e.held_out == source;
        if let Some(before) = read::<Evaluated>(&path).filter(same) {
            return Ok(before.table);
        }
        let windows = tokens::collect(&self.parent.model, held_out)?;
        let columns = [Column { name: self.file.domain.clone(), windows }];
        let parts_folder = folder.join("parts");
        let parts = Parts::at(&parts_folder).map_err(io(&parts_folder))?;
        let given = [Given { file: self.file.clone(), sha256: self.sha256.to_owned() }];
        let (profile, profile_sha256) = self.profile;
        let profiles = [(profile.clone(), profile_sha256.to_owned())];
        let study =
            Study::new(self.parent, &given, std::slice::from_ref(profile), CONTROLS, &parts)?;
        let text = study.text(&columns, progress)?;
        let table = Table::new(&study.subjects, &text, self.parent.model.parent());
        let found = Found { text: Some(text), questions: None };
        let corpus = Source {
            role: "corpus".to_owned(),
            name: held_out.corpus.name(),
            sha256: held_out.corpus.sha256().map_err(TokensError::from)?,
        };
        let document = study.document(found, &profiles, vec![corpus], "surgery create".to_owned());
        // Until the last of them is written, they are nobody's.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io(&path)(error));
            }
            _ => {}
        }
        write(&folder.join("evaluation.json"), &document)?;
        for (name, text) in [
            ("evaluation.md", report::markdown(&document)),
            ("evaluation.html", report::html(&document)?),
        ] {
            let path = folder.join(name);
            engine::file::replace(&path, text.as_bytes()).map_err(io(&path))?;
        }
        let evaluated = Evaluated { mask_sha256: self.sha256.to_owned(), held_out: source, table };
        write(&path, &evaluated)?;
        Ok(evaluated.table)
    }
}

/// Some windows of the corpus, spread over it.
fn probed(parent: &Parent, reading: Option<Reading>) -> Result<Vec<Window>, CreateError> {
    let Some(reading) = reading else { return Ok(Vec::new()) };
    let reading = Reading { tokens: Some(PROBED), ..reading };
    Ok(tokens::collect(&parent.model, reading)?)
}

/// What the manifest says of a table with one column.
pub(super) fn at_home(table: &Table) -> Option<Evaluation> {
    let nats = |kind| table.rows(kind).next()?.nats.first().copied();
    Some(Evaluation {
        tokens: table.columns.first()?.tokens,
        parent_nats: nats(Kind::Parent)?,
        specialist_nats: nats(Kind::Mask)?,
        random_nats: nats(Kind::Random)?,
    })
}
