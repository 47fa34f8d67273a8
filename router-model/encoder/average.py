#!/usr/bin/env python3
"""Averages two folders of train.py: `python average.py A B OUT --share 0.65`.

Weights on the way of one run lie in one valley, and a point between two of them
is less sure of itself and a little more often right than either.
Source: Wortsman et al., Model soups (arXiv 2203.05482).
"""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("a", type=Path)
    p.add_argument("b", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--share", type=float, default=0.5, help="of the second")
    o = p.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    a, b = (load_file(folder / "model.safetensors") for folder in (o.a, o.b))
    save_file({name: mean(a[name], b[name], o.share) for name in a}, o.out / "model.safetensors")
    for name in ("config.json", "labels.json", "tokenizer.json", "vocab.txt"):
        shutil.copy(o.b / name, o.out)


def mean(a, b, share: float):
    return ((1 - share) * a + share * b).contiguous()


if __name__ == "__main__":
    main()
