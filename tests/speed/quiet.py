"""Measuring on a machine that others may use; standard library only.

In: work.  Out: what it gives, made again while others were at work, with a note if that did not help.
"""

import json
import os
import subprocess
import sys
import time

# Processors that others may take during a run: the system itself is never still.
QUIET = 0.1


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


def theirs(a, path, prompt=128, generate=64):
    """(prompt, generate) in tokens a second; nothing for what is not asked for."""
    command = [os.path.join(a.peer, "bin", "llama-bench"), "-m", path, "-t", str(a.threads)]
    tests = told([*command, "-p", str(prompt), "-n", str(generate), "-r", "1", "-o", "json"])
    return tuple(next((t["avg_ts"] for t in tests if t[key]), None) for key in ("n_prompt", "n_gen"))
