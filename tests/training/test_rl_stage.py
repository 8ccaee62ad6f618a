"""The reinforcement-learning stage through its own entry point, on a small model with a reward model of random heads."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from huatuo import toml
from huatuo.errors import (
    CheckpointError,
    ConfigError,
    Damaged,
    FrozenMoved,
    Mismatch,
    NoData,
    NotFinite,
)
from huatuo.models import branch as branches
from huatuo.models.trunk import Trunk, load_trunk
from huatuo.toml import ROOT, read_toml
from tests.patience import LONG_S
from training import rl, rl_step, states, zero
from training.cases import Case
from training.evidence import EVIDENCE

NANO = ROOT / "huatuo/nano/hybrid"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with a small BLOOM, a reward model of two random heads, and twelve prompts."""
    for module in (rl, toml, branches):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    make(tmp_path)
    return tmp_path


def make(folder):
    tokenizer = AutoTokenizer.from_pretrained(NANO, local_files_only=True)
    torch.manual_seed(0)
    shape = BloomConfig(
        vocab_size=len(tokenizer), hidden_size=32, n_layer=3, n_head=4, initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = BloomForCausalLM(shape)
    model.save_pretrained(folder / "parent")
    tokenizer.save_pretrained(folder / "parent")
    trunk = Trunk(model, 1)
    for n in range(2):
        member = trunk.branch(numbers=1)
        branches.save_branch(
            folder / f"reward/member-{n}",
            trunk.branch_tensors(member),
            kind="reward",
            blocks=1,
            parent=folder / "parent",
            template="huatuo-nano",
            details={"evidence": dict.fromkeys(EVIDENCE, 0.1)},
        )
    about = {
        "members": ["member-0", "member-1"], "pool": "mean", "temperature": 1.0, "log_theta": 0.1,
        "mean": 0.0, "std": 1.0, "parent_sha256": branches.parent_digest(folder / "parent"),
    }  # fmt: skip
    (folder / "reward/reward.json").write_text(json.dumps(about), encoding="utf-8")
    lines = [Case(f"c{n}", f"第{n}个人头疼怎么办").as_json() for n in range(12)]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")


def config_of(project, **changes):
    keys = {
        "name": "tiny", "parent": "parent", "reward": "reward", "prompts": ["prompts.jsonl"], "out": "out",
        "work": "work", "template": "huatuo-nano", "blocks": 1, "device": "cpu", "steps": 4, "prompts_per_step": 3,
        "samples": 2, "epochs": 2, "micro_batch": 4, "learning_rate": 1e-3, "max_new_tokens": 8,
        "context_tokens": 64, "save_steps": 2, "threads": 1, **changes,
    }  # fmt: skip
    text = "\n".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()
    )
    (project / "rl.toml").write_text(text, encoding="utf-8")
    return read_toml(project / "rl.toml", rl.RlConfig, roots=(project,))


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_a_run_moves_the_last_blocks_only_and_writes_branch_curves_and_report(project, algorithm):
    before = {
        name: t.clone() for name, t in load_file(project / "parent/model.safetensors").items()
    }
    summary = rl.train(config_of(project, algorithm=algorithm))
    assert summary["steps"] == 4
    info = branches.read_branch(project / "out")
    assert (info.kind, info.blocks) == ("policy", 1)
    moved = branches.tensors_of(project / "out")
    assert all(".h.2." in name or "ln_f" in name for name in moved)
    old = {n if n.startswith("transformer.") else f"transformer.{n}": t for n, t in before.items()}
    assert any(not torch.equal(moved[name], old[name]) for name in moved)
    after = load_file(project / "parent/model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    rows = (project / "work/tiny/steps.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 5 and rows[0].startswith("step,reward")
    page = (project / "work/tiny/report.html").read_text(encoding="utf-8")
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_before_the_first_step_policy_and_reference_are_the_same(project):
    run = rl.start(config_of(project, algorithm="grpo"))
    figures = rl_step.take_step(run)
    assert figures["kl"] == 0.0
    assert figures["sampling_gap"] < 1e-4
    assert rl_step.take_step(run)["kl"] != 0.0


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_a_resumed_run_is_bit_equal_to_one_that_never_stopped(project, algorithm):
    rl.train(config_of(project, algorithm=algorithm))
    whole = branches.tensors_of(project / "out")
    table = (project / "work/tiny/steps.csv").read_text(encoding="utf-8")
    rl.train(config_of(project, algorithm=algorithm, steps=2, name="halved"))
    rl.train(config_of(project, algorithm=algorithm, steps=4, name="halved"), resume=True)
    again = branches.tensors_of(project / "out")
    assert all(torch.equal(whole[name], again[name]) for name in whole)

    def figures(text):  # all columns but the seconds
        return [row.split(",")[:9] for row in text.splitlines()]

    assert figures(table) == figures(
        (project / "work/halved/steps.csv").read_text(encoding="utf-8")
    )


def test_the_learning_rate_rises_and_with_a_linear_schedule_falls_to_nothing(project):
    rates = {}
    for schedule in ("constant", "linear"):
        run = rl.start(config_of(project, algorithm="ppo", warm_up=2, steps=6, schedule=schedule))
        rates[schedule] = []
        for run.step in range(6):
            rl_step.set_rates(run)
            rates[schedule].append([group["lr"] for group in run.learner.optimizer.param_groups])
    full = {"constant": [0.5, 1, 1, 1, 1, 1], "linear": [0.5, 1, 1, 0.75, 0.5, 0.25]}
    for schedule, shares in full.items():
        expected = [pytest.approx([1e-3 * share, 1e-4 * share]) for share in shares]
        assert rates[schedule] == expected


def test_a_falling_learning_rate_is_not_gone_on_from_with_another_number_of_steps(project):
    rl.train(config_of(project, algorithm="rloo", steps=2, schedule="linear"))
    with pytest.raises(Mismatch, match="other settings"):
        rl.train(config_of(project, algorithm="rloo", steps=4, schedule="linear"), resume=True)


def test_a_run_over_its_kl_budget_stops_with_the_last_policy_within_it(project):
    summary = rl.train(
        config_of(project, algorithm="rloo", learning_rate=3e-2, kl_budget=0.05, steps=20)
    )
    assert "above the budget" in summary["stopped_by"] and summary["steps"] < 20
    trunk, _ = load_trunk(project / "parent", 1)
    reference = {name: t.clone() for name, t in trunk.branch_tensors(trunk.policy).items()}
    final = branches.tensors_of(project / "out")
    assert all(
        torch.equal(final[name], reference[name]) for name in final
    )  # the first step was already too much


def test_nan_stops_naming_step_and_cases_and_keeps_the_saved_state(project, monkeypatch):
    config = config_of(project, algorithm="rloo", steps=3, save_steps=1)
    rl.train(config_of(project, algorithm="rloo", steps=1, save_steps=1))
    saved = (project / "work/tiny/state.pt").read_bytes()
    with pytest.raises(NotFinite, match=r"step 2.*c\d"):
        run = rl.start(config)
        states.restore(run, project / "work/tiny/state.pt")
        with torch.no_grad():
            run.trunk.policy.after["ln_f"].weight[0] = float("inf")
        monkeypatch.setattr(rl_step, "generate", lambda run, cases: kept)
        kept = rl_step.sample(
            load_trunk(project / "parent", 1)[0], [[5, 6]] * 3, 2,
            rl_step.Drawing(4, frozenset([1]), 0), torch.Generator().manual_seed(0),
        )  # fmt: skip
        rl_step.take_step(run)
    assert (project / "work/tiny/state.pt").read_bytes() == saved


def test_an_answer_that_did_not_end_is_fined_and_a_long_one_pulled_back(project):
    run = rl.start(config_of(project, algorithm="rloo", unfinished=2.0, length_leash=0.5))
    rollouts = rl_step.generate(run, rl_step.draw(run))
    rollouts.finished[0], rollouts.finished[1:] = False, True
    plain = torch.zeros(len(rollouts))
    warned = plain.bool()
    assert rl_step.guarded(run, rollouts, plain, warned).tolist() == [-2.0] + [0.0] * (
        len(rollouts) - 1
    )
    run.length.wanted, run.length.pull = 4.0, 1.5
    expected = -1.5 * (rollouts.lengths / 4.0 - 1) - 2.0 * (~rollouts.finished)
    torch.testing.assert_close(rl_step.guarded(run, rollouts, plain, warned), expected)


def test_an_answer_to_an_emergency_without_a_warning_is_fined(project):
    run = rl.start(config_of(project, algorithm="rloo", missed_warning=3.0))
    cases = [
        Case("e", "突然胸口剧痛", kind="emergency"),
        Case("c", "头痛三天", kind="complete"),
    ]
    texts = ["请立刻去急诊。", "多喝水。"] + ["多喝水。"] * 2
    silent = rl_step.unwarned(run, cases, texts)
    assert silent.tolist() == [False, True, False, False]
    rollouts = rl_step.generate(run, cases)
    rollouts.finished[:] = True
    run.length.pull = 0.0
    found = rl_step.guarded(run, rollouts, torch.zeros(4), silent)
    assert found.tolist() == [0.0, -3.0, 0.0, 0.0]


def test_rewards_stand_in_the_order_of_the_rows_whatever_their_lengths(project):
    run = rl.start(config_of(project, algorithm="rloo", pessimism=0.0))
    rollouts = rl_step.generate(run, rl_step.draw(run))
    begin = int(rollouts.answer[-1].nonzero()[0])
    rollouts.answer[-1, begin + 2 :] = False  # the last becomes the shortest, and is run first
    rollouts.fed[-1, begin + 1 :] = 0
    found, _ = rl_step.reward(run, rollouts)
    alone = [float(rl_step.reward(run, rollouts.select([row]))[0]) for row in range(len(rollouts))]
    assert found.tolist() == pytest.approx(alone, abs=1e-4)
    assert found.std() > 1e-3


def test_doubt_among_the_reward_models_costs_what_pessimism_says(project):
    means = {}
    for pessimism in (0.0, 1.0, 3.0):
        run = rl.start(config_of(project, algorithm="rloo", pessimism=pessimism, reward_clip=1e6))
        rollouts = rl_step.generate(run, rl_step.draw(run))
        means[pessimism], spread = rl_step.reward(run, rollouts)
    assert float(spread.max()) > 0
    torch.testing.assert_close(means[1.0], means[0.0] - spread)
    torch.testing.assert_close(means[3.0], means[0.0] - 3 * spread)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_the_leash_coefficient_in_force_is_the_one_that_is_used(project, algorithm):
    run = rl.start(config_of(project, algorithm=algorithm, kl_target=1.0))
    rollouts = rl_step.generate(run, rl_step.draw(run))
    old, reference, values = run.learner.score(rollouts)
    owner = rl_step.owners(rollouts)
    reference = reference + torch.randn(len(owner), generator=torch.Generator().manual_seed(0))
    kl = torch.zeros(len(rollouts)).index_add_(0, owner, old - reference)
    found = []
    for coefficient in (0.0, 0.7):
        run.kl.coefficient = coefficient
        tokens = rl_step.Tokens(owner, old, reference, old, values)
        scores = torch.linspace(-1, 1, len(rollouts))
        tokens = rl_step.credit(run, rollouts, tokens, scores, kl)
        found.append((tokens.advantages, tokens.kl_in_loss))
    if algorithm == "grpo":
        assert [leash for _, leash in found] == [0.0, 0.7]
    else:
        assert [leash for _, leash in found] == [0.0, 0.0]
        assert not torch.allclose(found[0][0], found[1][0])


def test_the_value_branch_learns_the_returns(project):
    run = rl.start(
        config_of(
            project, algorithm="ppo", value_learning_rate=1e-2, warm_up=0, epochs=8, value_clip=10.0
        )
    )
    rollouts = rl_step.generate(run, rl_step.draw(run))
    old, reference, values = run.learner.score(rollouts)
    owner = rl_step.owners(rollouts)
    returns = torch.full_like(old, 0.7)
    tokens = rl_step.Tokens(owner, old, reference, torch.zeros_like(old), values, returns)
    run.learner.update(rollouts, tokens, [list(range(len(rollouts)))] * 8)
    after = run.learner.score(rollouts)[2]
    assert (after - returns).abs().mean() < 0.3 * (values - returns).abs().mean()


def test_a_fresh_run_never_goes_on_from_an_earlier_one(project):
    rl.train(config_of(project, algorithm="rloo", steps=2, save_steps=1))
    assert (project / "work/tiny/state.pt").exists()
    rl.train(config_of(project, algorithm="rloo", steps=1, save_steps=5))
    assert not (project / "work/tiny/state.pt").exists()


def test_a_state_of_another_reward_model_is_refused(project):
    rl.train(config_of(project, algorithm="rloo", steps=2))
    about = json.loads((project / "reward/reward.json").read_text(encoding="utf-8"))
    (project / "reward/reward.json").write_text(
        json.dumps({**about, "mean": 0.5}), encoding="utf-8"
    )
    with pytest.raises(Mismatch, match="another reward model"):
        rl.train(config_of(project, algorithm="rloo"), resume=True)


@pytest.mark.parametrize(("mine", "others", "share"), [((2, 2), (0, 0), 1.0), ((0, 0), (3, 4), 0.75), ((1, 4), (3, 4), 0.5)])  # fmt: skip
def test_a_share_counts_what_all_processes_drew(mine, others, share):
    class Two:  # what accelerate gives the first of two processes
        num_processes, device = 2, "cpu"

        def __init__(self, numbers):
            self.left = list(numbers)

        def reduce(self, number, how):
            assert how == "sum"
            return number + self.left.pop(0)

    assert rl_step._share(Two(others), *mine) == share
    assert math.isnan(rl_step._share(Two((0, 0)), 0, 0))


def test_a_policy_of_nan_is_named_while_it_answers(project):
    run = rl.start(config_of(project))
    with torch.no_grad():
        run.trunk.policy.after["ln_f"].weight[0] = float("nan")
    with pytest.raises(NotFinite, match="computes NaN"):
        rl_step.take_step(run)


def test_a_trunk_that_was_written_to_behind_the_counters_is_never_saved(project):
    run = rl.start(config_of(project))
    run.trunk.model.transformer.h[0].mlp.dense_h_to_4h.bias.data.numpy()[0] += 1e-3
    run.trunk.check_frozen()  # the counters do not see it
    with pytest.raises(FrozenMoved, match="bytes"):
        rl.finish(run, project / "work/tiny", "test")
    assert not (project / "out").exists()


BAD = [
    ({"samples": 1, "algorithm": "rloo"}, ConfigError, "samples must be 2"),
    ({"samples": 1, "algorithm": "grpo"}, ConfigError, "samples must be 2"),
    ({"blocks": 2}, Mismatch, "a reward branch of 2 is expected"),
    ({"blocks": 9}, Mismatch, "blocks = 9"),
    ({"parent": "nowhere"}, Damaged, "no such folder"),
    ({"reward": "nowhere"}, Damaged, "reward.json"),
    ({"prompts": ["nowhere.jsonl"]}, Exception, "nowhere.jsonl"),
]


@pytest.mark.parametrize("changes, error, words", BAD, ids=[words for _, _, words in BAD])
def test_bad_input_is_named(project, changes, error, words):
    with pytest.raises(error, match=words):
        rl.train(config_of(project, **changes))
    assert not (project / "out").exists()


def test_a_reward_model_of_another_parent_is_refused(project):
    trunk, _ = load_trunk(project / "parent", 1)
    with torch.no_grad():
        trunk.model.transformer.h[0].mlp.dense_h_to_4h.weight.add_(1e-3)
    trunk.model.save_pretrained(project / "parent")
    with pytest.raises(Mismatch, match="parent"):
        rl.train(config_of(project))


def test_a_state_of_other_settings_or_a_broken_one_is_refused(project):
    rl.train(config_of(project, algorithm="rloo", steps=2))
    with pytest.raises(Mismatch, match="other settings"):
        rl.train(config_of(project, algorithm="rloo", learning_rate=2e-3), resume=True)
    (project / "work/tiny/state.pt").write_bytes(b"PK broken")
    with pytest.raises(Damaged, match=r"state\.pt"):
        rl.train(config_of(project, algorithm="rloo"), resume=True)


def test_a_state_saved_under_deepspeed_is_refused_by_one_process(project):
    rl.train(config_of(project, algorithm="rloo", steps=2))
    file = project / "work/tiny/state.pt"
    torch.save({**torch.load(file), "engine": "ZeRO-2 in 8 processes"}, file)
    with pytest.raises(
        Mismatch, match="under ZeRO-2 in 8 processes, and this run is under no Deep"
    ):
        rl.train(config_of(project, algorithm="rloo"), resume=True)


DEEPSPEED = [
    ({}, "stage = None"),
    ({"zero_optimization": {"stage": 0}}, "stage = 0"),
    ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps = 4"),
    ({"bf16": {"enabled": True}}, "bf16 must be off"),
    (
        {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}},
        "offload_optimizer",
    ),
]


@pytest.mark.parametrize("changes, words", DEEPSPEED, ids=[words for _, words in DEEPSPEED])
def test_a_deepspeed_file_that_cannot_be_is_named(changes, words):
    good = {"zero_optimization": {"stage": 2}, "gradient_accumulation_steps": 1}
    zero.check(good)
    with pytest.raises(ConfigError, match=words):
        zero.check({**good, **changes} if changes else {})


def test_an_empty_case_file_is_named(project):
    (project / "prompts.jsonl").write_text("", encoding="utf-8")
    with pytest.raises((NoData, Exception), match=r"prompts"):
        rl.train(config_of(project))


def test_a_full_disk_leaves_the_state_saved_before(project, monkeypatch):
    run = rl.start(config_of(project, algorithm="rloo"))
    file = project / "work/state.pt"
    states.save(run, file)
    saved = file.read_bytes()
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointError, match="free some space"):
            states.save(run, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert file.read_bytes() == saved
    assert [p.name for p in file.parent.iterdir()] == ["state.pt"]


@pytest.mark.slow
def test_sigterm_saves_after_the_step_and_says_how_to_go_on(project):
    config_of(project, algorithm="rloo", steps=2000, save_steps=1000)
    code = (
        "import sys; from pathlib import Path; from huatuo import toml; from huatuo.models import branch;"
        "from training import rl; root = Path(sys.argv[1]); toml.ROOT = branch.ROOT = rl.ROOT = root;"
        "rl.train(toml.read_toml(root / 'rl.toml', rl.RlConfig, roots=(root,)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(project)], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    table = project / "work/tiny/steps.csv"
    end = time.monotonic() + LONG_S
    while time.monotonic() < end and not (table.exists() and table.read_text().count("\n") > 2):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=LONG_S)
    assert process.returncode != 0 and "--resume" in said
    assert (project / "work/tiny/state.pt").exists() and not (project / "out").exists()
