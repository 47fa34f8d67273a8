#!/usr/bin/env python3
"""Writes a folder of train.py as the one file that ships.

    python export.py --from OUT --file encoder.gguf [--data D] [--floats]

Matrices become Q8_0 (32 weights and a scale in F16), the rest stays F32; all of
it with --floats.  With
--data, of the vocabulary those pieces go that no text there has, and those that
were never used; letters and what BERT needs stay, so that every word still has
its pieces.  The file's layout is in `src/encoder/file.rs`.
"""

import argparse
import json
import lzma
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

POSITIONS = 128
NAMES = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}  # fmt: skip


def kept(folder: Path, data: Path | None) -> tuple[list[str], list[int]]:
    """Pieces that stay, and their rows."""
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.no_padding()
    tokens.no_truncation()
    names = [tokens.id_to_token(at) for at in range(tokens.get_vocab_size())]
    if data is None:
        return names, list(range(len(names)))
    used = np.zeros(len(names), dtype=bool)
    for path in sorted(data.glob("*.jsonl.xz")) + sorted(data.glob("openstax/*.txt.xz")):
        with lzma.open(path, "rt", encoding="utf-8", errors="replace") as file:
            # Pages rather than lines: the tokenizer is fast on many middling texts.
            text = file.read()
        pages = [text[at : at + 4000] for at in range(0, len(text), 4000)]
        for encoded in tokens.encode_batch(pages, add_special_tokens=False):
            used[encoded.ids] = True
    for at, name in enumerate(names):
        if len(name.removeprefix("##")) == 1 or (name.startswith("[") and not name.startswith("[unused")):
            used[at] = True
    rows = np.flatnonzero(used)
    return [names[at] for at in rows], rows.tolist()


def tensors(weights: dict, rows: list[int], positions: int):
    """(name, array, whether it is quantised), in the order of the file."""
    kind = weights["embeddings.token_type_embeddings.weight"][0]
    yield "token_embd.weight", weights["embeddings.word_embeddings.weight"][rows], True
    yield "position_embd.weight", weights["embeddings.position_embeddings.weight"][:positions] + kind, False
    for end in ("weight", "bias"):
        yield f"token_embd_norm.{end}", weights[f"embeddings.LayerNorm.{end}"], False
        yield f"cls.output.{end}", weights[f"classifier.{end}"], False
    layer = 0
    while f"encoder.layer.{layer}.output.dense.bias" in weights:
        for theirs, ours in NAMES.items():
            for end in ("weight", "bias"):
                array = weights[f"encoder.layer.{layer}.{theirs}.{end}"]
                yield f"blk.{layer}.{ours}.{end}", array, array.ndim == 2
        layer += 1


def checksum(arrays) -> int:
    """FNV-1a, eight bytes at a step."""
    total = 0xCBF2_9CE4_8422_2325
    for array in arrays:
        data = array.tobytes()
        data += bytes(-len(data) % 8)
        for word in np.frombuffer(data, dtype="<u8").tolist():
            total = ((total ^ word) * 0x0000_0100_0000_01B3) & 0xFFFF_FFFF_FFFF_FFFF
    return total


def export(folder: Path, file: Path, data: Path | None, trained: dict, floats: bool = False):
    weights = {n.removeprefix("bert."): t for n, t in load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text())
    names, rows = kept(folder, data)
    positions = min(POSITIONS, len(weights["embeddings.position_embeddings.weight"]))
    out = gguf.GGUFWriter(file, "bert")
    out.add_string("general.name", "MiniLM-L6 fine-tuned on the shipped domains")
    out.add_block_count(config["num_hidden_layers"])
    out.add_context_length(positions)
    out.add_embedding_length(config["hidden_size"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_layer_norm_eps(config["layer_norm_eps"])
    out.add_tokenizer_model("bert")
    out.add_token_list(names)
    ours = "collegium.encoder."
    out.add_string(ours + "format", "collegium.encoder/1")
    out.add_array(ours + "labels", json.loads((folder / "labels.json").read_text()))
    out.add_string(ours + "trained", json.dumps(trained))
    arrays = []
    for name, array, quantised in tensors(weights, rows, positions):
        array = np.ascontiguousarray(array, dtype=np.float32)
        if quantised and not floats:
            array = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            out.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            out.add_tensor(name, array)
        arrays.append(array)
    out.add_uint64(ours + "checksum", checksum(arrays))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    print(f"{file}: {file.stat().st_size:,} bytes, {len(names)} pieces")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--from", dest="folder", type=Path, required=True)
    p.add_argument("--file", type=Path, required=True)
    p.add_argument("--data", type=Path)
    p.add_argument("--floats", action="store_true")
    o = p.parse_args()
    report = o.folder / "report.json"
    export(o.folder, o.file, o.data, json.loads(report.read_text()) if report.exists() else {}, o.floats)


if __name__ == "__main__":
    main()
