"""The memory of a run, computed beforehand, beside the real tensors of small models."""

import logging
import shutil

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from huatuo.models.trunk import load_trunk
from huatuo.toml import ROOT, read_toml
from training import memory
from training.memory import GB, Plan, estimate, peak, plan_of, table
from training.rl import RlConfig

BLOOMZ_7B = BloomConfig(vocab_size=250_880, hidden_size=4096, n_layer=30, n_head=32)
SMALL = BloomConfig(
    vocab_size=16_000, hidden_size=768, n_layer=10, n_head=12, eos_token_id=1, pad_token_id=0
)
CPU = Plan(dtype="float32", cuda=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BLOOM of 330 MB on disk."""
    path = tmp_path_factory.mktemp("small")
    BloomForCausalLM(SMALL).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "huatuo/nano/doctor" / name, path / name)
    return path


def of(parts, words):
    return sum(part.bytes for part in parts if words in part.name)


def tensor_bytes(module):
    """All bytes of parameters, each once, with the scales that bitsandbytes keeps beside a quantised one."""
    total = 0
    for tensor in module.parameters():
        total += tensor.numel() * tensor.element_size()
        state = getattr(tensor, "quant_state", None)
        inner = getattr(state, "state2", None)
        for scales in (getattr(state, "absmax", None), getattr(inner, "absmax", None)):
            total += scales.numel() * scales.element_size() if scales is not None else 0
        rows = getattr(tensor, "SCB", None)
        total += rows.numel() * rows.element_size() if rows is not None else 0
    return total


@pytest.mark.parametrize("load", ["nf4", "int8"])
def test_the_weights_of_a_loaded_model_are_as_large_as_computed(folder, load):
    trunk, _ = load_trunk(folder, 2, load)
    real = tensor_bytes(trunk.model)
    parts = estimate(SMALL, Plan(**{**CPU.__dict__, "load": load}))
    computed = of(parts, "embeddings") + of(parts, "trunk of") + of(parts, "policy, weights")
    assert computed == pytest.approx(real, rel=0.02)
    assert of(parts, "reward, weights") == pytest.approx(tensor_bytes(trunk.branch()), rel=0.02)


@pytest.mark.parametrize("optimizer", ["adamw8bit", "adamw"])
def test_an_optimizer_s_state_is_as_large_as_computed(folder, optimizer):
    from bitsandbytes.optim import AdamW8bit

    branch = load_trunk(folder, 2)[0].branch()
    kind = AdamW8bit if optimizer == "adamw8bit" else torch.optim.AdamW
    steps = kind(branch.parameters(), lr=1e-3)
    for tensor in branch.parameters():
        tensor.grad = torch.ones_like(tensor)
    steps.step()
    real = sum(
        value.numel() * value.element_size()
        for state in steps.state.values()
        for key, value in state.items()
        if torch.is_tensor(value) and not key.startswith("qmap")  # one table shared by all
    )
    parts = estimate(SMALL, Plan(**{**CPU.__dict__, "optimizer": optimizer}))
    assert of(parts, f"policy, {optimizer}") == pytest.approx(real, rel=0.03)


def test_what_autograd_keeps_of_a_branch_is_near_what_was_computed(folder):
    trunk, _ = load_trunk(folder, 2)
    branch = trunk.branch()
    kept: dict[int, int] = {}
    weights = {tensor.untyped_storage().data_ptr() for tensor in branch.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    states, mask = torch.randn(2, 96, 768), torch.ones(2, 96, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = branch(states, mask)
    plan = Plan(**{**CPU.__dict__, "micro_batch": 2, "tokens": 96})
    computed = of(estimate(SMALL, plan), "policy, activations")
    assert result.requires_grad
    assert computed == pytest.approx(sum(kept.values()), rel=0.25)


def test_bloomz_7b_in_nf4_with_four_branches_trains_on_a_card_of_16_gb():
    frozen = ("reference", "reward", "the reward's parent")
    parts = estimate(BLOOMZ_7B, Plan(offload=True, rollouts=32, frozen=frozen))
    names = " ".join(part.name for part in parts)
    assert all(name in names for name in ("policy", "reference", "value", "reward"))
    assert peak(parts) < 16 * GB
    assert table(parts)[-1] == ("highest at once", "", f"{peak(parts) / GB:.2f}")
    whole = estimate(BLOOMZ_7B, Plan(load="bfloat16"))
    assert of(whole, "trunk of") + of(whole, "embeddings") == pytest.approx(13.33 * GB, rel=0.01)


def test_the_paper_s_run_fits_an_a100_and_a_plan_says_what_a_config_says():
    config = read_toml(ROOT / "configs/a100x8/rl.toml", RlConfig)
    plan = plan_of(config, members=3, processes=8)
    assert (plan.rollouts, plan.dtype, len(plan.frozen)) == (32, "bfloat16", 5)
    assert peak(estimate(BLOOMZ_7B, plan)) < 70 * GB
    alone = plan_of(config, members=1, evidence=False, cuda=False)
    assert (alone.rollouts, alone.frozen) == (256, ("reference", "reward 1"))


def test_more_blocks_than_the_model_has_is_an_error():
    with pytest.raises(ValueError, match="blocks = 11, but the model has 10"):
        estimate(SMALL, Plan(blocks=11))
    assert memory.CONTEXT < GB


logging.getLogger("transformers").setLevel(logging.ERROR)
