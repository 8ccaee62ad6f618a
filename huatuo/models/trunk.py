"""one frozen trunk, many branches: the lower blocks run once and serve policy, reference, value and reward.

When only the last k blocks train, everything below them is the same for all four. A branch is a copy of blocks L-k..L-1
and of what follows them (the final norm); the vocabulary head is shared and frozen. No architecture's forward is copied:
a branch calls the model's own forward, in which the lower blocks are stand-ins that do nothing and a hook puts the
trunk's states before block L-k; the states are caught by a hook at the same place, also while the model generates.
Letters: B sequences, T tokens, H hidden width, V vocabulary, L blocks.
"""

import copy
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from huatuo.errors import Damaged, FrozenMoved, Mismatch
from huatuo.models import registry
from huatuo.models.alibi import use_sdpa

Load = Literal["float32", "bfloat16", "int8", "nf4"]


class _Reached(Exception):
    """Carries the states out of the model's forward, so that nothing above the trunk is computed."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


class _Pass(nn.Module):
    """Stands in for a lower block: hands on what it was given, in the shape of the block's own output."""

    def __init__(self, block: nn.Module, gives_tuple: bool) -> None:
        super().__init__()
        self.__dict__["_block"] = block  # not a submodule: its tensors are not this module's
        self._gives_tuple = gives_tuple

    def __getattr__(self, name: str) -> Any:
        """What a model asks its blocks about (Qwen: the kind of attention) is the block's own answer."""
        if name in self.__dict__.get("_modules", {}):
            return super().__getattr__(name)
        return getattr(self.__dict__["_block"], name)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return (hidden_states, None) if self._gives_tuple else hidden_states


class Branch(nn.Module):
    """The top blocks of a model and what follows them, run on the trunk's states. Made by Trunk."""

    blocks: nn.ModuleList
    after: nn.ModuleDict
    head: nn.Linear | None

    def __init__(
        self, trunk: "Trunk", blocks: nn.ModuleList, after: nn.ModuleDict, numbers: int
    ) -> None:
        super().__init__()
        self.blocks, self.after = blocks, after
        self.head = None
        if numbers:
            self.head = nn.Linear(trunk.hidden_size, numbers, device=trunk.device).float()
            nn.init.normal_(self.head.weight, std=1 / (trunk.hidden_size + 1))
            nn.init.zeros_(self.head.bias)
        self._takes_positions = trunk.takes_positions
        self._fed: Tensor | None = None
        self._heard: list[Tensor] | None = None
        self._stops = False
        # Not a submodule: it shares the blocks, and would otherwise name each of them twice.
        self.__dict__["_shell"] = trunk.shell(blocks, after)
        blocks[0].register_forward_pre_hook(self._before_first, with_kwargs=True)

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Final hidden states (B, T, H), or what a head says, float32: (B, T), or (B, T, numbers) if it says several.

        states: (B, T, H) before block L-k. attention_mask: (B, T), 1 for tokens, padding on either side.
        """
        shape = (*states.shape[:2], states.shape[2])
        blank = states.new_zeros(1, 1, 1).expand(
            shape
        )  # what the lower blocks would have begun with
        self._fed = states
        try:
            shell: Any = self.__dict__["_shell"]
            hidden = shell(
                inputs_embeds=blank,
                attention_mask=attention_mask,
                use_cache=False,
                **positions(attention_mask, self._takes_positions),
            ).last_hidden_state  # (B, T, H)
        finally:
            self._fed = None
        scores: Tensor = hidden if self.head is None else self.head(hidden.float()).squeeze(-1)
        return scores

    def _before_first(self, _: nn.Module, args: Any, kwargs: Any) -> Any:
        if self._fed is not None:
            if args:
                return (self._fed, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": self._fed}
        states = args[0] if args else kwargs["hidden_states"]
        if self._heard is not None:
            self._heard.append(states.detach())
        if self._stops:
            raise _Reached(states.detach())
        return None


class Trunk:
    """A causal language model split below its top `blocks` blocks; all of it frozen except `policy`.

    policy: the model's own top blocks as a branch; training it changes what `model` says, with no copy between.
    Raises Mismatch if the model has no list of blocks or if branch(trunk(x)) is not model(x).
    """

    def __init__(self, model: PreTrainedModel, blocks: int) -> None:
        model.requires_grad_(False).eval()
        self.model = model
        self.device = next(model.parameters()).device
        self._stem, listed = _list_of_blocks(model)
        if not 1 <= blocks <= len(listed):
            raise Mismatch(f"blocks = {blocks}, but the model has {len(listed)}")
        self.blocks, self.first = blocks, len(listed) - blocks
        self._listed = listed
        head = model.get_output_embeddings()
        if head is None or getattr(head, "bias", None) is not None:
            raise Mismatch(f"{type(model).__name__}: no vocabulary head without bias")
        self._head = head
        self.hidden_size = int(head.weight.shape[1])
        owner = model.base_model.get_submodule(self._stem.rpartition(".")[0])
        self.takes_positions = (
            "position_ids" in inspect.signature(model.base_model.forward).parameters
        )
        self._gives_tuple, self._after = _probe(model, owner, listed)
        after = nn.ModuleDict({name: owner.get_submodule(name) for name in self._after})
        self.policy = Branch(self, nn.ModuleList(listed[self.first :]), after, 0)
        self.prove()
        self._marks = self._versions()

    @property
    def vocabulary(self) -> Tensor:
        """The frozen head's weight (V, H)."""
        return self._head.weight

    def shell(self, blocks: nn.ModuleList, after: nn.ModuleDict) -> nn.Module:
        """The base model as a shallow copy with stand-ins below the branch's own blocks."""
        low = [_Pass(block, self._gives_tuple) for block in self._listed[: self.first]]
        *path, name = self._stem.split(".")
        outer = shell = _shallow(self.model.base_model)
        for step in path:
            inner = _shallow(shell.get_submodule(step))
            shell._modules[step] = inner
            shell = inner
        shell._modules[name] = nn.ModuleList([*low, *blocks])
        shell._modules.update(after.items())
        return outer

    def branch(self, *, numbers: int = 0) -> Branch:
        """A fresh copy of the policy's blocks as they are now, float32, trainable; with a head to `numbers` numbers, if any."""
        hooks = self.policy.blocks[0]._forward_pre_hooks
        kept = dict(hooks)
        hooks.clear()  # a deep copy would follow the hook back to the whole model
        try:
            blocks, after = copy.deepcopy((self.policy.blocks, self.policy.after))
        finally:
            hooks.update(kept)
        return Branch(self, blocks, after, numbers).float().requires_grad_(True)

    @torch.no_grad()
    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The hidden states (B, T, H) before block L-k; nothing above is computed."""
        self.policy._stops = True
        try:
            self.model.base_model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                use_cache=False,
                **positions(attention_mask, self.takes_positions),
            )
        except _Reached as reached:
            return reached.states
        finally:
            self.policy._stops = False
        raise Mismatch(f"{type(self.model).__name__}: the forward never reached block {self.first}")

    @contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """While it lasts, each forward of the model appends the states before block L-k, (B, t, H), to the list."""
        heard: list[Tensor] = []
        self.policy._heard = heard
        try:
            yield heard
        finally:
            self.policy._heard = None

    @torch.no_grad()
    def prove(self) -> float:
        """The largest difference between branch(trunk(x)) and model(x) over a padded batch; 0 but for rounding.

        Raises Mismatch when the split does not compute what the model computes.
        """
        generator = torch.Generator().manual_seed(0)
        most = min(self.vocabulary.shape[0], 1000)
        ids = torch.randint(0, most, (2, 9), generator=generator).to(self.device)
        mask = torch.ones_like(ids)
        mask[0, :3] = 0  # left padding, as in a batch of prompts
        whole = self.model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=False,
            **positions(mask, self.takes_positions),
        ).logits.float()
        split = self.policy(self.states(ids, mask), mask).to(self.vocabulary.dtype)
        logits = nn.functional.linear(split, self.vocabulary).float()  # (2, 9, V)
        real = mask.bool()
        gap = float((whole[real] - logits[real]).abs().max())
        scale = float(whole[real].abs().max())
        if not gap <= 1e-5 * max(scale, 1.0):
            raise Mismatch(
                f"{type(self.model).__name__}: split at block {self.first} gives other logits than the whole model "
                f"(difference {gap:.2e}); this architecture cannot be trained by its last blocks here"
            )
        return gap

    def frozen(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor below and beside the policy, by name."""
        moving = {id(tensor) for tensor in self.policy.state_dict(keep_vars=True).values()}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if id(tensor) not in moving:
                yield name, tensor

    def check_frozen(self) -> None:
        """Raises FrozenMoved naming the first frozen tensor that was written to or replaced since the split.

        Reads counters and not bytes, so it can run after each step; `digest` reads bytes.
        """
        for name, mark in self._versions().items():
            if self._marks.get(name) != mark:
                raise FrozenMoved(
                    f"{name} lies in the frozen trunk and was changed; the last checkpoint is kept"
                )

    def digest(self) -> str:
        """sha256 over the bytes of every frozen tensor."""
        whole = hashlib.sha256()
        for name, tensor in sorted(self.frozen(), key=lambda item: item[0]):
            whole.update(name.encode())
            whole.update(tensor.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes())
        return whole.hexdigest()

    def branch_tensors(self, branch: Branch) -> dict[str, Tensor]:
        """The branch's tensors under the names that they have in the model's state dict; `head.*` as it is."""
        prefix = self.model.base_model_prefix
        stem, owner = f"{prefix}.{self._stem}.", f"{prefix}.{self._stem}".rpartition(".")[0]
        named: dict[str, Tensor] = {}
        for name, tensor in branch.state_dict().items():
            group, _, rest = name.partition(".")
            if group == "blocks":
                number, _, inner = rest.partition(".")
                name = f"{stem}{self.first + int(number)}.{inner}"
            elif group == "after":
                name = f"{owner}.{rest}"
            named[name] = tensor.detach()
        return named

    @torch.no_grad()
    def put(self, branch: Branch, tensors: Mapping[str, Tensor]) -> None:
        """Copies tensors, named as by branch_tensors, into the branch. Raises Mismatch naming the first that differs."""
        own = self.branch_tensors(branch)
        for name in sorted({*own} ^ {*tensors}):
            raise Mismatch(
                f"tensor {name} is {'missing' if name in own else 'not one of the branch'}"
            )
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise Mismatch(
                    f"tensor {name} has shape {list(tensors[name].shape)}, not {list(tensor.shape)}"
                )
            tensor.copy_(tensors[name])

    def _versions(self) -> dict[str, tuple[int, int]]:
        return {name: (tensor.data_ptr(), tensor._version) for name, tensor in self.frozen()}


def load_trunk(
    folder: Path, blocks: int, load: Load = "float32", device: str = "cpu", sha256: str = ""
) -> tuple[Trunk, Any]:
    """(trunk, tokenizer) of a checkpoint folder, safetensors only; the top blocks are never quantised.

    load: the trunk's precision; int8 and nf4 by bitsandbytes. Raises CheckpointError: Untrusted, Damaged, Mismatch.
    """
    registry.check_folder(folder, sha256)
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    quantised = load in ("int8", "nf4")
    extra: dict[str, Any] = {}
    try:
        if quantised:
            extra["quantization_config"] = _quantisation(folder, blocks, load)
            extra["device_map"] = {"": device}
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        auto: Any = AutoModelForCausalLM
        model: Any = auto.from_pretrained(
            folder,
            dtype=torch.float32 if load == "float32" or device == "cpu" else torch.bfloat16,
            use_safetensors=True,
            **safe,
            **extra,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Damaged(f"{folder}: cannot be loaded: {first[:300]}") from error
    if load == "bfloat16":
        model.to(torch.bfloat16)
    if not quantised:
        model.to(device)
    use_sdpa(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return Trunk(model, blocks), tokenizer


def positions(attention_mask: Tensor, takes_positions: bool) -> dict[str, Tensor]:
    """Position ids (B, T) that begin at each sequence's first token, as `generate` makes them; {} for ALiBi."""
    if not takes_positions:
        return {}
    return {"position_ids": (attention_mask.long().cumsum(-1) - 1).clamp(min=0)}


def _quantisation(folder: Path, blocks: int, load: Load) -> BitsAndBytesConfig:
    with torch.device("meta"):
        config = transformers_config(folder)
        skeleton = AutoModelForCausalLM.from_config(config)
    stem, listed = _list_of_blocks(skeleton)
    prefix = skeleton.base_model_prefix
    top = [f"{prefix}.{stem}.{i}" for i in range(len(listed) - blocks, len(listed))]
    options: dict[str, Any] = {"load_in_8bit": True}
    if load == "nf4":
        options = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": torch.bfloat16
            if torch.cuda.is_available()
            else torch.float32,
        }
    return BitsAndBytesConfig(llm_int8_skip_modules=[*top, "lm_head"], **options)


def transformers_config(folder: Path) -> Any:
    """The folder's config.json as transformers reads it, without running anything from the folder."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _list_of_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """(name inside the base model, the list itself) of the decoder's blocks."""
    wanted = model.config.get_text_config().num_hidden_layers
    for name, module in model.base_model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return name, module
    raise Mismatch(f"{type(model).__name__}: no list of {wanted} blocks; it cannot be split")


@torch.no_grad()
def _probe(
    model: PreTrainedModel, owner: nn.Module, listed: nn.ModuleList
) -> tuple[bool, list[str]]:
    """Whether a block returns a tuple, and the names of the owner's modules that run after the last block."""
    seen: list[tuple[str, bool]] = []

    def note(name: str) -> Any:
        return lambda _module, _args, output: seen.append((name, isinstance(output, tuple)))

    handles = [listed[-1].register_forward_hook(note(""))]
    for name, module in owner.named_children():
        if module is not listed:
            handles.append(module.register_forward_hook(note(name)))
    ids = torch.zeros(1, 2, dtype=torch.long, device=next(model.parameters()).device)
    try:
        model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    last = [name for name, _ in seen].index("")
    return seen[last][1], [name for name, _ in seen[last + 1 :]]


def _shallow(module: nn.Module) -> nn.Module:
    """The same module with a table of submodules of its own, so that replacing one leaves the original alone."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = dict(module._modules)
    return twin
