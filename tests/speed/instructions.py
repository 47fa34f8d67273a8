"""Instructions that a token and a prompt cost, against a baseline that is kept; standard library only.

    cargo build --release -p tests --bin speed && python3 tests/speed/instructions.py [--top] [--update]

A clock on a machine that others use cannot hold a kernel to a few percent; a count can.  In: `target/release/speed`, the
embedded parent's file, valgrind, and the baseline, `instructions.json` beside this.  Out: the instructions of one token
that is generated and of a prompt of 128, on one thread.  Each is the difference of two runs that have everything else in
common, so that loading cancels out.  A count more than 3 % above the baseline is an error, with the functions that made
it; one more than 3 % below is a note.

What it does not see: valgrind hides AVX-512, so that these are the kernels for AVX2; waiting for memory costs no
instruction; neither does the work of the system, nor of a second thread.  Time is what `run.py` measures.

To count something else: a line in WORK, then --update.
"""

import argparse
import concurrent.futures
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
# What is counted: arguments of a run with it and of one without, and how many of it are between them.
WORK = {
    "a token": (["--prompt", "1", "--generate", "56"], ["--prompt", "1", "--generate", "8"], 48),
    "a prompt of 128": (["--generate", "0", "--repeat", "1"], ["--generate", "0", "--repeat", "0"], 1),
}
# Share of the baseline that a count may be off.  Runs differ by about a thousandth: loading has hash maps with seeds.
OFF = 0.03
# Functions that the baseline keeps, and that are shown.
TOP = 12
NEEDS = """valgrind is not there, and nothing else counts instructions on every machine.
As root: apt-get install --no-install-recommends valgrind (on Fedora: dnf install valgrind)"""


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-3000:]}failed with {done.returncode}")
    return done.stdout


def functions(a, arguments):
    """Instructions of a run, by function."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", a.speed, a.model, "--threads", "1"]
        # An environment of its own, since its size moves the stack.
        run([*command, "--json", *arguments], env={"PATH": os.environ["PATH"]})
        listed = run(["callgrind_annotate", "--threshold=100", "--auto=no", "--show-percs=no", out])
    found = {}
    for line in listed.splitlines():
        # Count, file, function, object; code of other files that was inlined has lines of its own.
        if match := re.match(r"\s*([\d,]+)\s+[^:\s]*:(\S.*?)(\s+\[[^]]*\])?$", line):
            name = match[2].removesuffix("'2")
            found[name] = found.get(name, 0) + int(match[1].replace(",", ""))
    total = re.search(r"([\d,]+)\s+PROGRAM TOTALS", listed)
    if not total or abs(sum(found.values()) / int(total[1].replace(",", "")) - 1) > 0.001:
        sys.exit(f"the report of callgrind_annotate reads otherwise than known here:\n{listed[:2000]}")
    return found


def counted(a, what):
    """Instructions of one of `what`, all and by function, the largest first."""
    *both, between = WORK[what]
    # Side by side: a count does not mind.
    with concurrent.futures.ThreadPoolExecutor(2) as two:
        more, less = two.map(lambda arguments: functions(a, arguments), both)
    each = {name: (n - less.get(name, 0)) / between for name, n in more.items()}
    each = dict(sorted(each.items(), key=lambda pair: -pair[1]))
    total = sum(each.values()) - sum(n for name, n in less.items() if name not in more) / between
    called = sum(n for name, n in each.items() if name.startswith("core::core_arch::"))
    top = {name: round(n) for name, n in list(each.items())[:TOP]}
    return {"instructions": round(total), "called": round(called), "functions": top}


def show(got, before):
    """The functions that take most, beside what they took."""
    print(f"  {'instructions':>14} {'before':>14}  function")
    for name, n in got["functions"].items():
        was = before.get("functions", {}).get(name)
        print(f"  {n:14,} {'–' if was is None else format(was, ','):>14}  {name[:120]}")


def identity(a):
    """What counts depend on beside our code."""
    with open(a.speed, "rb") as program, open(a.model, "rb") as model:
        compiler = re.search(rb"rustc version ([\d.]+[^\s\0]*)", program.read())
        parent = hashlib.sha256(model.read()).hexdigest()
    # 3.19.0 of valgrind-3.19.0
    version = run(["valgrind", "--version"]).strip().split("-")[-1]
    return {"rustc": compiler[1].decode() if compiler else "unknown", "valgrind": version, "parent": parent}


def compare(what, got, before, top):
    """Whether the count is within what the baseline allows."""
    n, was = got["instructions"], before.get("instructions")
    off = n / was - 1 if was else 0
    print(f"{what}: {n:,} instructions, " + (f"{100 * off:+.2f} % of {was:,}" if was else "without a baseline"))
    if top or off > OFF:
        show(got, before)
    if got["called"] > n / 1000:
        print(f"  note: {got['called']:,} are in functions of one vector instruction each, which are called because what "
              "uses them was not inlined into a function with `target_feature`; closures often are not")  # fmt: skip
    if off < -OFF:
        print(f"  note: more than {100 * OFF:.0f} % below the baseline; --update keeps what was won")
    return off <= OFF


def lacking():
    """Why nothing can be compared on this machine; none if it can."""
    if platform.machine() != "x86_64":
        return f"the baseline is of x86_64, this is {platform.machine()}"
    with open("/proc/cpuinfo") as info:
        flags = next((line.split() for line in info if line.startswith("flags")), [])
    missing = {"avx2", "fma", "f16c"} - set(flags)
    return f"the baseline is of kernels for AVX2, and this processor has no {', '.join(missing)}" if missing else None


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    nano = glob.glob(os.path.join(ROOT, "specialists", "nano", "*.gguf"))
    ap.add_argument("--top", action="store_true", help="show the functions that take most also when all is well")
    ap.add_argument("--update", action="store_true", help="write the baseline; commit it and say why it changed")
    ap.add_argument("--times", type=int, default=1, metavar="N", help="count N times and show how far they differ")
    ap.add_argument("--speed", default=os.path.join(target, "release", "speed"), help="the program that is counted")
    ap.add_argument("--model", default=nano[0] if nano else None, help="the embedded parent's file if not given")
    ap.add_argument("--baseline", default=os.path.join(HERE, "instructions.json"))
    a = ap.parse_args()
    if reason := lacking():
        sys.exit(print(f"nothing was counted: {reason}"))
    if not shutil.which("valgrind"):
        sys.exit(NEEDS)
    if not os.path.exists(a.speed):
        sys.exit(f"{a.speed} is not there: cargo build --release -p tests --bin speed")
    kept = {}
    if os.path.exists(a.baseline):
        with open(a.baseline) as file:
            kept = json.load(file)
    elif not a.update:
        sys.exit(f"{a.baseline} is not there; --update writes it")
    now, well = identity(a), True
    counts = {}
    for what in WORK:
        times = [counted(a, what) for _ in range(a.times)]
        counts[what] = times[0]
        well &= compare(what, times[0], kept.get("counts", {}).get(what, {}), a.top)
        if a.times > 1:
            all = [got["instructions"] for got in times]
            print(f"  {a.times} times: {min(all):,} to {max(all):,}, {100 * (max(all) / min(all) - 1):.4f} % apart")
    if a.update:
        with open(a.baseline, "w") as file:
            json.dump({**now, "counts": counts}, file, indent=2, ensure_ascii=False)
            file.write("\n")
        sys.exit(print(f"{os.path.relpath(a.baseline)} is written; commit it with the reason"))
    for name, value in now.items():
        if kept.get(name) != value:
            print(f"note: {name} is {value}, the baseline's {kept.get(name)}; that alone may change counts")
    if not well:
        sys.exit(
            f"More than {100 * OFF:.0f} % above the baseline.  If the functions above should not have grown, they are what "
            "to look at.\nIf the work is needed, or is quicker by the clock (run.py): "
            "python3 tests/speed/instructions.py --update, and commit the file with the reason."
        )


if __name__ == "__main__":
    main()
