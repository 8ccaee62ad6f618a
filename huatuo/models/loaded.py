"""weights in memory: read once for all models that share them; branches and adapters share what they do not change.

Loaded folders stand in a weak table by folder, digest, dtype, load and device, so they go when their last model goes.
Quantised weights and weights that lie on several devices are not shared. Adapters: huatuo/models/adapter.py.
"""

import copy
import logging
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
)
from transformers.utils import logging as transformers_logging

import huatuo.models.chatglm  # noqa: F401  (registers the port for a folder's config.json)
from huatuo.errors import ConfigError, Damaged, Mismatch
from huatuo.models import branch, memory, registry
from huatuo.models.adapter import check_adapter, lay_on, touched
from huatuo.models.alibi import use_sdpa

Load = Literal["full", "int8", "nf4"]
_SAFE: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
_loaded: "weakref.WeakValueDictionary[tuple[str, str, str, str], nn.Module]" = (
    weakref.WeakValueDictionary()
)
_guard = threading.Lock()


@dataclass(frozen=True)
class Place:
    """Which weights, and how and where they lie. device: 'auto' for a model spread over GPUs and main memory."""

    folder: Path
    digest: str
    dtype: Any
    device: str
    load: Load

    @property
    def shares(self) -> bool:
        """Whether several models may lie on these weights: a quantised layer keeps a state, a spread one hooks."""
        return self.load == "full" and self.device != "auto"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The place in the table of shared weights."""
        return str(self.folder.resolve()), self.digest, str(self.dtype), self.device


def load_model(
    folder: Path,
    *,
    adapter: Path | None = None,
    load: Load = "full",
    sha256: str = "",
    dtype: str = "auto",
    device: str = "cpu",
    context_tokens: int = 1024,
    beams: int = 1,
) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer) of a folder, checked first. Two calls in full precision share every tensor.

    adapter: a LoRA, a LoRA by rows or a prefix that is laid over it. load: int8 and nf4 by bitsandbytes. sha256: of
    its weights, '' for no check. dtype: 'auto' or torch's name. device: 'auto', 'cpu' or 'cuda'. context_tokens and
    beams: for the estimate of memory. Raises Damaged, Untrusted or Mismatch naming file or tensor, Unavailable if it
    would not fit, ConfigError for a device that is not there.
    """
    registry.check_folder(folder, sha256)
    if adapter is not None:
        check_adapter(adapter, load)
    place = _place(folder, sha256 or branch.parent_digest(folder), dtype, device, load)
    need = memory.estimate(
        folder,
        adapter=adapter,
        load=load,
        dtype=dtype,
        device=place.device,
        context_tokens=context_tokens,
        beams=beams,
        shared=place.key in _loaded,
    )
    if (
        device == "auto"
        and place.device == "cuda"
        and need.total > (memory.free_bytes("cuda") or 0)
    ):
        place = replace(place, device="auto")
    memory.check_room(need, place.device, str(folder), smaller=load != "nf4")
    trunk = _trunk(place)
    model = trunk
    if place.shares:
        changed = touched(adapter, trunk) if adapter else {}
        model = laid_over(trunk, {name: tensor.clone() for name, tensor in changed.items()})
    if adapter is not None:
        model = lay_on(model, adapter, merge=place.shares)
    return model, _tokenizer(folder, trunk)


def load_branch(
    folder: Path,
    parent: Path,
    *,
    template: str,
    sha256: str = "",
    dtype: str = "auto",
    device: str = "cpu",
    context_tokens: int = 1024,
    beams: int = 1,
) -> tuple[Any, Any]:
    """(the parent's model with the branch laid over it, the parent's tokenizer); what did not move is shared.

    sha256: of branch.safetensors, '' for no check. Raises Damaged, Untrusted or Mismatch: another parent, another
    template, a branch that is no policy, other bytes than named; Unavailable if it would not fit.
    """
    info = branch.read_branch(folder)
    if sha256 and info.sha256 != sha256:
        raise Mismatch(
            f"{folder / branch.WEIGHTS}: its sha256 is not the one that the model's file names"
        )
    if info.kind != "policy":
        raise Mismatch(
            f"{folder}: a {info.kind} branch answers nothing; `path` must be a policy branch"
        )
    if info.template != template:
        raise Mismatch(f"{folder}: trained with the template {info.template}, not {template}")
    registry.check_folder(parent)
    branch.check_parent(info, parent)
    place = _place(parent, info.parent_sha256, dtype, device, "full")
    need = memory.estimate(
        parent,
        dtype=dtype,
        device=place.device,
        context_tokens=context_tokens,
        beams=beams,
        shared=place.key in _loaded,
    )
    memory.check_room(need, place.device, str(parent), smaller=False)
    trunk = _trunk(place)
    return laid_over(trunk, branch.tensors_of(folder)), _tokenizer(parent, trunk)


def laid_over(model: Any, tensors: Mapping[str, Tensor]) -> Any:
    """A model of the same shape that shares every tensor but the named ones, which take the model's dtype and device.

    Raises Mismatch for a name or a shape that the model does not have.
    """
    own: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    own |= dict(model.named_buffers(remove_duplicate=False))
    memo: dict[int, Any] = {id(tensor): tensor for tensor in own.values()}
    for name, tensor in tensors.items():
        old = own.get(name)
        if old is None or old.shape != tensor.shape:
            raise Mismatch(f"tensor {name} of the branch does not fit the model that was loaded")
        new = tensor.to(device=old.device, dtype=old.dtype)
        memo[id(old)] = nn.Parameter(new, requires_grad=False) if _is_parameter(old) else new
    shell = copy.deepcopy(model, memo)
    shell.__dict__["_trunk"] = model  # keeps it in the table, and is no submodule
    return shell


def _is_parameter(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def device_of(device: str) -> str:
    """'cpu' or 'cuda'. Raises ConfigError for 'cuda' on a machine without."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError('device = "cuda", but no GPU is found here; use device = "auto" or "cpu"')
    return device


def fastest_on_cpu() -> torch.dtype:
    """The fastest dtype that is exact enough, on a CPU."""
    fast: Any = torch.ops.mkldnn
    return torch.bfloat16 if fast._is_mkldnn_bf16_supported() else torch.float32


def _place(folder: Path, digest: str, dtype: str, device: str, load: Load) -> Place:
    where = device_of(device)
    kind: Any = getattr(torch, dtype) if dtype != "auto" else "auto"
    if dtype == "auto" and load != "full":
        kind = torch.bfloat16 if where != "cpu" or load == "int8" else fastest_on_cpu()
    elif dtype == "auto" and where == "cpu":
        kind = fastest_on_cpu()
    return Place(folder, digest, kind, where, load)


def _trunk(place: Place) -> Any:
    """The folder's model, loaded now or before. It never answers itself where it is shared: `laid_over` makes what does."""
    with _guard:
        model = _loaded.get(place.key) if place.shares else None
        if model is None:
            model = _read(place).eval().requires_grad_(False)
            use_sdpa(model)
            if place.shares:
                _loaded[place.key] = model
        return model


def _read(place: Place) -> Any:
    """The model of a verified folder. Raises Damaged, Mismatch."""
    quiet: Any = transformers_logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    folder, how = place.folder, _how(place)
    try:
        config: Any = AutoConfig.from_pretrained(folder, **_SAFE)
        auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, report = auto.from_pretrained(
            folder,
            use_safetensors=True,
            dtype=place.dtype,
            output_loading_info=True,
            **how,
            **_SAFE,
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise Damaged(f"{folder}: cannot be loaded: {_first_line(error)}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        for key in sorted(map(str, report.get(problem) or ())):
            raise Mismatch(f"{folder}: {problem.replace('_', ' ')[:-1]} {key} in the weights")
    for name, tensor in model.named_parameters():
        if (
            tensor.is_floating_point()
            and not tensor.is_meta
            and not bool(torch.isfinite(tensor).all())
        ):
            raise Damaged(f"{folder}: tensor {name} holds NaN or infinity")
    for module in (
        model.modules()
    ):  # 8-bit layers do this at their first use, and two answers may be the first
        if hasattr(module, "init_8bit_state") and getattr(module.weight, "CB", None) is not None:
            module.init_8bit_state()
    return model if how else model.to(place.device)


def _how(place: Place) -> dict[str, Any]:
    """What from_pretrained is told beyond the plain case: quantisation, and accelerate's placement."""
    how: dict[str, Any] = {}
    if place.device == "auto":
        how["device_map"] = "auto"
    if place.load == "int8":
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line per product otherwise
        how["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif place.load == "nf4":
        how["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=place.dtype,
        )
    if how:
        how.setdefault("device_map", {"": place.device})
    return how


def _tokenizer(folder: Path, model: Any) -> Any:
    """The folder's tokenizer, each time anew: it is small and may be changed. Raises Damaged, Mismatch."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **_SAFE)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise Damaged(f"{folder}: cannot be loaded: {_first_line(error)}") from error
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise Mismatch(
            f"{folder}: the tokenizer has more words than the model; it is another model's"
        )
    return tokenizer


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
