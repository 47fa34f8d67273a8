"""MiniLM as a classifier: six BERT layers, mean of the tokens, one linear layer.

A label may have several rows, as one for each collection of questions within it; the
logarithm of the sum of their powers is its score.

Tensor names are those of the published safetensors file without its prefix, so
that one reader serves both; the head's are `classifier.weight` and `.bias`.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

D, HEADS, LAYERS, FF, EPS = 384, 12, 6, 1536, 1e-12
CLS, SEP = 101, 102


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))
        self.up, self.down = nn.Linear(D, FF), nn.Linear(FF, D)
        self.norm1, self.norm2 = nn.LayerNorm(D, EPS), nn.LayerNorm(D, EPS)
        self.drop = nn.Dropout(0.0)

    def forward(self, x, mask):
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, HEADS, D // HEADS).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(b, t, D)
        x = self.norm1(x + self.drop(self.o(mixed)))
        return self.norm2(x + self.drop(self.down(F.gelu(self.up(x)))))


# Ours to the published names, inside one layer.
NAMES = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "o": "attention.output.dense", "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense", "down": "output.dense", "norm2": "output.LayerNorm",
}  # fmt: skip


class Encoder(nn.Module):
    """`rows` has the label of each row of the classifier."""

    def __init__(self, base: dict, rows: list[int], vocabulary: int = 30522, positions: int = 512):
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, D), nn.Embedding(positions, D)
        self.kind, self.norm = nn.Parameter(torch.zeros(D)), nn.LayerNorm(D, EPS)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(D, len(rows))
        self.register_buffer("of", F.one_hot(torch.tensor(rows)).bool(), persistent=False)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if base:
            self.load_published(base)

    def published(self) -> dict:
        """(published name, tensor) of everything."""
        out = {
            "embeddings.word_embeddings.weight": self.words.weight,
            "embeddings.position_embeddings.weight": self.places.weight,
            "embeddings.LayerNorm.weight": self.norm.weight,
            "embeddings.LayerNorm.bias": self.norm.bias,
        }
        for at, layer in enumerate(self.layers):
            for ours, theirs in NAMES.items():
                part = getattr(layer, ours)
                out[f"encoder.layer.{at}.{theirs}.weight"] = part.weight
                out[f"encoder.layer.{at}.{theirs}.bias"] = part.bias
        return out

    @torch.no_grad()
    def load_published(self, base: dict):
        base = {name.removeprefix("bert."): tensor for name, tensor in base.items()}
        for name, tensor in self.published().items():
            tensor.copy_(base[name])
        self.kind.copy_(base["embeddings.token_type_embeddings.weight"][0])
        if "classifier.weight" in base:
            self.load_head(base["classifier.weight"], base["classifier.bias"])

    def load_head(self, weight, bias):
        """A classifier of as many rows, or of one for each label, whose rows then begin alike."""
        if len(weight) != len(self.head.weight):
            of, count = self.of.long().argmax(1), self.of.sum(0)
            weight, bias = weight[of], bias[of] - count[of].log()
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)

    def forward(self, ids, lengths, frozen: int = 0):
        """Logits [batch, rows]; the embeddings and `frozen` layers take no gradient."""
        there = torch.arange(ids.shape[1])[None] < lengths[:, None]
        mask = there[:, None, None, :]
        with torch.set_grad_enabled(torch.is_grad_enabled() and frozen < 0):
            x = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]] + self.kind)
        for at, layer in enumerate(self.layers):
            with torch.set_grad_enabled(torch.is_grad_enabled() and at >= frozen):
                x = layer(x, mask)
        x = x.float() * there[:, :, None]
        return self.head(x.sum(1) / lengths[:, None])


def by_label(net: Encoder, rows):
    """Logits [batch, labels]."""
    return torch.logsumexp(rows.float()[:, :, None].masked_fill(~net.of, float("-inf")), 1)


def save(net: Encoder, file: Path):
    """As the published model, and the head as `classifier`."""
    tensors = net.published() | {
        "embeddings.token_type_embeddings.weight": torch.stack([net.kind, torch.zeros(D)]),
        "classifier.weight": net.head.weight, "classifier.bias": net.head.bias,
    }  # fmt: skip
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)


def save_config(folder: Path, vocabulary: int, positions: int):
    config = {
        "model_type": "bert", "hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
        "intermediate_size": FF, "layer_norm_eps": EPS, "vocab_size": vocabulary, "max_position_embeddings": positions,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def load(folder: Path, rows: list[int], head: Path | None = None) -> tuple[Encoder, Tokenizer]:
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.no_padding()
    tokens.no_truncation()
    base = load_file(folder / "model.safetensors")
    if head:
        base |= {n: t for n, t in load_file(head / "model.safetensors").items() if n.startswith("classifier.")}
    return Encoder(base, rows), tokens


def taught(folder: Path, labels: list[str]) -> Encoder:
    """An encoder that says what it was taught and learns no more."""
    rows = [labels.index(label) for label in json.loads((folder / "labels.json").read_text())]
    return load(folder, rows)[0].eval().requires_grad_(False)


def cut(ids: list[int], most: int) -> list[int]:
    """The first and the last pieces of a text: three from the head to one from the tail."""
    room = most - 2
    if len(ids) > room:
        tail = room // 4
        ids = ids[: room - tail] + ids[-tail:]
    return [CLS, *ids, SEP]


def encode(tokens: Tokenizer, texts: list[str], most: int) -> list[list[int]]:
    # No token needs more than a page of text from either end.
    texts = [t if len(t) <= 4000 else t[:3000] + " " + t[-1000:] for t in texts]
    return [cut(e.ids, most) for e in tokens.encode_batch(texts, add_special_tokens=False)]


def batch(rows: list[list[int]]):
    lengths = torch.tensor([len(r) for r in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
    return ids, lengths


@torch.no_grad()
def logits(model: Encoder, rows: list[list[int]], size: int = 32) -> torch.Tensor:
    learning = model.training
    model.eval()
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    out = [None] * len(rows)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = model(*batch([rows[at] for at in chosen]))
        for at, row in zip(chosen, by_label(model, z)):
            out[at] = row
    model.train(learning)
    return torch.stack(out)
