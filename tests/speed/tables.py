"""Figures as they come, and tables of them; standard library only.

In: single runs.  Out: rows of a CSV, one a run, and Markdown of medians with the least and the most.
"""

import csv
import datetime
import os
import statistics

import quiet

FIELDS = ["date", "processor", "threads", "model", "what", "who", "run", "value", "note"]
# Columns of words; all others are numbers, to the right.
WORDS = ("model", "who", "streams", "clients", "what", "goal", "reached")


class Rows:
    """Every figure, in the order it came; the CSV grows with each."""

    def __init__(self, a):
        self.a, self.all = a, []
        self.who = {"date": datetime.date.today().isoformat(), "processor": f"{os.cpu_count()} x {quiet.processor()}"}

    def add(self, place, value, note):
        """`place`: model, what was measured, who, and which run."""
        row = {**self.who, "threads": self.a.threads, **dict(zip(["model", "what", "who", "run"], place))}
        row |= {"value": round(value, 3 if abs(value) >= 1 else 6), "note": note}
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
    print(f"| {' | '.join(names)} |")
    print(f"|{'|'.join('---' if name in WORDS else '---:' for name in names)}|")


def line(*cells):
    print(f"| {' | '.join(cells)} |", flush=True)


def cell(values, digits=None):
    """Median, least and most."""
    if not values:
        return "–"
    if digits is None:
        digits = 0 if min(values) >= 100 else 1
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def ratio(a, b):
    return f"{statistics.median(a) / statistics.median(b):.2f}" if a and b else "–"
