"""Every file under configs/ is read by what reads it in earnest, so no key in it goes unused."""

import fnmatch
import importlib
import json

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

from huatuo.toml import ROOT, read_toml

READERS = {  # the first pattern that fits counts
    "app.toml": "huatuo.config:AppConfig",
    "models/*.toml": "huatuo.config:ModelConfig",
    "protocols/*.toml": "huatuo.config:Protocol",
    "studies/*.toml": "huatuo.study_files:StudyFile",
    "nano/corpus.toml": "training.corpus:CorpusConfig",
    "nano/argument.toml": "training.argument:ArgumentConfig",
    "judge.toml": "training.judge:JudgeConfig",
    "huatuo_judge.toml": "training.huatuo_judge:HuatuoJudgeConfig",
    "evaluate.toml": "training.evaluate:EvaluateConfig",
    "rubric_grading.toml": "training.rubric_grading:GradingConfig",
    "*judge*.toml": "training.feedback:LlmJudgeConfig",
    "*dpo*.toml": "training.dpo:PreferenceConfig",
    "*refine*.toml": "training.refine:RefineConfig",
    "*reward*.toml": "training.reward_data:RewardConfig",
    "*ai_feedback*.toml": "training.ai_feedback:FeedbackConfig",
    "*rl*.toml": "training.rl:RlConfig",
    "nano/*.toml": "training.sft:SftConfig",
    "*sft*.toml": "training.sft:SftConfig",
}
FILES = sorted(
    path.relative_to(ROOT / "configs").as_posix() for path in ROOT.glob("configs/**/*.*")
)


def of(suffix):
    return [name for name in FILES if name.endswith(suffix)]


def test_no_file_lies_there_that_nothing_reads():
    assert [name for name in FILES if not name.endswith((".toml", ".yaml", ".json"))] == []


@pytest.mark.parametrize("name", of(".toml"))
def test_a_toml_file_has_only_keys_that_its_reader_knows(name):
    reader = next(there for pattern, there in READERS.items() if fnmatch.fnmatch(name, pattern))
    module, settings = reader.split(":")
    read_toml(ROOT / "configs" / name, getattr(importlib.import_module(module), settings))


@pytest.mark.parametrize("name", of(".yaml"))
def test_a_launcher_file_is_one_that_accelerate_takes_and_names_files_that_exist(name):
    path = ROOT / "configs" / name
    config = load_config_from_file(str(path))
    assert set(yaml.safe_load(path.read_text())) <= set(config.to_dict())
    assert config.num_processes % 8 == 0 and config.num_processes == 8 * config.num_machines
    if deepspeed := config.deepspeed_config:
        assert (ROOT / deepspeed["deepspeed_config_file"]).is_file()


@pytest.mark.parametrize("name", of(".json"))
def test_a_deepspeed_file_has_only_keys_that_deepspeed_knows(name):
    config = json.loads((ROOT / "configs" / name).read_text())
    zero = config["zero_optimization"]
    known = {field.alias or key for key, field in DeepSpeedZeroConfig.model_fields.items()}
    assert set(zero) <= known | set(DeepSpeedZeroConfig.model_fields)
    assert f"zero{DeepSpeedZeroConfig(**zero).stage}" == name.split("/")[-1].split("-")[0][:5]
