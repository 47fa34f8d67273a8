//! `collegium.toml`: every setting of the server, with its default.
//!
//! The defaults live here; `collegium.toml` in this crate states them for the
//! reader, and a test holds the two together.

use std::path::{Path, PathBuf};

use crate::domain::circles;
use crate::reader::Reader;
use crate::{BadDevice, BadPrecision, Bytes, Circles, ConfigError, Device, Missing, Precision};

/// Every key of `collegium.toml`.
pub(crate) const KEYS: &[&str] = &[
    "server.listen",
    "server.keys",
    "server.max_queue",
    "parent.path",
    "memory.device",
    "memory.budget",
    "memory.kv",
    "memory.kv_type",
    "memory.missing",
    "supervisor.threshold",
    "supervisor.fallback",
    "supervisor.encoder",
    "conversations.margin",
    "conversations.reread",
    "conversations.reload",
    "conversations.idle",
    "conversations.remembered",
    "serving.circles",
    "serving.lookup",
    "traffic.record",
    "autopilot.enabled",
    "autopilot.tokens",
    "autopilot.keep",
    "autopilot.coverage",
    "specialists.disabled",
];

/// All settings; [`Config::default`] is what ships.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub server: Server,
    pub parent: Parent,
    pub memory: Memory,
    pub supervisor: Supervisor,
    pub conversations: Conversations,
    pub serving: Serving,
    pub traffic: Traffic,
    pub autopilot: Autopilot,
    pub specialists: Specialists,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Bearer keys that are let in; empty asks for none.
    pub keys: Vec<String>,
    /// Answers that may wait for their first token at once; the next one is refused with 429.
    pub max_queue: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parent {
    /// A GGUF file; `None` is the embedded nano parent.
    pub path: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// `auto` or `cpu`.
    pub device: Device,
    /// Everything the ledger counts; `None` lets the pool measure.
    pub budget: Option<Bytes>,
    /// The part of the budget for KV pages; `None` lets the pool choose.
    pub kv: Option<Bytes>,
    /// How exactly keys and values are kept.
    pub kv_type: Precision,
    /// What the generalist does where its experts do not all fit.
    pub missing: Missing,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Supervisor {
    /// Least calibrated probability, 0 to 1, at which a domain is chosen.
    pub threshold: f32,
    /// The domain that answers when the supervisor abstains; `None` is the
    /// generalist.
    pub fallback: Option<String>,
    pub encoder: Encoder,
}

/// The supervisor's second stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Encoder {
    /// The one inside the binary, if it was built with one.
    #[default]
    Shipped,
    /// None: the lexical stage decides alone.
    Off,
    /// A file or folder.
    Path(PathBuf),
}

/// When a conversation moves to another specialist.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversations {
    /// How much likelier, 0 to 1, another domain must be than the conversation's own.
    pub margin: f32,
    /// Added to it for each 1,000 tokens that would be read again.
    pub reread: f32,
    /// Added to it for each GiB of experts that would be loaded.
    pub reload: f32,
    /// Seconds without a turn after which a conversation is forgotten.
    pub idle: u64,
    /// Turns of conversations remembered at most.
    pub remembered: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// For answers whose domain and request say nothing.
    pub circles: Circles,
    /// Whether next tokens are guessed from what was said before.
    pub lookup: bool,
}

impl Default for Serving {
    fn default() -> Self {
        Serving { circles: Circles::default(), lookup: true }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Whether texts are kept; counts always are.
    pub record: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Autopilot {
    pub enabled: bool,
    /// Tokens of a domain seen before a specialist is made for it.
    pub tokens: u64,
    /// Share of each layer's experts a specialist keeps, above 0 and at most 1.
    pub keep: f32,
    /// Least coverage, 0 to 1, on held-back counts for a specialist to be served.
    pub coverage: f32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Specialists {
    /// Ids, shipped or registered, that are not served.
    pub disabled: Vec<String>,
}

impl Default for Server {
    fn default() -> Server {
        // Only this machine: opening a model to a network is a decision.
        Server { listen: "127.0.0.1:8080".into(), keys: Vec::new(), max_queue: 256 }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            device: Device::Auto,
            budget: None,
            kv: None,
            // Twice the conversations for a rounding far below that of weights in blocks; measured in the engine's README.
            kv_type: Precision::F16,
            missing: Missing::default(),
        }
    }
}

impl Default for Supervisor {
    fn default() -> Supervisor {
        Supervisor { threshold: 0.5, fallback: None, encoder: Encoder::default() }
    }
}

impl Default for Conversations {
    fn default() -> Conversations {
        // A clear change of topic gains more than half; two near domains differ by less than the margin.
        Conversations { margin: 0.2, reread: 0.02, reload: 0.05, idle: 3600, remembered: 8192 }
    }
}

impl Default for Autopilot {
    fn default() -> Autopilot {
        Autopilot { enabled: true, tokens: 20_000, keep: 0.5, coverage: 0.8 }
    }
}

/// The shipped `collegium.toml`, to show or to copy.
pub fn shipped_text() -> &'static str {
    include_str!("../collegium.toml")
}

/// Reads the text of a `collegium.toml`.  `file` is its name in messages;
/// relative paths within are relative to `folder`.
pub(crate) fn parse(file: &str, text: &str, folder: &Path) -> Result<Config, ConfigError> {
    let r = Reader::new(file, text, KEYS)?;
    let mut config = Config::default();
    let Config { server, parent, memory, supervisor, conversations, .. } = &mut config;

    set(&mut server.listen, r.text("server.listen")?);
    if !is_address(&server.listen) {
        return Err(r.refuse("server.listen", "an address such as \"127.0.0.1:8080\""));
    }
    set(&mut server.keys, r.texts("server.keys")?);
    if server.keys.iter().any(|key| key.trim().is_empty()) {
        return Err(secret(&r, "server.keys", "a list of non-empty keys"));
    }
    set(&mut server.max_queue, r.count("server.max_queue", 1)?.map(saturate));

    parent.path = r.text("parent.path")?.map(|path| resolve(folder, &path));
    if r.text("parent.path")?.is_some_and(|path| path.trim().is_empty()) {
        return Err(r.refuse("parent.path", "the path of a GGUF file, or left out"));
    }

    if let Some(word) = r.text("memory.device")? {
        memory.device =
            word.parse().map_err(|bad: BadDevice| r.refuse("memory.device", &bad.to_string()))?;
    }
    memory.budget = r.bytes("memory.budget")?;
    memory.kv = r.bytes("memory.kv")?;
    if let (Some(budget), Some(kv)) = (memory.budget, memory.kv)
        && kv >= budget
    {
        return Err(r.refuse("memory.kv", &format!("below memory.budget ({budget})")));
    }

    if let Some(word) = r.text("memory.kv_type")? {
        memory.kv_type = word
            .parse()
            .map_err(|bad: BadPrecision| r.refuse("memory.kv_type", &bad.to_string()))?;
    }

    match r.text("memory.missing")?.as_deref() {
        None => {}
        Some("map") => memory.missing = Missing::Map,
        Some("fetch") => memory.missing = Missing::Fetch,
        Some("renormalise") => memory.missing = Missing::Renormalise,
        Some(_) => {
            return Err(r.refuse("memory.missing", "\"map\", \"fetch\" or \"renormalise\""));
        }
    }

    let share = |key| r.number(key, "a number from 0 to 1", |n| (0.0..=1.0).contains(&n));
    set(&mut supervisor.threshold, share("supervisor.threshold")?);
    supervisor.fallback = r.text("supervisor.fallback")?;
    match r.text("supervisor.encoder")?.as_deref() {
        None => {}
        Some("shipped") => supervisor.encoder = Encoder::Shipped,
        Some("off") => supervisor.encoder = Encoder::Off,
        Some("") => {
            return Err(r.refuse("supervisor.encoder", "\"shipped\", \"off\" or a path"));
        }
        Some(path) => supervisor.encoder = Encoder::Path(path.into()),
    }
    set(&mut conversations.margin, share("conversations.margin")?);
    set(&mut conversations.reread, share("conversations.reread")?);
    set(&mut conversations.reload, share("conversations.reload")?);
    set(&mut conversations.idle, r.count("conversations.idle", 1)?);
    set(&mut conversations.remembered, r.count("conversations.remembered", 1)?.map(saturate));
    let Config { serving, traffic, autopilot, specialists, .. } = &mut config;
    set(&mut serving.circles, circles(&r, "serving.circles")?);
    set(&mut serving.lookup, r.flag("serving.lookup")?);
    set(&mut traffic.record, r.flag("traffic.record")?);
    set(&mut autopilot.enabled, r.flag("autopilot.enabled")?);
    set(&mut autopilot.tokens, r.count("autopilot.tokens", 1)?);
    let kept = |n: f64| n > 0.0 && n <= 1.0;
    set(&mut autopilot.keep, r.number("autopilot.keep", "above 0 and at most 1", kept)?);
    set(&mut autopilot.coverage, share("autopilot.coverage")?);
    set(&mut specialists.disabled, r.texts("specialists.disabled")?);
    Ok(config)
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn saturate(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A refusal that does not show the value.
fn secret(r: &Reader, key: &str, want: &str) -> ConfigError {
    let (file, got) = (r.file.clone(), "not usable".to_owned());
    ConfigError::BadValue { file, key: key.into(), got, want: want.into() }
}

/// A host and a port; whether the host exists is for the socket to say.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_fits = !host.is_empty() && !host.contains(char::is_whitespace);
        host_fits && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    })
}

/// `hf:OWNER/REPO/FILE` is a name, not a path beside the file.
fn resolve(folder: &Path, path: &str) -> PathBuf {
    if path.starts_with("hf:") { path.into() } else { folder.join(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = match parse("collegium.toml", text, Path::new("at")) {
            Ok(config) => format!("{config:?}"),
            Err(err) => err.to_string(),
        };
        assert!(got.contains(want), "{text:?}\n got: {got}\nwant: {want}");
    }

    #[test]
    fn reads_every_key() {
        check("", &format!("{:?}", Config::default()));
        check("server.listen = 'localhost:0'", r#"listen: "localhost:0""#);
        check("server.listen = '[::1]:80'", r#"listen: "[::1]:80""#);
        check("server.keys = ['a']", r#"keys: ["a"]"#);
        check("server.max_queue = 4", "max_queue: 4");
        check("parent.path = 'm.gguf'", r#"path: Some("at/m.gguf")"#);
        check("parent.path = '/m.gguf'", r#"path: Some("/m.gguf")"#);
        check("parent.path = 'hf:a/b/c.gguf'", r#"path: Some("hf:a/b/c.gguf")"#);
        check("memory.device = 'cpu'", "device: Cpu");
        check("memory.device = 'cuda:1'", "device: Cuda(1)");
        check("[memory]\nbudget = '8GiB'\nkv = '512 MB'", "Bytes(8589934592)");
        check("memory.kv = 1024", "kv: Some(Bytes(1024))");
        check("memory.kv_type = 'f32'", "kv_type: F32");
        check("memory.kv_type = 'f16'", "kv_type: F16");
        check("memory.kv_type = 'q8'", "kv_type: Q8");
        check("memory.missing = 'map'", "missing: Map");
        check("memory.missing = 'renormalise'", "missing: Renormalise");
        check("supervisor.threshold = 1", "threshold: 1.0");
        check("supervisor.fallback = 'math'", r#"fallback: Some("math")"#);
        check("supervisor.encoder = 'off'", "encoder: Off");
        check("supervisor.encoder = 'models/minilm'", r#"encoder: Path("models/minilm")"#);
        check("conversations.margin = 0", "margin: 0.0");
        check("conversations.reread = 0.5", "reread: 0.5");
        check("conversations.reload = 1", "reload: 1.0");
        check("conversations.idle = 60", "idle: 60");
        check("conversations.remembered = 10", "remembered: 10");
        check("serving.circles = 'off'", "circles: Off");
        check("serving.lookup = false", "lookup: false");
        check("traffic.record = true", "record: true");
        check("autopilot.enabled = false", "enabled: false");
        check("autopilot.tokens = 5", "tokens: 5");
        check("autopilot.keep = 0.25", "keep: 0.25");
        check("autopilot.coverage = 0.9", "coverage: 0.9");
        check("specialists.disabled = ['law']", r#"disabled: ["law"]"#);
    }

    #[test]
    fn names_the_key_that_was_meant() {
        let start = "collegium.toml: unknown key ";
        let meant = |key: &str, near: &str| format!("{start}\"{key}\"; did you mean \"{near}\"?");
        check("memory.budgt = 1", &meant("memory.budgt", "memory.budget"));
        check("[memroy]\nbudget = 1", &meant("memroy.budget", "memory.budget"));
        // Right key, wrong section or none.
        check("budget = 1", &meant("budget", "memory.budget"));
        check("[server]\nthreshold = 1", &meant("server.threshold", "supervisor.threshold"));
        check("server.quux = 1", &format!("{start}\"server.quux\""));
        check("[quux]", &format!("{start}\"quux\""));
        // The misspelling is reported before any wrong value.
        check("memory.device = 1\nmemory.kvv = 1", &meant("memory.kvv", "memory.kv"));
    }

    #[test]
    fn names_the_key_of_a_bad_value() {
        check("memory = 3", "\"memory\" is 3; it must be a table");
        check("memory.device = {a = 1}", "\"memory.device\" is a table; it must be a text");
        check(
            "memory.device = 'tpu'",
            "\"memory.device\" is \"tpu\"; it must be \"auto\", \"cpu\"",
        );
        check("memory.budget = '8G'", "\"memory.budget\" is \"8G\"; it must be a size");
        check("memory.budget = -1", "\"memory.budget\" is -1; it must be a size");
        check("memory.budget = 0", "\"memory.budget\" is 0");
        check("[memory]\nbudget = '1GiB'\nkv = '1GiB'", "it must be below memory.budget (1 GiB)");
        let kv_type = "\"f32\", \"f16\" or \"q8\"";
        check("memory.kv_type = 'int4'", &format!("is \"int4\"; it must be {kv_type}"));
        check("memory.kv_type = 'fp16'", &format!("{kv_type}; did you mean \"f16\"?"));
        check("memory.kv_type = 16", "\"memory.kv_type\" is 16; it must be a text");
        check("memory.missing = 'swap'", "it must be \"map\", \"fetch\" or \"renormalise\"");
        check("server.listen = '8080'", "\"server.listen\" is \"8080\"; it must be an address");
        check("server.listen = 'a:99999'", "\"server.listen\" is \"a:99999\"");
        check("server.max_queue = 0", "it must be a whole number of at least 1");
        check("server.keys = ['a', 2]", "it must be a list of texts");
        check("supervisor.threshold = 1.5", "is 1.5; it must be a number from 0 to 1");
        check("supervisor.encoder = ''", "\"shipped\", \"off\" or a path");
        check("supervisor.threshold = nan", "is nan; it must be a number from 0 to 1");
        check("conversations.margin = 2", "is 2; it must be a number from 0 to 1");
        check("conversations.idle = 0", "it must be a whole number of at least 1");
        check("autopilot.keep = 0", "is 0; it must be above 0 and at most 1");
        check("serving.circles = 'on'", "it must be \"off\", \"end\" or \"retry\"");
        check("traffic.record = 'yes'", "it must be true or false");
        // A key of the server is never shown.
        check("server.keys = ['sesame', '']", "\"server.keys\" is not usable");
    }

    #[test]
    fn names_the_line_of_broken_toml() {
        check("[server]\nlisten = ", "collegium.toml:2: ");
        check("a = 1\na = 2", "collegium.toml:2: ");
        check(&format!("a = {}", "[".repeat(100_000)), "collegium.toml:1: ");
    }

    /// The shipped file states every key, and its values are the defaults.
    #[test]
    fn shipped_file_is_the_defaults() {
        // Keys without a default stand in it commented out.
        let text = shipped_text();
        assert_eq!(parse("collegium.toml", text, Path::new("")).unwrap(), Config::default());
        let mut section = "";
        let mut stated = Vec::new();
        for line in text.lines() {
            let line = line.strip_prefix("# ").unwrap_or(line);
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name;
            } else if let Some((key, _)) = line.split_once(" = ")
                && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            {
                stated.push(format!("{section}.{key}"));
            }
        }
        assert_eq!(stated, KEYS);
    }
}
