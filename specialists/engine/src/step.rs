//! One step of a batch as layers see it: rows of tokens, each with a place in its sequence.

use std::ops::Range;

use config::Missing;

use crate::kv::Pages;
use crate::mask::ExpertMask;
use crate::profile::Profile;
use crate::rope::Rotation;

/// For which of a segment's tokens logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    None,
    Last,
    All,
    /// All, of which the last so many tokens are guesses: nothing is counted of them, and the sequence does not go on
    /// by them, until it is known that they came ([`Output::guesses`]).  Not where layers keep states.
    Guesses(usize),
}

/// Consecutive tokens of one sequence; they go to positions `pages.len()` and on.
pub struct Segment<'a> {
    /// Ids below the vocabulary's size.
    pub tokens: &'a [u32],
    /// Must have room for the tokens.
    pub pages: &'a mut Pages,
    pub mask: Option<&'a ExpertMask>,
    /// What becomes of experts that are not resident.
    pub missing: Missing,
    /// Where the router's doings are counted.
    pub taps: Option<&'a mut Profile>,
    /// The tokens are part of a prompt, not generated.
    pub prompt: bool,
    pub want: Want,
}

impl Segment<'_> {
    /// Tokens that are no guesses.
    pub(crate) fn sure(&self) -> usize {
        match self.want {
            Want::Guesses(n) => self.tokens.len().saturating_sub(n),
            _ => self.tokens.len(),
        }
    }
}

/// What came of one segment.
pub struct Output {
    /// [wanted tokens, vocab]
    pub logits: Vec<f32>,
    /// Per token: the share of the full router's gate mass on experts that it could not have, mean over layers.
    pub missing_mass: Vec<f32>,
    /// What the router did with each of the guesses.
    pub guesses: Vec<Guess>,
}

/// What the router did with one token, to be counted once it is known that the token came.
#[derive(Default)]
pub struct Guess {
    /// With the layer.
    ran: Vec<(usize, Ran)>,
}

impl Guess {
    /// It came.
    pub(crate) fn count(&self, profile: &mut Profile) {
        profile.tokens += 1;
        for (layer, ran) in &self.ran {
            count(profile, *layer, ran, false);
        }
    }
}

/// What a routed layer did with one row.
pub struct Ran {
    /// Expert, gate, and L2 norm of the expert's output, best first: what ran.
    pub ran: Vec<(usize, f32, f32)>,
    /// Expert and gate, best first: what the full router would have run.
    pub full: Vec<(usize, f32)>,
    /// Share of that gate mass on experts that the row could not have.
    pub missing: f32,
}

/// What a routed layer asks of whoever knows which experts are in memory.
pub trait Experts: Sync {
    /// The experts of a layer that a row with this mask may choose when it makes do with what is there, as words of a
    /// mask; `None` if all of its own: while there is room for more, or fewer are there than the router picks.
    fn there(&self, layer: usize, mask: Option<&ExpertMask>, top_k: usize) -> Option<Vec<u64>>;

    /// Whether all experts that rows with this mask may choose are in memory, in every layer.
    fn all_there(&self, mask: Option<&ExpertMask>) -> bool;

    /// These experts of a layer are about to be computed: counts them, and makes those guests that are not there and
    /// whose rows wish it.  What is not there then is computed from the file.  Whether any was not there.
    fn prepare(&self, layer: usize, used: &[usize], wish: &dyn Fn(usize) -> Missing) -> bool;

    /// They have been computed, some of which were `absent`: memory that came in with them goes back, but for guests.
    fn passed(&self, layer: usize, used: &[usize], absent: bool);

    /// Tokens of a step, guesses among them, went through a layer, and lacked so much together.
    fn lacked(&self, layer: usize, tokens: usize, missing_mass: f64);
}

/// What a layer sees of the batch.
pub struct Step<'a, 'b> {
    pub experts: &'a dyn Experts,
    pub segments: &'a mut [Segment<'b>],
    /// Row -> (segment, position).
    pub places: Vec<(usize, usize)>,
    /// [ropes][rows]
    pub(crate) rotations: Vec<Vec<Rotation>>,
    /// [rows], summed over layers.
    pub missing: Vec<f32>,
    /// [rows], of those that are guesses.
    pub guesses: Vec<Guess>,
}

impl Step<'_, '_> {
    pub fn rows(&self) -> usize {
        self.places.len()
    }

    /// What the row's sequence stored, and the row's position.
    pub fn place(&self, row: usize) -> (&Pages, usize) {
        let (segment, position) = self.places[row];
        (self.segments[segment].pages, position)
    }

    /// The segment that the row is of.
    pub fn segment(&self, row: usize) -> usize {
        self.places[row].0
    }

    pub fn mask(&self, row: usize) -> Option<&ExpertMask> {
        self.segments[self.places[row].0].mask
    }

    pub fn missing(&self, row: usize) -> Missing {
        self.segments[self.places[row].0].missing
    }

    /// What is wished of an expert that these rows chose: one that wishes it fetched is enough.
    pub fn wish(&self, rows: impl Iterator<Item = usize>) -> Missing {
        let wishes = rows.map(|row| self.missing(row));
        let first = wishes.min_by_key(|wish| match wish {
            Missing::Fetch => 0,
            Missing::Renormalise => 1,
            Missing::Map => 2,
        });
        first.unwrap_or_default()
    }

    /// [rows], of one of the model's ropes.
    pub(crate) fn rotations(&self, rope: usize) -> &[Rotation] {
        &self.rotations[rope]
    }

    /// Stores the keys and values of all rows, each [rows, its dim].
    pub fn store(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let (k, v) = (keys.len() / self.rows(), values.len() / self.rows());
        for ((&(s, position), key), value) in
            self.places.iter().zip(keys.chunks_exact(k)).zip(values.chunks_exact(v))
        {
            self.segments[s].pages.put(layer, position, key, value);
        }
    }

    /// Of each sequence, its rows and the state of a layer.
    pub fn states(&mut self, layer: usize) -> impl Iterator<Item = (Range<usize>, &mut [f32])> {
        let mut row = 0;
        self.segments.iter_mut().map(move |segment| {
            let first = row;
            row += segment.tokens.len();
            (first..row, segment.pages.state(layer))
        })
    }

    /// Counts what the routed layer did with each row.
    pub fn tap(&mut self, layer: usize, ran: Vec<Ran>) {
        let missing: f64 = ran.iter().map(|ran| f64::from(ran.missing)).sum();
        self.experts.lacked(layer, ran.len(), missing);
        for (row, ran) in ran.into_iter().enumerate() {
            let (segment, position) = self.places[row];
            let segment = &mut self.segments[segment];
            self.missing[row] += ran.missing;
            let (prompt, guessed) =
                (segment.prompt, position >= segment.pages.len() + segment.sure());
            match &mut segment.taps {
                Some(_) if guessed => self.guesses[row].ran.push((layer, ran)),
                Some(taps) => count(taps, layer, &ran, prompt),
                None => {}
            }
        }
    }
}

/// Counts what one layer did with one token.
fn count(profile: &mut Profile, layer: usize, ran: &Ran, prompt: bool) {
    let (experts, top_k) = (profile.experts, profile.top_k);
    let both = [Some(&mut profile.all), prompt.then_some(&mut profile.prompt)];
    for taps in both.into_iter().flatten() {
        for (rank, &(expert, gate)) in ran.full.iter().enumerate() {
            let at = (layer * experts + expert) * top_k + rank;
            taps.counts[at] += 1;
            taps.gate_mass[at] += f64::from(gate);
        }
        for &(expert, gate, norm) in &ran.ran {
            let at = layer * experts + expert;
            taps.output_norm[at] += f64::from(norm);
            taps.gated_norm[at] += f64::from(gate * norm);
        }
    }
    if let Some(pairs) = &mut profile.pairs {
        let pairs = &mut pairs[layer * experts * experts..][..experts * experts];
        for &(a, _) in &ran.full {
            for &(b, _) in &ran.full {
                pairs[a * experts + b] += 1;
            }
        }
    }
}
