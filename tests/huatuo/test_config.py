"""Configuration: every bad file is a sentence with file and key, never a value, never a hang."""

from pathlib import Path

import pytest

from huatuo.config import ROOT, AppConfig, ModelConfig, Settings, read_models, read_toml
from huatuo.errors import ConfigError
from tests.patience import cpu_seconds


class Stage(Settings):
    """A training stage, as small as it gets."""

    learning_rate: float
    seed: int = 0
    path: str = ""


def problem(tmp_path: Path, text: str | bytes, model: type[Settings] = Stage) -> str:
    file = tmp_path / "stage.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        read_toml(file, model, roots=(tmp_path,))

    def again() -> None:
        with pytest.raises(ConfigError):
            read_toml(file, model, roots=(tmp_path,))

    assert cpu_seconds(again, 1) < 1
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert str(file) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr = 1e-5", "unknown key lr; did you mean learning_rate?"),
        ("learning_rte = 1.0", "did you mean learning_rate?"),
        ("learning_rate = 1.0\nqqqq = 1", "unknown key qqqq"),
        ("", "missing key learning_rate"),
        ("seed = 1", "missing key learning_rate"),
        ('learning_rate = "1e-5"', "learning_rate"),
        ("learning_rate = nan", "learning_rate"),
        ("learning_rate = -inf", "learning_rate"),
        ("learning_rate = 1e999", "learning_rate"),
        ("learning_rate = true", "learning_rate"),
        ("learning_rate = 2024-01-01", "learning_rate"),
        ("learning_rate = 1.0\nseed = true", "seed"),
        ('learning_rate = 1.0\nseed = "3"', "seed"),
        ("learning_rate = 1.0\nseed = 3.0", "seed"),
        ("learning_rate = 1.0\nseed = 1e3", "seed"),
        ("learning_rate = 1.0\nseed = [1]", "seed"),
        ("learning_rate = 1.0\nlearning_rate = 2.0", "overwrite"),
        ("[a]\n[a]", "a"),
        ("seed = yes", "line 1"),
        ("seed = 010", "line 1"),
        ("lr: 1e-5", "line 1"),
        ("path = null", "line 1"),
        ("a" + ".a" * 30_000 + " = 1", "characters"),
        ("x = " + "[" * 900 + "]" * 90, ""),
        ("\n".join(["x = " + "{a=" * 300] * 3), ""),
        ("x" * 70_000, "bytes"),
        ("# " + "x" * 1_000, "characters"),
        ("seed = " + "9" * 990, ""),
        ("a: &a [x]\nb: [*a, *a]", "line 1"),
        ("!!python/object:os.system {}", "line 1"),
        ("---\na: 1\n---\nb: 2", "line 1"),
        ("\ufefflearning_rate = 1.0", ""),
        ("# é".encode("latin-1"), "UTF-8"),
        ("learning_rate = 1.0".encode("utf-16"), "UTF-8"),
        (b"\x00\x01", ""),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in problem(tmp_path, text)


@pytest.mark.parametrize("text", ["1e-5", "1", "1_000", "0x10", "1.5"])
def test_what_is_meant_is_taken(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f"learning_rate\t=\t{text}\r\n")
    value = read_toml(file, Stage).learning_rate
    assert value == float(int(text, 0) if text.startswith("0x") else float(text.replace("_", "")))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        read_toml(tmp_path / "none.toml", Stage)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path, Stage)


@pytest.mark.parametrize(
    "path",
    [
        "../../etc",
        "/etc",
        "~/x",
        "a/../../x",
        "%2e%2e/x",
        "a\\\\b",
        "con",
        "x/NUL.txt",
        "C:/x",
        "out",
        "",
    ],
)
def test_a_path_stays_inside_the_root(tmp_path: Path, path: str) -> None:
    (tmp_path / "out").symlink_to("/etc")
    assert "data_dir" in problem(tmp_path, f'data_dir = "{path}"', AppConfig)
    assert "data_dir" in problem(tmp_path, 'data_dir = "a\\u0000"', AppConfig)


@pytest.mark.parametrize(
    "text",
    [
        'api_key = "sk-abcdefghijklmnopqrstuvwx"',
        'password = "hunter2hunter2"',
        'host = "sk-abcdefghijklmnopqrstuvwx"',
        '[deep]\nhf_token = "hf_abcdefghijklmnopqrstuvwxyz"',
        'chat_model = "Bearer abcdefghijklmnop"',
    ],
)
def test_a_secret_is_refused_and_not_echoed(tmp_path: Path, text: str) -> None:
    said = problem(tmp_path, text, AppConfig)
    assert "api_key_env" in said
    assert not any(secret in said for secret in ("abcdefg", "hunter2"))


def test_a_wrong_value_is_not_echoed(tmp_path: Path) -> None:
    for text in (
        'port = "7f3a9c-private"',
        'language = "7f3a9c-private"',
        'public_url = "7f3a9c-private"',
    ):
        assert "private" not in problem(tmp_path, text, AppConfig)


def test_flags_win_and_are_checked_alike(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("learning_rate = 1.0")
    stage = read_toml(file, Stage, {"learning-rate": "2e-6", "seed": "7", "path": "12"})
    assert (stage.learning_rate, stage.seed, stage.path) == (2e-6, 7, "12")
    for flags in (
        {"learning-rate": "nan"},
        {"learning-rate": "fast"},
        {"seed": "true"},
        {"seed": "3.0"},
        {"seed": "1\nlearning_rate = 3"},
    ):
        with pytest.raises(ConfigError, match=r"^--"):
            read_toml(file, Stage, flags)
    with pytest.raises(ConfigError, match=r"--lr: unknown key lr; did you mean learning_rate"):
        read_toml(file, Stage, {"lr": "1"})


GOOD = 'name = "a"\ntitle_zh = "甲"\ntitle_en = "A"\nengine = "scripted"\nsays = ["你好"]\n'


def test_a_broken_model_never_stops_the_others(tmp_path: Path) -> None:
    (tmp_path / "1.toml").write_text(GOOD)
    (tmp_path / "2.toml").write_text("oops")
    (tmp_path / "3.toml").write_text(GOOD)
    (tmp_path / "4.toml").write_text(GOOD.replace('"a"', '"b"'))
    models, errors = read_models(tmp_path, roots=(tmp_path,))
    assert list(models) == ["a", "b"]
    assert [Path(name).name for name in errors] == ["2.toml", "3.toml"]
    assert "1.toml" in str(errors[str(tmp_path / "3.toml")])
    assert read_models(tmp_path / "nowhere") == ({}, {})


@pytest.mark.parametrize(
    "name", ["", "A", "a/b", "../a", "<b>", "a b", "a" * 200, "-a", "华佗", "a\\n"]
)
def test_a_strange_model_name_is_refused(tmp_path: Path, name: str) -> None:
    assert "name" in problem(tmp_path, GOOD.replace('"a"', f'"{name}"', 1), ModelConfig)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('engine = "scripted"\nsays = ["你好"]', 'engine = "local"'), "missing key path"),
        (('engine = "scripted"\nsays = ["你好"]', 'engine = "remote"'), "missing key base_url"),
        (("says", 'path = "x"\nsays'), "does not use the key path"),
        (("says", 'parent = "x"\nsays'), "does not use the key parent"),
        (
            ('engine = "scripted"\nsays = ["你好"]', 'engine = "local"\nparent = "x"'),
            "missing key path",
        ),
        (
            (
                'engine = "scripted"\nsays = ["你好"]',
                'engine = "local"\npath = "x"\nparent = "../x"',
            ),
            "parent leads out of",
        ),
        (('engine = "scripted"', 'engine = "magic"'), "engine"),
        (('says = ["你好"]', 'says = ["你好"]\nfails = "explode"'), "fails"),
        (
            ('says = ["你好"]', 'says = ["你好"]\n[generation]\ntemperatur = 1.0'),
            "mean temperature?",
        ),
    ],
)
def test_a_key_that_the_engine_does_not_use_is_refused(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    assert words in problem(tmp_path, GOOD.replace(*change), ModelConfig)


def test_every_shipped_file_loads_and_contacts_nobody() -> None:
    read_toml(ROOT / "configs/app.toml", AppConfig)
    models, errors = read_models(ROOT / "configs/models")
    assert not errors
    for model in models.values():
        assert model.engine != "remote" or not model.enabled
