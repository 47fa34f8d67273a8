//! The encoder inside the binary.

use super::EncoderError;
use super::mix::Mix;

/// Aligned, so that its numbers can be read where they lie.
#[repr(C, align(4096))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../../weights/encoder.gguf"));

/// Beside the file, as it changes whenever the lexical weights do.
static MIX: &str = include_str!("../../weights/mix.json");

/// The GGUF file, in the binary's read-only data.
pub(super) fn bytes() -> &'static [u8] {
    &FILE.0
}

/// What it counts beside the shipped lexical weights.
pub(super) fn mix() -> Result<Mix, EncoderError> {
    serde_json::from_str(MIX)
        .map_err(|err| EncoderError::Field { field: "mix.json", why: err.to_string() })
}
