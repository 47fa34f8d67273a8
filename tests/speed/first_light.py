"""How quick and how small the server is with the embedded parent; standard library only.

    cargo build --release && python3 tests/speed/first_light.py [--runs 5] [--csv tests/speed/first_light.csv]

Measured on this machine, medians over runs: seconds from start to ready, milliseconds to the first token of a short
prompt (streamed, the specialist warm), anonymous resident memory after answers in four domains, microseconds of
routing as the server reports them, and tokens a second of one answer.  With --csv a row is added, with the date and
the processor.
"""

import argparse
import csv
import datetime
import http.client
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))
from server import binary, post, serve

QUESTIONS = [
    "What is consideration in contract law?",
    "What is the derivative of x^2?",
    "What are the symptoms of anemia?",
    "Write a Python function that reverses a list.",
]
GOALS = {"ready_s": 1.0, "first_token_ms": 100.0, "anonymous_mib": 150.0, "routing_us": 1000.0}


def first_token_ms(base, question):
    """From the request to the first frame with text."""
    connection = http.client.HTTPConnection(base.removeprefix("http://"))
    messages = [{"role": "user", "content": question}]
    body = {"model": "auto", "stream": True, "max_tokens": 4, "temperature": 0, "messages": messages}
    begun = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    for line in connection.getresponse():
        if not line.startswith(b"data: {"):
            continue
        delta = json.loads(line[6:])["choices"][0]["delta"]
        if delta.get("content"):
            return (time.perf_counter() - begun) * 1e3
    raise RuntimeError("no text came")


def anonymous_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def once():
    with serve(binary()) as (base, process, ready):
        for question in QUESTIONS:
            first_token_ms(base, question)
        row = {"ready_s": ready, "first_token_ms": statistics.median(first_token_ms(base, q) for q in QUESTIONS)}
        row["routing_us"] = statistics.median(post(base, "/v1/route", {"text": q})[1]["micros"] for q in QUESTIONS)
        begun = time.perf_counter()
        ask = {"model": "generalist", "prompt": "The", "max_tokens": 200, "temperature": 0, "ignore_eos": True}
        _, answer = post(base, "/v1/completions", ask)
        row["tokens_per_s"] = answer["usage"]["completion_tokens"] / (time.perf_counter() - begun)
        row["anonymous_mib"] = anonymous_mib(process.pid)
        return row


def processor():
    with open("/proc/cpuinfo") as info:
        return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--csv")
    a = ap.parse_args()
    runs = [once() for _ in range(a.runs)]
    row = {"date": datetime.date.today().isoformat(), "processor": f"{os.cpu_count()} x {processor()}", "runs": a.runs}
    print(f"{'':16s}{'median':>10s}{'least':>10s}{'most':>10s}{'goal':>10s}")
    for key in runs[0]:
        values = [r[key] for r in runs]
        row[key] = round(statistics.median(values), 3)
        goal = f"{GOALS[key]:g}" if key in GOALS else ""
        print(f"{key:16s}{statistics.median(values):10.3f}{min(values):10.3f}{max(values):10.3f}{goal:>10s}")
    if a.csv:
        new = not os.path.exists(a.csv)
        with open(a.csv, "a", newline="") as f:
            table = csv.DictWriter(f, row)
            if new:
                table.writeheader()
            table.writerow(row)


if __name__ == "__main__":
    main()
