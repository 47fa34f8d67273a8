//! Finds the files, reads them, and puts them together.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::domains::Source;
use crate::reader::read_file;
use crate::settings::{parse, shipped_text};
use crate::{Config, ConfigError, Domain, Domains};

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/domains");

/// The name of the settings' file, and of the shipped one in messages.
const FILE: &str = "collegium.toml";

/// A configuration that has been checked as a whole.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub domains: Domains,
    /// The file it came from; `None` is the shipped one.
    pub source: Option<PathBuf>,
}

impl Loaded {
    /// The folder of the operator's domains, which need not exist; the shipped
    /// settings have none.
    pub fn folder(&self) -> Option<PathBuf> {
        Some(domains_beside(self.source.as_deref()?))
    }
}

fn domains_beside(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join("domains")
}

/// Reads the configuration: `file` if given, else `./collegium.toml` if there
/// is one, else the shipped one.
///
/// Domains are the shipped ones and those in `domains/*.toml` beside the file;
/// the same id replaces the shipped domain.
///
/// # Errors
///
/// [`ConfigError`] for whatever cannot be read or used; nothing is ignored.
pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    match file {
        Some(file) => from_file(file),
        None if Path::new(FILE).exists() => from_file(Path::new(FILE)),
        None => shipped(),
    }
}

/// The configuration and the domains inside the binary.
pub fn shipped() -> Result<Loaded, ConfigError> {
    together(FILE, shipped_text(), Path::new(""), shipped_domains()?, None)
}

fn from_file(file: &Path) -> Result<Loaded, ConfigError> {
    let text = read_file(file)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut domains = shipped_domains()?;
    for own in own_domains(&domains_beside(file))? {
        domains.retain(|shipped| shipped.domain.id != own.domain.id);
        domains.push(own);
    }
    together(&file.display().to_string(), &text, folder, domains, Some(file.to_owned()))
}

fn together(
    file: &str,
    text: &str,
    folder: &Path,
    domains: Vec<Source>,
    source: Option<PathBuf>,
) -> Result<Loaded, ConfigError> {
    let mut config = parse(file, text, folder)?;
    let domains = Domains::from_sources(domains)?;
    config.supervisor.fallback = match config.supervisor.fallback.as_deref() {
        None | Some("generalist") => None,
        Some(label) => Some(domains.served(file, "supervisor.fallback", label)?),
    };
    Ok(Loaded { config, domains, source })
}

pub(crate) fn shipped_domains() -> Result<Vec<Source>, ConfigError> {
    let toml = |path: &Path| path.extension().is_some_and(|e| e == "toml");
    let files = SHIPPED.files().filter(|file| toml(file.path()));
    files
        .map(|file| {
            let name = format!("domains/{}", file.path().display());
            let text = file.contents_utf8().unwrap_or_default();
            let domain = Domain::parse(&name, text, &stem(file.path()), None)?;
            Ok(Source { file: name, domain })
        })
        .collect()
}

/// The operator's domains, by file name; none where the folder is missing.
fn own_domains(folder: &Path) -> Result<Vec<Source>, ConfigError> {
    domain_files(folder)?.into_iter().map(|(_, path)| own_domain(&path)).collect()
}

/// The ids that files of the folder claim by their names, and the files, in order.
pub(crate) fn domain_files(folder: &Path) -> Result<Vec<(String, PathBuf)>, ConfigError> {
    let fail = |source| ConfigError::Read { file: folder.display().to_string(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(fail(err)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        // Editors leave `.law.toml.swp` and the like beside a file.
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|e| e == "toml") && !hidden {
            paths.push((stem(&path), path));
        }
    }
    // The order of a folder is the file system's; messages should not vary.
    paths.sort();
    Ok(paths)
}

/// The domain that a file describes; an `examples_file` is looked for beside it.
pub(crate) fn own_domain(path: &Path) -> Result<Source, ConfigError> {
    let name = path.display().to_string();
    let domain = Domain::parse(&name, &read_file(path)?, &stem(path), path.parent())?;
    Ok(Source { file: name, domain })
}

/// One domain's file, on its own: whether it goes with others is not asked.
///
/// # Errors
///
/// [`ConfigError`] with the file and the key.
pub fn domain_at(path: &Path) -> Result<Domain, ConfigError> {
    own_domain(path).map(|source| source.domain)
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Where Collegium keeps its state: `flag`, else `$COLLEGIUM_HOME`, else
/// `collegium` in the platform's data folder.
pub fn home(flag: Option<&Path>) -> PathBuf {
    home_by(flag, |name| std::env::var_os(name))
}

fn home_by(flag: Option<&Path>, var: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification has relative paths ignored.
    let data = || set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let user = || set("HOME").map(|home| home.join(".local/share"));
    if let Some(home) = flag.map(Path::to_owned).or_else(|| set("COLLEGIUM_HOME")) {
        return home;
    }
    match data().or_else(user) {
        Some(data) => data.join("collegium"),
        // A container without a user: stay where we were started.
        None => PathBuf::from(".collegium"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `files` (`path: text`) into a folder and loads its collegium.toml.
    #[track_caller]
    fn check(files: &[(&str, &str)], show: impl Fn(&Loaded) -> String, want: &str) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let got = match load(Some(&folder.path().join("collegium.toml"))) {
            Ok(loaded) => show(&loaded),
            Err(err) => err.to_string(),
        };
        let got = got.replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(got, want);
    }

    fn ids(loaded: &Loaded) -> String {
        loaded.domains.iter().filter(|d| d.id.starts_with('t')).map(|d| d.id.as_str()).collect()
    }

    #[test]
    fn domains_beside_the_file() {
        let tea = ("domains/tea.toml", "examples_file = 'tea.txt'\naliases = ['chai']");
        let lines = ("domains/tea.txt", "How long does green tea steep?\n");
        let examples = |l: &Loaded| l.domains.get("tea").unwrap().examples.join("|");
        check(&[("collegium.toml", ""), tea, lines], ids, "tea");
        check(&[("collegium.toml", ""), tea, lines], examples, "How long does green tea steep?");
        check(&[("collegium.toml", "")], ids, "");
        // What an editor leaves behind is not a domain.
        check(
            &[("collegium.toml", ""), ("domains/.tea.toml", "?"), ("domains/t.toml~", "?")],
            ids,
            "",
        );
        // The same id replaces the shipped one, wholly.
        let law = |l: &Loaded| format!("{:?}", l.domains.get("law").unwrap());
        let mut bare = Domain::new("law");
        bare.enabled = false;
        let own = ("domains/law.toml", "enabled = false");
        check(&[("collegium.toml", ""), own], law, &format!("{bare:?}"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let empty = ("collegium.toml", "");
        check(&[], ids, "collegium.toml: cannot be read: No such file or directory (os error 2)");
        check(
            &[empty, ("domains/tea.toml", "exampels = []")],
            ids,
            "domains/tea.toml: unknown key \"exampels\"; did you mean \"examples\"?",
        );
        check(
            &[empty, ("domains/Tea.toml", "")],
            ids,
            "domains/Tea.toml: \"id\" is \"Tea\"; it must be 1 to 64 of a-z, 0-9 and \"-\" (not at \
             the ends), and not \"auto\", \"generalist\" or \"none\"",
        );
        check(
            &[empty, ("domains/medicine.toml", "")],
            ids,
            "domains/medicine.toml: \"medicine\" already names the domain \"health\"; take another \
             word for \"medicine\", or remove it there by a file domains/health.toml of your own",
        );
        check(
            &[empty, ("domains/tea.toml", "examples_file = 'no.txt'")],
            ids,
            "domains/no.txt: cannot be read: No such file or directory (os error 2)",
        );
        check(
            &[("collegium.toml", "supervisor.fallback = 'maths!'")],
            ids,
            "collegium.toml: \"supervisor.fallback\" is \"maths!\", which is not an enabled domain; \
             did you mean \"math\"?",
        );
        // A model named by mistake.
        let read = |bytes: usize| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("m.gguf");
            fs::write(&path, vec![b'#'; bytes]).unwrap();
            load(Some(&path)).map(|_| ()).map_err(|err| err.to_string())
        };
        assert!(read(5 << 20).unwrap_err().ends_with("cannot be read: it is larger than 4 MiB"));
    }

    #[test]
    fn fallback_may_be_an_alias() {
        let fallback = |l: &Loaded| format!("{:?}", l.config.supervisor.fallback);
        check(&[("collegium.toml", "supervisor.fallback = 'Maths'")], fallback, "Some(\"math\")");
        check(&[("collegium.toml", "supervisor.fallback = 'generalist'")], fallback, "None");
    }

    #[test]
    fn homes() {
        #[track_caller]
        fn check(flag: Option<&str>, vars: &[(&str, &str)], want: &str) {
            let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
            assert_eq!(home_by(flag.map(Path::new), var), Path::new(want));
        }
        let all = [("COLLEGIUM_HOME", "/c"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        check(Some("f"), &all, "f");
        check(None, &all, "/c");
        check(None, &all[1..], "/x/collegium");
        check(None, &all[2..], "/h/.local/share/collegium");
        check(
            None,
            &[("COLLEGIUM_HOME", ""), ("XDG_DATA_HOME", "rel"), ("HOME", "/h")],
            "/h/.local/share/collegium",
        );
        check(None, &[], ".collegium");
    }

    /// The shipped domains keep the promises the README makes about them.
    #[test]
    fn shipped_domains_are_whole() {
        let Loaded { domains, .. } = shipped().unwrap();
        let ids: Vec<&str> = domains.iter().map(|d| d.id.as_str()).collect();
        let want = [
            "biology",
            "business",
            "chemistry",
            "computer-science",
            "economics",
            "engineering",
            "health",
            "history",
            "law",
            "math",
            "other",
            "philosophy",
            "physics",
            "psychology",
        ];
        assert_eq!(ids, want);
        for domain in domains.iter() {
            assert_eq!(domain.examples.len(), 20, "{}", domain.id);
            assert!(!domain.description.is_empty() && !domain.aliases.is_empty(), "{}", domain.id);
            assert_eq!(domain.enabled, domain.id != "other");
        }
        let label = |label: &str| domains.canonical(label).unwrap_or("-").to_owned();
        assert_eq!(label("computer science"), "computer-science");
        assert_eq!(label("computer_science"), "computer-science");
        for (alias, id) in [
            ("medicine", "health"),
            ("code", "computer-science"),
            ("legal", "law"),
            ("programming", "computer-science"),
            ("python", "computer-science"),
            ("maths", "math"),
        ] {
            assert_eq!(label(alias), id);
        }
    }

    proptest::proptest! {
        /// Whatever stands in the files, loading ends in a value or an error.
        #[test]
        fn hostile_files_never_panic(
            key in "[a-z_.\"']{0,12}|sampling.top_p|upstream|memory.budget|server.listen|aliases",
            value in "\\PC{0,24}|-?[0-9]{1,24}|\"[0-9.]{0,6}[ KMGTiB]{0,4}\"|\\[\"[a-z -]{0,6}\"\\]",
        ) {
            let text = format!("{key} = {value}");
            let _ = parse("collegium.toml", &text, Path::new(""));
            let domain = Domain::parse("domains/tea.toml", &text, "tea", None);
            if let Ok(domain) = domain {
                let _ = Domains::new(vec![domain]);
            }
        }
    }
}
