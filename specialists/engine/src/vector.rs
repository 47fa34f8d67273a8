//! A row of F32 numbers, where it lies in a file or made at load.

use std::sync::Arc;

use crate::mapping::Region;

/// F32 numbers that never change.
#[derive(Clone)]
pub(crate) enum Vector {
    /// Aligned and whole, as [`Vector::new`] has seen.
    InPlace(Region),
    Owned(Arc<[f32]>),
}

impl Vector {
    /// `None` if the bytes are not aligned or not whole numbers.
    pub fn new(region: Region) -> Option<Vector> {
        region.floats()?;
        Some(Vector::InPlace(region))
    }

    pub fn owned(numbers: Vec<f32>) -> Vector {
        Vector::Owned(numbers.into())
    }

    pub fn get(&self) -> &[f32] {
        match self {
            Vector::InPlace(region) => region.floats().unwrap_or_default(),
            Vector::Owned(numbers) => numbers,
        }
    }
}
