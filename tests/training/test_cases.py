"""Cases: fresh, on one side only, and read back line by line."""

import json
from pathlib import Path

import pytest

from huatuo.errors import ConfigError, HuatuoError, NoData
from huatuo.toml import ROOT, read_toml
from training import cases as stage
from training.cases import (
    CORPUS,
    Case,
    condition_of,
    corpus_folder,
    draw_cases,
    read_cases,
    table,
    trained_texts,
    write_cases,
)
from training.corpus import CorpusConfig, is_held_out, write_corpus
from training.data import BadData


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    """The project's corpus in small, in a folder of its own."""
    whole = read_toml(CORPUS, CorpusConfig)
    folder = tmp_path_factory.mktemp("corpus")
    small = {name: max(1, count // 20) for name, count in whole.examples.items()}
    config = whole.model_copy(update={"out": folder, "examples": small})
    write_corpus(config, folder, say=lambda _: None)
    return config


@pytest.fixture(scope="module")
def sides(config: CorpusConfig) -> dict[bool, list[Case]]:
    return {held: draw_cases(120, held_out=held, seed=1, config=config) for held in (True, False)}


def test_the_same_seed_gives_the_same_cases_and_another_seed_others(config: CorpusConfig) -> None:
    first, again = (draw_cases(30, held_out=False, seed=7, config=config) for _ in range(2))
    assert first == again
    assert first != draw_cases(30, held_out=False, seed=8, config=config)
    assert first[:10] == draw_cases(10, held_out=False, seed=7, config=config)


def test_kinds_and_languages_come_in_their_shares(sides: dict[bool, list[Case]]) -> None:
    for cases in sides.values():
        assert [c.kind for c in cases[:4]] == ["complete", "incomplete"] * 2
        assert 2 <= sum(c.language == "en" for c in cases) <= 30
        assert len({c.question for c in cases}) == len({c.id for c in cases}) == 120
    english = draw_cases(6, held_out=True, english=1.0)
    assert {c.language for c in english} == {"en"}


def test_no_held_out_case_was_seen(sides: dict[bool, list[Case]], config: CorpusConfig) -> None:
    folder = corpus_folder(config)
    seen_texts, seen_ids = trained_texts(folder), set()
    for file in folder.glob("*.jsonl"):
        if "held-out" not in file.name:
            seen_ids |= {json.loads(line)["case_id"] for line in file.read_text().splitlines()}
    for case in sides[True]:
        own_id = case.id.split("#")[0]
        assert is_held_out(own_id, config.held_out)
        assert own_id not in seen_ids and case.question not in seen_texts


def test_the_two_sides_share_neither_id_nor_text(sides: dict[bool, list[Case]]) -> None:
    for key in ("id", "question"):
        held, trained = ({getattr(c, key) for c in sides[side]} for side in (True, False))
        assert not held & trained
    many = draw_cases(1500, kinds=["incomplete"], held_out=False, seed=2)
    assert not {c.question for c in many} & {c.question for c in sides[True]}


def test_emergencies_are_red_flags_of_the_table_on_one_side_each() -> None:
    held, trained = (
        draw_cases(30, kinds=["emergency"], held_out=side, seed=5, english=1.0)
        for side in (True, False)
    )
    assert not {c.question for c in held} & {c.question for c in trained}
    for case in (*held, *trained):
        assert case.kind == "emergency" and case.language == "zh"
        flags = condition_of(case).red_flags
        runs = {flag[i : i + 3] for flag in flags for i in range(len(flag) - 2)} | {*flags}
        assert any(run in case.question for run in runs), case.question


def test_a_case_carries_what_a_judge_needs(sides: dict[bool, list[Case]]) -> None:
    for case in sides[True]:
        condition = condition_of(case)
        assert case.names[:2] == (condition.name, condition.name_en)
        assert case.department in case.names and case.condition in case.possible
        assert bool(case.asks) == (case.kind == "incomplete")
        assert set(case.possible) <= set(table())
        ends = ("?",) if case.language == "en" else ("？",)
        assert all(ask.endswith(ends) for ask in case.asks)


def test_what_is_written_is_read_again(sides: dict[bool, list[Case]], tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cases.jsonl"
    assert write_cases(path, sides[True]) == 120
    assert read_cases(path) == sides[True]
    assert [p.name for p in path.parent.iterdir()] == ["cases.jsonl"]


def test_other_peoples_questions_are_cases_without_a_condition(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    path.write_text(
        '[{"id": "s1", "label": "病因分析", "query": "头痛怎么办？"}, {"id": 2, "query": "x"}]'
    )
    first, second = read_cases(path)
    assert (first.id, first.question, first.intent) == ("s1", "头痛怎么办？", "病因分析")
    assert (second.id, second.kind, second.condition) == ("2", "", "")
    with pytest.raises(NoData, match="case s1: names no condition"):
        condition_of(first)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no case"),
        ("[]", "holds no case"),
        ("[1]", "item 1: a JSON object is expected, not int"),
        ('[{"id": "a", "query": "x"}', "not JSON"),
        ('{"id": "a", "question": "x"}\n{"id"', "bad.jsonl:2: not JSON"),
        ('{"id": "a", "question": "x"}\n\n[]', "bad.jsonl:3: a JSON object"),
        ('{"id": "a", "question": "x"}\n{"id": "a", "question": "y"}', ":2: the id 'a' stands"),
        ('{"question": "x"}', ":1: id is missing"),
        ('{"id": true, "question": "x"}', ":1: id is no text"),
        ('{"id": "a", "question": " "}', ":1: question is missing or empty"),
        ('{"id": "a", "question": 3}', ":1: question is no text"),
        ('{"id": "a", "question": "\\u0000\\u0007"}', ":1: "),
        ('{"id": "a", "query": null}', ":1: question is no text"),
        ('{"id": "a", "question": "x", "asks": "y"}', ":1: asks is no list"),
        ('{"id": "a", "question": "x", "asks": [1]}', ":1: asks is no list"),
        ('{"id": "a", "question": "x", "lable": "y"}', ":1: unknown key lable"),
        ('{"id": "a", "question": "x", "language": "de"}', ":1: language"),
        ('{"id": "a", "question": "x", "kind": "vague"}', ":1: kind"),
        ('{"id": "a", "question": "\\ud800"}', ":1: "),
    ],
)
def test_a_bad_file_is_refused_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(HuatuoError) as error:
        read_cases(path)
    assert said in str(error.value)


def test_no_file_and_wrong_bytes_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="cannot be read"):
        read_cases(tmp_path / "none.jsonl")
    path = tmp_path / "gbk.jsonl"
    path.write_bytes(b'{"id": "a", "question": "x"}\n' + "头痛怎么办，医生".encode("gbk"))
    with pytest.raises(BadData, match=r"gbk\.jsonl:2: not UTF-8"):
        read_cases(path)


def test_the_corpus_is_written_when_it_is_not_there(tmp_path: Path) -> None:
    whole = read_toml(CORPUS, CorpusConfig)
    config = whole.model_copy(update={"out": tmp_path, "examples": {"textbook": 50}})
    assert len(draw_cases(2, held_out=True, config=config)) == 2
    assert (tmp_path / "textbook.jsonl").exists()


def test_wrong_wishes_are_refused(config: CorpusConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'vague' is unknown"):
        draw_cases(1, kinds=["vague"], held_out=False, config=config)
    with pytest.raises(ConfigError, match="at least one kind"):
        draw_cases(1, kinds=[], held_out=False, config=config)
    monkeypatch.setattr(stage, "TRIES_PER_CASE", 1)
    with pytest.raises(NoData, match="could be drawn; ask for fewer"):
        draw_cases(50, held_out=True, config=config)


def test_the_command_writes_a_file_or_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cases.jsonl"
    assert stage.main(["--out", str(out), "--count", "5", "--kinds", "incomplete"]) == 0
    assert {c.kind for c in read_cases(out)} == {"incomplete"}
    assert stage.main(["--out", str(out), "--count", "0"]) == 2
    assert stage.main(["--out", str(tmp_path / "cases.jsonl" / "x"), "--count", "1"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_shared_question_list_is_read_if_it_is_there() -> None:
    path = ROOT.parent / "shared/data/KUAKE-QIC_100.json"
    if not path.exists():
        pytest.skip("the shared data is not beside this checkout")
    assert len(read_cases(path)) == 100
