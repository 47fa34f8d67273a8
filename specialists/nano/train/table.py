"""Draws what the shipped specialists cost, at home and away.  One command:

    python table.py --table OUT/specialists/table/table.json --nano NANO

In: the table that `collegium surgery evaluate` wrote (nats per token: the parent, each specialist and the mean of
random masks, on the held-out text of every domain).  Out, in NANO: `specialists.json`, the same numbers;
`specialists.png`, the heat map; and the part of README.md between the two markers.  Nothing there is typed by hand.
"""

import argparse
import json
import math
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm

BEGIN, END = "<!-- specialists:begin -->", "<!-- specialists:end -->"
HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#fde3c0", "#f4a259", "#c8553d", "#6a1b2a"])


class Table:
    """Costs are nats a token above the parent on the same text."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            raw = json.load(f)
        of = lambda kind: [row for row in raw["rows"] if row["kind"] == kind]
        self.parent_file = raw["parent"]
        self.domains = [column["name"] for column in raw["columns"]]
        self.tokens = [column["tokens"] for column in raw["columns"]]
        self.parent = np.array(of("parent")[0]["nats"])
        self.names = [row["name"] for row in of("mask")]
        self.masks = np.array([row["nats"] for row in of("mask")]) - self.parent
        (random,) = of("random")
        self.draws = len(random["draws"])
        self.random = np.array(random["nats"]) - self.parent
        self.raw = raw

    def home(self, name):
        """Index of a specialist's own domain among the columns."""
        return self.domains.index(name)


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def times(random, home):
    """How the control compares; a ratio to nothing, or to a gain, says nothing."""
    ratio = np.mean(random) / np.mean(home) if np.mean(home) > 0 else math.inf
    return f", {ratio:.0f} times as much" if ratio < 100 else ""


def signed(cost, digits):
    """With its sign, and no sign for what rounds to nothing."""
    text = f"{cost:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def home_table(t):
    rows, home, random = [], [], []
    for i, name in enumerate(t.names):
        at = t.home(name)
        home.append(t.masks[i, at])
        random.append(t.random[at])
        others = sorted((cost, other) for other, cost in zip(t.names, t.masks[:, at]) if other != name)
        perplexity = lambda cost: f"{math.exp(t.parent[at] + cost):.1f}"
        rows.append([
            name, f"{t.tokens[at]:,}", perplexity(0.0), perplexity(home[-1]), perplexity(random[-1]),
            signed(home[-1], 3), signed(random[-1], 3), *(f"{other} {signed(cost, 3)}" for cost, other in (others[0], others[-1])),
        ])  # fmt: skip
    rows.append(["**mean**", "", "", "", "", f"**{signed(np.mean(home), 3)}**", f"**{signed(np.mean(random), 3)}**", "", ""])
    head = ["held-out text", "tokens", "parent", "its specialist", "random", "cost", "random's cost", "best stranger", "worst stranger"]
    return markdown(head, rows), np.array(home), np.array(random)


def cross_table(t):
    def row(label, costs, own=None):
        cells = [f"**{signed(c, 2)}**" if i == own else signed(c, 2) for i, c in enumerate(costs)]
        return [label, *cells]

    rows = [row(name, t.masks[i], t.home(name)) for i, name in enumerate(t.names)]
    rows.append(row(f"random, mean of {t.draws}", t.random))
    rows.append(["parent, nats a token", *(f"{nats:.2f}" for nats in t.parent)])
    return markdown(["specialist on the text of", *t.domains], rows)


def plot(t, path):
    costs = np.vstack([t.masks, t.random])
    labels = [*t.names, f"random, mean of {t.draws}"]
    fig, ax = plt.subplots(figsize=(10.5, 8.6), layout="constrained", dpi=120)
    # The interesting differences are the small ones; a square root gives them room.
    norm = PowerNorm(0.5, vmin=0, vmax=costs.max())
    image = ax.imshow(np.maximum(costs, 0), cmap=HEAT, norm=norm)
    for (y, x), cost in np.ndenumerate(costs):
        dark = norm(max(cost, 0)) > 0.6
        home = y < len(t.names) and t.home(t.names[y]) == x
        ax.text(x, y, signed(cost, 2).lstrip("+"), ha="center", va="center", fontsize=8.5,
                color="white" if dark else "black", fontweight="bold" if home else "normal")  # fmt: skip
        if home:
            ax.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.4))
    ax.set_xticks(range(len(t.domains)), t.domains, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(labels)), labels)
    ax.axhline(len(t.names) - 0.5, color="black", linewidth=1)
    ax.set(xlabel="held-out text of", ylabel="experts kept for")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = fig.colorbar(image, ax=ax, shrink=0.7, pad=0.02)
    bar.set_label("nats a token above the parent")
    ax.set_title("What half of the experts costs: each specialist on every domain (home is framed)", fontsize=12, loc="left")
    fig.savefig(path)
    plt.close(fig)


def fragment(t):
    table, home, random = home_table(t)
    own = [t.home(name) for name in t.names]
    best = sum(t.masks[:, at].argmin() == i for i, at in enumerate(own))
    strangers = [cost for i, row in enumerate(t.masks) for x, cost in enumerate(row) if x != own[i]]
    return f"""\
Every specialist keeps half of each layer's experts: those with the most gate mass on training text of its domain.
It is judged on held-out text alone; the random masks have the same size, and the numbers are means over {t.draws} of them.
Measured by `collegium surgery evaluate` on the file that ships (sha256 `{t.parent_file}`).

At home a specialist costs {signed(np.mean(home), 3)} nats a token on average (from {signed(home.min(), 3)} to {signed(home.max(), 3)}), a random mask {np.mean(random):.3f}{times(random, home)}; a specialist on another domain's text {np.mean(strangers):.3f}.
In {best} of {len(own)} domains its own specialist is the best of all.

Perplexity at home, and what that is in nats a token above the parent:

{table}

All against all, nats a token above the parent; home is bold:

{cross_table(t)}

![Nats a token above the parent, specialists down, held-out text across](specialists.png)
"""


def fill(path, text):
    with open(path, encoding="utf-8") as f:
        before, begin, rest = f.read().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path}: needs a line {BEGIN} and, after it, a line {END}")
    with open(path + ".partial", "w", encoding="utf-8") as f:
        f.write(f"{before}{BEGIN}\n{text}{END}{after}")
    os.replace(path + ".partial", path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--table", required=True)
    p.add_argument("--nano", required=True)
    a = p.parse_args()
    table = Table(a.table)
    with open(f"{a.nano}/specialists.json", "w", encoding="utf-8") as f:
        json.dump(table.raw, f, indent=1)
        f.write("\n")
    plot(table, f"{a.nano}/specialists.png")
    fill(f"{a.nano}/README.md", fragment(table))


if __name__ == "__main__":
    main()
