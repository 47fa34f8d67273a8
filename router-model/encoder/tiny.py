#!/usr/bin/env python3
"""Makes the fixture that the Rust tests compare with: `python tiny.py`.

A model of random weights, small enough for the repository, as a folder and as a
file, and what PyTorch says of a few texts.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import export
import model as m

TEXTS = [
    "", "What is osmosis?", "OSMOSIS, osmosis: why?", "Café\tlaw of   motion!", "unseenword law",
    "law " * 40, "motion " * 20 + "tax " * 20,
]  # fmt: skip
WORDS = "[PAD] [UNK] [CLS] [SEP] what is osmo ##sis why law of motion cafe tax ##s ? ! , : . a b c ##a ##b".split()


def main():
    out = Path(__file__).parent / "tiny"
    out.mkdir(exist_ok=True)
    m.D, m.HEADS, m.LAYERS, m.FF, m.CLS, m.SEP = 32, 2, 2, 64, 2, 3
    torch.manual_seed(5)
    net = m.Encoder({}, [0, 1, 2], len(WORDS), 16)
    for name, p in net.named_parameters():
        torch.nn.init.normal_(p, 1.0 if "norm" in name and "weight" in name else 0.0, 0.3)
    tokens = Tokenizer(models.WordPiece({w: at for at, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokens.normalizer, tokens.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    rows = m.encode(tokens, TEXTS, 16)
    with torch.no_grad():
        logits = [net(*m.batch([row]))[0].tolist() for row in rows]
    cases = [{"text": t, "ids": r, "logits": z} for t, r, z in zip(TEXTS, rows, logits)]
    (out / "cases.json").write_text(json.dumps(cases, indent=0) + "\n")
    (out / "labels.json").write_text('["law", "math", "physics"]\n')
    (out / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    m.save(net, out / "model.safetensors")
    m.save_config(out, len(WORDS), 16)
    tokens.save(str(out / "tokenizer.json"))
    export.export(out, out / "tiny.gguf", None, {})
    (out / "tokenizer.json").unlink()


if __name__ == "__main__":
    main()
