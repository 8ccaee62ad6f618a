"""The reward stage on the bundled model: losses, both paths, resume, the ensemble that RL loads, and bad input."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from huatuo.errors import ConfigError, Damaged, Mismatch, NoData, NotFinite
from huatuo.messages import Message
from huatuo.models.branch import read_branch, tensors_of
from huatuo.models.trunk import Trunk, load_trunk
from huatuo.prompts import encode
from training import reward
from training.answers import cache_states, encode_answer, encode_pairs
from training.ensemble import NUMBERS, REWARD, RewardEnsemble, Scale, pooled, rewards_of
from training.evidence import EVIDENCE, evidence_of
from training.pairs import Counts, Judgement, Pair, Votes
from training.reward import train
from training.reward_data import RewardConfig, gather
from training.reward_fit import (
    Aim,
    Recipe,
    Ties,
    bootstrap,
    log_shares,
    preference_loss,
    probe,
    train_member,
)
from training.reward_module import Member, features, put_back, snapshot
from training.reward_result import head_rewards, raw_rewards

NANO = Path(__file__).resolve().parents[2] / "huatuo/nano/hybrid"
GOOD = ("请先到医院检查。", "建议多休息，少熬夜。", "注意补充水分。")
BAD = ("不知道。", "随便。", "别问我。")


@pytest.fixture(scope="module")
def loaded() -> tuple[Trunk, Any]:
    torch.set_num_threads(1)
    return load_trunk(NANO, 2)


def votes(path: Path, cases: int = 24, *, seed: int = 0, noise: float = 0.1) -> Path:
    """Two judges a case; the polite answer is better; every sixth vote is a tie."""
    rng = random.Random(seed)
    rows = []
    for i in range(cases):
        a, b = rng.choice(GOOD), rng.choice(BAD)
        for judge in ("x", "y"):
            winner = "tie" if rng.random() < 1 / 6 else "b" if rng.random() < noise else "a"
            rows.append({"case": f"c{i}", "prompt": f"头痛第{i}天怎么办？", "answer_a": a, "answer_b": b, "winner": winner,
                         "judge": judge, "source": "ai" if judge == "y" else "physician", "rater": judge})  # fmt: skip
    path.write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8"
    )
    return path


def config(folder: Path, **more: Any) -> RewardConfig:
    settings = {
        "name": "t", "parent": NANO, "template": "huatuo-nano", "preferences": (str(votes(folder / "v.jsonl")),),
        "out": folder / "out", "work": folder / "work", "max_tokens": 64, "members": 2, "epochs": 1, "batch": 8,
        "device": "cpu", "ridges": (100.0,), "threads": 1, **more,
    }  # fmt: skip
    return RewardConfig(**settings)


def test_shares_of_the_loss_are_probabilities_and_mirror() -> None:
    d = torch.linspace(-3, 3, 7)
    shares = log_shares(d, torch.tensor(0.4)).exp()
    assert torch.allclose(shares.sum(1), torch.ones(7), atol=1e-6)
    assert torch.allclose(shares, shares.flip(0).flip(1), atol=1e-6)


def test_soft_targets_weigh_the_three_outcomes() -> None:
    aim = Aim(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0, 0.5]]), torch.tensor([1.0, 2.0, 1.0]))
    d, ties = torch.tensor([5.0, 0.0, 0.0]), torch.tensor(0.5)
    loss = preference_loss(d, aim, ties)
    said = log_shares(d, ties)
    assert loss[1] == pytest.approx(float(-2 * said[1, 1]))
    assert loss[0] < 0.02 < loss[2]
    assert preference_loss(-d, Aim(aim.target.flip(1), aim.weight), ties) == pytest.approx(loss)


def test_equals_tie_as_often_as_the_votes_said() -> None:
    for share in (0.05, 0.2, 0.5):
        theta = Ties(share)().detach()
        assert float(log_shares(torch.zeros(1), theta).detach().exp()[0, 1]) == pytest.approx(
            share, abs=0.01
        )


def test_the_mask_covers_the_answer_as_it_is_generated(loaded: tuple[Trunk, Any]) -> None:
    tokenizer = loaded[1]
    conversation = (Message("user", "头痛怎么办？"), Message("assistant", "多休息。"))
    said = encode_answer(
        conversation, tokenizer, "huatuo-nano", "turn", max_tokens=64, counts=Counts()
    )
    assert said is not None
    ids, mask = said
    prompt = encode(tokenizer, conversation[:1], "huatuo-nano", max_tokens=64).ids
    assert list(ids[: len(prompt)]) == prompt
    assert list(mask) == [False] * len(prompt) + [True] * (len(ids) - len(prompt))
    assert tokenizer.eos_token_id not in ids[len(prompt) :]


def test_what_is_too_long_is_shortened_and_counted_never_dropped_in_silence(
    loaded: tuple[Trunk, Any],
) -> None:
    q, a = Message("user", "头痛怎么办？"), Message("assistant", "多休息，多喝水，别熬夜。" * 6)
    history = (Message("user", "你好，医生。"), Message("assistant", "您好。"))
    short = Message("assistant", "不知道。")
    judged = (Judgement("physician:1", "a", "physician"),)
    pairs = [
        Pair("c1", (*history, q, a), (*history, q, short), "", "", judged),
        Pair(
            "c2",
            (Message("user", "问" * 90), short),
            (Message("user", "问" * 90), a),
            "",
            "",
            judged,
        ),
    ]
    counts = Counts()
    sequences = encode_pairs(pairs, loaded[1], "huatuo-nano", max_tokens=40, counts=counts)
    assert max(map(len, sequences.ids)) <= 40
    assert sequences.kept == (0,) and counts["left_out_question_too_long"] == 1
    assert counts["answers_cut_at_max_tokens"] >= 1
    assert counts["answers_with_oldest_exchanges_left_out"] >= 1


def test_pooling_reads_the_mean_the_last_token_or_both_halves_of_the_answer() -> None:
    values = torch.tensor([[9.0, 1, 3, 9], [9, 9, 9, 5], [2, 4, 9, 6]])
    mask = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]])
    assert rewards_of(values, mask, "mean").tolist() == [2, 0, 4]
    assert rewards_of(values, mask, "last").tolist() == [3, 0, 6]
    assert pooled(values[..., None].expand(3, 4, 5), mask, "mean").shape == (3, 5)
    assert pooled(values[..., None], mask, "halves").tolist() == [[1, 3], [0, 0], [3, 6]]
    both = torch.stack([values, 10 * values], 2)
    assert rewards_of(both, mask, "halves").tolist() == [31, 0, 63]


@pytest.mark.parametrize("pool", ["mean", "last", "halves"])
def test_a_head_says_of_pooled_states_what_it_says_token_by_token(pool: Any) -> None:
    torch.manual_seed(0)
    states, mask = torch.randn(3, 7, 4), torch.rand(3, 7) > 0.4
    head = torch.nn.Linear(4, NUMBERS[pool], bias=False)
    found = rewards_of(head(states), mask, pool)
    torch.testing.assert_close(found, pooled(states, mask, pool) @ head.weight.flatten())


def test_the_evidence_is_the_parents_own_likelihood(loaded: tuple[Trunk, Any]) -> None:
    trunk, tokenizer = loaded
    ids = torch.tensor([tokenizer("多喝水，注意休息。")["input_ids"]])
    mask = torch.ones_like(ids)
    judged = mask.bool().clone()
    judged[:, :3] = False
    with torch.no_grad():
        logits = trunk.model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        hidden = trunk.policy(trunk.states(ids, mask), mask)
    by_hand = logits[0, :-1].gather(1, ids[0, 1:, None])[:, 0][judged[0, 1:]]
    found = evidence_of(hidden, trunk.vocabulary, ids, mask, judged)[0]
    assert found[0] == pytest.approx(float(by_hand.mean()), abs=1e-4)
    told = dict(zip(EVIDENCE, found.tolist(), strict=True))
    assert told["share_below_e_minus_2"] == pytest.approx(float((by_hand < -2).float().mean()))
    assert told["log_probability_quantile_0"] == pytest.approx(float(by_hand.min()), abs=1e-4)
    unit = torch.nn.functional.normalize(hidden[0], dim=-1)
    near = (unit[judged[0]] @ unit[~judged[0]].T).amax(1).mean()
    assert told["answer_to_nearest_of_question"] == pytest.approx(float(near), abs=1e-4)


def test_evidence_does_not_depend_on_padding_and_an_empty_answer_has_none(
    loaded: tuple[Trunk, Any],
) -> None:
    trunk, tokenizer = loaded
    ids = torch.tensor([tokenizer("多喝水，注意休息。")["input_ids"]])
    wide = torch.nn.functional.pad(ids, (3, 2), value=tokenizer.pad_token_id)
    told = []
    for tokens, left in ((ids, 0), (wide, 3)):
        mask = torch.zeros_like(tokens)
        mask[:, left : left + ids.shape[1]] = 1
        judged = mask.bool() & (torch.arange(tokens.shape[1]) >= left + 3)
        with torch.no_grad():
            hidden = trunk.policy(trunk.states(tokens, mask), mask)
        told.append(evidence_of(hidden, trunk.vocabulary, tokens, mask, judged)[0])
        nothing = evidence_of(hidden, trunk.vocabulary, tokens, mask, torch.zeros_like(judged))
        assert nothing.tolist() == [[0.0] * len(EVIDENCE)]
    assert told[0].tolist() == pytest.approx(told[1].tolist(), abs=1e-4)


def prepared(loaded: tuple[Trunk, Any], folder: Path, cached: bool = True, gb: float = 1.0) -> Any:
    trunk, tokenizer = loaded
    judged = (Judgement("physician:1", "a", "physician"),)
    pairs = [
        Pair(f"c{i}", *((Message("user", f"头痛第{i}天"), Message("assistant", text)) for text in (GOOD[i % 3], BAD[i % 3])),
             "", "", judged) for i in range(6)
    ]  # fmt: skip
    sequences = encode_pairs(pairs, tokenizer, "huatuo-nano", max_tokens=64, counts=Counts())
    cache = cache_states(
        sequences, trunk.states, 256, folder=folder, key="k", cache_gb=gb, progress=False
    )
    return sequences, cache if cached else None


def test_states_in_a_file_are_those_in_memory_and_are_used_again(
    loaded: tuple[Trunk, Any], tmp_path: Path
) -> None:
    _, memory = prepared(loaded, tmp_path)
    _, mapped = prepared(loaded, tmp_path, gb=0.0)
    assert memory.path is None and mapped.path is not None and mapped.path.is_file()
    for one, other in zip(memory.batch([3, 0]), mapped.batch([3, 0]), strict=True):
        assert torch.equal(one, other)
    before = mapped.path.stat().st_mtime_ns
    _, again = prepared(loaded, tmp_path, gb=0.0)
    assert again.path.stat().st_mtime_ns == before
    again.drop()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pool", ["mean", "halves"])
def test_cached_states_and_the_whole_model_give_the_same_loss_and_gradient(
    loaded: tuple[Trunk, Any], tmp_path: Path, pool: Any
) -> None:
    sequences, cache = prepared(loaded, tmp_path)
    accelerator = Accelerator(cpu=True)
    drawn = torch.randn(256 * NUMBERS[pool], generator=torch.Generator().manual_seed(1))
    weight, bias = drawn / 16, torch.zeros(1)
    losses, slopes = [], []
    for trunk, given in ((loaded[0], cache), (load_trunk(NANO, 2)[0], None)):
        member = Member(trunk, sequences, given, pool, accelerator)
        member.set_head(weight, bias)
        a, b = member.rewards(member.module, np.arange(6))
        aim = Aim(torch.tensor([[0.8, 0.1, 0.1]]).repeat(6, 1), torch.ones(6))
        loss = preference_loss(a - b, aim, torch.tensor(0.3)).mean()
        loss.backward()
        losses.append(float(loss))
        slopes.append(
            {
                n.split(".", 2)[-1]: p.grad
                for n, p in member.module.named_parameters()
                if p.grad is not None
            }
        )
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    moved = [float(s["weight"].norm()) if "weight" in s else 0 for s in slopes]
    assert len(slopes[0]) and len(slopes[1]) and moved[0] == pytest.approx(moved[1], abs=1e-4)


def test_a_probe_learns_what_can_be_learned_from_states(
    loaded: tuple[Trunk, Any], tmp_path: Path
) -> None:
    sequences, cache = prepared(loaded, tmp_path)
    states, evidence = features(loaded[0], sequences, cache, "mean", label="")
    aim = Aim(torch.tensor([[0.95, 0.03, 0.02]]).repeat(6, 1), torch.ones(6))
    found = probe(states, evidence, sequences.pairs, aim, np.arange(6), 10.0)
    r = states @ found.weight + evidence @ found.evidence
    assert bool((r[sequences.pairs[:, 0]] > r[sequences.pairs[:, 1]]).all())


def test_nan_stops_at_the_batch_and_names_it(loaded: tuple[Trunk, Any], tmp_path: Path) -> None:
    sequences, cache = prepared(loaded, tmp_path)
    accelerator = Accelerator(cpu=True)
    member = Member(loaded[0], sequences, cache, "mean", accelerator)
    member.offset[0] = math.nan
    aim = Aim(torch.tensor([[0.8, 0.1, 0.1]]).repeat(6, 1), torch.ones(6))
    recipe = Recipe(2, 3, 1e-4, 1e-3, 0.0, 0.1, 1.0, 0.01, 2, 1)
    with pytest.raises(NotFinite, match=r"batch \d"):
        train_member(
            member.module, member.rewards, aim, np.arange(6), np.arange(6), recipe, accelerator=accelerator, seed=1,
            trainable=lambda m: snapshot(accelerator, m), restore=lambda m, s: put_back(accelerator, m, s),
            note=lambda _: None,
        )  # fmt: skip


def test_a_bootstrap_keeps_the_rows_of_a_case_together() -> None:
    rows = bootstrap(["a", "a", "b", "c"], np.random.default_rng(3))
    counts = np.bincount(rows, minlength=4)
    assert counts[0] == counts[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardConfig, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reward")
    settings = config(folder)
    return settings, train(settings)


def test_the_stage_learns_and_says_everything(trained: tuple[RewardConfig, dict[str, Any]]) -> None:
    settings, report = trained
    out = settings.out
    assert report == json.loads((out / "report.json").read_text("utf-8"))
    assert report["models"]["ensemble"]["accuracy"]["value"] >= 0.5
    assert report["counts"]["votes"] == 48 and report["counts"]["votes_ai"] == 24
    assert set(report["ai_weights_tried"]) == {"0.25", "0.5", "1.0"}
    assert report["ceiling"]["value"] is None  # one physician alone has no ceiling
    page = (out / "report.html").read_text("utf-8")
    for heading in ("Calibration", "Accuracy by group", "Reward and length", "Training", "Raters"):
        assert heading in page
    assert {p.name for p in out.iterdir()} >= {
        "member-0",
        "member-1",
        REWARD,
        "manifest.json",
        "settings.json",
    }
    info = read_branch(out / "member-0")
    assert info.kind == "reward" and info.manifest["votes"] == report["votes"]


def test_the_loaded_ensemble_gives_calibrated_and_whitened_rewards(
    trained: tuple[RewardConfig, dict[str, Any]], loaded: tuple[Trunk, Any]
) -> None:
    trunk, tokenizer = loaded
    ensemble = RewardEnsemble.load(trained[0].out, trunk, NANO)
    rows = []
    for text in (GOOD[0], BAD[0]):
        said = encode_answer((Message("user", "头痛怎么办？"), Message("assistant", text)), tokenizer, "huatuo-nano", "turn",
                             max_tokens=64, counts=Counts())  # fmt: skip
        assert said is not None
        rows.append(said)
    found = []
    for left in (False, True):  # padding on either side gives the same reward
        width = max(len(ids) for ids, _ in rows) + 2
        ids, mask, judged = (torch.zeros(2, width, dtype=torch.long) for _ in range(3))
        for i, (tokens, said) in enumerate(rows):
            part = slice(width - len(tokens), width) if left else slice(0, len(tokens))
            ids[i, part], mask[i, part], judged[i, part] = (
                torch.tensor(tokens),
                1,
                torch.tensor(said).long(),
            )
        states = trunk.states(ids, mask)
        scores = ensemble.scores(states, mask, judged, ids)
        assert scores.shape == (2, 2)
        found.append(scores)
        plain = ensemble.scores(states, mask, judged, ids, whiten=False)
        raw = ensemble.raw(states, mask, judged, ids)
        assert torch.allclose(plain * ensemble.scale.temperature, raw, atol=1e-5)
        assert torch.allclose((plain - ensemble.scale.mean) / ensemble.scale.std, scores, atol=1e-5)
        with pytest.raises(ValueError, match="input_ids"):
            ensemble.scores(states, mask, judged)
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert bool((found[0][:, 0] > found[0][:, 1]).all())


def test_a_second_run_gives_the_same_members_and_resume_keeps_finished_ones(
    trained: tuple[RewardConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = trained[0].model_copy(update={"out": tmp_path / "out", "work": tmp_path / "work"})
    fit, fitted = reward._fit, []

    def stop_after_one(run: Any, number: int, *rest: Any) -> Any:
        if number == 1 and not fitted[1:]:
            fitted.append(number)
            raise KeyboardInterrupt
        fitted.append(number)
        return fit(run, number, *rest)

    monkeypatch.setattr(reward, "_fit", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        train(settings)
    train(settings, resume=True)
    assert fitted == [0, 1, 1]
    for name in ("member-0", "member-1"):
        one, other = tensors_of(trained[0].out / name), tensors_of(tmp_path / "out" / name)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_other_held_out_cases_make_other_members(
    trained: tuple[RewardConfig, dict[str, Any]], tmp_path: Path
) -> None:
    held = tmp_path / "held.jsonl"
    settings = trained[0].model_copy(update={"held_out": (str(held),)})
    votes, keys = Votes((), Counts(), {}), set()
    for text in ("", "{}\n", "{}\n{}\n"):
        held.write_text(text, encoding="utf-8")
        keys.add(reward._key(settings, votes, "parent"))
    assert len(keys) == 3


def test_without_the_cache_the_same_model_comes_out(
    trained: tuple[RewardConfig, dict[str, Any]], tmp_path: Path
) -> None:
    settings = trained[0].model_copy(
        update={
            "out": tmp_path / "out",
            "work": tmp_path / "work",
            "cache": False,
            "members": 1,
            "bootstrap": False,
        }
    )
    cached = settings.model_copy(update={"cache": True, "out": tmp_path / "out2"})
    train(settings)
    train(cached)
    one, other = (tensors_of(tmp_path / name / "member-0") for name in ("out", "out2"))
    assert set(one) == set(other)
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-3


def test_folds_hold_every_case_out_once(tmp_path: Path) -> None:
    report = train(config(tmp_path, epochs=0, folds=4))
    model = report["models"]["ensemble"]
    assert model["votes"] == 24 and model["cases"] == 24  # the physicians'
    assert sum(group["votes"] for group in model["groups"]["source"].values()) > 24
    assert model["accuracy"]["value"] > 0.6
    with pytest.raises(ConfigError, match="epochs = 0"):
        train(config(tmp_path, epochs=1, folds=4))


@pytest.mark.parametrize("pool", ["mean", "last", "halves"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_what_is_loaded_scores_as_what_was_fitted(
    loaded: tuple[Trunk, Any], tmp_path: Path, pool: Any, epochs: int
) -> None:
    trunk, tokenizer = loaded
    settings = config(tmp_path, pool=pool, epochs=epochs)
    train(settings)
    ensemble = RewardEnsemble.load(settings.out, trunk, NANO)
    sequences = gather(settings, tokenizer).sequences
    states, evidence = features(trunk, sequences, None, pool, label="")
    folders = [settings.out / f"member-{number}" for number in range(settings.members)]
    fitted = (
        raw_rewards(folders, trunk, sequences, None, pool, evidence)
        if epochs
        else head_rewards(folders, states, evidence)
    )
    for number, (ids, judged) in enumerate(zip(sequences.ids, sequences.judged, strict=True)):
        row = torch.tensor([ids])
        mask = torch.ones_like(row)
        found = ensemble.raw(trunk.states(row, mask), mask, torch.tensor([judged]), row)
        assert found[:, 0].tolist() == pytest.approx(fitted[:, number].tolist(), abs=2e-3)
    assert fitted.std() > 0.05


@pytest.mark.slow
def test_trls_trainer_stands_beside_it(tmp_path: Path) -> None:
    report = train(config(tmp_path, baseline=True, baseline_epochs=1, members=1, epochs=0))
    assert {"ensemble", "TRL RewardTrainer, as it comes", "TRL RewardTrainer, calibrated"} == set(
        report["models"]
    )


def damage(folder: Path, how: str) -> None:
    path = folder / REWARD
    about = json.loads(path.read_text())
    if how == "gone":
        path.unlink()
    elif how == "text":
        path.write_text("{")
    elif how == "outside":
        path.write_text(json.dumps({**about, "members": ["../member-0"]}))
    elif how == "std":
        path.write_text(json.dumps({**about, "std": 0}))
    elif how == "member":
        (folder / "member-1" / "branch.safetensors").write_bytes(b"x")
    elif how == "parent":
        path.write_text(json.dumps({**about, "parent_sha256": "0" * 64}))


@pytest.mark.parametrize(
    ("how", "error"),
    [("gone", Damaged), ("text", Damaged), ("outside", Damaged), ("std", Damaged), ("member", Damaged), ("parent", Mismatch)],
)  # fmt: skip
def test_a_damaged_ensemble_is_refused(
    trained: tuple[RewardConfig, dict[str, Any]],
    loaded: tuple[Trunk, Any],
    tmp_path: Path,
    how: str,
    error: type[Exception],
) -> None:
    shutil.copytree(trained[0].out, tmp_path / "copy")
    damage(tmp_path / "copy", how)
    with pytest.raises(error):
        RewardEnsemble.load(tmp_path / "copy", loaded[0])


def test_another_trunk_is_refused(trained: tuple[RewardConfig, dict[str, Any]]) -> None:
    with pytest.raises(Mismatch, match="blocks"):
        RewardEnsemble.load(trained[0].out, load_trunk(NANO, 1)[0])
    with pytest.raises(Mismatch):
        RewardEnsemble.load(
            trained[0].out, load_trunk(NANO.parent / "doctor", 2)[0], NANO.parent / "doctor"
        )


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.toml"
    path.write_text(
        'name = "x"\nparent = "huatuo/nano/hybrid"\nout = "data/x"\ntemplate = "huatuo-nano"\ndevice = "cpu"\nwork = "data/rw-test"\n'
    )
    assert reward.main([str(path)]) == 2
    assert "where are the votes" in capsys.readouterr().err
    assert reward.main([str(path), "--learning-rate", "0"]) == 2
    assert "--learning-rate" in capsys.readouterr().err
    with pytest.raises(NoData, match="no votes"):
        train(config(tmp_path).model_copy(update={"preferences": (str(write_empty(tmp_path)),)}))


def write_empty(folder: Path) -> Path:
    path = folder / "empty.jsonl"
    path.write_text("")
    return path


@pytest.mark.parametrize("pool", ["mean", "halves"])
@pytest.mark.parametrize("moved", [False, True])
def test_a_member_scores_as_its_own_blocks_say_whether_they_moved_or_not(
    loaded: tuple[Trunk, Any], moved: bool, pool: Any
) -> None:
    trunk, tokenizer = loaded
    ids = torch.tensor([tokenizer("多喝水，注意休息。")["input_ids"]])
    mask = torch.ones_like(ids)
    judged = mask.bool() & (torch.arange(ids.shape[1]) >= 3)
    member = trunk.branch(numbers=NUMBERS[pool])
    if moved:
        with torch.no_grad():
            for parameter in member.blocks.parameters():
                parameter.mul_(1.1)
    with torch.no_grad():
        states = trunk.states(ids, mask)
        alone = rewards_of(member(states, mask), judged, pool)
    ensemble = RewardEnsemble(trunk, [member], pool, Scale(1.0, 0.1, 0.0, 1.0))
    assert isinstance(ensemble.members[0], torch.nn.Linear) is not moved
    found = ensemble.scores(states, mask, judged)[0]
    assert found.tolist() == pytest.approx(alone.tolist(), abs=1e-5)
