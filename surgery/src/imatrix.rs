//! A first profile without running the parent: from the importance matrix that llama.cpp's `llama-imatrix` makes for
//! quantising, and which is published beside many models.
//!
//! In: the GGUF that it writes (`tools/imatrix`; not the older `.dat`, which has no counts), and the parent.  For each
//! matrix that is multiplied it has `NAME.counts`, the rows that went through, and `NAME.in_sum2`, the sums of their
//! squares by column.  Of experts these are by expert, so that
//!
//! * counts are how often the router chose each one: the score `frequency`;
//! * gates are not there, and ranks neither: all choices get the gate 1 / top_k at the last rank, and the profile says
//!   that it does not know them ([`engine::Known`]).  Coverage is of counts;
//! * what goes into an expert's output matrix is there as a sum of squares S over n tokens: sqrt(n S) is what the sum of
//!   norms of those inputs would be if all n were equal, and at most.  It stands in for the sum of output norms, which
//!   are not known, and the profile says so: `norm-mean` and `norm-sum` take it with a warning, since they ask only how
//!   strong an expert is.  What `W_down` makes of the input it does not tell, and what `reap` and `gate-norm` need beside,
//!   the gate of each token, is not there: those are refused.
//!
//! Whether the text that it was made from is of the domain, nobody can tell; most are made from a mix.

use std::path::{Path, PathBuf};

use engine::arch::{self, Fate};
use engine::ggml::Kind;
use engine::gguf::{Gguf, GgufError, Tensor};
use engine::{Known, Model, Profile};
use thiserror::Error;

/// Whole numbers are exact in a 32-bit float up to here.
const EXACT: f64 = (1 << 24) as f64;

#[derive(Debug, Error)]
pub enum ImatrixError {
    #[error(
        "{path}: an imatrix of the older form, without counts of experts, or no imatrix; \
         write it anew with llama-imatrix --output-format gguf"
    )]
    Legacy { path: PathBuf },
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("{path}: it is {found:?}, not an imatrix")]
    Other { path: PathBuf, found: String },
    #[error("{path}: it has nothing of {tensor:?} of this parent: it is of another model")]
    Missing { path: PathBuf, tensor: String },
    #[error("{path}: {tensor:?} has {got:?}, this parent needs {want:?}")]
    Shape { path: PathBuf, tensor: String, got: Vec<u64>, want: Vec<u64> },
    #[error("{path}: {tensor:?}, expert {expert}: {value} cannot be")]
    Value { path: PathBuf, tensor: String, expert: usize, value: f32 },
    #[error("{path}: {tensor:?} counts {total} choices, no multiple of the {top_k} of a token")]
    Choices { path: PathBuf, tensor: String, total: u64, top_k: usize },
    #[error("{path}: layer {layer}: its matrices do not count the same choices")]
    Disagree { path: PathBuf, layer: usize },
    #[error("the parent has no routed experts")]
    Dense,
}

/// What an imatrix says of a parent's experts.
///
/// # Errors
///
/// [`ImatrixError`], naming the tensor.
pub fn profile(path: &Path, model: &Model, domain: &str) -> Result<Profile, ImatrixError> {
    let shape = model.shape();
    if shape.experts == 0 {
        return Err(ImatrixError::Dense);
    }
    let gguf = Gguf::open(path).map_err(|error| match error {
        GgufError::NotGguf { path, .. } => ImatrixError::Legacy { path },
        error => error.into(),
    })?;
    let path = path.to_owned();
    let kind = gguf.text("general.type").or(gguf.text("general.architecture")).unwrap_or("nothing");
    if kind != "imatrix" {
        return Err(ImatrixError::Other { path, found: kind.to_owned() });
    }
    let matrix = Matrix { path: &path, gguf: &gguf };
    let mut profile = Profile::new(shape, &model.parent(), domain);
    let (experts, top_k) = (shape.experts, shape.top_k);
    for layer in (0..shape.layers).filter(|layer| shape.routed[*layer]) {
        let counts = matrix.counts(model, layer)?;
        let squares = matrix.squares(model, layer)?;
        let total: u64 = counts.iter().sum();
        profile.tokens = profile.tokens.max(total / top_k as u64);
        for (expert, (count, squares)) in counts.into_iter().zip(squares).enumerate() {
            let at = layer * experts + expert;
            let last = at * top_k + top_k - 1;
            profile.all.counts[last] = i64::try_from(count).unwrap_or(i64::MAX);
            profile.all.gate_mass[last] = count as f64 / top_k as f64;
            profile.all.output_norm[at] = (count as f64 * squares).sqrt();
            profile.all.gated_norm[at] = profile.all.output_norm[at] / top_k as f64;
        }
    }
    profile.known = Known { ranks: false, gates: false, norms: false, stand_in: true };
    let chunks = |key: &str| gguf.int(key).map_or("?".to_owned(), |n| n.to_string());
    let (count, size) = (chunks("imatrix.chunk_count"), chunks("imatrix.chunk_size"));
    profile.source = format!("imatrix {}, {count} chunks of {size} tokens", gguf.sha256());
    Ok(profile)
}

struct Matrix<'a> {
    path: &'a Path,
    gguf: &'a Gguf,
}

impl Matrix<'_> {
    /// How often each expert of a layer was chosen: what all of its matrices that are there say.
    fn counts(&self, model: &Model, layer: usize) -> Result<Vec<u64>, ImatrixError> {
        let mut found: Option<Vec<u64>> = None;
        for tensor in stacked(model, layer) {
            let name = format!("{}.counts", tensor.name);
            if self.gguf.tensor(&name).is_none() {
                continue;
            }
            let counts = self.numbers(&name, &[1, model.shape().experts_in(layer) as u64])?;
            let bad = |n: &f32| !(0.0..=1e15).contains(n) || n.fract() != 0.0;
            if let Some(expert) = counts.iter().position(bad) {
                return Err(self.value(name, expert, counts[expert]));
            }
            let exact = counts.iter().all(|n| f64::from(*n) < EXACT);
            let counts: Vec<u64> = counts.iter().map(|n| *n as u64).collect();
            let (total, top_k) = (counts.iter().sum::<u64>(), model.shape().top_k);
            if exact && total % top_k as u64 != 0 {
                let path = self.path.to_owned();
                return Err(ImatrixError::Choices { path, tensor: name, total, top_k });
            }
            if found.as_ref().is_some_and(|other| *other != counts) {
                return Err(ImatrixError::Disagree { path: self.path.to_owned(), layer });
            }
            found = Some(counts);
        }
        found.ok_or_else(|| self.missing(&arch::expert_output(layer)))
    }

    /// Sums of squares of what goes into each expert's output matrix.
    fn squares(&self, model: &Model, layer: usize) -> Result<Vec<f64>, ImatrixError> {
        let output = arch::expert_output(layer);
        let tensor = model.gguf().tensor(&output).ok_or_else(|| self.missing(&output))?;
        let (columns, name) = (tensor.dims[0], format!("{output}.in_sum2"));
        let squares = self.numbers(&name, &[columns, model.shape().experts_in(layer) as u64])?;
        let each = squares.chunks(columns.max(1) as usize).enumerate();
        each.map(|(expert, squares)| match squares.iter().find(|n| !(0.0..=1e30).contains(*n)) {
            Some(bad) => Err(self.value(name.clone(), expert, *bad)),
            None => Ok(squares.iter().map(|n| f64::from(*n)).sum()),
        })
        .collect()
    }

    fn numbers(&self, name: &str, want: &[u64]) -> Result<Vec<f32>, ImatrixError> {
        let tensor = self.gguf.tensor(name).ok_or_else(|| self.missing(name))?;
        // Sizes of one at the end may be left out.
        let mut got = tensor.dims.clone();
        got.resize(got.len().max(want.len()), 1);
        if got != want || tensor.kind != Kind::F32 {
            let (path, tensor, want) = (self.path.to_owned(), name.to_owned(), want.to_vec());
            return Err(ImatrixError::Shape { path, tensor, got, want });
        }
        let (numbers, _) = self.gguf.data(tensor).as_chunks::<4>();
        Ok(numbers.iter().map(|n| f32::from_le_bytes(*n)).collect())
    }

    fn missing(&self, tensor: &str) -> ImatrixError {
        ImatrixError::Missing { path: self.path.to_owned(), tensor: tensor.to_owned() }
    }

    fn value(&self, tensor: String, expert: usize, value: f32) -> ImatrixError {
        ImatrixError::Value { path: self.path.to_owned(), tensor, expert, value }
    }
}

/// The parent's matrices of all experts of a layer in one.
fn stacked(model: &Model, layer: usize) -> impl Iterator<Item = &Tensor> {
    let slice = Fate::Slice { block: layer };
    let matrices = model.gguf().tensors().iter().filter(|tensor| tensor.dims.len() == 3);
    matrices.filter(move |tensor| model.arch().fate(&tensor.name) == slice)
}

#[cfg(test)]
mod tests {
    use engine::gguf::Value;
    use engine::gguf::write::{Entry, Layout};

    use super::*;
    use crate::testing::Folder;

    const EXPERTS: u64 = 4;

    /// Tensors as (name, columns, numbers); (columns, experts) for sums, (1, experts) for counts.
    type Tensors = Vec<(String, u64, Vec<f32>)>;

    fn good() -> Tensors {
        let mut tensors = Vec::new();
        for block in 0..2 {
            for part in ["gate", "up", "down"] {
                let name = format!("blk.{block}.ffn_{part}_exps.weight");
                tensors.push((format!("{name}.counts"), 1, vec![4., 0., 8., 20.]));
                let squares = (0..32 * EXPERTS).map(|at| (at / 32) as f32).collect();
                tensors.push((format!("{name}.in_sum2"), 32, squares));
            }
            // The router is a matrix like others: one count.
            tensors.push((format!("blk.{block}.ffn_gate_inp.weight.counts"), 1, vec![16.]));
        }
        tensors
    }

    fn read(kind: &str, tensors: &Tensors) -> Result<Profile, String> {
        let folder = Folder::new();
        let model = Model::load(folder.parent(1)).unwrap();
        let keys = [
            ("general.type".to_owned(), Value::Text(kind.to_owned())),
            ("imatrix.chunk_count".to_owned(), Value::U32(2)),
            ("imatrix.chunk_size".to_owned(), Value::U32(8)),
        ];
        let dims = |columns: u64, n: usize| vec![columns, n as u64 / columns];
        let entries: Vec<Entry> = tensors
            .iter()
            .map(|(name, columns, numbers)| Entry {
                name: name.clone(),
                dims: dims(*columns, numbers.len()),
                kind: Kind::F32,
            })
            .collect();
        let path = folder.path("imatrix.gguf");
        let mut file = std::fs::File::create(&path).unwrap();
        let bytes = |at: usize| -> Vec<u8> {
            tensors[at].2.iter().flat_map(|n: &f32| n.to_le_bytes()).collect()
        };
        let layout = Layout::plan(&keys, &entries).unwrap();
        layout.write(&mut file, |at, sink| sink(&bytes(at))).unwrap();
        profile(&path, &model, "law")
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "F"))
    }

    #[test]
    fn counts_and_squares_become_a_profile_that_says_what_it_is() {
        let profile = read("imatrix", &good()).unwrap();
        assert_eq!((profile.tokens, profile.domain.as_str()), (16, "law"));
        assert_eq!(
            profile.known,
            Known { ranks: false, gates: false, norms: false, stand_in: true }
        );
        for layer in 0..2 {
            assert_eq!(profile.layer_counts(layer), [4, 0, 8, 20]);
            assert_eq!(profile.layer_gate_mass(layer), [2., 0., 4., 10.]);
        }
        // All at the last rank of two.
        assert!(profile.all.counts.chunks(2).all(|ranks| ranks[0] == 0));
        // 20 tokens with squares of 32 times 3 together.
        assert_eq!(profile.all.output_norm[3], (20.0f64 * 96.0).sqrt());
        assert!(profile.source.ends_with(", 2 chunks of 8 tokens"), "{}", profile.source);
        let again = Profile::parse(&profile.to_bytes().unwrap()).unwrap();
        assert_eq!(again, profile);
    }

    #[test]
    fn other_files_are_refused_by_name() {
        #[track_caller]
        fn check(change: fn(&mut Tensors), want: &str) {
            let mut tensors = good();
            change(&mut tensors);
            let error = read("imatrix", &tensors).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
        let other = read("model", &good()).unwrap_err();
        assert_eq!(other, "F: it is \"model\", not an imatrix");
        let name = "blk.0.ffn_gate_exps.weight.counts";
        check(|t| t.retain(|(name, ..)| !name.starts_with("blk.1.")), "of another model");
        check(|t| t.retain(|(name, ..)| !name.ends_with("down_exps.weight.in_sum2")), "nothing of");
        check(|t| t[0].2 = vec![32.], &format!("{name:?} has [1, 1], this parent needs [1, 4]"));
        check(|t| t[0].2[2] = f32::NAN, &format!("{name:?}, expert 2: NaN cannot be"));
        check(|t| t[0].2[2] = -8.0, &format!("{name:?}, expert 2: -8 cannot be"));
        check(|t| t[0].2[2] = 0.5, &format!("{name:?}, expert 2: 0.5 cannot be"));
        check(|t| t[0].2[2] = 9.0, &format!("{name:?} counts 33 choices, no multiple of the 2"));
        check(|t| t[0].2[2] = 10.0, "layer 0: its matrices do not count the same choices");
        check(|t| t[5].2[40] = f32::INFINITY, "in_sum2\", expert 1: inf cannot be");
        check(|t| t[5].2.truncate(96), "has [32, 3], this parent needs [32, 4]");
    }

    #[test]
    fn the_older_form_is_named() {
        let folder = Folder::new();
        let model = Model::load(folder.parent(1)).unwrap();
        let path = folder.path("imatrix.dat");
        // Two entries, the first one's name begins.
        std::fs::write(&path, [&2u32.to_le_bytes()[..], &7u32.to_le_bytes(), b"blk.0.a"].concat())
            .unwrap();
        let error = profile(&path, &model, "law").unwrap_err().to_string();
        assert!(error.contains("an imatrix of the older form"), "{error}");
    }
}
