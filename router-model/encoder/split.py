"""Which questions train, which tune, which test: the rule of `src/train/groups.rs`.

In: texts that carry their own label, in any order.  Out: "train", "tune" or
"test" for each.  Near copies (questions that share a run of eight words that few
others have) land on one side, and both stages are held back the same ones.
`python split.py --check ITEMS` compares with what the trainer in Rust says
(`cargo run -p router-model --example items`).
"""

import json
import sys

RUN = 8
COMMON = 12
SEED = 0x5851_F42D_4C95_7F2D
MASK = (1 << 64) - 1
HEAD, TAIL = 1200, 800


def fnv(data: bytes) -> int:
    state = SEED
    for byte in data:
        state = ((state ^ byte) * 0x0000_0100_0000_01B3) & MASK
    state = ((state ^ (state >> 33)) * 0xFF51_AFD7_ED55_8CCD) & MASK
    state = ((state ^ (state >> 33)) * 0xC4CE_B9FE_1A85_EC53) & MASK
    return state ^ (state >> 33)


def ends(text: str) -> list[str]:
    # Two pieces even where nothing is left out: a word at the cut is two words.
    return [text[:HEAD], text[HEAD:][-TAIL:]]


def number(digits: str) -> str:
    year = len(digits) == 4 and (digits[0] == "1" or digits[:2] == "20")
    keep = 2 if year else 0
    return digits[:keep] + "0" * (min(len(digits), 5) - keep)


def words(text: str) -> list[str]:
    """Lower-case words, and numbers by their size, as `src/text.rs` reads them."""
    out = []
    for piece in ends(text):
        at = 0
        while at < len(piece):
            start, c = at, piece[at]
            at += 1
            if c.isnumeric() and not c.isalpha():
                while at < len(piece) and piece[at].isnumeric() and not piece[at].isalpha():
                    at += 1
                out.append(number(piece[start:at]))
            elif c.isalpha():
                while at < len(piece) and piece[at].isalpha():
                    at += 1
                out.append(piece[start:at].lower())
    return out


def runs(text: str) -> set[int]:
    all_words = words(text)
    size = max(1, min(RUN, len(all_words)))
    return {fnv(" ".join(all_words[at : at + size]).encode()) for at in range(len(all_words) - size + 1)}


def split(texts: list[str]) -> list[str]:
    parents = list(range(len(texts)))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    owners: dict[int, list[int]] = {}
    for at, text in enumerate(texts):
        for run in runs(text):
            owners.setdefault(run, []).append(at)
    for list_ in owners.values():
        if 2 <= len(list_) <= COMMON:
            for a, b in zip(list_, list_[1:]):
                a, b = root(a), root(b)
                parents[max(a, b)] = min(a, b)
    names: dict[int, int] = {}
    for at, text in enumerate(texts):
        group = root(at)
        names[group] = min(fnv(text.encode()), names.get(group, MASK))
    parts = {0: "tune", 1: "test"}
    return [parts.get(names[root(at)] % 10, "train") for at in range(len(texts))]


def check(path: str) -> int:
    items = [json.loads(line) for line in open(path, encoding="utf-8")]
    held = [i for i in items if i["kind"] in ("question", "said") and i["own"]]
    ours = split([i["text"] for i in held])
    wrong = [i for i, part in zip(held, ours) if i["part"] != part]
    print(f"{len(held)} items, {len(wrong)} in another part")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(check(sys.argv[2]) if sys.argv[1:2] == ["--check"] else __doc__)
