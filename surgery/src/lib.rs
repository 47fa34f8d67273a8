//! Surgery.
pub mod mask;
