//! The nano parent, embedded: a real, small mixture of experts, so that the binary answers without a download.

/// Page aligned, so that its experts are whole pages that can be given back to the system.
#[repr(C, align(4096))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../../nano/nano.gguf"));

/// SHA-256 of the file, lowercase hex.
pub const SHA256: &str = include_str!("../../nano/nano.gguf.sha256");

/// The GGUF file, in the binary's read-only data.
pub fn bytes() -> &'static [u8] {
    &FILE.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_file() {
        assert_eq!(crate::hash::hex(bytes()), SHA256.trim());
        assert_eq!(bytes().as_ptr() as usize % 4096, 0);
    }
}
