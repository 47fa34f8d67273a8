#!/usr/bin/env python3
"""Fine-tunes MiniLM on the labels of the shipped domains.

    python train.py --items ITEMS --base MINILM --out OUT
    python train.py --items ITEMS --base OUT --teacher A --teacher B --out PUPIL

ITEMS are the lines of `cargo run -p router-model --example items`; MINILM is the
published model (model.safetensors, tokenizer.json, vocab.txt), or a folder of this
program, to go on from.  OUT gets checkpoint.pt every --every steps (a run that was
stopped goes on from it when the command is given again) and at the end
model.safetensors, tokenizer.json, labels.json and report.json, which `export.py`
turns into the file that ships.  Same items, seed and --steps: the same draws.

The embeddings and the first --frozen layers stay as published.  The rate of each
layer is 0.85 of the one above, the head's is five times the top layer's; it rises
for 30 steps and falls to nothing over the last four fifths.

With teachers, the mean of what they say of a form is learnt in place of its label,
and where the label is the item's own, that counts for --hard of it.
Source: Hinton et al., Distilling the knowledge in a neural network (arXiv
1503.02531).  With --collections the classifier has a row for each collection of
MMLU-Pro's questions, and learns to tell those apart too.
"""

import argparse
import json
import os
import random
import shutil
import time
from pathlib import Path

# Threads that spin while others compute are of no use on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F

import data
import model as m

# How much telling collections apart counts beside telling labels apart.
APART = 0.4


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--items", type=Path, required=True)
    p.add_argument("--base", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--head", type=Path, help="folder whose classifier to begin with, in place of the base's")
    p.add_argument("--teacher", type=Path, action="append", default=[], help="folder of this program; may be repeated")
    p.add_argument("--hard", type=float, default=0.4, help="share of the label beside teachers")
    p.add_argument("--collections", type=Path, help="mmlu-pro-questions.jsonl.xz")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--steps", type=int, default=2000)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--tokens", type=int, default=72, help="of a text in training; it is measured with 128")
    p.add_argument("--frozen", type=int, default=0)
    p.add_argument("--rate", type=float, default=1e-4, help="of the top layer")
    p.add_argument("--smooth", type=float, default=0.05)
    p.add_argument("--drop", type=float, default=0.0, help="share of what a layer adds that is dropped in training")
    p.add_argument("--every", type=int, default=50)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--measure", action="store_true", help="also the test tenth, once, at the end")
    return p.parse_args()


def groups(net, o):
    """Parameters with their rates; what is frozen is not among them."""
    out = [{"params": list(net.head.parameters()), "rate": 5 * o.rate, "weight_decay": 0.0}]
    for above, layer in enumerate(reversed(net.layers[o.frozen :])):
        for decays in (True, False):
            chosen = [p for p in layer.parameters() if (p.dim() > 1) == decays]
            out.append({"params": chosen, "rate": o.rate * 0.85**above, "weight_decay": 0.01 * decays})
    return out


def epoch(items, number, o):
    """Which items, in which order, in batches of like length; by the seed alone."""
    rng = random.Random(f"{o.seed}/{number}")
    learn = [i for i in items if i.part == "train" and rng.random() < data.SHARES[i.kind]]
    rng.shuffle(learn)
    batches = []
    for start in range(0, len(learn), 16 * o.batch):
        pool = sorted(learn[start : start + 16 * o.batch], key=lambda i: len(i.text))
        batches += [pool[at : at + o.batch] for at in range(0, len(pool), o.batch)]
    rng.shuffle(batches)
    return batches


def stream(items, topics, o, skip):
    """(texts, items) of each step from `skip` on."""
    step, number = 0, 0
    while True:
        for chosen in epoch(items, number, o):
            if step >= skip:
                rng = random.Random(f"{o.seed}/step/{step}")
                yield [data.view(i, topics[i.label], rng) for i in chosen], chosen
            step += 1
        number += 1


def targets(items, labels: int, said, o):
    """Probabilities [batch, labels] to learn; a text of no domain has all alike.

    `said` [batch, labels] are the teachers' mean logarithms of probabilities, or None.
    """
    truths = torch.tensor([i.label for i in items])
    smooth = torch.where(truths == data.NONE, 1.0, o.smooth)[:, None]
    hard = F.one_hot(truths.clamp(min=0), labels) * (1 - smooth) + smooth / labels
    if said is None:
        return hard
    own = [o.hard if i.kind in data.OWN else 0.0 for i in items]
    share = torch.where(truths == data.NONE, 1.0, torch.tensor(own))[:, None]
    return hard * share + F.softmax(said, 1) * (1 - share)


@torch.no_grad()
def ask(teachers, ids, lengths):
    """Mean logarithms of probabilities [batch, labels]; None without teachers."""
    if not teachers:
        return None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = [(t, t(ids, lengths)) for t in teachers]
    return sum(F.log_softmax(m.by_label(t, r), 1) for t, r in rows) / len(teachers)


def measure(net, tokens, items, part, change=lambda text: text):
    asked = [i for i in items if i.part == part and i.kind == "question"]
    rows = m.encode(tokens, [change(i.text) for i in asked], 128)
    return m.logits(net, rows), torch.tensor([i.label for i in asked])


def main():
    o = options()
    torch.manual_seed(o.seed)
    torch.set_num_threads(o.threads)
    o.out.mkdir(parents=True, exist_ok=True)
    labels, items, topics = data.read(o.items)
    rows = data.collect(items, o.collections) if o.collections else list(range(len(labels)))
    net, tokens = m.load(o.base, rows, o.head)
    teachers = [m.taught(folder, labels) for folder in o.teacher]
    parts = {p: sum(i.part == p and i.kind == "question" for i in items) for p in ("train", "tune", "test")}
    print(f"{len(items)} items, questions {parts}, labels {labels}", flush=True)
    for layer in net.layers:
        layer.drop.p = o.drop
    net.requires_grad_(False)
    for group in (chosen := groups(net, o)):
        for p in group["params"]:
            p.requires_grad_(True)
    adam = torch.optim.AdamW(chosen, lr=o.rate, betas=(0.9, 0.98))
    step, spent, losses = 0, 0.0, []
    saved = o.out / "checkpoint.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        net.load_state_dict(state["net"], strict=False)
        adam.load_state_dict(state["adam"])
        step, spent = state["step"], state["spent"]
        print(f"goes on at step {step} of {o.steps}", flush=True)
    quick = [i for i in items if i.part == "tune" and i.kind == "question"][::4]
    started = time.monotonic() - spent
    for texts, chosen in stream(items, topics, o, step):
        if step >= o.steps:
            break
        for group in adam.param_groups:
            group["lr"] = group["rate"] * min(1.0, 1.25 * (o.steps - step) / o.steps, (step + 1) / 30)
        ids, lengths = m.batch(m.encode(tokens, texts, o.tokens))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = net(ids, lengths, o.frozen)
        loss = F.cross_entropy(m.by_label(net, z), targets(chosen, len(labels), ask(teachers, ids, lengths), o))
        of = torch.tensor([i.row for i in chosen])
        if (of != data.NONE).any():
            apart = F.cross_entropy(z.float(), of, ignore_index=data.NONE, label_smoothing=o.smooth, reduction="sum")
            loss = loss + APART * apart / len(chosen)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in adam.param_groups for p in g["params"]], 1.0)
        adam.step()
        losses.append(loss.item())
        step += 1
        spent = time.monotonic() - started
        if step % 10 == 0:
            mean = sum(losses[-50:]) / len(losses[-50:])
            print(f"step {step} of {o.steps}, loss {mean:.3f}, {spent / step:.2f} s a step", flush=True)
        if step % o.every == 0 or step == o.steps:
            learnt = {n: p for n, p in net.state_dict().items() if net.get_parameter(n).requires_grad}
            beside = saved.with_suffix(".partial")
            torch.save({"net": learnt, "adam": adam.state_dict(), "step": step, "spent": spent}, beside)
            beside.replace(saved)
        if step % (4 * o.every) == 0:
            z = m.logits(net, m.encode(tokens, [i.text for i in quick], 64))
            right = (z.argmax(1) == torch.tensor([i.label for i in quick])).float().mean()
            print(f"step {step}: {right:.4f} of {len(quick)} of the tuning tenth", flush=True)
    m.save(net, o.out / "model.safetensors")
    m.save_config(o.out, net.words.num_embeddings, net.places.num_embeddings)
    for name in ("vocab.txt", "tokenizer.json"):
        shutil.copy(o.base / name, o.out)
    (o.out / "labels.json").write_text(json.dumps([labels[label] for label in rows]))
    report = {"steps": o.steps, "minutes": spent / 60, "seed": o.seed, "questions": parts}
    for part in ["tune", "test"] if o.measure else ["tune"]:
        rng = random.Random(o.seed)
        for name, change in (("", lambda t: t), (" with typos", lambda t: data.mistype(t, 0.2, rng))):
            z, truth = measure(net, tokens, items, part, change)
            report[part + name] = float((z.argmax(1) == truth).float().mean())
    (o.out / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
