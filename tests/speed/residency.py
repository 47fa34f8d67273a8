"""What holding experts in memory costs, each figure beside its goal; standard library only.

In: files of models with experts, which are read once so that the system has them in its cache.  Out: a table, and a row
for every run.  Goals are of the median; where one is missed the table says so and nothing else happens.

To add a figure: a function that yields (what, unit, goal, digits, one value a run), and its place in FIGURES.
"""

import concurrent.futures
import os
import statistics
import threading

import clients
from quiet import ours, say, undisturbed
from tables import cell, head, line

MIB, GB = 2**20, 1e9
# Repetitions within one process; between two prompts that taps are tried on, so many tokens.
WARMINGS, TAPS, BETWEEN, PROFILES = 11, 12, 16, 7
# Clients, and tokens of a client's prompt, about, and answer.
CLIENTS, PROMPT, TOKENS = 16, 8, 64


def most(goal):
    return lambda value: value <= goal, f"at most {goal:g}"


def least(goal):
    return lambda value: value >= goal, f"at least {goal:g}"


def warming(a, path):
    """A specialist that is there, and one that lacks some experts, beside a copy of as many bytes."""
    got = ours(a, path, "--warming", "--repeat", str(WARMINGS))
    yield "warm, all there, ms", most(1), 3, 1e3 * statistics.median(got["resident_s"])
    warm, copy = (got["bytes"] / statistics.median(got[key]) / GB for key in ("warm_s", "copy_s"))
    lacking = f"{got['bytes'] / 1e6:.0f} MB lacking"
    yield f"warm, {lacking}, GB/s", None, 1, warm
    yield f"copy of {got['bytes'] / 1e6:.0f} MB, GB/s", None, 1, copy
    yield f"warm, {lacking}, over copy", least(0.8), 2, warm / copy
    yield "pages that came from disk meanwhile", None, 0, got["pages_from_disk"]


def start(a, path):
    """A process that knows nothing yet, to the logits of its first token; all experts are brought in before."""
    got = ours(a, path, "--prompt", "1", "--generate", "0", "--repeat", "0")
    yield f"start to first token, {os.path.getsize(path) / GB:.1f} GB, s", most(2), 2, got["first_token_s"]


def taps(a, path):
    """The same steps with taps and without, in turn within one process; each pair is compared on its own."""
    got = ours(a, path, "--taps-cost", "--repeat", str(TAPS), "--generate", str(BETWEEN))
    for what in ("prompt", "generate"):
        pairs = zip(got[f"{what}_s_with"], got[f"{what}_s_without"])
        cost = statistics.median(with_taps / without for with_taps, without in pairs)
        yield f"taps, {what}, % of time", most(2), 1, 100 * (cost - 1)


def profiling(a, path):
    """A corpus profiled with all there is to count, and a prefill of the same tokens, in turn within one process."""
    got = ours(a, path, "--profiling", "--repeat", str(PROFILES))
    pairs = zip(got["prefill_s"], got["profile_s"])
    yield "profiling, over prefill", least(0.9), 2, statistics.median(prefill / profile for prefill, profile in pairs)


def anonymous(a, path):
    """Memory that is no file's and no keys and values: of the engine alone, and of the server under clients."""
    got = ours(a, path, "--prompt", "1", "--generate", str(PROMPT + TOKENS))
    yield "engine, beside file and KV, MiB", most(150), 1, (got["rss_anon"] - got["kv_bytes"]) / MIB
    with clients.server_process(a.collegium, path) as (ask, process):
        beside = peak(ask, process.pid) - CLIENTS * got["kv_bytes"]
        yield f"server, {CLIENTS} clients, beside file and KV, MiB", most(150), 1, beside / MIB


def peak(ask, pid):
    """The most anonymous memory of a process while clients ask it."""
    done, seen = threading.Event(), []
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        asked = beside.submit(clients.together, ask, CLIENTS, TOKENS)
        asked.add_done_callback(lambda _: done.set())
        while not done.wait(0.02):
            seen.append(clients.anonymous_bytes(pid))
        asked.result()
    return max([*seen, clients.anonymous_bytes(pid)])


FIGURES = [warming, start, taps, profiling, anonymous]


def cached(path):
    """Has the system read the file."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def residency(a, rows, names):
    head("model", "what", "measured", "goal", "reached")
    for name in names:
        path = os.path.join(a.models, name)
        cached(path)
        for figure in FIGURES:
            goals = {}
            for run in range(a.runs):
                title = f"{name}: run {run + 1} of {a.runs}, {figure.__name__}"
                got, note = undisturbed(a, title, lambda figure=figure: list(figure(a, path)))
                for what, goal, digits, value in got:
                    rows.add((name, what, "ours", run), value, note)
                    goals[what] = goal, digits
            say("")
            for what, (goal, digits) in goals.items():
                values = rows.of(name, what, "ours")
                within, text = goal or (None, "–")
                reached = "–" if not goal else "yes" if within(statistics.median(values)) else "**no**"
                line(name, what, cell(values, digits), text, reached)
