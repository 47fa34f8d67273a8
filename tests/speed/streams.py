"""Many contexts at once in the engine, without HTTP; standard library only.

In: files of models with experts.  Out: a table of tokens a second beside what bytes allow, and a row for every run.
"""

import os
import statistics

from quiet import ours, say, undisturbed
from tables import cell, head, line

# Contexts at once, specialists they are spread over, and tokens each of them generates.
STREAMS, SPECIALISTS, TOKENS = 16, 8, 64
# Experts of a layer that eight specialists have together, in specialists' worth: of the masks published for a model
# with 256 experts, 1,024 places are 226.6 experts.
UNION = 226.6 / (1024 / SPECIALISTS)
KINDS = {
    f"{STREAMS} over {SPECIALISTS} specialists": ["--specialists", str(SPECIALISTS)],
    # A specialist is a quarter of a layer; of eight that are drawn from so few none is left out.
    f"{STREAMS} over {SPECIALISTS} that overlap": ["--specialists", str(SPECIALISTS), "--pool", f"{UNION / 4:.4f}"],
    f"{STREAMS} on one specialist": ["--specialists", "1"],
    f"{STREAMS} on the generalist": [],
    f"{STREAMS} on the generalist, one after another": ["--serial"],
}


def streams(a, rows, names, bandwidth):
    """Only models with experts can be asked for specialists."""
    head("model", "streams", "tokens/s", "experts of all masks", "read a layer and step", "MB a step",
         "tokens/s that bytes allow", "of it")  # fmt: skip
    for name in names:
        path, last = os.path.join(a.models, name), {}
        for run in range(a.runs):
            # The other way round in every second run, so that a machine that slows down slows all.
            for what, more in list(KINDS.items())[:: 1 if run % 2 == 0 else -1]:
                more = ["--streams", str(STREAMS), "--generate", str(TOKENS), *more]
                title = f"{name}: run {run + 1} of {a.runs}, {what}"
                got, note = undisturbed(a, title, lambda more=more: ours(a, path, *more))
                rows.add((name, what, "ours", run), got["per_s"][0], note)
                last[what] = got
        say("")
        for what in KINDS:
            got, per_s = last[what], rows.of(name, what, "ours")
            allowed = bandwidth / got["bytes_per_step"] * (1 if got["serial"] else STREAMS)
            union = f"{got['union_per_layer']:.1f}" if got["specialists"] else "all"
            cells = [cell(per_s), union, f"{got['experts_per_layer']:.1f}", f"{got['bytes_per_step'] / 1e6:.0f}"]
            line(name, what, *cells, f"{allowed:.0f}", f"{100 * statistics.median(per_s) / allowed:.0f} %")
