#!/usr/bin/env python3
"""Fine-tunes MiniLM on the labels of the shipped domains.

    python train.py --data D --base MINILM --out OUT

D holds mmlu-pro-questions.jsonl.xz, gsm8k-train.jsonl.xz, mbpp.jsonl.xz and
medqa.jsonl.xz; MINILM the published model (model.safetensors, tokenizer.json).
OUT gets checkpoint.pt every --every steps (a run that was stopped goes on from
it when the command is given again) and at the end model.safetensors,
tokenizer.json, labels.json and report.json, which `export.py` turns into the
file that ships.  Same data, seed and --steps: the same draws.

The embeddings and the first --frozen layers stay as published: they know words
already, and a step costs a third less.  The rate of each layer is 0.85 of the
one above, the head's is ten times the top layer's; it falls to nothing in the
last quarter.  With --minutes the quarter begins when three quarters of the time
are spent, and the report says the --steps that repeats the run.
"""

import argparse
import json
import math
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


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--base", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--steps", type=int, default=1000)
    p.add_argument("--minutes", type=float, help="end earlier if need be")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--tokens", type=int, default=64, help="of a text in training; it is measured with 128")
    p.add_argument("--frozen", type=int, default=3)
    p.add_argument("--rate", type=float, default=2e-4, help="of the top layer")
    p.add_argument("--smooth", type=float, default=0.05)
    p.add_argument("--every", type=int, default=50)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--measure", action="store_true", help="also the test tenth, once, at the end")
    return p.parse_args()


def groups(net, o):
    """Parameters with their rates; what is frozen is not among them."""
    out = [{"params": list(net.head.parameters()), "rate": 10 * o.rate, "weight_decay": 0.0}]
    for above, layer in enumerate(reversed(net.layers[o.frozen :])):
        for decays in (True, False):
            chosen = [p for p in layer.parameters() if (p.dim() > 1) == decays]
            out.append({"params": chosen, "rate": o.rate * 0.85**above, "weight_decay": 0.01 * decays})
    return out


def epoch(items, number, o):
    """Which items, in which order, in batches of like length; by the seed alone."""
    rng = random.Random(f"{o.seed}/{number}")
    learn = [i for i in items if i.part == "train" and (i.kind != "topic" or rng.random() < 0.5)]
    rng.shuffle(learn)
    batches = []
    for start in range(0, len(learn), 16 * o.batch):
        pool = sorted(learn[start : start + 16 * o.batch], key=lambda i: len(i.text))
        batches += [pool[at : at + o.batch] for at in range(0, len(pool), o.batch)]
    rng.shuffle(batches)
    return batches


def stream(items, topics, labels, o, skip):
    """(texts, truths) of each step from `skip` on."""
    step, number = 0, 0
    while True:
        for chosen in epoch(items, number, o):
            if step >= skip:
                rng = random.Random(f"{o.seed}/step/{step}")
                texts = [data.view(i, topics.get(labels[i.label], ["it"]), rng) for i in chosen]
                yield texts, torch.tensor([i.label for i in chosen])
            step += 1
        number += 1


def measure(net, tokens, items, part, change=lambda text: text):
    asked = [i for i in items if i.part == part and i.kind == "question"]
    rows = m.encode(tokens, [change(i.text) for i in asked], 128)
    return m.logits(net, rows), torch.tensor([i.label for i in asked])


def main():
    o = options()
    torch.manual_seed(o.seed)
    torch.set_num_threads(o.threads)
    o.out.mkdir(parents=True, exist_ok=True)
    labels, items, topics = data.read(o.data, o.seed)
    net, tokens = m.load(o.base, len(labels))
    parts = {p: sum(i.part == p and i.kind == "question" for i in items) for p in ("train", "tune", "test")}
    print(f"{len(items)} items, questions {parts}, labels {labels}", flush=True)
    net.requires_grad_(False)
    for group in (chosen := groups(net, o)):
        for p in group["params"]:
            p.requires_grad_(True)
    adam = torch.optim.AdamW(chosen, lr=o.rate, betas=(0.9, 0.98))
    step, spent, steps, losses = 0, 0.0, o.steps, []
    saved = o.out / "checkpoint.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        net.load_state_dict(state["net"], strict=False)
        adam.load_state_dict(state["adam"])
        step, spent, steps = state["step"], state["spent"], state["steps"]
        print(f"goes on at step {step} of {steps}", flush=True)
    quick = [i for i in items if i.part == "tune" and i.kind == "question"][::4]
    started = time.monotonic() - spent
    for texts, truths in stream(items, topics, labels, o, step):
        if step >= steps:
            break
        spent = time.monotonic() - started
        if o.minutes and step < steps * 3 // 4 and spent > 45 * o.minutes:
            steps = math.ceil(step * 4 / 3)
            print(f"time is short: {steps} steps in all", flush=True)
        left = min(1.0, 4 * (steps - step) / steps)
        for group in adam.param_groups:
            group["lr"] = group["rate"] * min(left, (step + 1) / 30)
        ids, lengths = m.batch(m.encode(tokens, texts, o.tokens))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = net(ids, lengths, o.frozen)
        loss = F.cross_entropy(z.float(), truths, label_smoothing=o.smooth)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in adam.param_groups for p in g["params"]], 1.0)
        adam.step()
        losses.append(loss.item())
        step += 1
        if step % 10 == 0:
            mean = sum(losses[-50:]) / len(losses[-50:])
            print(f"step {step} of {steps}, loss {mean:.3f}, {spent / step:.2f} s a step", flush=True)
        if step % o.every == 0 or step == steps:
            learnt = {n: p for n, p in net.state_dict().items() if net.get_parameter(n).requires_grad}
            beside = saved.with_suffix(".partial")
            torch.save({"net": learnt, "adam": adam.state_dict(), "step": step, "spent": spent, "steps": steps}, beside)
            beside.replace(saved)
        if step % (4 * o.every) == 0:
            z = m.logits(net, m.encode(tokens, [i.text for i in quick], 64))
            right = (z.argmax(1) == torch.tensor([i.label for i in quick])).float().mean()
            print(f"step {step}: {right:.4f} of {len(quick)} of the tuning tenth", flush=True)
    m.save(net, o.out / "model.safetensors")
    m.save_config(o.out, net.words.num_embeddings, net.places.num_embeddings)
    shutil.copy(o.base / "vocab.txt", o.out)
    shutil.copy(o.base / "tokenizer.json", o.out)
    (o.out / "labels.json").write_text(json.dumps(labels))
    report = {"steps": steps, "minutes": spent / 60, "seed": o.seed, "questions": parts}
    for part in ["tune", "test"] if o.measure else ["tune"]:
        rng = random.Random(o.seed)
        for name, change in (("", lambda t: t), (" with typos", lambda t: data.mistype(t, 0.2, rng))):
            z, truth = measure(net, tokens, items, part, change)
            report[part + name] = float((z.argmax(1) == truth).float().mean())
    (o.out / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
