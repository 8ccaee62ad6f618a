"""A parent and its branches in one process: one copy of what they share, and neither disturbs the other."""

import asyncio
import gc
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from huatuo.config import Generation, ModelConfig
from huatuo.engines.local import LocalEngine
from huatuo.errors import CheckpointError, Damaged, Mismatch
from huatuo.messages import Conversation, Message
from huatuo.models import loaded
from huatuo.models.branch import merge, read_branch, save_branch

sys.path.insert(0, str(Path(__file__).parent))
from test_local_engine import say

TOP = ("transformer.h.1.", "transformer.ln_f.")
ASK: Conversation = (Message("user", "头痛怎么办？"),)


def branch_of(parent: Path, folder: Path, by: float = 0.2, **more: Any) -> Path:
    torch.manual_seed(5)
    tensors: dict[str, Tensor] = {
        name: tensor + by * torch.randn(tensor.shape)
        for name, tensor in load_file(parent / "model.safetensors").items()
        if name.startswith(TOP)
    }
    values: dict[str, Any] = {"kind": "policy", "blocks": 1, "template": "huatuo-nano"}
    save_branch(folder, tensors | more.pop("head", {}), parent=parent, **{**values, **more})
    return folder


def config(path: Path, parent: Path | None = None, **more: Any) -> ModelConfig:
    values: dict[str, Any] = {"name": "tiny", "template": "huatuo-nano", "dtype": "float32"}
    generation = Generation(temperature=1.0, top_p=0.95, max_new_tokens=40)
    return ModelConfig(
        title_zh="小", title_en="tiny", engine="local", path=path, parent=parent,
        **{**values, "generation": generation, **more},
    )  # fmt: skip


def engine(path: Path, parent: Path | None = None, **more: Any) -> LocalEngine:
    return LocalEngine(config(path, parent, **more), Path("/"))


def places(model: Any) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}


def test_a_branch_shares_every_tensor_that_it_did_not_move(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = branch_of(tiny_checkpoint, tmp_path / "one")
    other = branch_of(tiny_checkpoint, tmp_path / "two", by=0.3)
    first = engine(tiny_checkpoint)
    engines = [engine(tiny_checkpoint), engine(folder, tiny_checkpoint), engine(other, tiny_checkpoint)]  # fmt: skip
    parent, one, two = (places(e.model) for e in engines)
    assert places(first.model) == parent
    moved = {name for name in parent if name.startswith(TOP)}
    assert {name for name in parent if parent[name] != one[name]} == moved
    assert {name for name in one if one[name] != two[name]} == moved
    assert engines[1].model.lm_head.weight is engines[0].model.transformer.word_embeddings.weight


def test_the_weights_go_when_their_last_model_goes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = branch_of(tiny_checkpoint, tmp_path / "one")
    gc.collect()
    before = len(loaded._loaded)
    first = engine(folder, tiny_checkpoint)
    second = engine(tiny_checkpoint)
    assert len(loaded._loaded) == max(before, 1) and first.name == second.name
    del first, second
    gc.collect()
    assert len(loaded._loaded) <= before


def test_the_parents_answers_stay_while_its_branch_answers(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    alone = asyncio.run(say(engine(tiny_checkpoint), 1))
    folder = branch_of(tiny_checkpoint, tmp_path / "one")
    merge(folder, tmp_path / "whole", tiny_checkpoint)
    merged = asyncio.run(say(engine(tmp_path / "whole"), 1))
    parent, moved = engine(tiny_checkpoint), engine(folder, tiny_checkpoint)

    async def both() -> list[Any]:
        return await asyncio.gather(*(say(e, 1) for e in (parent, moved, parent, moved)))

    assert asyncio.run(both()) == [alone, merged, alone, merged]
    assert alone[0] != merged[0]


def test_what_does_not_belong_together_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = branch_of(tiny_checkpoint, tmp_path / "one")
    head = {"head.weight": torch.zeros(1, 64), "head.bias": torch.zeros(1)}
    reward = branch_of(tiny_checkpoint, tmp_path / "reward", kind="reward", head=head)
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    words = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(words.replace('"<unk>"', '"<nil>"'), encoding="utf-8")
    broken = shutil.copytree(folder, tmp_path / "broken")
    data = (broken / "branch.safetensors").read_bytes()
    (broken / "branch.safetensors").write_bytes(data[:-9] + b"123456789")
    right = read_branch(folder).sha256
    cases: list[tuple[ModelConfig, type[CheckpointError], str]] = [
        (config(reward, tiny_checkpoint), Mismatch, "a reward branch answers nothing"),
        (config(folder, tiny_checkpoint, sha256="0" * 64), Mismatch, "model's file names"),
        (config(folder, tiny_checkpoint, template="huatuo"), Mismatch, "template"),
        (config(folder, other), Mismatch, "tokenizer"),
        (config(broken, tiny_checkpoint), Damaged, "altered"),
        (config(folder, tmp_path / "none"), Damaged, "no such folder"),
        (config(folder), Damaged, "config.json"),
        (config(tiny_checkpoint, tiny_checkpoint), Damaged, "branch.safetensors: missing"),
    ]
    for case, kind, says in cases:
        with pytest.raises(kind, match=says):
            LocalEngine(case, Path("/"))
    LocalEngine(config(folder, tiny_checkpoint, sha256=right), Path("/"))


def test_the_served_bloom_answers_as_transformers_own_does(tiny_checkpoint: Path) -> None:
    """The fused attention changes no greedy answer."""
    from transformers import AutoModelForCausalLM

    from huatuo.engines.decoding import decode

    served = engine(tiny_checkpoint).model
    plain = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    greedy = Generation(temperature=0.0)
    assert type(served.transformer.h[0].self_attention) is not type(
        plain.transformer.h[0].self_attention
    )
    for start in range(5, 25):
        with torch.inference_mode():
            ours, theirs = (
                list(decode(m, [start, start + 30, 9], greedy, 24, 0, set()))
                for m in (served, plain)
            )
        assert ours == theirs
