"""Makes the page that shows what surgery does to the nano parent.  One command, after specialists.sh:

    python page.py --data OUT [--nano DIR]

In: OUT, the folder that run.sh and specialists.sh filled: OUT/specialists/work has a profile of each domain, and
OUT/held-out/<domain>.jsonl the text and the questions that masks are judged on.  Out: NANO/evaluation.html, written by
`collegium surgery evaluate`: a mask of half the experts for each domain, and of a quarter and three quarters for six,
each beside random masks and plain frequency, on text and on questions, at home and away.

What is measured is kept in OUT/page, and not measured again.  COLLEGIUM names the binary (default: collegium from the
path).  Needs nothing but Python.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess

# `other` is a label for evaluation and never a specialist.
NEVER = {"other"}
# Domains far from one another, whose masks are made in other sizes too.
SIZED = {"biology", "computer-science", "history", "law", "math", "physics"}
USER, ASSISTANT, END = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>"


def questions(path):
    """The multiple-choice questions among held-out dialogues, each once, as `--questions` reads them."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        asked, turn, answer = json.loads(line)["text"].partition(ASSISTANT)
        right = re.search(r"answer is \(([A-J])\)", answer)
        asked = asked.rpartition(USER)[2].partition(END)[0]
        stem, *rest = re.split(r"^([A-J])\. ", asked, flags=re.M)
        options = [text.strip() for text in rest[1::2]]
        if turn and right and len(options) > 1 and ord(right[1]) - ord("A") < len(options):
            found[stem] = {"question": stem.strip(), "options": options, "answer": right[1], "category": path.stem}
    return list(found.values())


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder with held-out/ and specialists/")
    parser.add_argument("--nano", type=pathlib.Path, default=here.parent, help="the folder with nano.gguf")
    parser.add_argument("--tokens", default="2500", help="held-out tokens of each domain (default: 2500)")
    parser.add_argument("--items", default="10", help="questions of each domain (default: 10)")
    options = parser.parse_args()
    binary = os.environ.get("COLLEGIUM", "collegium")
    out = options.data / "page"
    out.mkdir(exist_ok=True)
    texts = sorted((options.data / "held-out").glob("*.jsonl"))
    if not texts:
        parser.error(f"{options.data}/held-out has no .jsonl; run.sh makes it")

    def surgery(*words):
        command = [binary, "--home", out / "home", "surgery", *words]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)

    said, inputs = [], []
    for text in texts:
        said += questions(text)
        inputs += ["--corpus", text]
        domain = text.stem
        if domain in NEVER:
            continue
        profile = options.data / "specialists" / "work" / domain / f"{domain}.profile"
        inputs += ["--profile", profile]
        for keep in ("25%", "50%", "75%") if domain in SIZED else ("50%",):
            mask = out / f"{domain}-{keep.rstrip('%')}.mask.json"
            surgery("mask", "--profile", profile, "--keep", keep, "--out", mask)
            inputs += ["--mask", mask]
    asked = out / "questions.jsonl"
    asked.write_text("".join(json.dumps(one) + "\n" for one in said), encoding="utf-8")
    surgery("evaluate", "--parent", options.nano / "nano.gguf", *inputs, "--questions", asked, "--by", "likelihood",
            "--tokens", options.tokens, "--items", options.items, "--random", "2", "--seed", "1", "--out", out)  # fmt: skip
    page = (out / "evaluation.html").read_text(encoding="utf-8")
    # The page tells its command; where the folders were is nobody's business.
    for place, name in ((binary, "collegium"), (f"{options.data}/", "OUT/"), (f"{options.nano}/", "NANO/")):
        page = page.replace(place, name)
    (options.nano / "evaluation.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
