"""The nano parent: a small mixture-of-experts transformer of the Qwen3-MoE shape.

In: token ids [rows, length] and, optionally, one expert mask per row.  Out: logits [rows, length, vocab].
The router always runs in full; a mask puts -inf on its logits before the top-k, as the engine does.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass(frozen=True)
class Shape:
    """Sizes are counts, not bytes.  `expert_ff * dim` is a multiple of 16,384, so that a Q5_1 expert slice
    (6 bits a weight) is a whole number of 4,096-byte pages."""

    vocab: int = 8192
    layers: int = 6
    dim: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 32
    top_k: int = 4
    expert_ff: int = 128
    context: int = 2048
    rope_base: float = 10000.0
    eps: float = 1e-6


class Experts(nn.Module):
    """Routed feed-forward layer.  After `forward`: `probs` [tokens, experts] of the full router and `chosen`
    [tokens, top_k], what the full router would have taken."""

    def __init__(self, s):
        super().__init__()
        self.s = s
        self.router = nn.Linear(s.dim, s.experts, bias=False)
        self.gate = nn.Parameter(torch.randn(s.experts, s.expert_ff, s.dim) * s.dim**-0.5)
        self.up = nn.Parameter(torch.randn(s.experts, s.expert_ff, s.dim) * s.dim**-0.5)
        self.down = nn.Parameter(torch.randn(s.experts, s.dim, s.expert_ff) * s.expert_ff**-0.5 * (2 * s.layers) ** -0.5)

    def forward(self, x, mask):
        rows, length, dim = x.shape
        k, experts = self.s.top_k, self.s.experts
        x = x.reshape(-1, dim)
        # The router decides in F32 whatever the rest runs in, as the engine does.
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.router.weight)
        self.probs = logits.softmax(-1)
        self.chosen = self.probs.topk(k, -1).indices
        if mask is not None:
            per_token = mask[:, None, :].expand(rows, length, experts).reshape(-1, experts)
            logits = logits.masked_fill(~per_token, float("-inf"))
        weight, index = logits.softmax(-1).topk(k, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        # Tokens sorted by expert.  One split and one unbind: gradients of separate slices would cost most of the time.
        flat = index.reshape(-1)
        order = flat.argsort()
        counts = torch.bincount(flat, minlength=experts).tolist()
        inputs = x.index_select(0, order // k).split(counts)
        gates, ups, downs = self.gate.unbind(0), self.up.unbind(0), self.down.unbind(0)
        out = [
            F.linear(F.silu(F.linear(h, gates[e])) * F.linear(h, ups[e]), downs[e])
            for e, h in enumerate(inputs)
            if len(h)
        ]
        y = torch.cat(out).float() * weight.reshape(-1)[order, None]
        return torch.zeros(x.shape, dtype=torch.float32, device=x.device).index_add(0, order // k, y).view(rows, length, dim)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.attn_norm, self.ffn_norm = nn.RMSNorm(s.dim, s.eps), nn.RMSNorm(s.dim, s.eps)
        self.q = nn.Linear(s.dim, s.heads * s.head_dim, bias=False)
        self.k = nn.Linear(s.dim, s.kv_heads * s.head_dim, bias=False)
        self.v = nn.Linear(s.dim, s.kv_heads * s.head_dim, bias=False)
        self.o = nn.Linear(s.heads * s.head_dim, s.dim, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(s.head_dim, s.eps), nn.RMSNorm(s.head_dim, s.eps)
        self.moe = Experts(s)

    def forward(self, x, cos, sin, mask):
        s, (rows, length, _) = self.s, x.shape
        h = self.attn_norm(x)
        q = rotate(self.q_norm(self.q(h).view(rows, length, s.heads, s.head_dim).float()).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(self.k(h).view(rows, length, s.kv_heads, s.head_dim).float()).transpose(1, 2), cos, sin)
        v = self.v(h).view(rows, length, s.kv_heads, s.head_dim).transpose(1, 2)
        q, k = q.to(v.dtype), k.to(v.dtype)
        group = s.heads // s.kv_heads
        a = F.scaled_dot_product_attention(
            q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), is_causal=True
        )
        x = x + self.o(a.transpose(1, 2).reshape(rows, length, -1))
        return x + self.moe(self.ffn_norm(x), mask)


class Parent(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.embed = nn.Embedding(s.vocab, s.dim)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.norm = nn.RMSNorm(s.dim, s.eps)
        freq = s.rope_base ** -(torch.arange(0, s.head_dim, 2) / s.head_dim)
        angle = torch.arange(s.context)[:, None] * freq
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids, masks=None):
        """`masks`: bool [layers, rows, experts], True is kept; None runs every expert."""
        length = ids.shape[1]
        x = self.embed(ids)
        for layer, block in enumerate(self.blocks):
            x = block(x, self.cos[:length], self.sin[:length], None if masks is None else masks[layer])
        return F.linear(self.norm(x), self.embed.weight)
