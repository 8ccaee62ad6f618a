"""`python -m huatuo.models list` and `check`: states, figures, exit codes and errors that say what to do."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from huatuo.config import ROOT, ModelConfig, read_models
from huatuo.models.__main__ import main
from huatuo.models.inventory import entry, inventory

FILE = """name = "{name}"
title_zh = "{name}"
title_en = "{name}"
engine = "{engine}"
licence = "none"
study_use = "research"
source = "hub/{name}"
{more}
"""


def write(folder: Path, name: str, engine: str, more: str) -> None:
    (folder / f"{name}.toml").write_text(FILE.format(name=name, engine=engine, more=more))


@pytest.fixture
def folder(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of one model in each state; their root is the temporary folder."""
    files = tmp_path / "models"
    files.mkdir()
    shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    shutil.copytree(tiny_checkpoint, tmp_path / "harmed")
    (tmp_path / "harmed" / "model.safetensors").write_bytes(b"12345678")
    local = 'template = "huatuo-nano"\ndtype = "float32"\n'
    write(files, "well", "local", f'path = "tiny"\n{local}[generation]\nmax_new_tokens = 9\n')
    write(files, "harmed", "local", f'path = "harmed"\n{local}')
    write(
        files,
        "away",
        "local",
        f'path = "nowhere"\n{local}get = """\nhf download x\npython -m y"""\n',
    )
    write(
        files,
        "keyless",
        "remote",
        'base_url = "https://x.example/v1"\nmodel = "m"\napi_key_env = "NO_SUCH_KEY"\n',
    )
    write(
        files, "off", "remote", 'base_url = "https://x.example/v1"\nmodel = "m"\nenabled = false\n'
    )
    (files / "odd.toml").write_text('name = "odd"\nnoun = 3\n')
    for module in ("huatuo.models.__main__", "huatuo.config"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    models, broken = read_models(files, roots=(tmp_path,))
    monkeypatch.setattr("huatuo.models.__main__.read_models", lambda _: (models, broken))
    return files


def run(folder: Path, *arguments: str) -> int:
    return main(["--models-dir", str(folder), *arguments])


def test_the_list_names_every_state_with_what_it_needs(folder: Path, capsys: Any) -> None:
    assert run(folder, "list", "--json") == 1, "a broken file is a fault"
    found = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    states = {name: item["state"] for name, item in found.items()}
    assert states == {
        "well": "ready", "harmed": "broken", "away": "lacks_weights", "keyless": "lacks_key", "off": "off", "odd": "broken",
    }  # fmt: skip
    assert found["well"]["bytes"] > 100_000 and found["well"]["need"] > found["well"]["bytes"]
    assert "NO_SUCH_KEY" in found["keyless"]["why"] and "noun" in found["odd"]["why"]
    run(folder, "list")
    told = capsys.readouterr().out
    assert "    hf download x\n    python -m y" in told
    assert "research only, no commercial use" in told and "source: hub/well" in told


def test_check_tells_digest_memory_words_and_pace(folder: Path, capsys: Any) -> None:
    assert run(folder, "check", "well", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["works"] and len(said["sha256"]) == 64 and said["words"]
    assert 0 < said["first_token_s"] < 600 and said["tokens_per_s"] > 0 and said["load_s"] > 0
    assert said["need"] < said["free"] and 0 < said["tokens"] <= 18
    assert run(folder, "check", "well") == 0
    assert "first words after" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("harmed", 1, "harmed/model.safetensors"),
        ("away", 1, "hf download x && python -m y"),
        ("keyless", 1, "NO_SUCH_KEY is not set"),
        ("off", 1, "enabled = false"),
        ("odd", 2, "unknown key noun"),
        ("nobody", 2, "no file names the model nobody"),
    ],
)
def test_check_says_why_not_and_exits_with_it(
    name: str, status: int, words: str, folder: Path, capsys: Any
) -> None:
    assert run(folder, "check", name) == status
    assert words in capsys.readouterr().err


def test_too_little_memory_is_a_problem_of_the_check(
    folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    from huatuo.models import memory

    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_000_000)
    assert run(folder, "check", "well", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["works"] and 'use load = "nf4" or another device' in said["problem"]


def test_the_projects_own_files_are_all_there_with_a_command_or_ready() -> None:
    models, broken = read_models(ROOT / "configs/models")
    assert not broken
    for item in inventory(models, broken, ROOT):
        assert item.state in ("ready", "off", "lacks_weights", "lacks_key"), (item.name, item.why)
        assert item.state != "lacks_weights" or item.get
        assert item.licence, item.name


def test_an_adapter_that_is_not_there_is_lacking_too(tmp_path: Path, tiny_checkpoint: Path) -> None:
    config = ModelConfig(
        name="x", title_zh="x", title_en="x", engine="local", path=tiny_checkpoint,
        adapter=tmp_path / "adapter", get="do it",
    )  # fmt: skip
    found = entry(config, Path("/"))
    assert (
        found.state == "lacks_weights"
        and "adapter: no such folder; get it with: do it" in found.why
    )
