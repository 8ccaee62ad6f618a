"""weights in memory: read once for all models that share them; a branch shares what it did not move.

Loaded folders stand in a weak table by folder, digest, dtype and device, so they go when their last model goes.
"""

import copy
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from huatuo.errors import Damaged, Mismatch
from huatuo.models import branch, registry
from huatuo.models.alibi import use_sdpa

_SAFE: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
_loaded: "weakref.WeakValueDictionary[tuple[str, str, str, str], nn.Module]" = (
    weakref.WeakValueDictionary()
)
_guard = threading.Lock()


def load_model(
    folder: Path, *, sha256: str = "", dtype: str = "auto", device: str = "cpu"
) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer) of a folder, checked first. Two calls share every tensor.

    sha256: of its weights, '' for no check. dtype: 'auto' or torch's name. device: 'auto', 'cpu' or 'cuda'.
    Raises Damaged, Untrusted or Mismatch naming file or tensor.
    """
    registry.check_folder(folder, sha256)
    trunk = _trunk(folder, sha256 or branch.parent_digest(folder), dtype, device)
    return laid_over(trunk, {}), _tokenizer(folder, trunk)


def load_branch(
    folder: Path,
    parent: Path,
    *,
    template: str,
    sha256: str = "",
    dtype: str = "auto",
    device: str = "cpu",
) -> tuple[Any, Any]:
    """(the parent's model with the branch laid over it, the parent's tokenizer); what did not move is shared.

    sha256: of branch.safetensors, '' for no check. Raises Damaged, Untrusted or Mismatch: another parent, another
    template, a branch that is no policy, other bytes than named.
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
    trunk = _trunk(parent, info.parent_sha256, dtype, device)
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


def _trunk(folder: Path, digest: str, dtype: str, device: str) -> Any:
    """The folder's model, loaded now or before. It never answers itself: `laid_over` makes what does."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = _dtype(dtype, device)
    key = (str(folder.resolve()), digest, str(kind), device)
    with _guard:
        model = _loaded.get(key)
        if model is None:
            model = _read(folder, kind).to(device).eval().requires_grad_(False)
            use_sdpa(model)
            _loaded[key] = model
        return model


def _read(folder: Path, dtype: Any) -> Any:
    """The model of a verified folder. Raises Damaged, Mismatch."""
    quiet: Any = transformers_logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    auto: Any = AutoModelForCausalLM
    try:
        model, report = auto.from_pretrained(
            folder, use_safetensors=True, dtype=dtype, output_loading_info=True, **_SAFE
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise Damaged(f"{folder}: cannot be loaded: {_first_line(error)}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        for key in sorted(map(str, report.get(problem) or ())):
            raise Mismatch(f"{folder}: {problem.replace('_', ' ')[:-1]} {key} in the weights")
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise Damaged(f"{folder}: tensor {name} holds NaN or infinity")
    return model


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


def _dtype(name: str, device: str) -> Any:
    """The dtype of a config; 'auto' is the file's own on a GPU, the fastest exact-enough one on a CPU."""
    if name != "auto":
        return getattr(torch, name)
    if device != "cpu":
        return "auto"
    fast: Any = torch.ops.mkldnn
    return torch.bfloat16 if fast._is_mkldnn_bf16_supported() else torch.float32
