"""adapters laid over a model in memory: peft's LoRA, LoRA by rows, and a prefix of keys and values.

An adapter's folder holds adapter_config.json and adapter_model.safetensors, and no code. A LoRA is checked against the
model tensor by tensor before it is applied, because peft names neither the tensor nor the base when they do not fit.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from torch import Tensor

from huatuo.errors import ConfigError, Damaged, Mismatch, Untrusted
from huatuo.models import checkpoint, registry, rows

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
Kind = Literal["lora", "rows", "prefix"]
_FIRST, _SECOND = ".lora_A.weight", ".lora_B.weight"
_PEFT_PREFIX = "base_model.model."
_NO_EFFECT = ("auto_mapping", "modules_to_save", "megatron_config", "layer_replication")
"""Keys of a LoRA's config that would bring in classes, whole tensors or other layers; none of ours has them."""


def check_adapter(folder: Path, load: str = "full") -> Kind:
    """Which kind of adapter the folder holds. Raises Damaged, Untrusted, or ConfigError if `load` does not go with it."""
    if not folder.is_dir():
        raise Damaged(f"{folder}: no such folder; check `adapter` in the model's file")
    registry.refuse_untrusted(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise Damaged(f"{folder / name}: missing; the folder is no whole adapter")
    for stray in sorted(folder.glob("*.safetensors")):
        if stray.name != WEIGHTS:
            raise Damaged(f"{stray}: not part of the adapter; remove it")
    registry.check_safetensors(folder / WEIGHTS)
    if (folder / checkpoint.MANIFEST).is_file():
        checkpoint.verify(folder)
    kind = _kind(folder)
    if kind == "rows" and load != "full":
        raise ConfigError(f'{folder}: a LoRA by rows changes whole weights; use load = "full"')
    return kind


def touched(folder: Path, model: Any) -> dict[str, Tensor]:
    """The model's weights that merging the adapter will change, by name. Raises Mismatch if they are another base's."""
    kind = _kind(folder)
    if kind == "prefix":
        return {}
    own: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    shapes = _shapes(folder)
    changed = {}
    for name in sorted(shapes):
        module, _, _ = name.partition(".lora_")
        weight = own.get(f"{module.removeprefix(_PEFT_PREFIX)}.weight")
        if not name.endswith((_FIRST, _SECOND)):
            raise Mismatch(f"{folder}: tensor {name} is no matrix of a LoRA")
        if weight is None:
            raise Mismatch(
                f"{folder}: tensor {name} belongs to a layer that the model in `path` does not have; "
                "it is another base's adapter"
            )
        changed[f"{module.removeprefix(_PEFT_PREFIX)}.weight"] = weight
    if kind == "lora":
        check_fit(folder, shapes, {name: tuple(weight.shape) for name, weight in changed.items()})
    return changed


def check_fit(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises Mismatch naming the first tensor of a LoRA, A (r, in) or B (out, r), that does not fit its weight (out, in)."""
    for name, shape in sorted(shapes.items()):
        module = name.partition(".lora_")[0]
        weight = weights[f"{module.removeprefix(_PEFT_PREFIX)}.weight"]
        if len(weight) != 2:
            raise Mismatch(f"{folder}: tensor {name} belongs to a weight that is no matrix")
        out, into = weight
        twin = _SECOND if name.endswith(_FIRST) else _FIRST
        other = shapes.get(module + twin)
        if other is None:
            raise Mismatch(f"{folder}: tensor {module + twin} is missing")
        side = 1 if name.endswith(_FIRST) else 0
        rank = 1 - side
        if len(shape) != 2 or len(other) != 2 or shape[rank] != other[side]:
            raise Mismatch(f"{folder}: tensor {name} {list(shape)} does not fit {list(other)}")
        wanted = into if side else out
        if shape[side] != wanted:
            raise Mismatch(
                f"{folder}: tensor {name} has shape {list(shape)}, but the weight in `path` is {[out, into]}; "
                "it is another base's adapter"
            )


def lay_on(model: Any, folder: Path, *, merge: bool) -> Any:
    """The model with the adapter; a LoRA is merged into the weights, or beside quantised ones computed each time.

    Raises Mismatch, Damaged.
    """
    kind = _kind(folder)
    if kind == "rows":
        rows.merge_rows(model, folder)
    elif kind == "prefix":
        rows.add_prefix(model, folder)
    else:
        model = _with_lora(model, folder, merge)
    model.eval().requires_grad_(False)
    return model


def _with_lora(model: Any, folder: Path, merge: bool) -> Any:
    from peft import LoraConfig, PeftModel  # 6 s, and most models have none

    if not merge:
        _fit_quantised(model, folder)
    config: Any = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = True
    config.init_lora_weights = True  # the folder's own way to begin would read the base once more
    laid: Any = PeftModel.from_pretrained(
        model, str(folder), config=config, local_files_only=True, autocast_adapter_dtype=False
    )
    return laid.merge_and_unload(safe_merge=True) if merge else laid.base_model.model


def _fit_quantised(model: Any, folder: Path) -> None:
    """The shapes as `touched` checks them; a quantised weight no longer has its own, but its layer knows it."""
    modules = dict(model.named_modules())
    shapes, weights = _shapes(folder), {}
    for name in sorted(shapes):
        place = name.partition(".lora_")[0].removeprefix(_PEFT_PREFIX)
        layer = modules.get(place)
        if layer is None or not hasattr(layer, "in_features"):
            raise Mismatch(
                f"{folder}: tensor {name} belongs to a layer that the model in `path` does not have; "
                "it is another base's adapter"
            )
        weights[f"{place}.weight"] = (layer.out_features, layer.in_features)
    check_fit(folder, shapes, weights)


def _kind(folder: Path) -> Kind:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        raise Damaged(f"{folder / CONFIG}: is no JSON") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind == "PREFIX_TUNING":
        return "prefix"
    if kind != "LORA":
        raise Mismatch(f"{folder / CONFIG}: peft_type must be LORA or PREFIX_TUNING")
    if config.get("enable_lora"):
        return "rows"
    for key in _NO_EFFECT:
        if config.get(key):
            raise Untrusted(f"{folder / CONFIG}: {key} is not taken from an adapter; remove it")
    return "lora"


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor, from the header. Raises Mismatch for an adapter without any."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names: Iterable[str] = file.keys()
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    if not shapes:
        raise Mismatch(f"{folder / WEIGHTS}: holds no tensor")
    return shapes
