//! Kernels of `cuda/*.cu` become images that the program carries; without the feature `cuda` nothing is done.
//!
//! Each source is one image for every architecture of [`ARCHITECTURES`] that the compiler knows, and code that drivers
//! translate for later ones.  The compiler is `nvcc` of the toolkit in CUDA_HOME or CUDA_PATH, else the one on PATH.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::{env, fs, thread};

/// Compute capabilities that get machine code: A100, Ada, H100, B200, and consumers' Blackwell.
const ARCHITECTURES: &[u32] = &[80, 89, 90, 100, 120];
/// What later ones translate.
const TRANSLATED: u32 = 90;
/// Contractions are what the source says; sums of rows have one order everywhere.
const FLAGS: &[&str] = &["-fatbin", "-std=c++17", "-O3", "--fmad=false"];

fn main() {
    println!("cargo:rerun-if-changed=cuda");
    for variable in ["CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    if let Err(error) = images() {
        eprintln!("{error}");
        exit(1);
    }
}

fn images() -> Result<(), String> {
    let nvcc = nvcc()?;
    println!("cargo:rerun-if-changed={}", nvcc.display());
    let mut flags: Vec<String> = FLAGS.iter().map(|f| (*f).to_owned()).collect();
    let known = known(&nvcc);
    for sm in ARCHITECTURES.iter().filter(|sm| known.contains(sm)) {
        flags.push(format!("-gencode=arch=compute_{sm},code=sm_{sm}"));
    }
    flags.push(format!("-gencode=arch=compute_{TRANSLATED},code=compute_{TRANSLATED}"));

    let folder = env::current_dir().map_err(|e| e.to_string())?.join("cuda");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut sources: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(|e| format!("{}: {e}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
        .collect();
    sources.sort();
    // As many at once as cargo lets us have.
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut list = String::new();
    for some in sources.chunks(jobs) {
        let compiled: Vec<Result<(), String>> = thread::scope(|scope| {
            let each = some.iter().map(|source| {
                let image =
                    out.join(source.with_extension("fatbin").file_name().unwrap_or_default());
                list += &format!("include_bytes!({:?}).as_slice(),\n", image.display().to_string());
                let (nvcc, flags) = (&nvcc, &flags);
                scope.spawn(move || compile(nvcc, flags, source, &image))
            });
            let all: Vec<_> = each.collect();
            all.into_iter().map(|t| t.join().unwrap_or(Err("nvcc".to_owned()))).collect()
        });
        compiled.into_iter().collect::<Result<(), String>>()?;
    }
    fs::write(out.join("images.rs"), format!("[{list}]")).map_err(|e| e.to_string())
}

/// The compiler.
fn nvcc() -> Result<PathBuf, String> {
    let homes = ["CUDA_HOME", "CUDA_PATH"].map(env::var_os);
    let in_homes = homes.into_iter().flatten().map(|home| Path::new(&home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = in_homes.chain(env::split_paths(&path));
    folders.find_map(|f| Some(f.join("nvcc")).filter(|nvcc| nvcc.is_file())).ok_or_else(|| {
        "the feature `cuda` needs nvcc, which is in none of $CUDA_HOME/bin, $CUDA_PATH/bin and \
         $PATH: install CUDA's toolkit, or run `deploy/cuda/toolkit.sh FOLDER` and set what it \
         prints"
            .to_owned()
    })
}

/// The architectures that the compiler makes code for.
fn known(nvcc: &Path) -> Vec<u32> {
    let out = Command::new(nvcc).arg("--list-gpu-code").output();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().strip_prefix("sm_")?.parse().ok()).collect()
}

fn compile(nvcc: &Path, flags: &[String], source: &Path, image: &Path) -> Result<(), String> {
    let include = source.parent().unwrap_or(source);
    let run = Command::new(nvcc)
        .args(flags)
        .arg("-I")
        .arg(include)
        .arg("-o")
        .args([image, source])
        .output()
        .map_err(|e| format!("{}: {e}", nvcc.display()))?;
    if run.status.success() {
        return Ok(());
    }
    let said = [run.stdout, run.stderr].concat();
    Err(format!(
        "{} does not compile {}:\n{}",
        nvcc.display(),
        source.display(),
        String::from_utf8_lossy(&said)
    ))
}
