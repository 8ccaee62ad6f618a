"""The knowledge table: large enough, whole, and clear about what is wrong."""

import shutil

import pytest

from huatuo.errors import ConfigError
from training.knowledge import FOLDER, read_knowledge
from training.speech import phrases, read_complaints


def test_the_table_has_at_least_200_conditions_in_20_departments():
    table = read_knowledge()
    assert len(table) >= 200
    assert len({c.department for c in table}) >= 20
    assert len({c.name_en for c in table}) == len(table)


def test_everyday_names_urgent_names_and_complaints_point_into_the_table():
    table = read_knowledge()
    names = {c.name for c in table}
    assert set(phrases()["alias"].values()) <= names
    assert set(phrases()["urgent"]["names"]) <= names
    assert all(complaint.conditions for complaint in read_complaints(table))


@pytest.mark.parametrize(
    "find, put, says",
    [
        ('name = "偏头痛"', 'name = "脑梗死"', "脑梗死 is already in"),
        ('who = "', 'whom = "', "unknown key whom"),
        ('cause = "', 'cause = ""  # "', "cause is missing or empty"),
        ("ask = [", 'ask = ["一？"] # [', "ask needs 2 to 4 entries"),
        ('department = "', "department = ", "not valid TOML"),
        ('who = "woman"', 'who = "cat"', "who is 'cat'"),
    ],
)
def test_an_error_names_file_condition_and_key(tmp_path, find, put, says):
    file = tmp_path / "neurology.toml"
    shutil.copy(FOLDER / "neurology.toml", file)
    file.write_text(file.read_text(encoding="utf-8").replace(find, put, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=says) as caught:
        read_knowledge(tmp_path)
    assert "neurology.toml" in str(caught.value)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no knowledge files"):
        read_knowledge(tmp_path)
