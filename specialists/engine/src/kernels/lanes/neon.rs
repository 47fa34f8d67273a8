//! NEON with dot products and half floats: four lanes.  Never compiled on the machine this was written on.

use std::arch::aarch64::*;

use super::{Lanes, Rows, Work};

/// Exists only where the instructions do.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

pub(super) fn detected() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
        && std::arch::is_aarch64_feature_detected!("dotprod")
}

/// # Safety
///
/// The instructions were detected.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run<W: Work>(work: W) -> W::Output {
    work.run(Neon(()))
}
