//! What the tests share: parents of random weights, tiny ones of every architecture and one of any size, and llama.cpp
//! to compare with.

mod accounted;
pub mod agreement;
mod bank_of;
#[cfg(feature = "oracle")]
pub mod oracle;
pub mod random;
pub mod split;
pub mod tiny;

pub use accounted::accounted;
pub use bank_of::bank;
pub use random::Random;
pub use tiny::Tiny;
