"""A specialist cut to a GGUF file says the same in stock llama.cpp as in Collegium.

    pip install llama-cpp-python==0.3.36 && python tests/oracle/greedy.py [DOMAIN]

Collegium answers with the masked parent, llama.cpp with the file that `collegium surgery cut` wrote: 10 prompts, 64
greedy tokens each, keys and values in F32, no flash attention.  The rule: the same token at every step, except where
llama.cpp's own two best are closer than 0.02; there the comparison of that prompt ends, and the report says so.
"""

import os
import subprocess
import sys
import tempfile

import numpy as np
from llama_cpp import Llama

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))
from server import binary, post, serve

PROMPTS = [
    "The court held that the contract was",
    "A tort is",
    "The derivative of a function is",
    "Osmosis is the movement of",
    "def reverse(items):\n",
    "The patient has a fever and",
    "In the year 1776 the",
    "Supply and demand determine",
    "<|im_start|>user\nWhat is negligence?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nA train travels 60 miles in 2 hours. How fast is it?<|im_end|>\n<|im_start|>assistant\n",
]
TOKENS = 64
NEAR = 0.02


def main():
    domain = sys.argv[1] if len(sys.argv) > 1 else "law"
    with tempfile.TemporaryDirectory() as folder:
        cut = os.path.join(folder, f"{domain}.gguf")
        mask = os.path.join(
            os.path.dirname(os.path.abspath(__file__)), "..", "..", "specialists", "nano", "specialists", domain, "mask.json"
        )
        subprocess.run([binary(), "surgery", "cut", "--mask", mask, "--out", cut], check=True)
        model = Llama(
            cut, n_ctx=512, n_batch=512, logits_all=True, verbose=False, flash_attn=False, type_k=0, type_v=0
        )
        assert model.metadata["collegium.domain"] == domain
        near = 0
        with serve(binary()) as (base, _, _):
            for prompt in PROMPTS:
                ask = {"model": domain, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
                _, answer = post(base, "/v1/completions", {**ask, "ignore_eos": True})
                near += not compare(model, prompt, answer["choices"][0]["text"])
    print(f"{domain}: {len(PROMPTS)} prompts of {TOKENS} greedy tokens agree; {near} ended at a near tie")


def compare(model, prompt, ours):
    """True if all tokens agree, False if they part at a near tie; anything else is an error."""
    ids = model.tokenize(prompt.encode(), add_bos=False, special=True)
    model.reset()
    model.eval(ids)
    made = []
    for _ in range(TOKENS):
        logits = np.array(model.scores[model.n_tokens - 1])
        first, second = np.sort(logits)[::-1][:2]
        made.append(int(logits.argmax()))
        text = model.detokenize(made).decode(errors="replace")
        if not ours.startswith(text.rstrip("\ufffd")):
            assert first - second < NEAR, f"{prompt!r}: {text!r} is not {ours!r}, and llama.cpp is sure by {first - second}"
            return False
        model.eval([made[-1]])
    assert text.rstrip("\ufffd") == ours.rstrip("\ufffd"), f"{prompt!r}: {text!r} is not {ours!r}"
    return True


if __name__ == "__main__":
    main()
