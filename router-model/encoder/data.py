"""What the encoder learns from, and the forms it is shown in.

In: the lines that `cargo run -p router-model --example items` prints, so that both
stages learn from the same items and are held back the same ones.  Out: items, each
with a text, options, a label, and its part.  A form is drawn anew each time an item
is shown, from the seed alone.
"""

import json
import lzma
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

# The share of the items of a kind that an epoch shows, found by no search.
# `collection` are questions whose file says the domain for all.
SHARES = {
    "question": 1.0, "said": 1.0, "example": 1.0, "aside": 1.0, "topic": 0.4, "answer": 0.1,
    "collection": 0.25, "exercise": 0.25, "heading": 0.1, "passage": 0.03,
}  # fmt: skip

# Their labels are their own; a book's or another benchmark's say what most of it is about.
OWN = ("question", "said", "example", "topic")

# What is long enough to be known with every other word gone, and how often it is so shown.
THINNED = ("question", "exercise", "answer", "passage", "collection")
THIN = 0.25

# The label of an item of no domain: all are as likely.  The row of an item of no collection.
NONE = -1

ASK = """What is {}?|What are {}?|what is {}|Explain {}.|How does {} work?|Why is {} important?|Tell me about {}.
Can you help me with {}?|Give me an example of {}.|{} vs {2}|How is {} related to {2}?|{}|{}?|How do I use {}?
I have a question about {}.|What causes {}?|Describe {} in detail.|Who discovered {}?|What does {} mean?|Compare {} with {2}.
What is the difference between {} and {2}?|What are the types of {}?|Is {} the same as {2}?""".replace("\n", "|").split("|")


@dataclass
class Item:
    text: str
    label: int
    kind: str
    part: str
    row: int = NONE
    options: list[str] = field(default_factory=list)


def read(path: Path) -> tuple[list[str], list[Item], dict[int, list[str]]]:
    """Labels, items, and the topics of each label."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    labels = sorted({r["domain"] for r in lines if r["kind"] == "question" and r["own"]})
    at = {name: place for place, name in enumerate(labels)} | {"none": NONE}
    items = []
    for r in lines:
        kind = "collection" if r["kind"] == "question" and not r["own"] else r["kind"]
        items.append(Item(r["text"], at[r["domain"]], kind, r["part"], options=r["options"]))
    topics = {label: [i.text for i in items if i.kind == "topic" and i.label == label] for label in at.values()}
    return labels, items, topics


def collect(items: list[Item], questions: Path) -> list[int]:
    """Gives each question the row of its collection (`src` of MMLU-Pro's lines); the label of each row."""
    with lzma.open(questions, "rt", encoding="utf-8") as file:
        of = {q["question"].strip(): f"{q['category']}/{q['src']}" for q in map(json.loads, file)}
    asked = [i for i in items if i.kind == "question" and i.text.strip() in of]
    names = sorted({of[i.text.strip()] for i in asked})
    rows = [NONE] * len(names)
    for item in asked:
        item.row = names.index(of[item.text.strip()])
        rows[item.row] = item.label
    return rows


def mistype(text: str, share: float, rng: random.Random) -> str:
    """Swaps two neighbouring letters in a share of the words longer than three."""

    def slip(match):
        word = match.group()
        if rng.random() >= share:
            return word
        i = rng.randrange(len(word) - 1)
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]

    return re.sub(r"[^\W\d_]{4,}", slip, text)


def thin(text: str, rng: random.Random) -> str:
    """About half of the words gone."""
    return re.sub(r"\S+", lambda word: word.group() if rng.random() < 0.5 else "", text).strip() or text


def whole(item: Item) -> str:
    return item.text + "".join(f"\n{chr(65 + at)}. {option}" for at, option in enumerate(item.options))


def part_of(text: str, rng: random.Random) -> str:
    """One to four sentences in a row."""
    all_ = [s for s in re.split(r"(?<=[.?!])\s+", text) if s.strip()]
    start = rng.randrange(len(all_))
    return " ".join(all_[start : start + 1 + rng.randrange(4)])


def view(item: Item, peers: list[str], rng: random.Random) -> str:
    """One form of an item: users name no options, cut short, leave out, and mistype."""
    text, draw = item.text, rng.random()
    if item.kind in ("topic", "heading"):
        text = rng.choice(ASK).replace("{2}", rng.choice(peers or [text])).replace("{}", text)
    elif item.kind == "question" and draw > 0.8:
        text = whole(item) if draw > 0.92 else "\n".join([text] + [o for o in item.options if rng.random() < 0.4])
    elif item.kind in ("collection", "answer", "passage") or (item.kind == "question" and draw > 0.72):
        text = part_of(text, rng)
    if rng.random() < 0.3:
        text = mistype(text, rng.choice([0.1, 0.2, 0.3]), rng)
    if item.kind in THINNED and rng.random() < THIN:
        text = thin(text, rng)
    return text
