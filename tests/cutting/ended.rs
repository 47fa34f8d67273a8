//! A cut that ends in the middle: no room left, killed, killed while another waits.  Each is a process of its own, this
//! test binary again, so that what it leaves is what the system leaves.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::*;
use engine::hash;

const CHILD: &str = "COLLEGIUM_TEST_CUT";
const NAME: &str = "cutting::ended::a_cut_that_ends_in_the_middle";
/// The signals that end a process that may not write more, or is killed.
const SIGXFSZ: i32 = 25;
const SIGKILL: i32 = 9;
const OLD: &[u8] = b"what was there before";

fn tiny() -> File {
    tiny::all().into_iter().find(|file| file.name() == "qwen3moe").unwrap()
}

/// In the process that ends: cuts, and stops in the middle if it is told to.
fn child(folder: &Path) {
    let stop = std::env::var_os("COLLEGIUM_TEST_STOP").is_some();
    let split = std::env::var("COLLEGIUM_TEST_SPLIT").ok().and_then(|most| most.parse().ok());
    let parent = open(&folder.join("parent.gguf"));
    let gguf = parent.model.gguf();
    let mask = mask(&parent.model, &half(parent.model.shape()));
    let request = Request { split, ..Request::default() };
    let plan = cut::plan(gguf, &mask, &"0".repeat(64), &request).unwrap();
    let done = cut::write(gguf, &plan, &folder.join("s.gguf"), &mut |done, total, _| {
        if stop && done > total / 2 {
            println!("\nin the middle");
            std::io::stdout().flush().unwrap();
            // Until it is killed.
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
    });
    println!("\n{}", done.map_or_else(|error| error.to_string(), |_| "written".to_owned()));
}

/// A folder with a parent, and what the target is before and must be after.
struct Case {
    folder: tempfile::TempDir,
    split: bool,
    parent: String,
}

impl Case {
    fn new(old: bool, split: bool) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("parent.gguf");
        tiny().write(&path);
        let case = Case { parent: hash::file(&path).unwrap(), split, folder };
        if old {
            fs::write(case.target(), OLD).unwrap();
        }
        case
    }

    /// What one opens of what is written.
    fn target(&self) -> PathBuf {
        let name = if self.split { "s-00001-of-00003.gguf" } else { "s.gguf" };
        self.folder.path().join(name)
    }

    fn most(&self) -> u64 {
        let bytes = fs::metadata(self.folder.path().join("parent.gguf")).unwrap().len();
        bytes / 4
    }

    /// Starts a cut: under a shell's limits, or stopping in the middle.
    fn start(&self, limits: &str, stop: bool) -> Child {
        let mut command = Command::new("sh");
        let run = format!("{limits} exec \"$0\" --exact {NAME} --nocapture");
        command.args(["-c", &run]).arg(std::env::current_exe().unwrap());
        command.env(CHILD, self.folder.path());
        if stop {
            command.env("COLLEGIUM_TEST_STOP", "1");
        }
        if self.split {
            command.env("COLLEGIUM_TEST_SPLIT", self.most().to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The parent is untouched, the target as before.
    #[track_caller]
    fn untouched(&self, old: bool) {
        let parent = hash::file(&self.folder.path().join("parent.gguf")).unwrap();
        assert_eq!(parent, self.parent, "the parent was written to");
        match old {
            true => assert_eq!(fs::read(self.target()).unwrap(), OLD),
            false => assert!(!self.target().exists(), "something half-written is there"),
        }
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Another run has what it needs, and leaves nothing but what it is to write.
    #[track_caller]
    fn again(&self) {
        let out = self.start("", false).wait_with_output().unwrap();
        assert!(out.status.success());
        let parts = ["s-00001-of-00003.gguf", "s-00002-of-00003.gguf", "s-00003-of-00003.gguf"];
        let want = if self.split { &parts[..] } else { &["s.gguf"] };
        assert_eq!(self.files(), [&["parent.gguf"], want].concat());
        let [parent, specialist] =
            [&self.folder.path().join("parent.gguf"), &self.target()].map(|p| open(p));
        prove("after the end", &parent, &specialist);
    }
}

#[test]
fn a_cut_that_ends_in_the_middle() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return child(folder.as_ref());
    }
    for (old, split) in [(false, false), (true, false), (false, true), (true, true)] {
        // No room: the system refuses to write on, and says so.
        let case = Case::new(old, split);
        let out = case.start("trap '' XFSZ; ulimit -f 60;", false).wait_with_output().unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        assert!(said.contains("no room for") && said.contains(".partial"), "{said}");
        case.untouched(old);
        let left = case.files();
        assert!(!left.iter().any(|name| name.contains("partial")), "{left:?}");
        case.again();

        // Killed at a byte of the file: the system's signal for the same, not caught.
        let case = Case::new(old, split);
        let out = case.start("ulimit -f 60;", false).wait_with_output().unwrap();
        assert_eq!(out.status.signal(), Some(SIGXFSZ));
        case.untouched(old);
        assert!(case.files().iter().any(|name| name.contains("partial")), "it was in the middle");
        case.again();

        // Killed at once; while it lives, nobody else writes there.
        let case = Case::new(old, split);
        let mut writing = case.start("", true);
        let mut lines = BufReader::new(writing.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "in the middle"));
        let other = case.start("", false).wait_with_output().unwrap();
        let said = String::from_utf8(other.stdout).unwrap();
        assert!(said.contains("is being written by another process"), "{said}");
        case.untouched(old);
        writing.kill().unwrap();
        assert_eq!(writing.wait().unwrap().signal(), Some(SIGKILL));
        case.untouched(old);
        case.again();
    }
}
