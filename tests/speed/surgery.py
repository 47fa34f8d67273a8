"""What surgery costs, each figure beside its goal; standard library only.

In: a large model with experts and the built `collegium`.  Out: a table on the screen.  Cutting is beside a copy of the
same output bytes, hashing beside sha256sum, in turn: whatever the disk and the other programs do meanwhile, they do to
both.  Each figure is the median over the pairs.

    python3 tests/speed/surgery.py models/olmoe-q4_k.gguf --scratch FOLDER

needs room for twice the model in FOLDER, which is emptied.  To add a figure: a function that yields (what, goal, digits,
value), and its place in FIGURES.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

from quiet import told, undisturbed
from tables import head, line

MIB, GB = 2**20, 1e9


def least(goal):
    return lambda value: value >= goal, f"at least {goal:g}"


def most(goal):
    return lambda value: value <= goal, f"at most {goal:g}"


def collegium(a, home, *more):
    return [a.collegium, "--json", "--home", home, *more]


def seconds(command):
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def anonymous(pid):
    """Bytes of a process that are no file's; nothing once it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as sizes:
            return next(int(row.split()[1]) * 1024 for row in sizes if row.startswith("Anonymous:"))
    except (OSError, StopIteration):
        return 0


def watched(command):
    """Seconds of a process, and the most anonymous memory that it had."""
    seen, begun = [0], time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        done = threading.Event()

        def look():
            while not done.wait(0.005):
                seen.append(anonymous(process.pid))

        watcher = threading.Thread(target=look)
        watcher.start()
        failed = process.wait()
        took = time.monotonic() - begun
        done.set()
        watcher.join()
    if failed:
        raise RuntimeError(f"{' '.join(command)} ended with {failed}")
    return took, max(seen)


def mask(a, sha256):
    """Keeps all experts but a few of each layer, other ones in each."""
    model = told([a.collegium, "--json", "inspect", a.model])["model"]
    layers, experts = model["layers"], model["experts"]
    keep = max(model["experts_per_token"], round(experts * a.keep))
    kept = [sorted((layer + i) % experts for i in range(keep)) for layer in range(layers)]
    path = os.path.join(a.scratch, "x.mask.json")
    with open(path, "w") as file:
        json.dump({
            "format": "collegium.mask/1", "parent": sha256, "domain": "law", "score": "frequency",
            "experts": [keep] * layers, "kept": kept, "coverage": [a.keep] * layers,
            "profile": "0" * 64, "passes": [],
        }, file)
    return path


def cut(a, home, sha256):
    """A cut beside `cp` and `sync` of what it wrote; the file is in the system's cache for both."""
    out, source, copy = (os.path.join(a.scratch, name) for name in ("s.gguf", "source.gguf", "copy.gguf"))
    command = collegium(a, home, "surgery", "cut", "--parent", a.model, "--mask", mask(a, sha256), "--out", out)
    watched(command)
    os.rename(out, source)
    ratios, ours, theirs, private = [], [], [], []

    def alone(work, target):
        """With the files in the cache, nothing on its way to the disk, and no target to be freed."""
        if os.path.exists(target):
            os.remove(target)
        subprocess.run(["cat", a.model, source], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["sync"], check=True)
        done = work()
        os.remove(target)
        return done

    def copied():
        return alone(lambda: seconds(["sh", "-c", 'cp --reflink=never "$0" "$1" && sync "$1"', source, copy]), copy)

    def cut_again():
        return alone(lambda: watched(command), out)

    for run in range(a.runs):
        def pair():
            # First one then the other ahead.
            if run % 2:
                return cut_again(), copied()
            took = copied()
            return cut_again(), took

        ((took, anon), copying), _ = undisturbed(a, f"cut: pair {run + 1} of {a.runs}", pair)
        ours.append(took)
        theirs.append(copying)
        ratios.append(copying / took)
        private.append(anon)
    size = os.path.getsize(source)
    yield f"cut of {size / GB:.2f} GB, s", None, 2, statistics.median(ours)
    yield "cp and sync of the same bytes, s", None, 2, statistics.median(theirs)
    yield "cut, speed over cp and sync", least(0.8), 2, statistics.median(ratios)
    yield "cut, anonymous memory, MiB", most(200), 1, max(private) / MIB
    os.remove(source)


def hashing(a, home, sha256):
    """A parent that was not seen before, opened and hashed, beside sha256sum of the cached file."""
    ratios = []
    for run in range(a.runs):
        def pair():
            with tempfile.TemporaryDirectory(dir=a.scratch) as fresh:
                plan = collegium(a, fresh, "surgery", "cut", "--dry-run", "--parent", a.model,
                                 "--mask", mask(a, sha256), "--out", os.path.join(fresh, "s.gguf"))
                commands = [plan, ["sha256sum", a.model]]
                took = [seconds(command) for command in (commands if run % 2 else commands[::-1])]
                return took if run % 2 else took[::-1]

        (ours, theirs), _ = undisturbed(a, f"hashing: pair {run + 1} of {a.runs}", pair)
        ratios.append((theirs / ours, ours))
    size = os.path.getsize(a.model)
    yield "hashing, GB/s", None, 2, size / GB / statistics.median(took for _, took in ratios)
    yield "hashing, speed over sha256sum", least(1), 2, statistics.median(ratio for ratio, _ in ratios)


FIGURES = [cut, hashing]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="a GGUF with experts, of some 4 GB")
    parser.add_argument("--collegium", default="target/release/collegium")
    parser.add_argument("--scratch", required=True, help="folder on the disk that is measured")
    parser.add_argument("--keep", type=float, default=0.94, help="share of experts that stay (default: 0.94)")
    parser.add_argument("--runs", type=int, default=5, help="pairs of each (default: 5)")
    parser.add_argument("--tries", type=int, default=1, help="more, if others were at work (default: 1)")
    parser.add_argument("--wait", type=float, default=5, help="seconds to wait for others (default: 5)")
    parser.add_argument("--only", nargs="*", help="figures, by name")
    a = parser.parse_args()
    a.model = os.path.abspath(a.model)
    os.makedirs(a.scratch, exist_ok=True)
    a.scratch = tempfile.mkdtemp(dir=a.scratch)
    try:
        home = os.path.join(a.scratch, "home")
        sha256 = re.match("[0-9a-f]{64}", subprocess.run(
            ["sha256sum", a.model], check=True, capture_output=True, text=True).stdout)[0]
        head("what", "measured", "goal", "reached")
        for figure in FIGURES:
            if a.only and figure.__name__ not in a.only:
                continue
            for what, goal, digits, value in figure(a, home, sha256):
                within, text = goal or (None, "–")
                reached = "–" if not goal else "yes" if within(value) else "**no**"
                line(what, f"{value:.{digits}f}", text, reached)
    finally:
        shutil.rmtree(a.scratch)


if __name__ == "__main__":
    main()
