"""What specialists of one parent need, in files and in memory; standard library only.

In: a parent with experts, a corpus and the built `collegium`.  Out: a table in Markdown: the parent, a specialist of
--keep experts a layer, and one whose layers keep what carries as much of the gate mass.  Each specialist is profiled,
masked, cut, verified, and served from its file.

    target/release/random_parent --shape gemma4 --layers 3 --out gemma4.gguf
    python3 tests/speed/specialist_memory.py gemma4.gguf --corpus TEXT.jsonl --keep 64 --scratch FOLDER

Ledger: backbone and resident experts of a server that has answered with all of them warm, as /metrics has it.  Resident:
the pages of the process, as the system counts them, with the program, keys and values.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

from tables import head, line

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))
from server import metrics, post, serve


def collegium(a, *more):
    command = [a.collegium, "--json", "--home", os.path.join(a.scratch, "home"), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}")
    return json.loads(done.stdout)


def specialist(a, name, *flags):
    """A verified file, and what its mask says of itself."""
    mask, file = (os.path.join(a.scratch, f"{name}.{end}") for end in ("mask.json", "gguf"))
    collegium(a, "surgery", "mask", "--profile", a.profile, "--out", mask, *flags)
    collegium(a, "surgery", "cut", "--parent", a.model, "--mask", mask, "--out", file, "--for", "collegium")
    collegium(a, "surgery", "verify", "--parent", a.model, "--specialist", file)
    with open(mask) as text:
        return file, json.load(text)


def row(a, what, file, coverage):
    model = collegium(a, "inspect", file)
    with serve(os.path.abspath(a.collegium), "--parent", os.path.abspath(file)) as (base, _, _):
        post(base, "/v1/completions", {"model": "generalist", "prompt": "The", "max_tokens": 2, "temperature": 0})
        seen = metrics(base)
    ledger = [seen[f'collegium_ledger_bytes{{kind="{kind}"}}'] for kind in ("experts", "backbone")]
    resident = sum(value for name, value in seen.items() if name.startswith("collegium_process_resident_bytes"))
    numbers = [model["bytes"], model["model"]["bank_bytes"], *ledger, resident]
    line(what, *(f"{number:,.0f}" for number in numbers), f"{coverage:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="a GGUF with experts")
    parser.add_argument("--corpus", required=True, help="what is profiled")
    parser.add_argument("--tokens", default="4096", help="of it, at most (default: 4096)")
    parser.add_argument("--keep", required=True, type=int, help="experts of each layer")
    parser.add_argument("--collegium", default="target/release/collegium")
    parser.add_argument("--scratch", required=True, help="folder with room for two specialists")
    a = parser.parse_args()
    os.makedirs(a.scratch, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=a.scratch) as a.scratch:
        a.profile = os.path.join(a.scratch, "x.profile")
        collegium(a, "surgery", "profile", "--parent", a.model, "--corpus", a.corpus, "--domain", "law",
                  "--tokens", a.tokens, "--out", a.profile)  # fmt: skip
        head("what", "file", "experts in it", "ledger: experts", "ledger: backbone", "resident", "coverage")
        row(a, "parent", a.model, 1)
        file, mask = specialist(a, "same", "--keep", str(a.keep))
        coverage = sum(mask["coverage"]) / len(mask["coverage"])
        row(a, f"{a.keep} of each layer", file, coverage)
        os.remove(file)
        file, mask = specialist(a, "layers", "--coverage", f"{min(mask['coverage']):.4f}", "--per-layer")
        kept = ", ".join(str(count) for count in mask["experts"])
        row(a, f"by layer: {kept}", file, sum(mask["coverage"]) / len(mask["coverage"]))


if __name__ == "__main__":
    main()
