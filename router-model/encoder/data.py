"""What the encoder learns from, and the forms it is shown in.

In: the folder of data and this repository's own lists.  Out: items, each with a
text, options, a domain's place among the labels, and its part.  A form is drawn
anew each time an item is shown, from the seed alone.
"""

import json
import lzma
import random
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from split import split

HERE = Path(__file__).resolve().parent
OWN = HERE.parent / "data"
DOMAINS = HERE.parents[1] / "config" / "domains"

# Questions of other benchmarks, by file: they have no label of their own, all
# train.  So few of each that MMLU-Pro keeps the word.
OTHERS = {"gsm8k-train": ("math", 400), "mbpp": ("computer-science", 400), "medqa": ("health", 400)}

ASK = """What is {}?|What are {}?|what is {}|Explain {}.|How does {} work?|Why is {} important?|Tell me about {}.
Can you help me with {}?|Give me an example of {}.|{} vs {2}|How is {} related to {2}?|{}|{}?|How do I use {}?
I have a question about {}.|What causes {}?|Describe {} in detail.|Who discovered {}?|What does {} mean?|Compare {} with {2}.
What is the difference between {} and {2}?|What are the types of {}?|Is {} the same as {2}?""".replace("\n", "|").split("|")


@dataclass
class Item:
    text: str
    label: int
    kind: str
    part: str = "train"
    options: list[str] = field(default_factory=list)


def lines(path: Path):
    opened = lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else open(path, encoding="utf-8")
    with opened as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def read(folder: Path, seed: int) -> tuple[list[str], list[Item], dict[str, list[str]]]:
    """Labels, items, and the topics of each domain."""
    domains = [tomllib.loads(path.read_text()) for path in sorted(DOMAINS.glob("*.toml"))]
    names = {d["id"]: d["id"] for d in domains}
    names |= {alias: d["id"] for d in domains for alias in d.get("aliases", [])}
    names |= {name.replace("-", " "): id_ for name, id_ in names.items()}
    labels = sorted({names[q["category"]] for q in lines(folder / "mmlu-pro-questions.jsonl.xz")})
    at = {name: labels.index(id_) for name, id_ in names.items() if id_ in labels}
    items = []
    for q in lines(folder / "mmlu-pro-questions.jsonl.xz"):
        items.append(Item(q["question"].strip(), at[q["category"]], "question", options=q["options"]))
    for said in lines(OWN / "asked.jsonl"):
        items.append(Item(said["text"].strip(), at[said["domain"]], "said"))
    for item, part in zip(items, split([i.text for i in items])):
        item.part = part
    for domain in domains:
        if domain["id"] in at:
            items += [Item(text, at[domain["id"]], "said") for text in domain.get("examples", [])]
    topics = {t["domain"]: t["topics"] for t in lines(OWN / "topics.jsonl")}
    for domain, list_ in topics.items():
        items += [Item(topic, at[domain], "topic") for topic in list_]
    rng = random.Random(seed)
    for name, (domain, count) in OTHERS.items():
        rows = list(lines(folder / f"{name}.jsonl.xz"))
        for row in rng.sample(rows, count):
            text = (row.get("question") or row["text"]).strip()
            items.append(Item(text, at[domain], "other"))
    return labels, items, {labels[at[d]]: t for d, t in topics.items()}


def mistype(text: str, share: float, rng: random.Random) -> str:
    """Swaps two neighbouring letters in a share of the words longer than three."""

    def slip(match):
        word = match.group()
        if rng.random() >= share:
            return word
        i = rng.randrange(len(word) - 1)
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]

    return re.sub(r"[^\W\d_]{4,}", slip, text)


def whole(item: Item) -> str:
    return item.text + "".join(f"\n{chr(65 + at)}. {option}" for at, option in enumerate(item.options))


def part_of(text: str, rng: random.Random) -> str:
    """One to four sentences in a row."""
    all_ = [s for s in re.split(r"(?<=[.?!])\s+", text) if s.strip()]
    start = rng.randrange(len(all_))
    return " ".join(all_[start : start + 1 + rng.randrange(4)])


def view(item: Item, peers: list[str], rng: random.Random) -> str:
    """One form of an item: users name no options, cut short, and mistype."""
    text, draw = item.text, rng.random()
    if item.kind == "topic":
        text = rng.choice(ASK).replace("{2}", rng.choice(peers)).replace("{}", item.text)
    elif item.kind == "question" and draw > 0.8:
        text = whole(item) if draw > 0.92 else "\n".join([text] + [o for o in item.options if rng.random() < 0.4])
    elif item.kind == "other" or (item.kind == "question" and draw > 0.72):
        text = part_of(text, rng)
    if rng.random() < 0.3:
        text = mistype(text, rng.choice([0.1, 0.2, 0.3]), rng)
    return text
