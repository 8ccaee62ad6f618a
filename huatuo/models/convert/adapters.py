"""the published adapters: peft's LoRA, DoctorGLM's LoRA by rows, and a P-tuning v2 prefix.

lora    PEFT 0.3's adapter_config.json and adapter_model.bin, so that today's peft reads them
rows    DoctorGLM: LoRA that moves two thirds of the fused rows (`enable_lora`), for huatuo/models/rows.py
prefix  P-tuning v2: of a whole pytorch_model.bin only `transformer.prefix_encoder.*` is kept
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from huatuo.errors import Damaged, Mismatch
from huatuo.models.convert.plan import FLOATS, Make, Plan
from huatuo.models.convert.source import Source, Tensor

KINDS = ("lora", "rows", "prefix")
WEIGHTS = "adapter_model.safetensors"
_KEPT = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "fan_in_fan_out",
    "target_modules",
    "modules_to_save",
    "task_type",
)
_PAIR = re.compile(r"(base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
_PREFIX = "transformer.prefix_encoder.embedding.weight"


def kind_of(source: Source) -> str:
    """Which of KINDS an adapter's folder is. Raises Mismatch for another."""
    kind = source.adapter.get("peft_type", "LORA")
    if kind == "LORA":
        return "rows" if any(source.adapter.get("enable_lora") or ()) else "lora"
    if kind == "PREFIX_TUNING" and _PREFIX in source.tensors:
        return "prefix"
    raise Mismatch(
        f"{source.folder / 'adapter_config.json'}: peft_type {kind} is not converted; only LoRA and prefixes are"
    )


def plan(source: Source, base: Source | None, kind: str) -> Plan:
    """What to write for an adapter. base: the model it is for, to compare the sizes with; its files become parents.

    Raises Mismatch naming the tensor that does not fit, Damaged for one that is missing.
    """
    for tensor in source.tensors.values():
        if tensor.dtype not in FLOATS:
            raise Mismatch(
                f"{tensor.file}: tensor {tensor.name} is {tensor.dtype}; quantised weights are not converted"
            )
    made = {"lora": _lora, "rows": _rows, "prefix": _prefix}[kind](source, base)
    made.weights = WEIGHTS
    made.parents = base.files if base is not None else ()
    known = {"config.json", "adapter_config.json", *(file.name for file in source.files)}
    made.left_out = sorted(path.name for path in source.folder.iterdir() if path.name not in known)
    return made


def _lora(source: Source, base: Source | None) -> Plan:
    config = source.adapter
    rank, targets = _rank(source), _targets(source)
    pairs, others = _pairs(source)
    saved = tuple(config.get("modules_to_save") or ())
    makes: list[Make] = []
    for name, tensor in others.items():
        module = name.removeprefix("base_model.model.").removesuffix(".weight")
        if not saved or not module.endswith(saved):
            raise Mismatch(f"{tensor.file}: tensor {name} is no part of a LoRA")
        makes.append(Make(f"base_model.model.{module}.weight", tensor.dtype, tensor.shape, tensor))
    for module, (down, up) in pairs.items():
        if module.rpartition(".")[2] not in targets and module not in targets:
            raise Mismatch(
                f"{down.file}: tensor {down.name} is for a module that adapter_config.json does not name"
            )
        if (
            len(down.shape) != 2
            or len(up.shape) != 2
            or down.shape[0] != rank
            or up.shape[1] != rank
        ):
            raise Mismatch(
                f"{down.file}: {down.name} {list(down.shape)} and {up.name} {list(up.shape)} are no pair of rank {rank}"
            )
        _check_base(
            base, module, up, (up.shape[0], down.shape[1]), bool(config.get("fan_in_fan_out"))
        )
        for letter, tensor in (("A", down), ("B", up)):
            makes.append(
                Make(
                    f"base_model.model.{module}.lora_{letter}.weight",
                    tensor.dtype,
                    tensor.shape,
                    tensor,
                )
            )
    kept = {key: config[key] for key in _KEPT if config.get(key) is not None}
    modern = {
        "peft_type": "LORA",
        "bias": "none",
        "task_type": "CAUSAL_LM",
        **kept,
        "inference_mode": True,
    }
    return Plan("lora", makes, texts={"adapter_config.json": _text(modern)})


def _rows(source: Source, base: Source | None) -> Plan:
    config = source.adapter
    rank, enabled = _rank(source), [bool(one) for one in config["enable_lora"]]
    _targets(source)
    pairs, others = _pairs(source)
    for name, tensor in others.items():
        raise Mismatch(f"{tensor.file}: tensor {name} is no part of a LoRA")
    on = sum(enabled)
    makes: list[Make] = []
    for module, (down, up) in pairs.items():
        if not re.fullmatch(r"transformer\.layers\.\d+\.attention\.query_key_value", module):
            raise Mismatch(f"{down.file}: tensor {down.name} is no query_key_value of ChatGLM-6B")
        rows = up.shape[0] // on
        fits = ((rows * on, rank, 1), (rows * on, on * rank // 2, 1))  # peft 0.2: 2 groups
        if len(down.shape) != 2 or down.shape[0] != rank * on or up.shape not in fits:
            raise Mismatch(
                f"{down.file}: {down.name} {list(down.shape)} and {up.name} {list(up.shape)} are no pair of rank {rank} "
                f"for {on} of {len(enabled)} groups of rows"
            )
        _check_base(base, module, up, (rows * len(enabled), down.shape[1]), False)
        makes += [
            Make(f"{module}.lora_{x}.weight", t.dtype, t.shape, t)
            for x, t in (("A", down), ("B", up))
        ]
    kept = {
        key: config.get(key)
        for key in ("r", "lora_alpha", "enable_lora", "fan_in_fan_out", "target_modules")
    }
    made = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", **kept}
    return Plan("rows", makes, texts={"adapter_config.json": _text(made)})


def _prefix(source: Source, base: Source | None) -> Plan:
    config = {**source.config, **source.adapter}
    if config.get("prefix_projection"):
        raise Mismatch(
            f"{source.folder}: prefix_projection is true; only a plain table of prefixes is converted"
        )
    if _PREFIX not in source.tensors:
        raise Damaged(
            f"{source.folder}: tensor {_PREFIX} is missing; it is no P-tuning v2 checkpoint"
        )
    for name, tensor in source.tensors.items():
        known = re.fullmatch(
            r"lm_head\.weight|transformer\.(word_embeddings|final_layernorm|layers\.\d+)\..*", name
        )
        if name != _PREFIX and not known:
            raise Mismatch(f"{tensor.file}: tensor {name} is no part of ChatGLM-6B or its prefix")
    table = source.tensors[_PREFIX]
    length = config.get("pre_seq_len") or table.shape[0]
    layers, width = config.get("num_layers"), config.get("hidden_size")
    wide = layers * 2 * width if type(layers) is int and type(width) is int else table.shape[-1]
    if table.shape != (length, wide):
        raise Mismatch(
            f"{table.file}: tensor {_PREFIX} has shape {list(table.shape)}, the config asks for {[length, wide]}"
        )
    if base is not None:
        count = base.config.get("num_layers"), base.config.get("hidden_size")
        if any(type(one) is not int for one in count) or wide != count[0] * 2 * count[1]:  # type: ignore[operator]
            raise Mismatch(
                f"{table.file}: tensor {_PREFIX} has {wide} columns; it is the prefix of another base"
            )
    made = {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "pre_seq_len": length,
        "prefix_projection": False,
    }
    return Plan(
        "prefix",
        [Make(_PREFIX, table.dtype, table.shape, table)],
        texts={"adapter_config.json": _text(made)},
    )


def _rank(source: Source) -> int:
    rank, alpha = source.adapter.get("r"), source.adapter.get("lora_alpha")
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
        raise Mismatch(
            f"{source.folder / 'adapter_config.json'}: r or lora_alpha is missing or no number"
        )
    return rank


def _targets(source: Source) -> list[str]:
    targets = source.adapter.get("target_modules")
    if (
        not isinstance(targets, list)
        or not all(isinstance(one, str) for one in targets)
        or not targets
    ):
        raise Mismatch(
            f"{source.folder / 'adapter_config.json'}: target_modules must be a list of names"
        )
    return targets


def _pairs(source: Source) -> tuple[dict[str, tuple[Tensor, Tensor]], Mapping[str, Tensor]]:
    """(module -> its A and B, everything else). Raises Damaged for half a pair."""
    halves: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in source.tensors.items():
        found = _PAIR.fullmatch(name)
        if found:
            halves.setdefault(found[2], {})[found[3]] = tensor
        else:
            others[name] = tensor
    for module, pair in halves.items():
        if len(pair) != 2:
            raise Damaged(
                f"{source.folder}: module {module} has lora_{min(pair)} only; download the adapter again"
            )
    if not halves:
        raise Damaged(f"{source.folder}: no tensor lora_A; it is no LoRA")
    return {module: (pair["A"], pair["B"]) for module, pair in halves.items()}, others


def _check_base(
    base: Source | None, module: str, up: Tensor, shape: tuple[int, int], turned: bool
) -> None:
    """Raises Mismatch unless the base has the module in this shape (rows, columns)."""
    if base is None:
        return
    tensor = base.tensors.get(f"{module}.weight") or base.tensors.get(
        f"{module.partition('.')[2]}.weight"
    )
    if tensor is None or tensor.shape != (shape[::-1] if turned else shape):
        found = "none" if tensor is None else str(list(tensor.shape))
        raise Mismatch(
            f"{up.file}: tensor {up.name} is for a {module}.weight of {list(shape)}, the base {base.folder} has {found}; "
            "it is the adapter of another base"
        )


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
