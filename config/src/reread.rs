//! The domains' folder while a server runs: what of it can be used now.
//!
//! In: the folder and the domains in use.  Out: the domains to use next, and by
//! file what was refused.  A file that cannot be used changes nothing: what it
//! said before stays in use, and so do all others.
//!
//! Each change (a file that is new, other, or gone) is tried on its own after
//! all of them together failed, again and again while one of them succeeds, so
//! that two files which need each other come in together or one after the other.
//!
//! Absent: watching.  Who watches compares [`Stamp`]s, as often as it likes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::domains::Source;
use crate::load::{domain_files, own_domain, shipped_domains};
use crate::{ConfigError, Domain, Domains};

/// What a folder looked like: two that are equal hold the same files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, u64, Option<SystemTime>, u64)>);

impl Stamp {
    /// Of every file in `folder`, examples' files too; empty where there is none.
    pub fn of(folder: &Path) -> Stamp {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // Through links: folders that are mounted swap the link's target.
            if let Ok(meta) = fs::metadata(&path)
                && meta.is_file()
            {
                files.push((path, meta.len(), meta.modified().ok(), inode(&meta)));
            }
        }
        files.sort();
        Stamp(files)
    }
}

#[cfg(unix)]
fn inode(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

/// A file that is not in use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The domain's id, which is the file's name.
    pub id: String,
    /// Names the file, too.
    pub why: String,
}

/// What is to be used next.
#[derive(Clone, Debug)]
pub struct Reread {
    pub domains: Domains,
    /// Ids whose domain is new, other, or gone.
    pub changed: Vec<String>,
    pub refused: Vec<Refused>,
}

/// One difference between the folder and what runs.
struct Change {
    id: String,
    /// `None` takes the domain away.
    to: Option<Domain>,
}

/// Reads `folder` again and takes over what can be used.
///
/// `check` says what else is wrong with a set of domains, if anything.
///
/// # Errors
///
/// [`ConfigError`] if the folder itself cannot be read; nothing changes then.
pub fn reread(
    folder: &Path,
    running: &Domains,
    check: &dyn Fn(&Domains) -> Result<(), String>,
) -> Result<Reread, ConfigError> {
    let (mut found, mut refused) = (BTreeMap::new(), Vec::new());
    for Source { domain, .. } in shipped_domains()? {
        found.insert(domain.id.clone(), domain);
    }
    for (id, path) in domain_files(folder)? {
        match own_domain(&path) {
            Ok(Source { domain, .. }) => drop(found.insert(id, domain)),
            Err(error) => {
                // What it said before, if anything.
                match running.get(&id) {
                    Some(domain) => drop(found.insert(id.clone(), domain.clone())),
                    None => drop(found.remove(&id)),
                }
                refused.push(Refused { id, why: error.to_string() });
            }
        }
    }
    let mut open = changes(running, found);
    let mut at = running.clone();
    let mut changed: Vec<String> = Vec::new();
    if let Ok(all) = applied(&at, &open, check) {
        at = all;
        changed.extend(open.drain(..).map(|change| change.id));
    }
    loop {
        let before = open.len();
        let mut why = Vec::new();
        for change in std::mem::take(&mut open) {
            match applied(&at, std::slice::from_ref(&change), check) {
                Ok(next) => {
                    at = next;
                    changed.push(change.id);
                }
                Err(error) => {
                    why.push(Refused { id: change.id.clone(), why: error });
                    open.push(change);
                }
            }
        }
        if open.len() == before {
            refused.extend(why);
            break;
        }
    }
    changed.sort();
    refused.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Reread { domains: at, changed, refused })
}

fn changes(running: &Domains, mut found: BTreeMap<String, Domain>) -> Vec<Change> {
    for domain in found.values_mut() {
        // In use, a fallback is an id, whatever word the file has for it.
        let id = domain.fallback.as_deref().and_then(|label| running.canonical(label));
        if let Some(id) = id.map(str::to_owned) {
            domain.fallback = Some(id);
        }
    }
    let gone = running.iter().filter(|domain| !found.contains_key(&domain.id));
    let mut changes: Vec<Change> =
        gone.map(|domain| Change { id: domain.id.clone(), to: None }).collect();
    let other = found.into_iter().filter(|(id, domain)| running.get(id) != Some(domain));
    changes.extend(other.map(|(id, domain)| Change { id, to: Some(domain) }));
    changes
}

fn applied(
    at: &Domains,
    changes: &[Change],
    check: &dyn Fn(&Domains) -> Result<(), String>,
) -> Result<Domains, String> {
    let mut all: BTreeMap<String, Domain> = at.iter().map(|d| (d.id.clone(), d.clone())).collect();
    for Change { id, to } in changes {
        match to {
            Some(domain) => drop(all.insert(id.clone(), domain.clone())),
            None => drop(all.remove(id)),
        }
    }
    let domains = Domains::new(all.into_values().collect()).map_err(|error| error.to_string())?;
    check(&domains)?;
    Ok(domains)
}

#[cfg(test)]
#[path = "reread_tests.rs"]
mod tests;
