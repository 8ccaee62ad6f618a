"""Log-probabilities, rollouts and the update: the same numbers as the plain whole model gives."""

import copy

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, LlamaConfig, LlamaForCausalLM

from huatuo.errors import NotFinite
from huatuo.models.trunk import Trunk
from training import logprob, objectives
from training.learner import Learner, Tokens, UpdateSettings, owners
from training.logprob import token_log_probs
from training.rollout import Drawing, join, recomputed, sample


def bloom():
    torch.manual_seed(0)
    return BloomForCausalLM(
        BloomConfig(vocab_size=97, hidden_size=32, n_layer=4, n_head=4, initializer_range=0.3)
    )


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=64, initializer_range=0.3,
        )
    )  # fmt: skip


PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16], [17]]
EPS = 1e-6
"""AdamW's: a bias of keys has no gradient but rounding, which the default of 1e-8 would blow up to whole steps."""
HOW = Drawing(max_new_tokens=12, ends=frozenset([1, 2, 3]), pad=0)


def drawn(trunk, **changes):
    how = Drawing(**{**HOW.__dict__, **changes})
    return sample(trunk, PROMPTS, 3, how, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_chunked_log_probabilities_entropy_and_gradient_are_those_of_autograd(
    monkeypatch, rows, temperature
):
    monkeypatch.setattr(logprob, "CHUNK_BYTES", 4 * 97 * rows)
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(20, 16, generator=generator, requires_grad=True)
    vocabulary = torch.randn(97, 16, generator=generator)
    tokens = torch.randint(0, 97, (20,), generator=generator)
    upstream = torch.randn(20, generator=generator)
    found, entropy = token_log_probs(hidden, vocabulary, tokens, temperature=temperature)
    (found * upstream).sum().backward()
    gradient, hidden.grad = hidden.grad.clone(), None
    table = (hidden @ vocabulary.T / temperature).log_softmax(-1)
    expected = table.gather(1, tokens[:, None]).squeeze(1)
    (expected * upstream).sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, hidden.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, -(table.exp() * table).sum(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [bloom, llama])
def test_rollouts_are_what_the_whole_model_says_of_them(make):
    trunk = Trunk(make().eval(), 2)
    batch = drawn(trunk)
    again = recomputed(trunk, batch)
    fed = batch.fed.bool()
    assert (batch.states[fed] - again.states[fed]).abs().max() < 1e-4
    full = torch.nn.functional.pad(batch.fed, (0, 1))
    positions = (
        {"position_ids": (full.cumsum(-1) - 1).clamp(min=0)} if trunk.takes_positions else {}
    )
    with torch.no_grad():
        logits = trunk.model(input_ids=batch.ids, attention_mask=full, **positions).logits[:, :-1]
    table = logits.log_softmax(-1).gather(-1, batch.ids[:, 1:, None]).squeeze(-1)
    asked = batch.answer[:, 1:]
    assert (table[asked] - batch.sampled[:, 1:][asked]).abs().max() < 1e-4


def test_an_answer_ends_at_its_first_end_mark_and_nothing_follows_it():
    batch = drawn(Trunk(bloom().eval(), 2), max_new_tokens=40)
    assert bool(batch.finished.any())
    for ids, answer, finished in zip(batch.ids, batch.answer, batch.finished, strict=True):
        said = ids[answer].tolist()
        assert (said[-1] in HOW.ends) == bool(finished)
        assert not set(said[:-1]) & HOW.ends
    assert (
        batch.spoken.sum(1) == batch.lengths - 1
    ).all()  # the last token, end mark or not, is never fed


def test_the_same_generator_gives_the_same_answers_and_parts_join_to_the_whole():
    trunk = Trunk(bloom().eval(), 2)
    one, other = drawn(trunk), drawn(trunk)
    assert torch.equal(one.ids, other.ids)
    parts = drawn(trunk, rows=3)
    whole = join([parts.select(list(range(6))), parts.select(list(range(6, 12)))])
    for row in range(12):
        assert torch.equal(whole.ids[row][whole.answer[row]], parts.ids[row][parts.answer[row]])


LEASH = 0.04


def plain_update(model, blocks, batch, advantages, settings, rate):
    """The textbook: whole model, full logits, autograd."""
    reference = copy.deepcopy(model)
    model.requires_grad_(False)
    model.transformer.h[-blocks:].requires_grad_(True)
    model.transformer.ln_f.requires_grad_(True)
    full = torch.nn.functional.pad(batch.fed, (0, 1))
    asked, lengths = batch.answer[:, 1:], batch.lengths

    def score(which):
        table = which(input_ids=batch.ids, attention_mask=full).logits[:, :-1].log_softmax(-1)
        return table.gather(-1, batch.ids[:, 1:, None]).squeeze(-1)

    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0, eps=EPS
    )
    with torch.no_grad():
        old, wanted = score(model), score(reference)
    for _ in range(settings.epochs):
        new = score(model)
        ratio = (new - old).exp()
        gain = torch.min(ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None])
        gap = wanted - new
        each = (LEASH * (gap.exp() - gap - 1) - gain) * asked
        loss = (
            (each.sum(1) / lengths).mean()
            if settings.average == "sequence"
            else each.sum() / lengths.sum()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_norm)
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("micro_batch", [12, 5])
@pytest.mark.parametrize("average", ["token", "sequence"])
@pytest.mark.parametrize("epochs", [1, 4])
def test_an_update_is_that_of_the_plain_whole_model(epochs, average, micro_batch):
    model = bloom().eval()
    plain = copy.deepcopy(model)
    trunk = Trunk(model, 2)
    batch = drawn(trunk)
    advantages = torch.randn(12, generator=torch.Generator().manual_seed(5))
    settings = UpdateSettings(epochs=epochs, micro_batch=micro_batch, average=average)
    expected = plain_update(plain, 2, batch, advantages, settings, 3e-4)
    reference = trunk.branch().requires_grad_(False)
    trunk.policy.requires_grad_(True)
    optimizer = torch.optim.AdamW(trunk.policy.parameters(), lr=3e-4, weight_decay=0.0, eps=EPS)
    learner = Learner(trunk.policy, reference, trunk.vocabulary, optimizer, settings)
    old, wanted, _ = learner.score(batch)
    assert torch.equal(old, wanted)  # no leash is felt before the first step
    owner = owners(batch)
    tokens = Tokens(owner, old, wanted, advantages[owner], kl_in_loss=LEASH)
    learner.update(batch, tokens, [list(range(12))] * epochs)
    found = trunk.branch_tensors(trunk.policy)
    assert set(found) == set(expected)
    gap = max(float((found[name] - expected[name]).abs().max()) for name in found)
    moved = max(
        float((reference.state_dict()[n] - t).abs().max())
        for n, t in trunk.policy.state_dict().items()
    )
    assert gap < 1e-5 < moved


def test_generalised_advantages_are_the_sums_of_the_definition():
    rewards, values = (
        torch.tensor([0.1, -0.2, 1.0, 0.5, 2.0]),
        torch.tensor([0.3, 0.1, 0.2, 0.4, 0.6]),
    )
    owner = torch.tensor([0, 0, 0, 1, 1])
    gamma, lam = 0.9, 0.8
    found, returns = objectives.gae(rewards, values, owner, gamma=gamma, lam=lam)
    for begin, end in ((0, 3), (3, 5)):
        for t in range(begin, end):
            total = 0.0
            for s in range(t, end):
                following = float(values[s + 1]) if s + 1 < end else 0.0
                delta = float(rewards[s]) + gamma * following - float(values[s])
                total += (gamma * lam) ** (s - t) * delta
            assert float(found[t]) == pytest.approx(total, abs=1e-6)
    torch.testing.assert_close(returns, found + values)


def test_group_advantages_are_those_of_their_papers():
    rewards = torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])
    assert objectives.leave_one_out(rewards, 3).tolist() == pytest.approx(
        [-3.0, -1.5, 4.5, -1.5, -1.5, 3.0]
    )
    groups = rewards.view(2, 3)
    expected = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(objectives.group_normalised(rewards, 3), expected.flatten())


def test_the_leashes_pull_the_way_they_should():
    kl = objectives.KlControl(0.05, target=2.0)
    for measured, higher in ((9.0, True), (0.1, False)):
        before = kl.coefficient
        kl.move(measured)
        assert (kl.coefficient > before) == higher
    fixed = objectives.KlControl(0.05)
    fixed.move(100.0)
    assert fixed.coefficient == 0.05
    length = objectives.LengthLeash(0.5, wanted=100)
    length.move(150)
    penalty = length.penalty(torch.tensor([80, 100, 150]))
    assert penalty[0] < penalty[1] == 0 < penalty[2]
    pull = length.pull
    length.move(105)  # near enough: the pull fades
    assert length.pull == pytest.approx(pull / 2)
    length = objectives.LengthLeash(0.5, wanted=100)
    length.move(91)
    assert length.pull == 0
    length.move(50)
    assert length.pull == pytest.approx(0.5 * -0.4)


def test_the_length_wanted_is_that_of_the_first_steps_and_nothing_pulls_before():
    length = objectives.LengthLeash(0.5)
    for mean in (70, 90, 60, 100, 80):
        length.move(mean)
        assert length.pull == 0
    assert length.wanted == pytest.approx(80)
    length.move(120)
    assert length.wanted == pytest.approx(80)
    assert length.pull == pytest.approx(0.5 * 0.4)


def test_a_loss_that_is_no_number_stops_before_the_optimiser():
    trunk = Trunk(bloom().eval(), 2)
    batch = drawn(trunk)
    reference = trunk.branch().requires_grad_(False)
    trunk.policy.requires_grad_(True)
    before = {name: t.clone() for name, t in trunk.policy.state_dict().items()}
    learner = Learner(
        trunk.policy,
        reference,
        trunk.vocabulary,
        torch.optim.AdamW(trunk.policy.parameters()),
        UpdateSettings(),
    )
    old, wanted, _ = learner.score(batch)
    owner = owners(batch)
    advantages = torch.full((len(owner),), float("nan"))
    with pytest.raises(NotFinite, match="rows"):
        learner.update(batch, Tokens(owner, old, wanted, advantages), [list(range(12))])
    assert all(torch.equal(before[name], t) for name, t in trunk.policy.state_dict().items())
