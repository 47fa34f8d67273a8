//! Models that a hub's own tools have brought to this machine.
//!
//! `owner/name` stands for the folder where `hf download owner/name` puts it; nothing
//! here asks a network.  Source of the layout: huggingface_hub, "Manage the cache".

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of `owner/name`; `None` if that is no such name, or it is not there.
pub(super) fn find(name: &Path) -> Option<PathBuf> {
    within(&cache()?, name)
}

fn within(cache: &Path, name: &Path) -> Option<PathBuf> {
    let (owner, model) = name.to_str()?.split_once('/')?;
    let plain = |part: &str| {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        part.bytes().all(letter) && part.starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    if !plain(owner) || !plain(model) {
        return None;
    }
    let folder = cache.join(format!("models--{owner}--{model}"));
    let version = fs::read_to_string(folder.join("refs/main")).ok()?;
    let version = Some(version.trim()).filter(|version| plain(version))?;
    Some(folder.join("snapshots").join(version)).filter(|found| found.is_dir())
}

fn cache() -> Option<PathBuf> {
    let of = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("HF_HUB_CACHE")
        .or_else(|| Some(of("HF_HOME")?.join("hub")))
        .or_else(|| Some(of("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(env::home_dir()?.join(".cache/huggingface/hub")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models() {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--maker--mini-LM.2");
        let there = model.join("snapshots/abc123");
        fs::create_dir_all(&there).unwrap();
        fs::create_dir_all(model.join("refs")).unwrap();
        fs::write(model.join("refs/main"), "abc123\n").unwrap();
        let find = |name: &str| within(cache.path(), Path::new(name));
        assert_eq!(find("maker/mini-LM.2"), Some(there));
        for name in
            ["maker/other", "maker", "maker/", "/maker/mini-LM.2", "../maker/mini-LM.2", "maker/.."]
        {
            assert_eq!(find(name), None, "{name}");
        }
        // A version is a name, not a way out of the cache.
        fs::write(model.join("refs/main"), "../../..").unwrap();
        assert_eq!(find("maker/mini-LM.2"), None);
    }
}
