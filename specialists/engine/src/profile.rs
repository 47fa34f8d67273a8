//! What the router did on a domain's tokens, by layer, expert and rank.
//!
//! Counts and gate mass are of the *full* router, also while a mask restricts what runs, so that a specialist's own
//! traffic shows what it lacks.  Norms exist only for experts that ran.  Profiles of one parent add up.
//!
//! Two things are kept only where they are asked for: which experts were chosen together ([`Profile::pairs`]), and what
//! each item of a corpus used ([`Signatures`]).  A profile that was not made by running the parent says what of it was
//! not measured ([`Known`]).
//!
//! The file is in `file`: to keep something more, add it there, to [`Profile::add`], and to the tests of both.

mod file;
mod signatures;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use thiserror::Error;

use crate::shape::Shape;

pub use file::FORMAT;
pub use signatures::Signatures;

/// The numbers of one kind of token (all, or prompt only).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taps {
    /// [layers, experts, top_k], tokens for which the expert had that rank.
    pub counts: Vec<i64>,
    /// [layers, experts, top_k], sum of the gate after renormalisation.
    pub gate_mass: Vec<f64>,
    /// [layers, experts], sum of the L2 norm of the expert's output.
    pub output_norm: Vec<f64>,
    /// [layers, experts], sum of gate times that norm.
    pub gated_norm: Vec<f64>,
}

/// Which of a profile's numbers were measured; all, if the parent was run for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// If not, all counts are at the last rank: an average rank is then the worst there is, and a score that weighs
    /// ranks is the plain count.
    pub ranks: bool,
    /// If not, each choice has the same gate, 1 / top_k: gate mass and coverage are those of counts.
    pub gates: bool,
    /// If not, norms are missing, or of something near the output.
    pub norms: bool,
    /// Norms are not known, and in their place are those of what goes into the experts' output matrices.
    pub stand_in: bool,
}

/// A profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub layers: usize,
    pub experts: usize,
    pub top_k: usize,
    /// SHA-256 of the parent's file.
    pub parent: String,
    pub architecture: String,
    pub domain: String,
    /// What the tokens came from, for a reader.
    pub source: String,
    pub tokens: u64,
    pub prompt_tokens: u64,
    pub all: Taps,
    pub prompt: Taps,
    /// [layers, experts, experts], tokens for which both were chosen, at whatever ranks.  Symmetric; on the diagonal are
    /// the tokens that chose the expert.  `None`: not counted.
    pub pairs: Option<Vec<i64>>,
    /// What each item used; `None`: not kept.
    pub signatures: Option<Signatures>,
    pub known: Known,
    /// How well masks of the two halves of the items agree, 0 to 1; `None`: not known.
    pub agreement: Option<f64>,
}

#[derive(Debug, Error)]
pub enum ProfileError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{path}: not a profile: {what}")]
    Bad { path: PathBuf, what: String },
    #[error("profiles of different parents or shapes do not add up: {what}")]
    Mismatch { what: String },
}

impl Default for Known {
    fn default() -> Self {
        Known { ranks: true, gates: true, norms: true, stand_in: false }
    }
}

impl Taps {
    fn new(layers: usize, experts: usize, top_k: usize) -> Taps {
        Taps {
            counts: vec![0; layers * experts * top_k],
            gate_mass: vec![0.0; layers * experts * top_k],
            output_norm: vec![0.0; layers * experts],
            gated_norm: vec![0.0; layers * experts],
        }
    }

    fn add(&mut self, other: &Taps) {
        add_counts(&mut self.counts, &other.counts);
        for (a, b) in [
            (&mut self.gate_mass, &other.gate_mass),
            (&mut self.output_norm, &other.output_norm),
            (&mut self.gated_norm, &other.gated_norm),
        ] {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
    }
}

fn add_counts(to: &mut [i64], from: &[i64]) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a = a.saturating_add(*b));
}

impl Profile {
    /// An empty one, that counts no pairs and keeps no items.
    pub fn new(shape: &Shape, parent: &str, domain: &str) -> Profile {
        let (layers, experts, top_k) = (shape.layers, shape.experts, shape.top_k);
        Profile {
            layers,
            experts,
            top_k,
            parent: parent.to_owned(),
            architecture: shape.architecture.clone(),
            domain: domain.to_owned(),
            source: String::new(),
            tokens: 0,
            prompt_tokens: 0,
            all: Taps::new(layers, experts, top_k),
            prompt: Taps::new(layers, experts, top_k),
            pairs: None,
            signatures: None,
            known: Known::default(),
            agreement: None,
        }
    }

    /// The same, and pairs are counted; 8 bytes for each pair of experts of a layer.
    pub fn with_pairs(mut self) -> Profile {
        self.pairs = Some(vec![0; self.layers * self.experts * self.experts]);
        self
    }

    /// The same, and items can be kept.
    pub fn with_signatures(mut self) -> Profile {
        self.signatures = Some(Signatures::default());
        self
    }

    /// Bytes that one takes in memory that counts no pairs and keeps no items.
    pub fn bytes(shape: &Shape) -> u64 {
        let taps = shape.layers * shape.experts * (2 * shape.top_k + 2) * size_of::<u64>();
        2 * taps as u64
    }

    /// Adds another profile of the same parent, token by token; domain and source stay this one's.
    ///
    /// What only one of them has of pairs, items and agreement is not of the sum, and is dropped; an empty profile takes
    /// what the other has.  Items are those of both, and no longer told apart: their lines may be of two corpora.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Mismatch`]; nothing is added then.
    pub fn add(&mut self, other: &Profile) -> Result<(), ProfileError> {
        let of = |p: &Profile| format!("{} {}x{} top-{}", p.parent, p.layers, p.experts, p.top_k);
        let (a, b) = (of(self), of(other));
        if a != b {
            return Err(ProfileError::Mismatch { what: format!("{a} and {b}") });
        }
        if other.tokens == 0 {
            // It has nothing of what is optional, and says nothing of what was not measured.
        } else if self.tokens == 0 {
            self.pairs.clone_from(&other.pairs);
            self.signatures.clone_from(&other.signatures);
            (self.known, self.agreement) = (other.known, other.agreement);
        } else {
            self.pairs = self.pairs.take().zip(other.pairs.as_ref()).map(|(mut mine, theirs)| {
                add_counts(&mut mine, theirs);
                mine
            });
            let both = self.signatures.take().zip(other.signatures.as_ref());
            self.signatures = both.map(|(mut mine, theirs)| {
                mine.append(theirs, self.layers * self.experts);
                mine
            });
            self.known = Known {
                ranks: self.known.ranks && other.known.ranks,
                gates: self.known.gates && other.known.gates,
                norms: self.known.norms && other.known.norms,
                // A sum of both kinds is neither.
                stand_in: self.known.stand_in && other.known.stand_in,
            };
            self.agreement = None;
        }
        self.all.add(&other.all);
        self.prompt.add(&other.prompt);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        Ok(())
    }

    /// Gate mass of each expert of a layer, over all ranks.
    pub fn layer_gate_mass(&self, layer: usize) -> Vec<f64> {
        let (e, k) = (self.experts, self.top_k);
        self.all.gate_mass[layer * e * k..(layer + 1) * e * k]
            .chunks(k.max(1))
            .map(|ranks| ranks.iter().sum())
            .collect()
    }

    /// Tokens that chose each expert of a layer, at whatever rank.
    pub fn layer_counts(&self, layer: usize) -> Vec<i64> {
        let (e, k) = (self.experts, self.top_k);
        self.all.counts[layer * e * k..(layer + 1) * e * k]
            .chunks(k.max(1))
            .map(|ranks| ranks.iter().sum())
            .collect()
    }
}
