"""The estimate before loading: against what the process really takes, and the refusal when there is too little."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from huatuo.errors import Unavailable
from huatuo.models import memory
from huatuo.models.memory import Estimate, cache_bytes, check_room, estimate, free_bytes

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.15
"""Of the estimate, plus its allowance: what the measured growth may differ by."""
CONTEXT = 512
MEASURE = """
import ctypes, gc, json, sys, torch
from pathlib import Path
from transformers import DynamicCache
from huatuo.models.loaded import load_model

def taken():  # pages of the file count where the weights are the file's own; else the system may drop them
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps of freed blocks is not taken
    fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Rss"))
    kinds = ("RssAnon", "RssFile") if sys.argv[3] == "full" else ("RssAnon",)
    return 1024 * sum(int(fields[key].split()[0]) for key in kinds)

torch.set_num_threads(1)
load_model(Path(sys.argv[2]), load=sys.argv[3], dtype=sys.argv[4])  # a small one first: libraries are no weights
before = taken()
model, _ = load_model(Path(sys.argv[1]), load=sys.argv[3], dtype=sys.argv[4])
caches = [DynamicCache(config=model.config) for _ in range(2)]
with torch.inference_mode():
    for cache in caches:
        model(input_ids=torch.ones(1, int(sys.argv[5]), dtype=torch.long), past_key_values=cache, use_cache=True, logits_to_keep=1)
print(json.dumps(taken() - before))
"""


@pytest.fixture(scope="module")
def wide(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA of some 70 million weights in bfloat16."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide")
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=1024, intermediate_size=2816, num_hidden_layers=5,
        num_attention_heads=8, num_key_value_heads=4,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    try:
        LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "dtype"),
    [("full", "float32"), ("full", "bfloat16"), ("nf4", "bfloat16"), ("int8", "bfloat16")],
)
def test_the_estimate_is_what_the_process_takes(
    wide: Path, tiny_checkpoint: Path, load: str, dtype: str
) -> None:
    said = estimate(wide, load=load, dtype=dtype, context_tokens=CONTEXT)
    command = [sys.executable, "-c", MEASURE, str(wide), str(tiny_checkpoint), load, dtype]
    command.append(str(CONTEXT))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    grown = json.loads(done.stdout.splitlines()[-1])
    print(f"{load} {dtype}: said {said.total / 1e6:.0f} MB, grew by {grown / 1e6:.0f} MB")
    assert grown <= said.total * (1 + TOLERANCE)
    assert grown >= (said.weights + said.cache) * (1 - TOLERANCE)


def test_weights_count_as_they_will_be_held(wide: Path) -> None:
    whole = estimate(wide, dtype="float32").weights
    files = sum(file.stat().st_size for file in wide.glob("*.safetensors"))
    assert whole == pytest.approx(2 * files, rel=0.01)
    assert estimate(wide, dtype="bfloat16").weights == whole // 2
    assert 0.25 < estimate(wide, load="int8", dtype="bfloat16").weights / whole < 0.28
    assert 0.13 < estimate(wide, load="nf4", dtype="bfloat16").weights / whole < 0.16
    assert estimate(wide, dtype="float32", shared=True).weights == 0


SHAPES: list[tuple[dict[str, Any], int]] = [
    ({"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}, 2 * 32 * 4096),
    ({"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}, 2 * 32 * 1024),
    ({"hidden_size": 4096, "num_layers": 28, "num_attention_heads": 32}, 2 * 28 * 4096),  # ChatGLM
    ({"hidden_size": 4096, "n_layer": 30, "n_head": 32}, 2 * 30 * 4096),  # BLOOM
    ({"d_model": 768, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12, "d_kv": 64}, 2 * 12 * 768),  # T5
]  # fmt: skip


@pytest.mark.parametrize(("config", "numbers"), SHAPES)
def test_keys_and_values_follow_the_architecture(config: dict[str, Any], numbers: int) -> None:
    assert cache_bytes(config, 1000, 2) == numbers * 1000 * 2


def test_too_little_memory_is_said_with_both_figures_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(3.9e9))
    need = Estimate(weights=int(5e9), cache=int(1e8), overhead=int(1e8))
    with pytest.raises(
        Unavailable, match=r'needs about 5\.2 GB; 3\.9 GB free: use load = "nf4" or another device'
    ):
        check_room(need, "cpu", "x")
    with pytest.raises(Unavailable, match="free: use another device"):
        check_room(need, "cpu", "x", smaller=False)
    check_room(Estimate(int(3e9), 0, 0), "cpu", "x")
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    check_room(need, "cpu", "x")


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huatuo.models import loaded

    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(loaded, "_read", lambda place: pytest.fail("it was read"))
    with pytest.raises(Unavailable, match="free"):
        loaded.load_model(tiny_checkpoint, dtype="float32")


def test_the_smallest_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 10**8 < (free_bytes("cpu") or 0) < 10**13
    group = tmp_path / "inner"
    group.mkdir()
    (group / "memory.max").write_text("max\n")
    (tmp_path / "memory.max").write_text("5000\n")
    for folder in (group, tmp_path):
        (folder / "memory.current").write_text("4000\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 500\n")
    monkeypatch.setattr(memory, "_groups", lambda: iter([group, tmp_path]))
    assert free_bytes("cpu") == 1500
