"""BLOOM through the fused kernel says what it says through the eager one."""

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    StaticCache,
)

from huatuo.models.alibi import SdpaBloomAttention, bias_of, use_sdpa


def bloom(heads: int = 6, **settings: Any) -> BloomForCausalLM:
    """Six heads: not a power of two, so that ALiBi's second row of slopes is used."""
    torch.manual_seed(11)
    config = BloomConfig(vocab_size=97, hidden_size=16 * heads, n_layer=3, n_head=heads, **settings)
    model = BloomForCausalLM(config)
    for parameter in model.parameters():  # initial weights are too small to see an error in
        parameter.data.normal_(std=0.12)
    return model.eval()


def twins(**settings: Any) -> tuple[BloomForCausalLM, BloomForCausalLM]:
    eager = bloom(**settings)
    fused = copy.deepcopy(eager)
    assert use_sdpa(fused)
    return eager, fused


def batch(padding: str, length: int = 13) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 97, (4, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for row, count in enumerate((0, 3, length - 1, 1)):
        if padding == "left":
            mask[row, :count] = 0
        elif padding == "right":
            mask[row, length - count :] = 0
    return ids, mask


PADDINGS = ["left", "right", "none"]


@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_logits_are_the_same_wherever_a_token_stands_and_finite_elsewhere(padding: str) -> None:
    eager, fused = twins()
    ids, mask = batch(padding)
    for given in ({"attention_mask": mask}, {}):
        a, b = eager(ids, **given).logits, fused(ids, **given).logits
        seen = mask.bool() if given else torch.ones_like(mask).bool()
        assert torch.isfinite(b).all()
        assert (a - b)[seen].abs().max() < 1e-5
    assert a.std() > 0.1  # the comparison sees something


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients_are_the_same(padding: str) -> None:
    gradients = []
    ids, mask = batch(padding)
    for model in twins():
        model.train()
        before = torch.nn.functional.pad(mask, (1, 0))[:, :-1]  # no loss on a padding token's guess
        labels = ids.masked_fill(mask * before == 0, -100)
        model(ids, attention_mask=mask, labels=labels).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, one in gradients[0].items():
        assert one is not None and torch.isfinite(gradients[1][name]).all()
        assert (one - gradients[1][name]).abs().max() < 1e-5, name


def test_the_gradient_is_that_of_the_output_even_where_all_is_hidden() -> None:
    _, model = twins()
    model.double()
    ids, mask = batch("left")
    probe = torch.randn(4, 13, 97, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight = model.transformer.h[1].self_attention.query_key_value.weight
    way = torch.randn_like(weight)

    def value() -> Tensor:
        logits: Tensor = model(ids, attention_mask=mask).logits
        return (logits * probe)[mask == 0].sum()

    value().backward()
    assert weight.grad is not None
    ends = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            weight += step * way
            ends.append(value())
            weight -= step * way
    slope = float(ends[0] - ends[1]) / 2e-5
    assert float((weight.grad * way).sum()) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("padding", ["left", "none"])
@torch.no_grad()
def test_a_cache_filled_in_one_go_in_pieces_or_token_by_token_changes_nothing(padding: str) -> None:
    eager, fused = twins()
    ids, mask = batch(padding)
    whole = eager(ids, attention_mask=mask).logits
    for cuts in ([13], [8, 13], [5, 6, 7, 12, 13], list(range(1, 14))):
        cache, start, parts = DynamicCache(config=fused.config), 0, []
        for end in cuts:
            out = fused(
                ids[:, start:end],
                attention_mask=mask[:, :end],
                past_key_values=cache,
                use_cache=True,
            )
            parts.append(out.logits)
            start = end
        seen = mask.bool()
        assert (torch.cat(parts, 1) - whole)[seen].abs().max() < 2e-5


@torch.no_grad()
def test_a_static_cache_longer_than_the_text_changes_nothing() -> None:
    eager, fused = twins()
    ids, _ = batch("none")
    whole = eager(ids).logits
    cache = StaticCache(config=fused.config, max_cache_len=20)
    first = fused(ids[:, :8], past_key_values=cache, use_cache=True).logits
    rest = [
        fused(ids[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(8, 13)
    ]
    assert (torch.cat([first, *rest], 1) - whole).abs().max() < 2e-5


@torch.no_grad()
def test_greedy_answers_are_the_same_with_left_padding() -> None:
    ids, mask = batch("left", length=9)
    said = [
        model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=3)
        for model in twins()
    ]
    assert torch.equal(*said)


@torch.no_grad()
def test_masks_of_every_kind_mean_the_same() -> None:
    alibi = torch.randn(2 * 6, 1, 7)
    seen = torch.ones(1, 1, 4, 7, dtype=torch.bool).tril(3)
    added = torch.zeros(1, 1, 4, 7).masked_fill(~seen, torch.finfo(torch.float32).min)
    biases = [bias_of(alibi.clone(), mask, 2, 4, torch.float32) for mask in (None, seen, added)]
    assert torch.equal(biases[0], biases[1]) and torch.equal(biases[0], biases[2])
    assert biases[0].stride(-2) % 8 == 0
    assert bias_of(alibi, None, 2, 1, torch.float32).shape == (2, 6, 1, 7)


@torch.no_grad()
def test_a_model_whose_config_says_sdpa_still_is_causal() -> None:
    eager, fused = twins()
    fused.config._attn_implementation_internal = "sdpa"  # masks then come as bool or None
    for padding in PADDINGS:
        ids, mask = batch(padding)
        seen = mask.bool()
        gap = (eager(ids, attention_mask=mask).logits - fused(ids, attention_mask=mask).logits)[
            seen
        ]
        assert gap.abs().max() < 2e-5


def test_the_bias_is_built_once_per_forward_and_freed_with_it() -> None:
    _, fused = twins()
    ids, mask = batch("left")
    seen: list[tuple[int, Any]] = []

    def look(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        bias = kwargs["alibi"]._bias[1]
        seen.append((bias.data_ptr(), weakref.ref(bias)))

    for block in fused.transformer.h:
        block.self_attention.register_forward_hook(look, with_kwargs=True)
    with torch.no_grad():
        fused(ids, attention_mask=mask)
    assert len({pointer for pointer, _ in seen}) == 1 and len(seen) == 3
    gc.collect()
    assert all(reference() is None for _, reference in seen)


@torch.no_grad()
def test_bfloat16_is_no_further_from_the_truth_than_eager() -> None:
    eager, fused = twins()
    ids, mask = batch("left")
    seen = mask.bool()
    truth = eager(ids, attention_mask=mask).logits[seen]
    gaps = [
        (model.bfloat16()(ids, attention_mask=mask).logits.float()[seen] - truth).abs()
        for model in (eager, fused)
    ]
    assert torch.isfinite(gaps[1]).all()
    assert gaps[1].mean() < 1.2 * gaps[0].mean()


def test_gradient_checkpointing_computes_the_same() -> None:
    ids, mask = batch("right")
    gradients = []
    for checkpoint in (False, True):
        _, model = twins()
        if checkpoint:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        model(ids, attention_mask=mask, labels=ids).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@torch.no_grad()
def test_attention_weights_are_still_to_be_had() -> None:
    eager, fused = twins()
    ids, mask = batch("left")
    a = eager(ids, attention_mask=mask, output_attentions=True).attentions
    b = fused(ids, attention_mask=mask, output_attentions=True).attentions
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(a, b, strict=True))


def test_weights_keep_their_names_and_other_architectures_are_left_alone() -> None:
    eager, fused = twins()
    assert list(eager.state_dict()) == list(fused.state_dict())
    assert use_sdpa(fused)  # again
    assert {type(b.self_attention) for b in fused.transformer.h} == {SdpaBloomAttention}
    assert use_sdpa(fused.transformer.h[1])
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    assert not use_sdpa(llama)
