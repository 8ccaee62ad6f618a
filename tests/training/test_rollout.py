"""Drawing tokens, the cache with room for an answer, and rows that have ended."""

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from huatuo.models.trunk import Trunk
from tests.training.test_learner import bloom, drawn, llama
from training import rollout
from training.kv_cache import RoomyLayer, roomy_cache
from training.rollout import draw


def test_tokens_are_drawn_as_often_as_their_weights_say():
    weights = torch.tensor([[0.0, 0.5, 0.0, 0.3, 0.2, 0.0]])
    found = draw(weights.expand(20_000, 6) * 0.37, torch.Generator().manual_seed(0))
    shares = torch.bincount(found.flatten(), minlength=6) / len(found)
    assert shares[[0, 2, 5]].tolist() == [0, 0, 0]
    assert (shares - weights[0]).abs().max() < 0.015  # four standard errors of the likeliest


def test_a_word_that_is_certain_is_drawn_wherever_it_stands():
    weights = torch.eye(5)
    for seed in range(50):
        found = draw(weights, torch.Generator().manual_seed(seed))
        assert found.flatten().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("room", [1, 9, 64])
@pytest.mark.parametrize("make", [bloom, llama])
@torch.no_grad()
def test_a_roomy_cache_says_what_the_dynamic_one_says(make, room):
    model = make().eval()
    ids = torch.randint(4, 97, (2, 12), generator=torch.Generator().manual_seed(1))
    said = []
    for cache in (DynamicCache(config=model.config), roomy_cache(model.config, room)):
        model(input_ids=ids[:, :4], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(2)
        rows, found = torch.tensor([0, 0, 1, 1]), []
        for column in range(4, 12):
            if column == 8:
                cache.batch_select_indices(torch.tensor([0, 3]))
                rows = rows[[0, 3]]
            out = model(
                input_ids=ids[rows, column : column + 1], past_key_values=cache, use_cache=True
            )
            found.append(out.logits)
        assert cache.get_seq_length() == 12
        said.append(torch.cat([table.flatten() for table in found]))
    torch.testing.assert_close(said[0], said[1], rtol=1e-5, atol=1e-5)
    assert all(type(layer) is RoomyLayer for layer in cache.layers)


def test_tokens_are_written_in_place_while_there_is_room():
    layer = RoomyLayer(6)
    one = torch.ones(2, 3, 2, 4)
    first, _ = layer.update(one, one)
    second, _ = layer.update(2 * one, 2 * one)
    assert first.data_ptr() == second.data_ptr()
    assert second[:, :, 2:].eq(2).all() and second[:, :, :2].eq(1).all()
    third, _ = layer.update(3 * one[:, :, :3], 3 * one[:, :, :3])  # the last two that fit
    assert third.data_ptr() == first.data_ptr()
    fourth, _ = layer.update(4 * one, 4 * one)
    assert fourth.data_ptr() != first.data_ptr() and fourth[0, 0, :, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]  # fmt: skip


def test_a_layer_of_another_kind_keeps_its_kind():
    config = llama().config
    config.sliding_window, config.layer_types = 8, ["sliding_attention", "full_attention"] * 2
    kinds = [type(layer) for layer in roomy_cache(config, 20).layers]
    assert kinds == [DynamicSlidingWindowLayer, RoomyLayer] * 2


@pytest.mark.parametrize("make", [bloom, llama])
def test_rows_that_ended_change_nothing_by_staying(monkeypatch, make):
    found = []
    for held in (1.0, 0.5, 0.0):
        monkeypatch.setattr(rollout, "HELD", held)
        found.append(drawn(Trunk(make().eval(), 2), max_new_tokens=40))
    lengths = found[0].lengths.tolist()
    assert len(set(lengths)) > 3  # they end one by one
    for other in found[1:]:
        assert torch.equal(found[0].ids, other.ids)
        assert torch.equal(found[0].answer, other.answer)
        fed = found[0].fed.bool()
        torch.testing.assert_close(found[0].states[fed], other.states[fed], rtol=1e-4, atol=1e-4)
