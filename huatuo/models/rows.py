"""DoctorGLM's two adapters, laid over a ChatGLM in memory: a LoRA by rows, and a prefix of keys and values.

The LoRA is old peft's MergedLinear: the fused matrix is cut into equal parts by rows, and `enable_lora` says which of
them change. ChatGLM's rows are ordered by head, so a part is neither query nor value; it is applied by rows, as it was
trained. `fan_in_fan_out` has no effect: peft 0.2 resets it for a linear layer, which ChatGLM's is. Letters: r rank, t
parts, n of them changed, H hidden width, P prefix positions, L blocks.
"""

import copy
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from huatuo.errors import Damaged, Mismatch
from huatuo.models.chatglm import PrefixEncoder

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."
_PREFIX = "transformer.prefix_encoder."
_FIRST, _SECOND = ".lora_A.weight", ".lora_B.weight"


@torch.no_grad()
def merge_rows(model: Any, folder: Path) -> None:
    """Adds a LoRA by rows to the model's weights, in place; nothing is changed if anything does not fit.

    Tensors: `<layer>.lora_A.weight` (n * r, H) and `<layer>.lora_B.weight` (n * rows / t, n * r / groups, 1), where the
    groups are n, or the 2 that peft 0.2 writes whatever n is. Raises Mismatch or Damaged naming the tensor.
    """
    config, tensors = _read(Path(folder))
    rank, alpha, enabled = _settings(Path(folder), config)
    weights = dict(model.named_parameters(remove_duplicate=False))
    steps = []
    for layer in _layers(Path(folder), tensors, weights):
        weight = _whole(Path(folder), weights, layer)
        first, second = tensors[layer + _FIRST], tensors[layer + _SECOND]
        _check(Path(folder), layer, (first, second), (rank, enabled), weight)
        steps.append((weight, first, second))
    for weight, first, second in steps:
        change = _change(first.float(), second.float(), enabled) * (alpha / rank)
        weight.copy_(weight.float() + change.to(weight.device))


@torch.no_grad()
def add_prefix(model: Any, folder: Path) -> None:
    """Gives the model the prefix of a P-tuning v2, and its config the key `pre_seq_len`.

    Tensors: `transformer.prefix_encoder.embedding.weight` (P, L * 2 * H); where the config says prefix_projection it is
    (P, H), with `.trans.0` and `.trans.2`. Raises Mismatch or Damaged naming the tensor.
    """
    folder = Path(folder)
    config, tensors = _read(folder)
    count = config.get("pre_seq_len")
    if not _is_count(count):
        raise Mismatch(f"{folder / CONFIG}: pre_seq_len must be the number of positions")
    if getattr(model.config, "model_type", "") != "chatglm" or model.config.pre_seq_len:
        raise Mismatch(
            f"{folder}: a prefix is laid over a ChatGLM that has none; `path` is another"
        )
    whole = copy.deepcopy(model.config)
    whole.pre_seq_len, whole.prefix_projection = count, bool(config.get("prefix_projection"))
    with torch.device("meta"):
        encoder = PrefixEncoder(whole)
    wanted = {_PREFIX + name: tuple(t.shape) for name, t in encoder.state_dict().items()}
    for name in sorted({*wanted} ^ {*tensors}):
        raise Mismatch(
            f"{folder}: tensor {name} is {'missing' if name in wanted else 'no part of a prefix'}"
        )
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            raise Mismatch(
                f"{folder}: tensor {name} has shape {list(tensors[name].shape)}, but the model in `path` needs "
                f"{list(shape)}; it is another base's prefix"
            )
    own = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    encoder.load_state_dict(own, assign=True)
    near = model.get_input_embeddings().weight
    model.transformer.prefix_encoder = encoder.to(near.device, near.dtype).train(model.training)
    for part in (model.config, model.transformer.config):
        part.pre_seq_len, part.prefix_projection = count, whole.prefix_projection


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors by name, without old peft's prefix). Raises Damaged."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        tensors = load_file(folder / WEIGHTS, device="cpu")
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise Damaged(f"{folder}: cannot be read ({error}); copy the adapter again") from None
    if not isinstance(config, dict) or not tensors:
        raise Damaged(f"{folder}: {CONFIG} is no table, or {WEIGHTS} holds nothing")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise Damaged(f"{folder / WEIGHTS}: tensor {name} holds NaN, infinity or no numbers")
    return config, {name.removeprefix(_PEFT_PREFIX): tensor for name, tensor in tensors.items()}


def _settings(folder: Path, config: dict[str, Any]) -> tuple[int, float, list[bool]]:
    """(r, lora_alpha, enable_lora). Raises Mismatch."""
    rank, alpha, enabled = (config.get(key) for key in ("r", "lora_alpha", "enable_lora"))
    if (
        not _is_count(rank)
        or not isinstance(alpha, int | float)
        or not isinstance(enabled, list)
        or not all(isinstance(one, bool) for one in enabled)
        or not any(enabled)
    ):
        raise Mismatch(
            f"{folder / CONFIG}: r, lora_alpha and enable_lora must be a rank, a number and a list of true and false; "
            "the file is no LoRA by rows"
        )
    return int(str(rank)), alpha, enabled


def _layers(folder: Path, tensors: dict[str, Tensor], weights: dict[str, Tensor]) -> list[str]:
    """The layers that have both matrices, each kind of them in every block. Raises Mismatch."""
    for name in sorted(tensors):
        if not name.endswith((_FIRST, _SECOND)):
            raise Mismatch(f"{folder}: tensor {name} is no matrix of a LoRA by rows")
    layers = {name.partition(".lora_")[0] for name in tensors}
    kinds = {_kind(layer) for layer in layers}
    everywhere = {name.removesuffix(".weight") for name in weights if name.endswith(".weight")}
    for layer in sorted(layers | {one for one in everywhere if _kind(one) in kinds}):
        for name in (layer + _FIRST, layer + _SECOND):
            if name not in tensors:
                raise Mismatch(f"{folder}: tensor {name} is missing; the adapter is not whole")
    return sorted(layers)


def _kind(layer: str) -> str:
    return re.sub(r"\.\d+\.", ".N.", layer, count=1)


def _whole(folder: Path, weights: dict[str, Tensor], layer: str) -> Tensor:
    """The layer's weight (rows, H). Raises Mismatch if there is none, or none that can be added to."""
    weight = weights.get(f"{layer}.weight")
    if weight is None:
        raise Mismatch(
            f"{folder}: tensor {layer}{_FIRST} belongs to a layer that the model in `path` does not have; it is another "
            "base's adapter"
        )
    if weight.dim() != 2 or not weight.is_floating_point() or weight.is_meta:
        raise Mismatch(
            f"{folder}: tensor {layer}.weight of the model is quantised or not in memory; rows are added to whole "
            'weights only: set load = "full"'
        )
    return weight


def _check(
    folder: Path,
    layer: str,
    matrices: tuple[Tensor, Tensor],
    settings: tuple[int, list[bool]],
    weight: Tensor,
) -> None:
    """Raises Mismatch naming the matrix whose shape does not go with the rank, the parts and the weight."""
    (rows, width), (rank, enabled) = weight.shape, settings
    changed = sum(enabled)
    first, second = (tuple(matrix.shape) for matrix in matrices)
    if rows % len(enabled) or first != (changed * rank, width):
        raise Mismatch(
            f"{folder}: tensor {layer}{_FIRST} has shape {list(first)}, but r = {rank}, {changed} of {len(enabled)} "
            f"parts and the weight {[rows, width]} in `path` need {[changed * rank, width]}; it is another base's adapter"
        )
    outer = changed * (rows // len(enabled))
    inner = {
        changed * rank // groups for groups in (changed, 2) if not (changed * rank | outer) % groups
    }
    if len(second) != 3 or second[0] != outer or second[2] != 1 or second[1] not in inner:
        raise Mismatch(
            f"{folder}: tensor {layer}{_SECOND} has shape {list(second)}, but needs {[outer, rank, 1]} for the weight "
            f"{[rows, width]} in `path`; it is another base's adapter"
        )


def _change(first: Tensor, second: Tensor, enabled: list[bool]) -> Tensor:
    """(rows, H): the product by groups, in the enabled parts; zero in the others."""
    groups = first.shape[0] // second.shape[1]
    product = functional.conv1d(first[None], second, groups=groups)[0]  # (n * rows / t, H)
    parts = product.view(sum(enabled), -1, first.shape[1])
    whole = parts.new_zeros(len(enabled), *parts.shape[1:])
    whole[torch.tensor(enabled)] = parts
    return whole.flatten(0, 1)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
