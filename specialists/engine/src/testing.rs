//! Shapes for unit tests.

use crate::arch::Shape;

/// A small shape; only what masks and profiles look at is varied.
pub fn shape(layers: usize, experts: usize, top_k: usize) -> Shape {
    Shape {
        architecture: "qwen3moe".to_owned(),
        name: "test".to_owned(),
        layers,
        dim: 64,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        experts,
        top_k,
        expert_ff: 32,
        vocab: 100,
        context: 128,
        rope_base: 10_000.0,
        norm_eps: 1e-6,
    }
}
