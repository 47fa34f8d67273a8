//! The encoder inside the binary.

/// Aligned, so that its numbers can be read where they lie.
#[repr(C, align(4096))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../../weights/encoder.gguf"));

/// The GGUF file, in the binary's read-only data.
pub(super) fn bytes() -> &'static [u8] {
    &FILE.0
}
