"""The engine beside llama.cpp: one context, clients over HTTP, and with another program at work; standard library only.

In: model files, both programs.  Out: tables, and a row for every run.  Both run process after process, ours first in
one run and last in the next, so that a machine that slows down slows both.
"""

import contextlib
import os
import statistics
import subprocess

import clients
from quiet import ours, say, theirs, undisturbed
from tables import cell, head, line, ratio

# Clients at once, and tokens that each of them asks for.
CLIENTS, TOKENS = 16, 64


def in_turn(run, turns):
    """The first one first in every second run."""
    return turns[:: 1 if run % 2 == 0 else -1]


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
            extra.update(got)

        def run_theirs(run):
            got, note = undisturbed(a, f"{name}: run {run + 1} of {a.runs}, llama.cpp", lambda: theirs(a, path))
            rows.add((name, "pp128", "llama.cpp", run), got[0], note)
            rows.add((name, "tg64", "llama.cpp", run), got[1], note)

        for run in range(a.runs):
            for turn in in_turn(run, [run_ours, run_theirs]):
                turn(run)
        say("")
        cells = []
        for what in ("pp128", "tg64"):
            here, there = rows.of(name, what, "ours"), rows.of(name, what, "llama.cpp")
            cells += [cell(here), cell(there), ratio(here, there)]
        share = extra["bytes_per_token"] * statistics.median(rows.of(name, "tg64", "ours")) / bandwidth
        load = statistics.median(rows.of(name, "load_s", "ours"))
        line(name, *cells, f"{100 * share:.0f} %", f"{load:.2f}", f"{extra['rss_anon'] / 2**20:.0f}")


def served(a, rows, names):
    """The same clients over HTTP, at both servers."""
    what = f"{CLIENTS} clients"
    head("model", "clients", "tokens/s ours", "llama-server", "ratio")
    for name in names:
        path = os.path.join(a.models, name)
        servers = {
            "ours": lambda: clients.collegium(a.collegium, path),
            "llama.cpp": lambda: clients.llama_server(a.peer, path, a.threads, CLIENTS),
        }

        def run_at(server):
            with server() as ask:
                return clients.tokens_per_s(ask, CLIENTS, TOKENS)

        for run in range(a.runs):
            for who in in_turn(run, list(servers)):
                title = f"{name}: run {run + 1} of {a.runs}, {what} at {who}"
                per_s, note = undisturbed(a, title, lambda who=who: run_at(servers[who]))
                rows.add((name, what, who, run), per_s, note)
        say("")
        here, there = rows.of(name, what, "ours"), rows.of(name, what, "llama.cpp")
        line(name, what, cell(here), cell(there), ratio(here, there))


@contextlib.contextmanager
def loop():
    """A program that always has work, on the processors that are ours, until the end of the block."""
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        yield
    finally:
        process.kill()
        # Only now its time counts as ours, and not as that of others.
        process.wait()


def contention(a, rows, names):
    """Each program with the machine to itself, and beside one busy loop: what is left of its own speed.

    A loop beside as many threads as there are processors may have its share of the time, as every thread may.
    """
    fair = a.threads / (a.threads + 1)
    head("model", "who", "tg64 alone", "beside a loop", "left", "fair")
    programs = {
        "ours": lambda path: ours(a, path, "--prompt", "1", "--generate", "64")["generate_per_s"][0],
        "llama.cpp": lambda path: theirs(a, path, prompt=0)[1],
    }

    def beside(program, path):
        with loop():
            return program(path)

    for name in names:
        path = os.path.join(a.models, name)
        for run in range(a.runs):
            for who in in_turn(run, list(programs)):
                kinds = {"tg64 alone": programs[who], "tg64 beside a loop": lambda p, who=who: beside(programs[who], p)}
                for what, work in kinds.items():
                    title = f"{name}: run {run + 1} of {a.runs}, {what}, {who}"
                    per_s, note = undisturbed(a, title, lambda work=work: work(path))
                    rows.add((name, what, who, run), per_s, note)
        say("")
        for who in programs:
            free, shared = rows.of(name, "tg64 alone", who), rows.of(name, "tg64 beside a loop", who)
            line(name, who, cell(free), cell(shared), ratio(shared, free), f"{fair:.2f}")
