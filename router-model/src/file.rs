//! A data file's bytes or text, also of `.xz`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A compressed file may claim to hold any amount.
const MOST: u64 = 4 << 30;

pub(crate) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    if path.extension().is_some_and(|e| e == "xz") {
        liblzma::read::XzDecoder::new(file).take(MOST).read_to_end(&mut bytes)?;
    } else {
        file.take(MOST).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Bytes that are no UTF-8 are replaced: whoever reads on finds what is odd there.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    let bytes = bytes(path)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into()))
}
