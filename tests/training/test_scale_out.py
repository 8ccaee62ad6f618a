"""Several processes on this machine's CPU, through the shipped launcher files: gloo instead of NCCL, a tiny BLOOM.

Each launch takes most of a minute, so every stage, DDP, ZeRO-2 and ZeRO-3 are run here once; ZeRO-1 and further
combinations are marked `engines` and have a command of their own: make test ARGS="-m engines".
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from huatuo.models import branch as branches
from huatuo.models.checkpoint import verify
from huatuo.models.trunk import load_trunk
from huatuo.toml import ROOT
from tests.patience import LONG_S, free_port
from training.ensemble import RewardEnsemble

NANO = ROOT / "huatuo/nano/doctor"
pytestmark = pytest.mark.slow


def launch(yaml, *command, processes=2):
    """Runs `python -m ...` in two processes under accelerate with a file of configs/a100x8; stdout."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *("--config_file", str(ROOT / "configs/a100x8" / yaml)),
            *("--num_processes", str(processes), "--main_process_port", str(free_port())),
            *("-m", *map(str, command)),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=5 * LONG_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def place(request):
    """A folder inside the project (paths of a config may not lead out of it), gone afterwards."""
    folder = ROOT / "data" / f"test-{os.getpid()}-{request.node.name[:24]}"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def stage(folder, **keys):
    file = folder / "stage.toml"
    file.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in keys.items()), encoding="utf-8")
    return file


def test_fine_tuning_under_zero_3_writes_the_whole_gathered_checkpoint(place):
    lines = [{"data": [f"问：第{i}个人头疼怎么办", "答：多休息，少熬夜。"]} for i in range(12)]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (place / "train.jsonl").write_text(text, encoding="utf-8")
    inside = place.relative_to(ROOT).as_posix()
    config = stage(
        place,
        name="tiny",
        base=NANO.relative_to(ROOT).as_posix(),
        template="huatuo-nano",
        train=[f"{inside}/train.jsonl"],
        held_out=[f"{inside}/train.jsonl"],
        out=f"{inside}/model",
        work=f"{inside}/work",
        max_tokens=96,
        max_steps=2,
        batch=2,
        learning_rate=1e-3,
        warm_up=0.0,
        gradient_checkpointing=True,
        deepspeed="configs/deepspeed/zero3.json",
        device="cpu",
        log_steps=1,
    )
    printed = launch("zero3.yaml", "training.sft", config).strip().splitlines()
    figures = [json.loads(line) for line in printed if line.startswith('{"loss"')]
    assert len(figures) == 1  # only the first process speaks
    assert figures[0]["held_out_loss"] < figures[0]["loss"]
    assert verify(place / "model")["stage"] == "sft"
    new, old = (load_file(folder / "model.safetensors") for folder in (place / "model", NANO))
    assert {k: v.shape for k, v in new.items()} == {k: v.shape for k, v in old.items()}
    assert all(torch.isfinite(tensor).all() for tensor in new.values())
    assert 1e-4 < max((new[k].float() - old[k].float()).abs().max() for k in new) < 1e-2


def test_a_reward_model_under_zero_3_is_a_whole_ensemble_that_learned(place):
    inside = place.relative_to(ROOT).as_posix()
    lines = [
        {
            "case": f"c{n}",
            "prompt": f"第{n}个人头疼怎么办",
            "chosen": f"多休息，少熬夜，第{n}天再看。",
            "rejected": "不知道。",
            "rater": f"r{n % 3}",
        }
        for n in range(30)
    ]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (place / "votes.jsonl").write_text(text, encoding="utf-8")
    config = stage(
        place,
        name="tiny",
        parent=NANO.relative_to(ROOT).as_posix(),
        template="huatuo-nano",
        preferences=[f"{inside}/votes.jsonl"],
        out=f"{inside}/reward",
        work=f"{inside}/work",
        members=1,
        max_tokens=96,
        epochs=1,
        batch=4,
        cache=False,
        device="cpu",
        threads=1,
    )
    launch("zero3-reward.yaml", "training.reward", config)
    trunk, _ = load_trunk(NANO, 2)
    ensemble = RewardEnsemble.load(place / "reward", trunk, NANO)
    assert len(ensemble.members) == 1
    assert json.loads((place / "reward/report.json").read_text())["scale"]["temperature"] > 0
    start = trunk.branch_tensors(trunk.policy)
    moved = branches.tensors_of(place / "reward/member-0")
    assert 0 < max((moved[n].float() - start[n].float()).abs().max() for n in start) < 1e-2


def cut_small(folder):
    """zero3-rl.yaml with every tensor in shards: the shipped one keeps tensors as small as those of these models whole."""
    text = (ROOT / "configs/deepspeed/zero3-rl.json").read_text(encoding="utf-8")
    settings = json.loads(text)
    settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (folder / "zero3.json").write_text(json.dumps(settings), encoding="utf-8")
    launcher = (ROOT / "configs/a100x8/zero3-rl.yaml").read_text(encoding="utf-8")
    file = folder / "zero3.yaml"
    named = "configs/deepspeed/zero3-rl.json"
    assert f"file: {named}" in launcher
    file.write_text(launcher.replace(f"file: {named}", f"file: {folder / 'zero3.json'}"))
    return file


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny random BLOOM."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(NANO, local_files_only=True)
    torch.manual_seed(0)
    shape = BloomConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        n_layer=3,
        n_head=4,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    BloomForCausalLM(shape).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def update(folder, yaml, algorithm, processes):
    """The branch and the figures after an update by so many processes."""
    out = folder / f"{Path(yaml).stem}-{algorithm}-{processes}.safetensors"
    command = ("tests.training.update_in_processes", folder / "model", out, algorithm)
    launch(yaml, *command, processes=processes)
    return load_file(out)


@pytest.fixture(scope="module")
def by_one(tiny):
    """The update of one process, by algorithm; each is made once."""
    return functools.cache(lambda algorithm: update(tiny, "ddp.yaml", algorithm, 1))


@pytest.mark.parametrize(
    "yaml, algorithm",
    [
        ("ddp.yaml", "ppo"),
        ("zero2-rl.yaml", "grpo"),
        ("zero3-rl.yaml", "ppo"),
        pytest.param("ddp.yaml", "grpo", marks=pytest.mark.engines),
        pytest.param("zero1-rl.yaml", "ppo", marks=pytest.mark.engines),
        pytest.param("zero2-rl.yaml", "ppo", marks=pytest.mark.engines),
    ],
)
def test_two_processes_make_the_update_of_one(tiny, by_one, yaml, algorithm):
    shared = cut_small(tiny) if yaml == "zero3-rl.yaml" else yaml
    one, two = by_one(algorithm), update(tiny, shared, algorithm, 2)
    assert one.keys() == two.keys() and "figures" in one
    assert max((one[name] - two[name]).abs().max() for name in one) < 1e-5


def rl_stage(place, **keys):
    from tests.training.test_rl_stage import make

    if not (place / "parent").exists():
        make(place)
    inside = place.relative_to(ROOT).as_posix()
    return stage(
        place,
        name="tiny",
        parent=f"{inside}/parent",
        reward=f"{inside}/reward",
        prompts=[f"{inside}/prompts.jsonl"],
        out=f"{inside}/out",
        work=f"{inside}/work",
        template="huatuo-nano",
        blocks=1,
        device="cpu",
        prompts_per_step=4,
        samples=2,
        epochs=2,
        micro_batch=2,
        learning_rate=1e-3,
        max_new_tokens=8,
        context_tokens=64,
        threads=1,
        **keys,
    )


def test_reinforcement_learning_in_two_processes_writes_one_branch_and_one_table(place):
    printed = launch("ddp.yaml", "training.rl", rl_stage(place, steps=2))
    assert printed.count('"stopped_by": "all steps"') == 1
    assert branches.read_branch(place / "out").kind == "policy"
    assert steps_of(place) == ["1", "2"]


def steps_of(place):
    rows = (place / "work/tiny/steps.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("step,")
    return [row.split(",")[0] for row in rows[1:]]


@pytest.mark.parametrize(
    "yaml", [pytest.param("zero2-rl.yaml", marks=pytest.mark.engines), "zero3-rl.yaml"]
)
def test_a_run_under_zero_goes_on_from_its_shares_as_if_it_had_never_stopped(place, yaml):
    yaml = cut_small(place) if yaml == "zero3-rl.yaml" else yaml
    printed = launch(yaml, "training.rl", rl_stage(place, steps=4, save_steps=9))
    assert printed.count('"stopped_by": "all steps"') == 1
    whole = branches.tensors_of(place / "out")
    launch(yaml, "training.rl", rl_stage(place, steps=2, save_steps=2))
    files = {path.name for path in (place / "work/tiny").glob("state*")}
    assert files == {"state.pt", "state-2-0.pt", "state-2-1.pt"}
    config = rl_stage(place, steps=4, save_steps=2)
    launch(yaml, "training.rl", config, "--resume")
    again = branches.tensors_of(place / "out")
    assert max((whole[n].float() - again[n].float()).abs().max() for n in whole) < 1e-6
    assert steps_of(place) == ["1", "2", "3", "4"]
