"""The files of configs/models and configs/protocols: each system of the paper, its licence and how to get it."""

import pytest

from huatuo.config import ROOT, ModelConfig, Protocol, read_models, read_protocols
from huatuo.prompts import FAMILIES
from huatuo.replies import reader_of

MODELS, BROKEN = read_models(ROOT / "configs/models")
SYSTEMS = {
    "huatuogpt-7b": "huatuo", "huatuogpt-13b": "huatuo", "ziya-13b": "ziya",
    "huatuogpt2-7b": "huatuo2", "huatuogpt2-34b": "huatuo2",
    "huatuogpt-o1-7b": "chat", "huatuogpt-o1-8b": "chat", "bloomz-7b1-mt": "bloomz",
    "bentsao": "bentsao-med", "bentsao-alpaca": "bentsao-med", "bentsao-bloom": "bentsao-bloom",
    "bentsao-literature": "bentsao-literature", "chatglm-6b": "chatglm",
    "doctorglm": "chatglm", "doctorglm-lora": "chatglm", "t5": "t5",
}  # fmt: skip
REMOTE = {"gpt-3.5-turbo", "gpt-4", "local-server"}


def test_every_file_loads_and_every_system_is_there() -> None:
    assert not BROKEN
    assert set(MODELS) >= set(SYSTEMS) | REMOTE
    for name, config in MODELS.items():
        assert (ROOT / f"configs/models/{name}.toml").is_file() or name.startswith("released-")
        assert config.engine == "remote" or config.template in FAMILIES
        reader_of(config.template)


@pytest.mark.parametrize("name", sorted([*SYSTEMS, *REMOTE]))
def test_a_system_says_its_licence_its_use_in_a_study_and_where_it_is_from(name: str) -> None:
    config = MODELS[name]
    assert config.licence and config.source and config.study_use != "unknown"
    assert not config.demonstration


@pytest.mark.parametrize(("name", "template"), SYSTEMS.items())
def test_a_system_without_weights_is_known_and_says_how_to_get_them(
    name: str, template: str
) -> None:
    config = MODELS[name]
    assert config.enabled, "a hidden model cannot tell that it lacks weights"
    assert config.template == template
    assert config.note_zh and config.note_en
    made = [line.split()[4] for line in config.get.splitlines() if "models.convert" in line]
    assert [str(path) for path in (config.path, config.adapter) if path] == made
    fetched = [line.split()[-1] for line in config.get.splitlines() if line.startswith("hf ")]
    for line in config.get.splitlines():
        if line.startswith("hf "):
            assert line.split()[:2] == ["hf", "download"] and "--local-dir data/downloads/" in line
        elif "models.convert" in line:
            assert line.startswith("python -m huatuo.models.convert data/downloads/")
            source = line.split()[3]
            assert source in fetched or name in (
                "doctorglm",
                "doctorglm-lora",
                "t5",
                "bentsao-alpaca",
            )
    for folder in made:
        assert folder.startswith("data/models/")


DEMOS = {
    # facts of each system's own demo: temperature, top_p, repetition penalty, beams, new tokens, context
    "huatuogpt-7b": (0.5, 1.0, 1.0, 1, 512, 1024),
    "huatuogpt-13b": (0.5, 1.0, 1.0, 1, 512, 1024),
    "ziya-13b": (0.8, 1.0, 1.0, 1, 2048, 2048),
    "huatuogpt2-7b": (0.3, 0.7, 1.1, 1, 1024, 4096),
    "huatuogpt2-34b": (0.3, 0.7, 1.1, 1, 1024, 4096),
    "chatglm-6b": (0.95, 0.7, 1.0, 1, 2048, 2048),
    "doctorglm": (1.0, 0.7, 1.0, 1, 2048, 2048),
    "doctorglm-lora": (0.99, 0.7, 1.0, 1, 512, 512),
}


@pytest.mark.parametrize(("name", "expected"), DEMOS.items())
def test_settings_are_those_of_the_systems_own_demo(name: str, expected: tuple[float, ...]) -> None:
    settings = MODELS[name].generation
    assert (
        settings.temperature, settings.top_p, settings.repetition_penalty, settings.num_beams,
        settings.max_new_tokens, settings.context_tokens,
    ) == expected  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name.startswith("bentsao")])
def test_bentsao_searches_with_four_beams(name: str) -> None:
    settings = MODELS[name].generation
    assert (settings.num_beams, settings.max_new_tokens) == (4, 256)


def test_the_common_protocol_is_huatuogpt2s_evaluator() -> None:
    protocols, broken = read_protocols(ROOT / "configs/protocols")
    assert not broken
    common: Protocol = protocols["huatuo2-evaluator"]
    settings = common.generation
    assert (settings.temperature, settings.top_p, settings.repetition_penalty) == (0.5, 0.7, 1.1)
    assert (settings.num_beams, settings.top_k, settings.max_new_tokens) == (1, 0, 768)
    assert settings.context_tokens - settings.max_new_tokens == 1024
    assert common.title_zh and common.title_en and common.note_zh and common.note_en


def test_two_systems_never_share_a_name_or_a_title() -> None:
    for key in ("title_zh", "title_en"):
        titles = [getattr(config, key) for config in MODELS.values()]
        assert len(set(titles)) == len(titles)
    assert all(isinstance(config, ModelConfig) for config in MODELS.values())
