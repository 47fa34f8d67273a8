"""Makes the model files of the speed comparison, those that are not there yet; needs numpy and gguf from PyPI.

    python3 tests/speed/models.py DIR --donor smollm2.gguf --peer PEER [--coder qwen.gguf] [--only NAME ...]

In: SmolLM2-135M-Instruct in Q4_1, which also gives its tokenizer to the models of random weights; a Qwen2.5-Coder-1.5B
in Q4_K_M; the folder that `peer.sh` built, for llama-quantize.  Out: the files of FILES in DIR, about 7 GB, and as much
again for a moment.  Random weights are normal, with a deviation of one over the root of a row's length, so that numbers
stay of one size from layer to layer.  The same donor gives the same files.

To add a file: a line in FILES and its function, or a Shape.
"""

import argparse
import dataclasses
import os
import re
import subprocess
import sys

import gguf
import numpy as np

F32, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0


@dataclasses.dataclass
class Shape:
    """Sizes of a model of random weights."""

    arch: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    experts: int
    top_k: int
    ff: int
    vocab: int
    rope_base: float
    # Queries and keys are normed over all heads together, not each alone.
    norm_together: bool
    head_dim: int = 128

    def tensors(self):
        """(name, shape, type) with the longest stride first; experts of a layer are the last three."""
        d, q, kv = self.dim, self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield "token_embd", (self.vocab, d), Q8_0
        yield "output", (self.vocab, d), Q8_0
        yield "output_norm", (d,), F32
        for i in range(self.layers):
            yield f"blk.{i}.attn_norm", (d,), F32
            yield f"blk.{i}.attn_q", (q, d), Q8_0
            yield f"blk.{i}.attn_k", (kv, d), Q8_0
            yield f"blk.{i}.attn_v", (kv, d), Q8_0
            yield f"blk.{i}.attn_output", (d, q), Q8_0
            yield f"blk.{i}.attn_q_norm", (q if self.norm_together else self.head_dim,), F32
            yield f"blk.{i}.attn_k_norm", (kv if self.norm_together else self.head_dim,), F32
            yield f"blk.{i}.ffn_norm", (d,), F32
            yield f"blk.{i}.ffn_gate_inp", (self.experts, d), F32
            yield f"blk.{i}.ffn_gate_exps", (self.experts, self.ff, d), Q8_0
            yield f"blk.{i}.ffn_up_exps", (self.experts, self.ff, d), Q8_0
            yield f"blk.{i}.ffn_down_exps", (self.experts, d, self.ff), Q8_0


MOE = Shape("qwen3moe", 12, 1024, 16, 4, 64, 8, 512, 49152, 1e6, norm_together=False)
OLMOE = Shape("olmoe", 16, 2048, 16, 16, 64, 8, 1024, 50304, 1e4, norm_together=True)


def progress(what, done, total):
    sys.stderr.write(f"\r{what}: {done} of {total} tensors\033[K" + ("\n" if done == total else ""))
    sys.stderr.flush()


def partial(path):
    """Where a file is written before it is renamed: whoever looks sees it whole or not at all."""
    return path + ".partial"


def tokenizer(writer, donor, vocab):
    """Copies the donor's tokenizer; tokens that nobody uses make up the rest of the vocabulary."""
    for key, field in gguf.GGUFReader(donor).fields.items():
        if not key.startswith("tokenizer."):
            continue
        value, kind = field.contents(), field.types[0]
        if kind != gguf.GGUFValueType.ARRAY:
            writer.add_key_value(key, value, kind)
            continue
        missing = range(len(value), vocab)
        if key == "tokenizer.ggml.tokens":
            value += [f"[unused{i}]" for i in missing]
        if key == "tokenizer.ggml.token_type":
            value += [int(gguf.TokenType.UNUSED) for _ in missing]
        writer.add_array(key, value)


def random_model(path, shape, donor):
    """Writes a model of random weights in Q8_0, a tensor at a time."""
    writer = gguf.GGUFWriter(partial(path), shape.arch)
    writer.add_name("random")
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ff)
    writer.add_expert_feed_forward_length(shape.ff)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.top_k)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    tokenizer(writer, donor, shape.vocab)
    tensors = list(shape.tensors())
    for name, dims, kind in tensors:
        size = gguf.quant_shape_to_byte_shape(dims, kind) if kind == Q8_0 else dims
        stored = np.dtype(np.uint8 if kind == Q8_0 else np.float32)
        writer.add_tensor_info(f"{name}.weight", size, stored, int(np.prod(size)) * stored.itemsize, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()

    rng = np.random.default_rng(0)
    experts = {}

    def weights(name, dims, kind):
        if len(dims) == 1:
            return np.ones(dims, np.float32)
        x = rng.standard_normal(dims, dtype=np.float32)
        x *= dims[-1] ** -0.5
        return gguf.quants.quantize(x, Q8_0) if kind == Q8_0 else x

    for i, (name, dims, kind) in enumerate(tensors, 1):
        if len(dims) == 3:
            # Drawing is slow: each layer has the same experts, but none of them twice at one number.
            layer, part = int(name.split(".")[1]), name.split(".")[2]
            if part not in experts:
                experts[part] = weights(name, dims, kind)
            data = np.roll(experts[part], layer, axis=0)
        else:
            data = weights(name, dims, kind)
        writer.write_tensor_data(data)
        progress(path, i, len(tensors))
    writer.close()
    os.replace(partial(path), path)


def quantise(path, source, kind, peer):
    """Every matrix of `source` in the format `kind`."""
    tool = os.path.join(peer, "bin", "llama-quantize")
    command = [tool, "--allow-requantize", "--pure", source, partial(path), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.match(r"\[ *(\d+)/ *(\d+)\]", line):
                progress(path, int(found[1]), int(found[2]))
    if process.returncode:
        sys.exit("".join(said[-20:]) + f"{' '.join(command)} failed")
    os.replace(partial(path), path)


def link(path, source):
    os.symlink(os.path.abspath(source), path)


def olmoe_q4_k(path, a):
    source = path + ".q8_0"
    if not os.path.exists(source):
        random_model(source, OLMOE, a.donor)
    quantise(path, source, "Q4_K_M", a.peer)
    os.remove(source)


def moe_q4_k(path, a):
    source = os.path.join(a.folder, "moe-q8_0.gguf")
    make("moe-q8_0.gguf", a)
    quantise(path, source, "Q4_K_M", a.peer)


FILES = {
    "moe-q8_0.gguf": lambda path, a: random_model(path, MOE, a.donor),
    "moe-q4_k.gguf": moe_q4_k,
    "olmoe-q4_k.gguf": olmoe_q4_k,
    "smollm2-q4_1.gguf": lambda path, a: link(path, a.donor),
    "smollm2-q8_0.gguf": lambda path, a: quantise(path, a.donor, "Q8_0", a.peer),
    "smollm2-q4_0.gguf": lambda path, a: quantise(path, a.donor, "Q4_0", a.peer),
    "qwen2.5-coder-1.5b.gguf": lambda path, a: link(path, a.coder),
}


def make(name, a):
    path = os.path.join(a.folder, name)
    if not os.path.exists(path):
        FILES[name](path, a)
    print(f"{path}: {os.path.getsize(path)} bytes")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", help="where the files go")
    ap.add_argument("--donor", required=True, help="SmolLM2-135M-Instruct, Q4_1")
    ap.add_argument("--peer", required=True, help="the folder given to peer.sh")
    ap.add_argument("--coder", help="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M; without it that file is left out")
    ap.add_argument("--only", nargs="+", choices=FILES, metavar="NAME", help=f"of {', '.join(FILES)}")
    a = ap.parse_args()
    os.makedirs(a.folder, exist_ok=True)
    for name in a.only or FILES:
        if name.startswith("qwen") and not a.coder:
            print(f"{name}: left out, as there is no --coder")
            continue
        make(name, a)


if __name__ == "__main__":
    main()
