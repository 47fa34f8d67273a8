"""The engine and llama.cpp in turn, on the same files, threads and work; standard library only.

    python3 tests/speed/run.py --models DIR --peer PEER [--parts PART ...] [--only NAME ...] [--csv tests/speed/runs.csv]

In: files that `models.py` made, tools that `peer.sh` built, and `target/release/speed` and `collegium` of this
checkout.  Out: a Markdown table of medians with the least and the most, and every single run as a row of the CSV.  A run
during which other programs worked is made again.

What the rows mean is in README.md beside this.  To add a measurement: a function that prints its table in the module it
belongs to (`beside` llama.cpp, `streams`, `residency`), and its line in PARTS; how runs are made is in `quiet`, how
tables are in `tables`, who is asked over HTTP in `clients`.
"""

import argparse
import os

import beside
import quiet
import residency
import streams
from tables import Rows

HERE = os.path.dirname(os.path.abspath(__file__))
# What each part is, whether it wants models with experts alone, and whether it wants the memory's speed.
PARTS = {
    "alone": ("one context, beside llama-bench", beside.alone, False, True),
    "together": ("sixteen contexts on specialists and the generalist", streams.streams, True, True),
    "served": ("sixteen clients over HTTP, beside llama-server", beside.served, False, False),
    "contention": ("generating beside a busy loop, beside llama-bench", beside.contention, False, False),
    "residency": ("experts in memory, start, taps, each beside its goal", residency.residency, True, False),
}


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    release = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "..", "target")), "release")
    ap.add_argument("--models", required=True, help="the folder that models.py filled")
    ap.add_argument("--peer", required=True, help="the folder given to peer.sh")
    ap.add_argument("--only", nargs="+", metavar="NAME", help="models whose file name begins with one of these")
    ap.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART",
                    help="which tables, all of them if not given: "
                    + "; ".join(f"{name} ({what[0]})" for name, what in PARTS.items()))  # fmt: skip
    ap.add_argument("--runs", type=int, default=5, help="processes that a median is of (%(default)s)")
    ap.add_argument("--threads", type=int, default=os.cpu_count(), help="and processors; all if not given")
    ap.add_argument("--wait", type=float, default=60, help="seconds to wait for others to be still before a run")
    ap.add_argument("--tries", type=int, default=3, help="of a run during which others work (%(default)s)")
    ap.add_argument("--csv", help="gets a row for every run")
    ap.add_argument("--speed", default=os.path.join(release, "speed"), help="the program that measures the engine")
    ap.add_argument("--collegium", default=os.path.join(release, "collegium"), help="the server")
    return ap.parse_args()


def main():
    a = arguments()
    names = sorted(n for n in os.listdir(a.models) if n.endswith(".gguf"))
    names = [n for n in names if not a.only or any(n.startswith(part) for part in a.only)]
    routed = [n for n in names if "moe" in n]
    # Every program gets the same processors, and as many threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    rows, bandwidth = Rows(a), None
    print(f"{rows.who['processor']}, {a.threads} threads")
    if any(PARTS[part][3] for part in a.parts):
        read = [a.speed, "--bandwidth", "--threads", str(a.threads), "--json"]
        got, note = quiet.undisturbed(a, "reading memory", lambda: quiet.told(read))
        bandwidth = got["bandwidth"]
        rows.add(("", "bandwidth", "ours", 0), bandwidth, note)
        quiet.say("")
        print(f"{bandwidth / 1e9:.1f} GB/s read from memory")
    for part in a.parts:
        _, table, experts, wants_bandwidth = PARTS[part]
        # Sixteen clients of every dense model would say little more.
        chosen = routed if experts or part == "served" else names
        if not chosen:
            print(f"\n{part}: no model among the files fits")
            continue
        print()
        before = len(rows.all)
        table(a, rows, chosen, *[bandwidth] if wants_bandwidth else [])
        made = rows.all[before:]
        if disturbed := sum(bool(row["note"]) for row in made):
            print(f"\n{disturbed} of {len(made)} figures are of runs during which other programs worked.")


if __name__ == "__main__":
    main()
