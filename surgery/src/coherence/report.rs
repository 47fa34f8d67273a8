//! What is found, for people: text, and files in a folder.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use super::{LEAST_COVERAGE, LEAST_GAIN, Report, Verdict};
use crate::corpus::{Corpus, CorpusError};

/// Words of a line that are shown of an example.
const WORDS: usize = 9;

#[derive(Debug, Error)]
pub enum ReportError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    #[error(
        "{path} is not the corpus that was profiled ({source_text:?}); its lines are other ones"
    )]
    OtherCorpus { path: PathBuf, source_text: String },
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// First words of lines, by line.
pub type Beginnings = std::collections::BTreeMap<i64, String>;

impl Report {
    /// What was found and what to do, in Markdown.
    pub fn to_markdown(&self, beginnings: &Beginnings) -> String {
        let mut text = String::new();
        let Report { domain, items, seen, keep, experts, one, own, silhouette, chance, .. } = self;
        let of = if *seen > *items as u64 { format!(" of {seen}") } else { String::new() };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# {domain}: {}\n", self.headline());
        let _ = writeln!(
            text,
            "One mask of {keep} of {experts} experts a layer keeps {:.3} of what {items}{of} items ask of the \
             router; of nine in ten items at least {:.3}. Groups of items: silhouette {silhouette:.3}, by \
             chance {chance:.3}; masks of their own would keep {:.3} more.",
            one.mean, one.least, self.gain
        );
        if self.verdict != Verdict::One {
            let _ = writeln!(
                text,
                "With {} experts a layer one mask would keep {LEAST_COVERAGE} of nine in ten items.",
                self.enough
            );
        }
        if self.parts.is_empty() {
            return text;
        }
        let _ = writeln!(
            text,
            "With a mask for each part, of the same size, it is {:.3}, and {:.3} of nine in ten; masks of two \
             parts have {:.2} of their experts in common (Jaccard). All figures are of items that the masks \
             were not made from.\n",
            own.mean,
            own.least,
            self.overlap.unwrap_or(0.0)
        );
        let _ = writeln!(text, "| part | items | tokens | one mask | its own | nine in ten |");
        let _ = writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: |");
        for (at, part) in self.parts.iter().enumerate() {
            let name = self.part_name(at);
            let _ = writeln!(
                text,
                "| {name} | {} | {:.0} % | {:.3} | {:.3} | {:.3} |",
                part.items,
                100.0 * part.share,
                part.one.mean,
                part.own.mean,
                part.own.least
            );
        }
        for (at, part) in self.parts.iter().enumerate() {
            let _ = writeln!(text, "\n## {}\n", self.part_name(at));
            let experts: Vec<String> = part
                .experts
                .iter()
                .map(|t| {
                    let (here, there) = (100.0 * t.share, 100.0 * t.elsewhere);
                    format!("{}/{} ({here:.0} % against {there:.0} %)", t.layer, t.expert)
                })
                .collect();
            let _ =
                writeln!(text, "Experts (layer/expert) it uses more: {}.\n", experts.join(", "));
            for line in &part.lines {
                let words = beginnings.get(line).map(|words| format!(": {words}"));
                let _ = writeln!(text, "- line {line}{}", words.unwrap_or_default());
            }
        }
        text
    }

    /// In one sentence.
    pub fn headline(&self) -> String {
        match self.verdict {
            Verdict::One => format!("one mask of {} experts a layer will do", self.keep),
            Verdict::Larger => format!(
                "it does not fall into parts, but {} experts a layer are too few: {} would do",
                self.keep, self.enough
            ),
            Verdict::Split => format!(
                "{} parts, which masks of their own cover better than one does, by {:.3} (at least {LEAST_GAIN})",
                self.parts.len(),
                self.gain
            ),
        }
    }

    fn part_name(&self, at: usize) -> String {
        format!("{}-{}", self.domain, at + 1)
    }

    /// Line, part and coverage of each item.
    fn to_csv(&self) -> String {
        let mut text = "line,part,one_mask,own_mask\n".to_owned();
        for item in &self.each {
            let part = item.part.map(|at| self.part_name(at)).unwrap_or_default();
            let _ = writeln!(text, "{},{part},{:.4},{:.4}", item.line, item.one, item.own);
        }
        text
    }

    /// First words of the lines that are named as examples.
    ///
    /// # Errors
    ///
    /// When the corpus is not `source`'s, or cannot be read.
    pub fn beginnings(&self, corpus: &Corpus, source: &str) -> Result<Beginnings, ReportError> {
        same(corpus, source)?;
        let wanted: std::collections::BTreeSet<i64> =
            self.parts.iter().flat_map(|part| part.lines.iter().copied()).collect();
        let mut found = Beginnings::new();
        corpus.lines(&mut |line, text| {
            let line = i64::try_from(line).unwrap_or(i64::MAX);
            if wanted.contains(&line)
                && let Some(words) = beginning(text)
            {
                found.insert(line, words);
            }
            Ok::<(), ReportError>(())
        })?;
        Ok(found)
    }

    /// `coherence.json`, `coherence.md` and `items.csv`, and of each part its lines of the corpus, if one is given.  The
    /// files that were written.
    ///
    /// # Errors
    ///
    /// When one cannot be written, or the corpus is not the one that `source` names.
    pub fn write(
        &self,
        folder: &Path,
        source: &str,
        corpus: Option<&Corpus>,
    ) -> Result<Vec<PathBuf>, ReportError> {
        fs::create_dir_all(folder).map_err(io_at(folder))?;
        let beginnings = match corpus {
            Some(corpus) => self.beginnings(corpus, source)?,
            None => Beginnings::new(),
        };
        let mut written = Vec::new();
        for (name, text) in [
            ("items.csv", self.to_csv()),
            ("coherence.md", self.to_markdown(&beginnings)),
            ("coherence.json", serde_json::to_string_pretty(self)? + "\n"),
        ] {
            let path = folder.join(name);
            engine::file::replace(&path, text.as_bytes()).map_err(io_at(&path))?;
            written.push(path);
        }
        if let Some(corpus) = corpus {
            written.extend(self.write_parts(folder, corpus)?);
        }
        Ok(written)
    }

    /// A corpus for each part.
    fn write_parts(&self, folder: &Path, corpus: &Corpus) -> Result<Vec<PathBuf>, ReportError> {
        let paths: Vec<PathBuf> = (0..self.parts.len())
            .map(|at| folder.join(format!("{}.jsonl", self.part_name(at))))
            .collect();
        let part_of: std::collections::HashMap<i64, usize> =
            self.each.iter().filter_map(|item| Some((item.line, item.part?))).collect();
        let partial: Vec<PathBuf> = paths.iter().map(|path| engine::file::beside(path)).collect();
        let result = (|| {
            let mut files = Vec::new();
            for path in &partial {
                files.push(BufWriter::new(File::create(path).map_err(io_at(path))?));
            }
            corpus.lines(&mut |line, text| {
                let line = i64::try_from(line).unwrap_or(i64::MAX);
                let Some(part) = part_of.get(&line) else { return Ok(()) };
                let mut bytes = [text.trim_ascii_end(), b"\n"].into_iter();
                bytes
                    .try_for_each(|bytes| io::Write::write_all(&mut files[*part], bytes))
                    .map_err(io_at(&partial[*part]))
            })?;
            for (file, (from, to)) in files.into_iter().zip(partial.iter().zip(&paths)) {
                let file = file.into_inner().map_err(|e| io_at(from)(e.into_error()))?;
                file.sync_all().map_err(io_at(from))?;
                fs::rename(from, to).map_err(io_at(to))?;
            }
            Ok(())
        })();
        if result.is_err() {
            partial.iter().for_each(|path| drop(fs::remove_file(path)));
        }
        result.map(|()| paths)
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> ReportError {
    move |error| ReportError::Io { path: path.to_owned(), error }
}

/// That a profile's source names this corpus.
fn same(corpus: &Corpus, source: &str) -> Result<(), ReportError> {
    match source.contains(&corpus.sha256()?) {
        true => Ok(()),
        false => Err(ReportError::OtherCorpus {
            path: corpus.path().to_owned(),
            source_text: source.to_owned(),
        }),
    }
}

/// The first words of what a line says.
fn beginning(line: &[u8]) -> Option<String> {
    let row: Value = serde_json::from_slice(line).ok()?;
    let messages = || row.get("messages")?.as_array()?.iter().find(|m| m["role"] == "user");
    let text = ["question", "prompt", "text"]
        .iter()
        .find_map(|key| row.get(*key)?.as_str())
        .or_else(|| messages()?.get("content")?.as_str())?;
    let mut words: Vec<&str> = text.split_whitespace().take(WORDS + 1).collect();
    let more = words.len() > WORDS;
    words.truncate(WORDS);
    Some(words.join(" ") + if more { " …" } else { "" })
}
