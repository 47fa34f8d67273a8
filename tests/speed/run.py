"""The engine and llama.cpp in turn, on the same files, threads and work; standard library only.

    python3 tests/speed/run.py --models DIR --peer PEER [--only NAME ...] [--runs 5] [--csv tests/speed/runs.csv]

In: files that `models.py` made, tools that `peer.sh` built, and `target/release/speed` of this checkout.  Out: a
Markdown table of medians with the least and the most, and every single run as a row of the CSV.  Both engines run
process after process, ours first in one run and last in the next, so that a machine that slows down slows both; a run
during which other programs worked is made again.

What the rows mean is in README.md beside this.  To add a measurement: a function that yields rows, and its line in
`main`; who is asked over HTTP is in `clients.py`.
"""

import argparse
import csv
import datetime
import json
import os
import statistics
import subprocess
import sys
import time

import clients

HERE = os.path.dirname(os.path.abspath(__file__))
# Streams at once, specialists they are spread over, and tokens each of them generates.
STREAMS, SPECIALISTS, TOKENS = 16, 8, 64
# Processors that others may take during a run: the system itself is never still.
QUIET = 0.1
FIELDS = ["date", "processor", "threads", "model", "what", "who", "run", "value", "note"]


def say(text):
    """What is being done now; nothing of it stays."""
    sys.stderr.write(f"\r{text[:110]}\033[K")
    sys.stderr.flush()


def processor():
    with open("/proc/cpuinfo") as info:
        return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))


def busy():
    """Seconds that processors have worked since the machine started, for whomever; and those for us."""
    with open("/proc/stat") as stat:
        times = [int(n) for n in stat.readline().split()[1:9]]
    return (sum(times) - times[3] - times[4]) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def others(work):
    """What `work` gives, and how many processors were at work for others meanwhile."""
    all_before, ours_before, begun = *busy(), time.monotonic()
    got = work()
    all_after, ours_after = busy()
    return got, (all_after - all_before - ours_after + ours_before) / (time.monotonic() - begun)


def undisturbed(a, what, work):
    """What `work` gives when nobody else works, and a note if that could not be had."""
    for _ in range(a.tries):
        until = time.monotonic() + a.wait
        while (taken := others(lambda: time.sleep(0.5))[1]) > QUIET and time.monotonic() < until:
            say(f"{what}: waiting, {taken:.1f} processors are busy")
        say(what)
        got, taken = others(work)
        if taken <= QUIET:
            return got, ""
    say("")
    note = f"{taken:.1f} processors were busy with other work"
    print(f"warning: {what}: {note}", file=sys.stderr)
    return got, note


def told(command):
    """What a program prints as JSON."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def ours(a, path, *more):
    return told([a.speed, path, "--threads", str(a.threads), "--json", *more])


def theirs(a, path):
    """(prompt, generate) in tokens a second."""
    command = [os.path.join(a.peer, "bin", "llama-bench"), "-m", path, "-t", str(a.threads)]
    tests = told([*command, "-p", "128", "-n", "64", "-r", "1", "-o", "json"])
    return tuple(next(t["avg_ts"] for t in tests if t[key]) for key in ("n_prompt", "n_gen"))


class Rows:
    """Every figure, in the order it came; the CSV grows with each."""

    def __init__(self, a):
        self.a, self.all = a, []
        self.who = {"date": datetime.date.today().isoformat(), "processor": f"{os.cpu_count()} x {processor()}"}

    def add(self, place, value, note):
        """`place`: model, what was measured, who, and which run."""
        row = {**self.who, "threads": self.a.threads, **dict(zip(["model", "what", "who", "run"], place))}
        row |= {"value": round(value, 3), "note": note}
        self.all.append(row)
        if self.a.csv:
            new = not os.path.exists(self.a.csv)
            with open(self.a.csv, "a", newline="") as f:
                table = csv.DictWriter(f, FIELDS)
                if new:
                    table.writeheader()
                table.writerow(row)

    def of(self, model, what, who):
        return [r["value"] for r in self.all if (r["model"], r["what"], r["who"]) == (model, what, who)]


def head(*names):
    """Text to the left, numbers to the right."""
    words = [name in ("model", "streams", "clients") for name in names]
    print(f"| {' | '.join(names)} |")
    print(f"|{'|'.join('---' if word else '---:' for word in words)}|")


def cell(values):
    """Median, least and most."""
    if not values:
        return "–"
    digits = 0 if min(values) >= 100 else 1
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def ratio(a, b):
    return f"{statistics.median(a) / statistics.median(b):.2f}" if a and b else "–"


def alone(a, rows, names, bandwidth):
    """One context, file by file."""
    head("model", "pp128 ours", "llama.cpp", "ratio", "tg64 ours", "llama.cpp", "ratio", "of bandwidth", "load s",
         "anon MiB")  # fmt: skip
    for name in names:
        path, extra = os.path.join(a.models, name), {}

        def run_ours(run):
            got, note = undisturbed(a, f"{name}: run {run + 1} of {a.runs}, ours", lambda: ours(a, path))
            rows.add((name, "pp128", "ours", run), got["prompt_per_s"][0], note)
            rows.add((name, "tg64", "ours", run), got["generate_per_s"][0], note)
            rows.add((name, "load_s", "ours", run), got["load_s"], note)
            rows.add((name, "first_token_s", "ours", run), got["first_token_s"], note)
            extra.update(got)

        def run_theirs(run):
            got, note = undisturbed(a, f"{name}: run {run + 1} of {a.runs}, llama.cpp", lambda: theirs(a, path))
            rows.add((name, "pp128", "llama.cpp", run), got[0], note)
            rows.add((name, "tg64", "llama.cpp", run), got[1], note)

        for run in range(a.runs):
            for turn in [run_ours, run_theirs][:: 1 if run % 2 == 0 else -1]:
                turn(run)
        say("")
        cells = []
        for what in ("pp128", "tg64"):
            here, there = rows.of(name, what, "ours"), rows.of(name, what, "llama.cpp")
            cells += [cell(here), cell(there), ratio(here, there)]
        share = extra["bytes_per_token"] * statistics.median(rows.of(name, "tg64", "ours")) / bandwidth
        load = statistics.median(rows.of(name, "load_s", "ours"))
        cells += [f"{100 * share:.0f} %", f"{load:.2f}", f"{extra['rss_anon'] / 2**20:.0f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


KINDS = {
    f"{STREAMS} over {SPECIALISTS} specialists": ["--specialists", str(SPECIALISTS)],
    f"{STREAMS} on one specialist": ["--specialists", "1"],
    f"{STREAMS} on the generalist": [],
    f"{STREAMS} on the generalist, one after another": ["--serial"],
}


def together(a, rows, names, bandwidth):
    """Many contexts at once; only models with experts can be asked for specialists."""
    head("model", "streams", "tokens/s", "experts a layer and step", "MB a step", "of bandwidth")
    for name in names:
        path, last = os.path.join(a.models, name), {}
        for run in range(a.runs):
            for what, more in KINDS.items():
                more = ["--streams", str(STREAMS), "--generate", str(TOKENS), *more]
                title = f"{name}: run {run + 1} of {a.runs}, {what}"
                got, note = undisturbed(a, title, lambda more=more: ours(a, path, *more))
                rows.add((name, what, "ours", run), got["per_s"][0], note)
                last[what] = got
        say("")
        for what, got in last.items():
            per_s, rows_a_step = rows.of(name, what, "ours"), 1 if got["serial"] else STREAMS
            share = got["bytes_per_step"] * statistics.median(per_s) / rows_a_step / bandwidth
            cells = [cell(per_s), f"{got['experts_per_layer']:.1f}", f"{got['bytes_per_step'] / 1e6:.0f}"]
            print(f"| {name} | {what} | " + " | ".join(cells) + f" | {100 * share:.0f} % |", flush=True)


def served(a, rows, names):
    """The same clients over HTTP, at both servers."""
    what = f"{STREAMS} clients"
    head("model", "clients", "tokens/s ours", "llama-server", "ratio")
    for name in names:
        path = os.path.join(a.models, name)
        servers = {
            "ours": lambda: clients.collegium(a.collegium, path),
            "llama.cpp": lambda: clients.llama_server(a.peer, path, a.threads, STREAMS),
        }

        def run_at(server):
            with server() as ask:
                return clients.tokens_per_s(ask, STREAMS, TOKENS)

        for run in range(a.runs):
            for who in list(servers)[:: 1 if run % 2 == 0 else -1]:
                title = f"{name}: run {run + 1} of {a.runs}, {what} at {who}"
                per_s, note = undisturbed(a, title, lambda who=who: run_at(servers[who]))
                rows.add((name, what, who, run), per_s, note)
        say("")
        here, there = rows.of(name, what, "ours"), rows.of(name, what, "llama.cpp")
        print(f"| {name} | {what} | {cell(here)} | {cell(there)} | {ratio(here, there)} |", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    release = os.path.join(HERE, "..", "..", "target", "release")
    ap.add_argument("--models", required=True, help="the folder that models.py filled")
    ap.add_argument("--peer", required=True, help="the folder given to peer.sh")
    ap.add_argument("--only", nargs="+", metavar="NAME", help="models whose file name begins with one of these")
    ap.add_argument("--parts", nargs="+", default=["alone", "together", "served"],
                    choices=["alone", "together", "served"], help="which tables; all of them if not given")  # fmt: skip
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    ap.add_argument("--wait", type=float, default=60, help="seconds to wait for others to be still before a run")
    ap.add_argument("--tries", type=int, default=3, help="of a run during which others work")
    ap.add_argument("--csv", help="gets a row for every run")
    ap.add_argument("--speed", default=os.path.join(release, "speed"), help="the program that measures the engine")
    ap.add_argument("--collegium", default=os.path.join(release, "collegium"), help="the server")
    a = ap.parse_args()
    names = sorted(n for n in os.listdir(a.models) if n.endswith(".gguf"))
    names = [n for n in names if not a.only or any(n.startswith(part) for part in a.only)]
    routed = [n for n in names if "moe" in n]
    # Every program gets the same processors, and as many threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    rows = Rows(a)
    read = [a.speed, "--bandwidth", "--threads", str(a.threads), "--json"]
    got, note = undisturbed(a, "reading memory", lambda: told(read))
    bandwidth = got["bandwidth"]
    rows.add(("", "bandwidth", "ours", 0), bandwidth, note)
    say("")
    print(f"{rows.who['processor']}, {a.threads} threads, {bandwidth / 1e9:.1f} GB/s read from memory\n")
    if "alone" in a.parts:
        alone(a, rows, names, bandwidth)
        print()
    if "together" in a.parts and routed:
        together(a, rows, routed, bandwidth)
        print()
    if "served" in a.parts:
        served(a, rows, routed or names)


if __name__ == "__main__":
    main()
