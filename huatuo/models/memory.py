"""what a model will need in memory, from the headers of its files alone, and what a device has free.

Weights are counted tensor by tensor, keys and values from the widths in config.json; one part is an allowance and says
so. Nothing is loaded. Training's own plan: training/memory.py.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huatuo.errors import Damaged, Unavailable
from huatuo.models import registry

GB = 10**9
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ANSWERS = 2
"""Answers at a time, each with keys and values of its own (huatuo/engines/local.py)."""
CUDA_CONTEXT = int(0.6 * GB)
"""Allowance for the CUDA context, kernels and the allocator's slack."""
ALLOWANCE = 48 * 2**20
"""Allowance for the tokenizer, one layer's intermediate results and the allocator's slack, on any device."""
BLOCK = 64
"""Weights that share one scale in NF4; the scales of 256 blocks share another."""
_WIDE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}
_NOT_QUANTISED = ("embed", "shared", "wte", "lm_head", "relative_attention_bias", "prefix_encoder")
"""Parts of names of two-dimensional tensors that bitsandbytes leaves alone: no linear layers, or the head."""
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Tensor:
    """One line of a safetensors header."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Estimate:
    """Bytes by part. cache: keys and values of two answers at full context. overhead: an allowance."""

    weights: int
    cache: int
    overhead: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.cache + self.overhead


def estimate(
    folder: Path,
    *,
    adapter: Path | None = None,
    load: str = "full",
    dtype: str = "auto",
    device: str = "cpu",
    context_tokens: int = 1024,
    beams: int = 1,
    shared: bool = False,
) -> Estimate:
    """What a model folder will need. Raises Damaged for a header or a config that cannot be read.

    dtype: 'auto' or a torch name. shared: its weights are in memory already for another model, so only what the
    adapter changes and the cache count.
    """
    config = _config(folder)
    files = registry.weight_files(folder)
    width = dtype_bytes(dtype, device)
    listed = list(headers(files))
    weights = 0 if shared else sum(_size(tensor, load, width) for tensor in listed)
    if adapter is not None:
        weights += _of_adapter(adapter, listed, load, width)
    held = width or 2
    hidden = _number(config, "hidden_size", "d_model", "n_embed", "n_embd")
    active = context_tokens * hidden * 16 * held * ANSWERS * beams
    overhead = ALLOWANCE + active + (CUDA_CONTEXT if device == "cuda" else 0)
    return Estimate(weights, cache_bytes(config, context_tokens, held) * beams * ANSWERS, overhead)


def cache_bytes(config: dict[str, Any], tokens: int, width: int) -> int:
    """Bytes of keys and values of one sequence, by the names that the architectures of configs/models use."""
    hidden = _number(config, "hidden_size", "d_model", "n_embed", "n_embd")
    layers = _number(config, "num_decoder_layers", "num_hidden_layers", "n_layer", "num_layers")
    heads = _number(config, "num_attention_heads", "n_head", "num_heads")
    pairs = _number(config, "num_key_value_heads", default=heads)
    head = _number(config, "head_dim", "d_kv", default=hidden // max(heads, 1))
    return 2 * layers * pairs * head * tokens * width


def headers(files: list[Path]) -> Iterator[Tensor]:
    """Every tensor of safetensors files, from their headers. Raises Damaged."""
    for file in files:
        registry.check_safetensors(file)
        with file.open("rb") as stream:
            table = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, entry in table.items():
            if name != "__metadata__":
                yield Tensor(name, entry["dtype"], tuple(entry["shape"]))


def dtype_bytes(dtype: str, device: str) -> int | None:
    """Bytes of a weight in memory; None for the file's own dtype."""
    if dtype != "auto":
        return BYTES[dtype]
    if device != "cpu":
        return None
    from huatuo.models.loaded import fastest_on_cpu

    return int(fastest_on_cpu().itemsize)


def check_room(need: Estimate, device: str, name: str, *, smaller: bool = True) -> None:
    """Raises Unavailable with both figures if the device has less free than needed. Unknown is not too little.

    smaller: whether the weights could be quantised (further) to need less.
    """
    free = free_bytes(device)
    if free is None or need.total <= free:
        return
    advice = 'load = "nf4" or another device' if smaller else "another device"
    raise Unavailable(
        f"{name}: needs about {need.total / GB:.1f} GB; {free / GB:.1f} GB free: use {advice}"
    )


def free_bytes(device: str) -> int | None:
    """Bytes that can still be taken: of a GPU's memory, of several together, or of main memory and its limits.

    device: 'cpu', 'cuda' (the first) or 'auto' (all GPUs; what does not fit there may lie in main memory).
    None where the system does not tell.
    """
    if device != "cpu":
        import torch

        count = torch.cuda.device_count()
        gpus = [int(torch.cuda.mem_get_info(i)[0]) for i in range(count)]
        if device == "cuda":
            return gpus[0] if gpus else 0
        return None if (main := _main_memory()) is None else main + sum(gpus)
    return _main_memory()


def _main_memory() -> int | None:
    """The smallest of what the machine has available and what is left under each limit of this process's groups."""
    found = [_available(), *(_under(folder) for folder in _groups())]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(li.split()[1]) * 1024 for li in lines if li.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:  # not Linux: what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _groups() -> Iterator[Path]:
    """The control groups of this process, innermost first, version 2 and version 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers not in ("", "memory"):
            continue
        top = _CGROUPS / controllers
        place = top / path.lstrip("/")
        yield from (p for p in (place, *place.parents) if p.is_relative_to(top))


def _under(group: Path) -> int | None:
    """What is left under one group's limit; pages of files that can be dropped count as free."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most = int((group / limit).read_text())
            now = int((group / used).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        cached = int(stat.get("inactive_file", stat.get("total_inactive_file", 0)))
        return max(0, most - now + cached)
    return None


def _size(tensor: Tensor, load: str, width: int | None) -> int:
    count = math.prod(tensor.shape)
    if load != "full" and _is_quantised(tensor):
        if load == "int8":
            return count + 4 * tensor.shape[0]
        scales = math.ceil(count / BLOCK)
        return math.ceil(count / 2) + scales + 4 * math.ceil(scales / 256)
    own = _WIDE.get(tensor.dtype)
    if own is None:  # counters and masks keep their type
        return count
    return count * (width or own)


def _is_quantised(tensor: Tensor) -> bool:
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and not any(part in tensor.name for part in _NOT_QUANTISED)
    )


def _of_adapter(adapter: Path, base: list[Tensor], load: str, width: int | None) -> int:
    """Bytes of what an adapter adds: merged weights of their own, or its matrices beside quantised ones."""
    listed = list(headers([adapter / "adapter_model.safetensors"]))
    beside = sum(_size(tensor, "full", width) for tensor in listed)
    if load != "full":
        return beside
    touched = {t.name.partition(".lora_")[0].removeprefix("base_model.model.") for t in listed}
    merged = sum(_size(t, "full", width) for t in base if t.name.removesuffix(".weight") in touched)
    return merged or beside


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        raise Damaged(f"{folder / 'config.json'}: missing or no JSON") from None
    if not isinstance(config, dict):
        raise Damaged(f"{folder / 'config.json'}: is no table")
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def _number(config: dict[str, Any], *names: str, default: int = 0) -> int:
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    return default
