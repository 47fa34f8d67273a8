"""A working day of the server, told by its headers and metrics; standard library only.

    cargo build --release && python3 tests/clients/stories.py [budget|create|autopilot ...]
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from server import binary, metrics, post, serve

QUESTIONS = {
    "law": ["Can my landlord evict me without giving written notice?", "What must a plaintiff prove in a negligence claim?"],
    "math": ["What is the derivative of x^3 + 2x?", "Solve the quadratic equation x^2 - 5x + 6 = 0."],
    "health": ["What are the symptoms of iron deficiency anemia?", "Which drugs are used to treat high blood pressure?"],
    "computer-science": ["Write a Python function that reverses a list.", "How do I read a file line by line in Python?"],
}
HISTORY = [
    "What caused the American Civil War?",
    "Who were the Federalists and what did they want?",
    "How did the Great Depression change American politics?",
    "What was the New Deal?",
    "Why did the colonists resist the Stamp Act?",
    "What happened at the Battle of Gettysburg?",
    "Explain the Monroe Doctrine and its consequences.",
    "What was Reconstruction after the Civil War?",
    "How did the Cold War begin?",
    "What did the Louisiana Purchase mean for the United States?",
]
ASTRONOMY = """
id = "astronomy"
name = "Astronomy"
description = "Stars, planets, galaxies, telescopes, orbits and the history of the universe."
aliases = ["astrophysics"]
examples = [
  "Why do stars twinkle?",
  "How far away is the nearest star?",
  "What is a black hole?",
  "How do astronomers measure the distance to a galaxy?",
  "Why does the Moon have phases?",
  "What is the life cycle of a star like the Sun?",
  "Which planet has the most moons?",
  "What is redshift and what does it tell us about galaxies?",
  "How was the solar system formed?",
  "What is the difference between a comet and an asteroid?",
  "How do telescopes collect the light of faint galaxies?",
  "What is a supernova?",
  "Why is Pluto no longer a planet?",
  "What is the cosmic microwave background?",
  "How are planets around other stars discovered?",
  "What is a neutron star made of?",
  "How old is the universe?",
  "When is the next solar eclipse?",
  "What holds the planets in their orbits around the Sun?",
  "What is dark matter?",
]
"""
STARS = [
    "A star is a sphere of hot gas that shines by the fusion of hydrogen into helium in its core.",
    "The distance to a nearby star is found from its parallax, the small shift it shows as the Earth orbits the Sun.",
    "A galaxy is a system of billions of stars, gas and dust held together by gravity.",
    "The planets move around the Sun in ellipses, faster when they are closer to it.",
    "A black hole is a region from which not even light can escape, since its gravity is so strong.",
    "When a massive star has used up its fuel, its core collapses and its outer layers explode as a supernova.",
    "Light from distant galaxies is shifted towards the red, because the universe expands.",
    "A comet is a body of ice and dust that grows a tail when it comes near the Sun.",
    "The Moon shows phases because we see different parts of its sunlit side during a month.",
    "Telescopes gather more light than the eye, so that faint objects can be seen and measured.",
]


def ask(base, question, tokens=24, model="auto"):
    """(specialist, domain) that answered."""
    body = {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": question}]}
    headers, answer = post(base, "/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"] is not None
    return headers["x-collegium-specialist"], headers["x-collegium-domain"]


def ledger(base):
    values = metrics(base)
    kinds = {kind: values[f'collegium_ledger_bytes{{kind="{kind}"}}'] for kind in ("backbone", "experts", "kv", "workspace")}
    return kinds, values


def resident(process):
    with open(f"/proc/{process.pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["RssAnon"].split()[0]) * 1024, int(lines["RssFile"].split()[0]) * 1024


def mib(n):
    return f"{n / 2**20:7.2f}"


def settings(folder, text):
    path = os.path.join(folder, "collegium.toml")
    with open(path, "w") as f:
        f.write(text)
    return path


def budget(folder):
    """Room for two specialists, traffic over four domains: evictions, and never above the budget."""
    config = settings(folder, '[memory]\nkv = "16MiB"\n[autopilot]\nenabled = false\n')
    with serve(binary(), "--config", config) as (base, _, _):
        for domain in ("law", "math"):
            assert ask(base, QUESTIONS[domain][0]) == (domain, domain)
        kinds, _ = ledger(base)
    room = int(sum(kinds.values()))
    print(f"budget of {mib(room)} MiB: backbone, KV and workspace {mib(room - kinds['experts'])}, law and math {mib(kinds['experts'])}")
    with serve(binary(), "--config", config, "--budget", str(room)) as (base, process, _):
        print("  specialist        experts   ledger     peak   budget  evictions | system: private     file")
        for turn in range(2):
            for domain, questions in QUESTIONS.items():
                assert ask(base, questions[turn])[0] == domain, (domain, questions[turn])
                kinds, values = ledger(base)
                peak, most = values["collegium_ledger_peak_bytes"], values["collegium_budget_bytes"]
                private, file = resident(process)
                print(f"  {domain:16s} {mib(kinds['experts'])}  {mib(sum(kinds.values()))}  {mib(peak)}  {mib(most)}"
                      f"  {values['collegium_evictions_total']:9.0f} |         {mib(private)}  {mib(file)}")
                assert most == room and sum(kinds.values()) <= peak <= most, values
        assert values["collegium_evictions_total"] > 0, "four domains do not fit"
        # An abstention has an answer on this budget too, and evicts nobody.
        assert ask(base, "hi")[0] == "generalist"
        assert ledger(base)[1]["collegium_evictions_total"] == values["collegium_evictions_total"]


def create(folder):
    """A domain by config, a specialist by `surgery create`, served without a restart."""
    os.mkdir(os.path.join(folder, "domains"))
    with open(os.path.join(folder, "domains", "astronomy.toml"), "w") as f:
        f.write(ASTRONOMY)
    config = settings(folder, "[autopilot]\nenabled = false\n")
    corpus = os.path.join(folder, "astronomy.jsonl")
    with open(corpus, "w") as f:
        f.writelines(json.dumps({"text": " ".join(STARS[i:] + STARS[:i])}) + "\n" for i in range(len(STARS)))
    home = os.path.join(folder, "home")
    with serve(binary(), "--config", config, home=home) as (base, _, _):
        before = ask(base, "How do astronomers measure the distance to a star?")
        assert before == ("generalist", "astronomy"), before
        made = subprocess.run(
            [binary(), "--home", home, "--config", config, "--json", "surgery", "create", "--domain", "astronomy", "--corpus", corpus],
            check=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        json.loads(made.stdout)
        time.sleep(2)
        after = ask(base, "How do astronomers measure the distance to a star?")
        assert after == ("astronomy", "astronomy"), after
    print(f"create: {before[0]} answered before, {after[0]} two seconds after, without a restart")


def autopilot(folder):
    """One shipped specialist is disabled; the server makes it from traffic alone."""
    config = settings(folder, '[specialists]\ndisabled = ["history"]\n[autopilot]\ntokens = 1500\n')
    home = os.path.join(folder, "home")
    with serve(binary(), "--config", config, home=home) as (base, _, _):
        asked, who, begun = 0, [], time.monotonic()
        while (not who or who[-1] == "generalist") and time.monotonic() - begun < 240:
            specialist, domain = ask(base, HISTORY[asked % len(HISTORY)], tokens=64)
            asked += 1
            if domain == "history":
                who.append(specialist)
        assert who[0] == "generalist" and who[-1].startswith("history"), who
        steps = {k: v for k, v in metrics(base).items() if k.startswith("collegium_autopilot_steps_total")}
    listed = subprocess.run(
        [binary(), "--home", home, "--config", config, "--json", "specialists", "list"], check=True, stdout=subprocess.PIPE
    )
    row = next(r for r in json.loads(listed.stdout) if r["id"] == who[-1])
    assert row["domain"] == "history" and row["made_from"] == "traffic", row
    print(f"autopilot: the generalist answered {len(who) - 1} questions on history, then {who[-1]} (coverage {row['coverage']:.3f})")
    for step, count in sorted(steps.items()):
        print(f"  {step} {count:.0f}")


STORIES = {"budget": budget, "create": create, "autopilot": autopilot}


def main():
    for name in sys.argv[1:] or STORIES:
        with tempfile.TemporaryDirectory() as folder:
            STORIES[name](folder)


if __name__ == "__main__":
    main()
