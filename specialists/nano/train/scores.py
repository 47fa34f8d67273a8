"""Measures which score chooses the best experts, on held-out text of every domain.  One command:

    python scores.py --data OUT [--domains law,math] [--keep 50%] [--tokens 200000] [--judged 20000]

In: OUT, the folder that run.sh filled: OUT/train/<domain>.jsonl is what is profiled, OUT/held-out/<domain>.jsonl what
masks are judged on, so that no mask has seen it.  Out, in OUT/scores: a profile of each domain, a mask of each domain
and score, the tables of `collegium surgery evaluate`, and of all that `scores.md` and `scores.json`: what a mask costs
above the parent in nats a token on its own domain, by score and by domain, beside random masks of the same size.

What is done is not done again; delete OUT/scores after changing the parent or the texts.  COLLEGIUM names the binary
(default: collegium from the path).  The score of the first row is what surgery/src/mask/score.rs should have first in BY_MERIT.
Needs nothing but Python.
"""

import argparse
import json
import os
import pathlib
import subprocess

# `other` is a label for evaluation and never a specialist.
NEVER = {"other"}
SCORES = ["frequency", "rank", "gate", "norm-mean", "norm-sum", "reap", "gate-norm"]
SEED = "1"


def surgery(options, *words):
    """Runs one step; what it says on standard error is for who looks on."""
    binary = os.environ.get("COLLEGIUM", "collegium")
    command = [binary, "--home", str(options.out / "home"), "surgery", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def made(path, make):
    """The path, made unless it is there; a step renames its file into place, so that what is there is whole."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
    return path


def measure(options, domain, score):
    """Costs above the parent on the domain's held-out text: of the mask, and of random ones where they were asked for.

    Random masks depend on the size alone, so they are drawn beside the first score only.
    """
    profile = made(options.out / f"{domain}.profile", lambda path: surgery(
        options, "profile", "--parent", options.parent, "--corpus", options.data / "train" / f"{domain}.jsonl",
        "--domain", domain, "--tokens", options.tokens, "--out", path))  # fmt: skip
    mask = made(options.out / score / f"{domain}.mask.json", lambda path: surgery(
        options, "mask", "--profile", profile, "--keep", options.keep, "--score", score, "--out", path))  # fmt: skip
    folder = options.out / score / domain
    table = folder / "table.json"
    if not table.exists():
        draws = 3 if score == SCORES[0] else 0
        surgery(
            options, "evaluate", "--parent", options.parent, "--mask", mask,
            "--corpus", options.data / "held-out" / f"{domain}.jsonl",
            "--random", draws, "--seed", SEED, "--tokens", options.judged, "--out", folder)  # fmt: skip
        if not table.exists():
            (folder / "evaluation.json").rename(table)
    return costs(json.loads(table.read_text()), domain)


def costs(table, domain):
    """Of one table: nats a token above the parent by kind of row."""
    at = [column["name"] for column in table["columns"]].index(domain)
    nats = {row["kind"]: row["nats"][at] for row in table["rows"]}
    return {kind: value - nats["parent"] for kind, value in nats.items() if kind != "parent"}


def mean(values):
    return sum(values) / len(values)


def markdown(options, found):
    """Best score first; the best of each domain in bold."""
    best = [min(costs[i] for costs in found["scores"].values()) for i in range(len(found["domains"]))]
    bold = lambda cost, least: f"**{cost:+.4f}**" if cost == least else f"{cost:+.4f}"
    lines = [
        f"Nats a token above the parent, on held-out text of the mask's own domain; {options.keep} of the experts kept,",
        f"{options.tokens} tokens profiled and {options.judged} judged of each domain.",
        "",
        "| score | mean | " + " | ".join(found["domains"]) + " |",
        "| --- |" + " ---: |" * (len(found["domains"]) + 1),
    ]
    for score, costs in sorted(found["scores"].items(), key=lambda item: mean(item[1])):
        cells = [f"{mean(costs):+.4f}", *map(bold, costs, best)]
        lines.append(f"| {score} | " + " | ".join(cells) + " |")
    random = found["random"]
    lines.append("| random (mean of 3) | " + " | ".join(f"{cost:+.4f}" for cost in [mean(random), *random]) + " |")
    return "\n".join(lines) + "\n"


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder with train/ and held-out/")
    parser.add_argument("--parent", default=here.parent / "nano.gguf", help="a GGUF file (default: the nano parent)")
    parser.add_argument("--domains", help="some of them, by commas (default: all)")
    parser.add_argument("--keep", default="50%", help="experts of each layer (default: 50%%)")
    parser.add_argument("--tokens", type=int, default=200_000, help="profiled of each domain (default: 200000)")
    parser.add_argument("--judged", type=int, default=20_000, help="held-out tokens of each domain (default: 20000)")
    options = parser.parse_args()
    options.out = options.data / "scores"
    there = sorted(path.stem for path in (options.data / "train").glob("*.jsonl") if path.stem not in NEVER)
    domains = options.domains.split(",") if options.domains else there
    if not domains or not set(domains) <= set(there):
        parser.error(f"{options.data}/train has {', '.join(there) or 'no .jsonl'}")
    found = {"domains": domains, "scores": {score: [] for score in SCORES}, "random": []}
    for domain in domains:
        for score in SCORES:
            cost = measure(options, domain, score)
            found["scores"][score].append(cost["mask"])
            if "random" in cost:
                found["random"].append(cost["random"])
    (options.out / "scores.json").write_text(json.dumps(found, indent=2) + "\n")
    text = markdown(options, found)
    (options.out / "scores.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
