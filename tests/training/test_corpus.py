"""The corpus: four parts, the same bytes from the same seed, and no case on both sides."""

import json

import pytest

from training.corpus import PARTS, CorpusConfig, write_corpus
from training.data import read_conversations
from training.examine import asks_back

COUNTS = dict.fromkeys(PARTS, 400)
CONFIG = CorpusConfig(held_out=0.1, examples=COUNTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(CONFIG, folder, say=lambda _: None)
    return folder


def rows(folder, pattern="*.jsonl"):
    for file in sorted(folder.glob(pattern)):
        for line in file.read_text(encoding="utf-8").splitlines():
            yield file.name, json.loads(line)


def first_style(folder, style):
    return [row for _, row in rows(folder) if row["style"] == style]


def test_the_same_seed_writes_the_same_bytes(folder, tmp_path):
    write_corpus(CONFIG, tmp_path, say=lambda _: None)
    for file in folder.glob("*.jsonl"):
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_another_seed_writes_another_corpus(folder, tmp_path):
    write_corpus(CONFIG.model_copy(update={"seed": 7}), tmp_path, say=lambda _: None)
    name = "real-instructions.jsonl"
    assert (folder / name).read_bytes() != (tmp_path / name).read_bytes()


def test_the_four_parts_of_the_paper_are_there(folder):
    parts = {row["part"] for _, row in rows(folder)}
    assert parts == {
        "textbook",
        "distilled_instructions",
        "real_instructions",
        "distilled_conversations",
        "real_conversations",
    }
    turns = {
        row["part"]: len(row["messages"]) for _, row in rows(folder) if row["opener"] == "vague"
    }
    assert turns["distilled_conversations"] >= 4
    assert turns["real_conversations"] >= 4


def test_no_case_is_on_both_sides(folder):
    sides = {}
    for name, row in rows(folder):
        side = "held-out" in name
        assert sides.setdefault(row["case_id"], side) == side
    assert 0.02 < sum(sides.values()) / len(sides) < 0.2


def test_every_line_is_read_by_the_trainer(folder):
    for file in folder.glob("*.jsonl"):
        if file.stat().st_size:
            assert all(record.conversation for record in read_conversations(file))


def test_distilled_answers_never_ask_and_the_others_ask_when_something_is_missing(folder):
    distilled = [
        m["content"] for row in first_style(folder, "distilled") for m in row["messages"][1::2]
    ]
    assert not any(map(asks_back, distilled))
    for style in ("doctor", "polished"):
        vague = [r for r in first_style(folder, style) if r["opener"] == "vague"]
        asked = [asks_back(row["messages"][1]["content"]) for row in vague]
        assert sum(asked) > 0.9 * len(asked)


def test_what_is_asked_back_fits_the_complaint_and_is_asked_once(folder):
    for row in first_style(folder, "polished"):
        if row["opener"] != "vague":
            continue
        lines = row["messages"][1]["content"].splitlines()
        asked = [line.split(". ", 1)[1] for line in lines if line[:1].isdigit()]
        fitting = [question for question in asked if question in row["asks"]]
        assert fitting == row["asks"][: len(fitting)]
        assert len(asked) - len(fitting) <= 1  # how long it has lasted
        assert len(set(asked)) == len(asked) >= 2


def test_openers_of_every_kind_and_both_languages_occur(folder):
    kinds = {row["opener"] for _, row in rows(folder)}
    assert kinds >= {
        "complete",
        "two",
        "vague",
        "named",
        "greeting",
        "thanks",
        "off-topic",
        "emergency",
    }
    english = [row["language"] == "en" for _, row in rows(folder)]
    assert 0.05 < sum(english) / len(english) < 0.3


def test_emergencies_send_to_the_emergency_room(folder):
    for _, row in rows(folder):
        if row["opener"] == "emergency":
            answer = row["messages"][1]["content"]
            assert any(word in answer for word in ("120", "急诊", "医院", "emergency")), answer


def test_no_slot_is_left_unfilled(folder):
    for _, row in rows(folder):
        for message in row["messages"]:
            assert "{" not in message["content"]
            assert "}" not in message["content"]
