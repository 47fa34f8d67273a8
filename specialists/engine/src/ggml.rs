//! The number formats of ggml: how many weights a block holds and how many bytes it takes.
//!
//! Every format that llama.cpp writes has a row, also those without a kernel here, so that a file is never refused for
//! the sake of one tensor: looking and cutting work on bytes.  Formats that GGUF once had are known by name, so that
//! the refusal can say what to do.  Source: `ggml_type` and the block structures of ggml.
//!
//! To add a format: a row in [`KINDS`], and its fields in `tests::a_block_is_the_sum_of_its_fields`.

/// A format, by the index of its row in [`KINDS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind(usize);

struct Row {
    id: u32,
    name: &'static str,
    /// Weights in a block; rows of a tensor are whole blocks.
    weights: u64,
    /// Bytes of a block.
    bytes: u64,
}

const fn row(id: u32, name: &'static str, weights: u64, bytes: u64) -> Row {
    Row { id, name, weights, bytes }
}

static KINDS: &[Row] = &[
    row(0, "F32", 1, 4),
    row(1, "F16", 1, 2),
    row(2, "Q4_0", 32, 18),
    row(3, "Q4_1", 32, 20),
    row(6, "Q5_0", 32, 22),
    row(7, "Q5_1", 32, 24),
    row(8, "Q8_0", 32, 34),
    row(9, "Q8_1", 32, 36),
    row(10, "Q2_K", 256, 84),
    row(11, "Q3_K", 256, 110),
    row(12, "Q4_K", 256, 144),
    row(13, "Q5_K", 256, 176),
    row(14, "Q6_K", 256, 210),
    row(15, "Q8_K", 256, 292),
    row(16, "IQ2_XXS", 256, 66),
    row(17, "IQ2_XS", 256, 74),
    row(18, "IQ3_XXS", 256, 98),
    row(19, "IQ1_S", 256, 50),
    row(20, "IQ4_NL", 32, 18),
    row(21, "IQ3_S", 256, 110),
    row(22, "IQ2_S", 256, 82),
    row(23, "IQ4_XS", 256, 136),
    row(24, "I8", 1, 1),
    row(25, "I16", 1, 2),
    row(26, "I32", 1, 4),
    row(27, "I64", 1, 8),
    row(28, "F64", 1, 8),
    row(29, "IQ1_M", 256, 56),
    row(30, "BF16", 1, 2),
    row(34, "TQ1_0", 256, 54),
    row(35, "TQ2_0", 256, 66),
    row(39, "MXFP4", 32, 17),
    row(40, "NVFP4", 64, 36),
    row(41, "Q1_0", 128, 18),
    row(42, "Q2_0", 64, 18),
];

/// Formats that GGUF files once had: number, name, what to requantise to.
static REMOVED: &[(u32, &str, &str)] = &[
    (4, "Q4_2", "Q4_0"),
    (5, "Q4_3", "Q4_1"),
    // Layouts for one processor each; what they hold is made from the plain format when a model is loaded.
    (31, "Q4_0_4_4", "Q4_0"),
    (32, "Q4_0_4_8", "Q4_0"),
    (33, "Q4_0_8_8", "Q4_0"),
    (36, "IQ4_NL_4_4", "IQ4_NL"),
    (37, "IQ4_NL_4_8", "IQ4_NL"),
    (38, "IQ4_NL_8_8", "IQ4_NL"),
];

impl Kind {
    pub const F32: Kind = Kind(0);
    pub const F16: Kind = Kind(1);
    pub const BF16: Kind = Kind(28);
    pub const Q4_0: Kind = Kind(2);
    pub const Q4_1: Kind = Kind(3);
    pub const Q5_0: Kind = Kind(4);
    pub const Q5_1: Kind = Kind(5);
    pub const Q8_0: Kind = Kind(6);
    pub const MXFP4: Kind = Kind(31);
    pub const Q2_K: Kind = Kind(8);
    pub const Q3_K: Kind = Kind(9);
    pub const Q4_K: Kind = Kind(10);
    pub const Q5_K: Kind = Kind(11);
    pub const Q6_K: Kind = Kind(12);

    /// All formats, by their numbers.
    pub fn all() -> impl Iterator<Item = Kind> {
        (0..KINDS.len()).map(Kind)
    }

    /// The format with ggml's number `id`, if it is known.
    pub fn from_id(id: u32) -> Option<Kind> {
        KINDS.iter().position(|row| row.id == id).map(Kind)
    }

    /// Name of a format that was removed from GGUF, and the one to use instead.
    pub fn removed(id: u32) -> Option<(&'static str, &'static str)> {
        REMOVED.iter().find(|(old, ..)| *old == id).map(|(_, name, instead)| (*name, *instead))
    }

    fn row(self) -> &'static Row {
        &KINDS[self.0]
    }

    /// The number that stands for it in a file.
    pub fn id(self) -> u32 {
        self.row().id
    }

    /// Its name in llama.cpp, as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Weights in a block.
    pub fn block_weights(self) -> u64 {
        self.row().weights
    }

    /// Bytes in a block.
    pub fn block_bytes(self) -> u64 {
        self.row().bytes
    }

    /// Bytes of `weights` consecutive weights; `None` if they are not whole blocks, or too many to count.
    pub fn bytes(self, weights: u64) -> Option<u64> {
        if !weights.is_multiple_of(self.row().weights) {
            return None;
        }
        (weights / self.row().weights).checked_mul(self.row().bytes)
    }

    /// Bytes of a tensor of these dimensions, fastest first; `None` if its rows are not whole blocks, or it is too
    /// large to count.  As in ggml a dimension that is not given is one, so that without any there is one weight.
    pub fn tensor_bytes(self, dims: &[u64]) -> Option<u64> {
        let row = dims.first().copied().unwrap_or(1);
        if !row.is_multiple_of(self.row().weights) {
            return None;
        }
        self.bytes(dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.row().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_the_sum_of_its_fields() {
        /// `fields` as ggml's structure has them: bytes of scales, of quants, of what else there is.
        #[track_caller]
        fn check(id: u32, name: &str, weights: u64, fields: &[u64]) {
            let kind = Kind::from_id(id).unwrap();
            let got = (kind.name(), kind.block_weights(), kind.block_bytes());
            assert_eq!(got, (name, weights, fields.iter().sum()));
            assert_eq!(kind.tensor_bytes(&[weights, 3]), Some(3 * got.2));
        }
        // A number each.
        check(0, "F32", 1, &[4]);
        check(1, "F16", 1, &[2]);
        check(30, "BF16", 1, &[2]);
        check(28, "F64", 1, &[8]);
        check(24, "I8", 1, &[1]);
        check(25, "I16", 1, &[2]);
        check(26, "I32", 1, &[4]);
        check(27, "I64", 1, &[8]);
        // Scale (and minimum), high bits, quants.
        check(41, "Q1_0", 128, &[2, 128 / 8]);
        check(42, "Q2_0", 64, &[2, 64 / 4]);
        check(2, "Q4_0", 32, &[2, 16]);
        check(3, "Q4_1", 32, &[2, 2, 16]);
        check(6, "Q5_0", 32, &[2, 4, 16]);
        check(7, "Q5_1", 32, &[2, 2, 4, 16]);
        check(8, "Q8_0", 32, &[2, 32]);
        check(9, "Q8_1", 32, &[2, 2, 32]);
        // An exponent for 32; a small float for each 16.
        check(39, "MXFP4", 32, &[1, 16]);
        check(40, "NVFP4", 64, &[4, 32]);
        // Super-blocks: scales of the small blocks, quants, scales of the scales.
        check(10, "Q2_K", 256, &[16, 64, 2, 2]);
        check(11, "Q3_K", 256, &[32, 64, 12, 2]);
        check(12, "Q4_K", 256, &[2, 2, 12, 128]);
        check(13, "Q5_K", 256, &[2, 2, 12, 32, 128]);
        check(14, "Q6_K", 256, &[128, 64, 16, 2]);
        check(15, "Q8_K", 256, &[4, 256, 32]);
        // Ternary: five to a byte and the rest four to a byte; four to a byte.
        check(34, "TQ1_0", 256, &[48, 4, 2]);
        check(35, "TQ2_0", 256, &[64, 2]);
        // Grids: scale, indices, signs and high bits, scales.
        check(16, "IQ2_XXS", 256, &[2, 64]);
        check(17, "IQ2_XS", 256, &[2, 64, 8]);
        check(22, "IQ2_S", 256, &[2, 64, 8, 8]);
        check(18, "IQ3_XXS", 256, &[2, 96]);
        check(21, "IQ3_S", 256, &[2, 64, 8, 32, 4]);
        check(19, "IQ1_S", 256, &[2, 32, 16]);
        check(29, "IQ1_M", 256, &[32, 16, 8]);
        check(20, "IQ4_NL", 32, &[2, 16]);
        check(23, "IQ4_XS", 256, &[2, 2, 4, 128]);
    }

    #[test]
    fn bytes_of_whole_blocks() {
        #[track_caller]
        fn check(id: u32, dims: &[u64], want: Option<u64>) {
            assert_eq!(Kind::from_id(id).unwrap().tensor_bytes(dims), want);
        }
        check(0, &[7], Some(28));
        check(8, &[64], Some(68));
        check(12, &[256, 2], Some(288));
        // Half a block cannot be stored, even if two rows together are whole ones.
        check(8, &[48], None);
        check(8, &[48, 2], None);
        // No dimensions: one weight, which is no block of 32.
        check(0, &[], Some(4));
        check(8, &[], None);
        check(8, &[0, 5], Some(0));
        // A hostile size does not wrap.
        check(28, &[u64::MAX], None);
        check(24, &[1 << 40, 1 << 40], None);
    }

    #[test]
    fn every_number_has_one_meaning() {
        // ggml has given out 0 to 42.
        for id in 0..43 {
            let known = KINDS.iter().filter(|row| row.id == id).count();
            let removed = REMOVED.iter().filter(|(old, ..)| *old == id).count();
            assert_eq!(known + removed, 1, "{id}");
        }
        for (i, a) in KINDS.iter().enumerate() {
            assert!(a.id < 43 && KINDS[i + 1..].iter().all(|b| a.name != b.name), "{}", a.name);
        }
        for (_, name, instead) in REMOVED {
            let is = |name| KINDS.iter().any(|row| row.name == name);
            assert!(!is(*name) && is(*instead), "{name}");
        }
        let named = [
            (Kind::F32, "F32"),
            (Kind::F16, "F16"),
            (Kind::BF16, "BF16"),
            (Kind::Q4_0, "Q4_0"),
            (Kind::Q4_1, "Q4_1"),
            (Kind::Q5_0, "Q5_0"),
            (Kind::Q5_1, "Q5_1"),
            (Kind::Q8_0, "Q8_0"),
            (Kind::MXFP4, "MXFP4"),
            (Kind::Q2_K, "Q2_K"),
            (Kind::Q3_K, "Q3_K"),
            (Kind::Q4_K, "Q4_K"),
            (Kind::Q5_K, "Q5_K"),
            (Kind::Q6_K, "Q6_K"),
        ];
        assert!(named.iter().all(|(kind, name)| kind.name() == *name));
    }
}
