"""One trunk, many branches: the split computes what the model computes, on every architecture whose blocks form a list."""

import copy

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)  # fmt: skip

from huatuo.errors import FrozenMoved, Mismatch
from huatuo.models.alibi import use_sdpa
from huatuo.models.trunk import Trunk, load_trunk
from huatuo.toml import ROOT

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
MODELS = {
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=32, n_layer=5, n_head=4)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=2)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=8)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=4)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=5, n_head=4, n_positions=64)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(vocab_size=97, hidden_size=32, num_hidden_layers=5, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32)
    ),
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


def batch():
    ids = torch.randint(0, 97, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    mask[1, 9:] = 0  # padding on either side, as rollouts have it
    return ids, mask


@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("name", MODELS)
def test_branch_of_trunk_is_the_model(name, blocks):
    model = made(name)
    ids, mask = batch()
    trunk = Trunk(model, blocks)
    with torch.no_grad():
        positions = (
            {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if trunk.takes_positions else {}
        )
        whole = model(input_ids=ids, attention_mask=mask, **positions).logits
        split = trunk.policy(trunk.states(ids, mask), mask) @ trunk.vocabulary.T
        copied = trunk.branch()(trunk.states(ids, mask), mask) @ trunk.vocabulary.T
    real = mask.bool()
    assert torch.equal(whole[real], split[real])
    assert torch.equal(split[real], copied[real])


@pytest.mark.parametrize("name", MODELS)
def test_states_caught_while_generating_are_those_of_a_whole_pass(name):
    trunk = Trunk(made(name), 2)
    prompt = torch.randint(3, 97, (2, 6), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(prompt)
    mask[0, :2] = 0
    with trunk.recording() as heard:
        said = trunk.model.generate(
            input_ids=prompt,
            attention_mask=mask,
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
            pad_token_id=0,
        )
    caught = torch.cat(heard, 1)
    fed = torch.cat([mask, torch.ones(2, 5, dtype=mask.dtype)], 1)
    whole = trunk.states(said[:, :-1], fed)
    assert caught.shape == whole.shape
    assert (caught - whole)[fed.bool()].abs().max() < 1e-5


@pytest.mark.parametrize("name", ["bloom", "llama", "qwen3"])
def test_gradients_reach_the_branch_only_and_equal_those_of_the_whole_model(name):
    ids, mask = batch()
    plain = made(name)
    plain.requires_grad_(False)
    trunk = Trunk(copy.deepcopy(plain), 2)
    moving = trunk.branch_tensors(trunk.policy)
    for name_, parameter in plain.named_parameters():
        parameter.requires_grad_(name_ in moving)
    positions = (
        {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if trunk.takes_positions else {}
    )
    weight = mask.unsqueeze(-1).float()
    (
        plain(input_ids=ids, attention_mask=mask, **positions).logits * weight
    ).square().mean().backward()
    trunk.policy.requires_grad_(True)
    hidden = trunk.policy(trunk.states(ids, mask), mask)
    ((hidden @ trunk.vocabulary.T) * weight).square().mean().backward()
    expected = {n: p.grad for n, p in plain.named_parameters() if p.grad is not None}
    found = {n: p.grad for n, p in trunk.model.named_parameters() if p.grad is not None}
    assert set(expected) == set(found) and len(found) > 5
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-7)


def test_training_the_policy_changes_what_the_model_says_and_nothing_else():
    trunk = Trunk(made("bloom"), 2)
    before, reference = trunk.digest(), trunk.branch()
    ids, mask = batch()
    states = trunk.states(ids, mask)
    trunk.policy.requires_grad_(True)
    optimizer = torch.optim.AdamW(trunk.policy.parameters(), lr=1e-2)
    trunk.policy(states, mask).square().mean().backward()
    optimizer.step()
    trunk.check_frozen()
    assert trunk.digest() == before
    trunk.prove()  # the whole model speaks with the moved blocks
    with torch.no_grad():
        assert not torch.allclose(trunk.policy(states, mask), reference(states, mask))


def test_a_touched_trunk_is_noticed_by_name():
    trunk = Trunk(made("bloom"), 2)
    with torch.no_grad():
        trunk.model.transformer.h[1].mlp.dense_4h_to_h.bias.add_(1e-6)
    with pytest.raises(FrozenMoved, match=r"h\.1\.mlp\.dense_4h_to_h\.bias"):
        trunk.check_frozen()


def test_a_scalar_branch_gives_one_number_a_token_and_is_put_back_from_its_tensors():
    trunk = Trunk(made("llama"), 2)
    ids, mask = batch()
    states = trunk.states(ids, mask)
    one, other = trunk.branch(numbers=1), trunk.branch(numbers=1)
    assert one(states, mask).shape == (3, 12)
    assert not torch.allclose(one(states, mask), other(states, mask))
    tensors = trunk.branch_tensors(one)
    assert set(tensors) - set(trunk.model.state_dict()) == {"head.weight", "head.bias"}
    trunk.put(other, tensors)
    assert torch.equal(one(states, mask), other(states, mask))


BAD = [
    ({"model.layers.4.mlp.up_proj.weight": None}, "is missing"),
    ({"model.layers.4.mlp.up_proj.weight": torch.zeros(3)}, "has shape"),
    ({"surplus": torch.zeros(3)}, "not one of the branch"),
]


@pytest.mark.parametrize("change, words", BAD, ids=[words for _, words in BAD])
def test_tensors_that_do_not_fit_are_named(change, words):
    trunk = Trunk(made("llama"), 1)
    tensors = {**trunk.branch_tensors(trunk.policy), **change}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(Mismatch, match=words):
        trunk.put(trunk.branch(), tensors)


@pytest.mark.parametrize("blocks", [0, 6])
def test_more_blocks_than_there_are_is_refused(blocks):
    with pytest.raises(Mismatch, match=f"blocks = {blocks}"):
        Trunk(made("llama"), blocks)


def test_a_model_whose_top_is_not_a_linear_head_is_refused():
    model = made("llama")
    forward = model.forward

    def bent(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits.tanh()
        return out

    model.forward = bent
    with pytest.raises(Mismatch, match="other logits"):
        Trunk(model, 2)


def test_an_encoder_decoder_is_refused():
    torch.manual_seed(0)
    shape = T5Config(vocab_size=97, d_model=32, d_ff=64, num_layers=2, num_heads=4, d_kv=8)
    with pytest.raises((Mismatch, ValueError, AttributeError)):
        Trunk(T5ForConditionalGeneration(shape), 1)


@pytest.mark.parametrize("load", ["int8", "nf4"])
def test_a_quantised_trunk_keeps_its_top_blocks_whole_and_trains_them(tmp_path, load):
    pytest.importorskip("bitsandbytes")
    trunk, tokenizer = load_trunk(ROOT / "huatuo/nano/hybrid", 2, load)
    kinds = {type(m).__name__ for m in trunk.model.transformer.h[0].modules()}
    top = {type(m).__name__ for m in trunk.policy.modules()}
    assert kinds & {"Linear4bit", "Linear8bitLt"} and not top & {"Linear4bit", "Linear8bitLt"}
    ids = torch.tensor([tokenizer("头疼三天了怎么办")["input_ids"]])
    states = trunk.states(ids, torch.ones_like(ids))
    trunk.policy.requires_grad_(True)
    trunk.policy(states, torch.ones_like(ids)).square().mean().backward()
    assert all(p.grad is not None for p in trunk.policy.parameters())


def test_sdpa_and_eager_trunks_agree():
    ids, mask = batch()
    eager, fused = made("bloom"), made("bloom")
    assert use_sdpa(fused)
    gap = Trunk(eager, 2).states(ids, mask) - Trunk(fused, 2).states(ids, mask)
    assert gap[mask.bool()].abs().max() < 1e-5
