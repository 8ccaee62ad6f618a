"""A synthetic checkpoint of 2 GB is converted, against plain copying of the same files.

    python tests/benchmarks/convert.py [--gb 2] [--rounds 3] [--layout plain|baichuan-7b] [--folder FOLDER]

Half-precision LLaMA in pytorch_model-*.bin shards. Each round runs both, in alternating order, with the source in the
page cache and every file written through to the disk; the result is the median of the rounds' ratios. The conversion is
the command itself: it starts its process, checks, hashes, writes and reads back. Peak memory is the sum of VmHWM (what the
kernel counts, mapped pages included) over its processes. Last line JSON: ratio, convert_s, copy_s, peak_gb.
Targets: peak below 1.2 GB, ratio at least 0.5.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

WIDTH, INNER, WORDS = 2048, 5504, 32_000
SHARDS = 4


def write_checkpoint(folder: Path, gigabytes: float, layout: str) -> int:
    """Shards of random halves and a config; returns their bytes."""
    import torch

    layer_bytes = 2 * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)
    layers = max(1, round((gigabytes * 1e9 - 4 * WORDS * WIDTH) / layer_bytes))
    block = (torch.randn(WORDS * WIDTH, generator=torch.Generator().manual_seed(0)) / 50).half()

    def matrix(*shape: int) -> torch.Tensor:
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        return block[:count].view(shape).clone()

    names = {"model.embed_tokens.weight": (WORDS, WIDTH)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        if layout == "plain":
            names |= {f"{at}self_attn.{one}_proj.weight": (WIDTH, WIDTH) for one in "qkv"}
        else:
            names[f"{at}self_attn.W_pack.weight"] = (3 * WIDTH, WIDTH)
        names[f"{at}self_attn.o_proj.weight"] = (WIDTH, WIDTH)
        names |= {f"{at}mlp.{one}_proj.weight": (INNER, WIDTH) for one in ("gate", "up")}
        names[f"{at}mlp.down_proj.weight"] = (WIDTH, INNER)
        names |= {f"{at}{one}_layernorm.weight": (WIDTH,) for one in ("input", "post_attention")}
    names |= {"model.norm.weight": (WIDTH,), "lm_head.weight": (WORDS, WIDTH)}
    size = -(-len(names) // SHARDS)
    table: dict[str, str] = {}
    for number in range(SHARDS):
        part = list(names)[number * size : (number + 1) * size]
        file = f"pytorch_model-{number + 1:05d}-of-{SHARDS:05d}.bin"
        torch.save(
            {n: matrix(*names[n]) if len(names[n]) > 1 else torch.ones(WIDTH).half() for n in part},
            folder / file,
        )
        table |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    plain = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    baichuan = {"model_type": "baichuan", "architectures": ["BaiChuanForCausalLM"]}
    config = {
        **(plain if layout == "plain" else baichuan), "vocab_size": WORDS, "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": layers, "num_attention_heads": 16, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096, "tie_word_embeddings": False, "torch_dtype": "float16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    os.sync()
    return sum(file.stat().st_size for file in folder.glob("*.bin"))


def copy(source: Path, out: Path) -> float:
    """Seconds to copy every file and have it on the disk."""
    began = time.perf_counter()
    out.mkdir()
    for file in sorted(source.iterdir()):
        with file.open("rb") as read, (out / file.name).open("wb") as written:
            shutil.copyfileobj(read, written, 8 << 20)
            written.flush()
            os.fsync(written.fileno())
    return time.perf_counter() - began


def convert(source: Path, out: Path) -> tuple[float, int]:
    """(seconds, sum of the peaks of the command's processes in bytes)."""
    command = [sys.executable, "-m", "huatuo.models.convert", str(source), str(out), "--quiet"]
    peaks: dict[int, int] = {}
    began = time.perf_counter()
    running = subprocess.Popen(command, cwd=ROOT)
    while running.poll() is None:
        for process in tree(running.pid):
            peaks[process] = max(peaks.get(process, 0), peak(process))
        time.sleep(0.02)
    if running.returncode:
        raise SystemExit(f"the conversion ended with status {running.returncode}")
    return time.perf_counter() - began, sum(peaks.values())


def tree(process: int) -> list[int]:
    """The process and all below it."""
    try:
        below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [process, *(one for child in below for one in tree(int(child)))]


def peak(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layout", choices=("plain", "baichuan-7b"), default="plain")
    parser.add_argument("--folder", type=Path, help="where three times --gb are free")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        home = Path(made)
        source = home / "source"
        source.mkdir()
        size = write_checkpoint(source, given.gb, given.layout)
        print(f"{size / 1e9:.2f} GB in {SHARDS} shards, layout {given.layout}")
        copies, conversions, peaks = [], [], []
        for turn in range(given.rounds):
            for kind in ("copy", "convert") if turn % 2 == 0 else ("convert", "copy"):
                if kind == "copy":
                    copies.append(copy(source, home / "copy"))
                    shutil.rmtree(home / "copy")
                else:
                    seconds, high = convert(source, home / "out")
                    conversions.append(seconds)
                    peaks.append(high)
                    shutil.rmtree(home / "out")
            print(
                f"round {turn + 1}: copy {copies[-1]:.2f} s, convert {conversions[-1]:.2f} s, peak {peaks[-1] / 1e9:.3f} GB"
            )
    ratios = [one / other for one, other in zip(copies, conversions, strict=True)]
    result = {
        "ratio": round(statistics.median(ratios), 3),
        "convert_s": round(statistics.median(conversions), 2),
        "copy_s": round(statistics.median(copies), 2),
        "peak_gb": round(max(peaks) / 1e9, 3),
        "gb": round(size / 1e9, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
