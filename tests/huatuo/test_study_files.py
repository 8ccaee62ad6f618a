"""Studies as files: the examples, every bad file as a sentence with file and key, and the command line on a real record."""

from __future__ import annotations

from pathlib import Path

import pytest

from huatuo.config import ROOT
from huatuo.errors import ConfigError
from huatuo.study_files import check_contestants, main, read_study
from reviews.errors import RecordError
from reviews.people import People
from reviews.records import PreparedPair, PreparedTurn
from reviews.store import Store

HEAD = 'name = "s"\ntitle_zh = "研究"\ntitle_en = "Study"\n'
EXAMPLES = sorted((ROOT / "configs/studies").glob("*.toml"))


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "data" / "reviews.sqlite3"


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "study.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_study_of_its_files_name_with_known_contestants(path: Path) -> None:
    protocol = read_study(path)
    assert protocol.name in (path.stem, f"{path.stem}-consultations")
    check_contestants(protocol, str(path))


def test_the_examples_cover_every_kind() -> None:
    assert {read_study(path).kind for path in EXAMPLES} == {"single", "multi", "live"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "missing key name"), ('name = "s"\n', "missing key title_zh"),
        (HEAD + "overlaps = 2", "unknown key overlaps; did you mean overlap?"),
        (HEAD + "[closing]\nvote = 2", "closing"), (HEAD + "overlap = 0", "overlap"),
        (HEAD + 'overlap = "2"', "overlap"), (HEAD + 'kind = "both"', "kind"),
        (HEAD + 'criteria = ["diagnose"]', "'diagnose' is unknown; did you mean diagnosis?"),
        (HEAD + 'criteria = ["asking"]\nrequired = ["warmth"]', "required: 'warmth'"),
        (HEAD + 'criteria = ["asking", "asking"]', "criteria: names one twice"),
        (HEAD + '[[own_criteria]]\nkey = "A B"\ntitle_zh = "一"\ntitle_en = "1"', "'A B' is no key"),
        (HEAD + '[[own_criteria]]\nkey = "a"\ntitle_en = "1"', "title_zh"),
        (HEAD + '[closing]\nuntil = "31.12.2026"', "closing.until: must be a date"),
        (HEAD + '[closing]\nuntil = "2026-02-30"', "closing.until: must be a date"),
        (HEAD + "[closing]\nuntil = 2026-12-31", "closing.until"),
        (HEAD + '[closing]\nvotes = 0', "closing.votes"), (HEAD + "fastest_s = nan", "fastest_s"),
        (HEAD + 'contestants = ["one"]', "contestants: name at least two"),
        (HEAD + 'contestants = ["a", "b"]\ngold = { "c" = "z" }', "gold: c: 'z'"),
        (HEAD + 'raters = ["w"]\noverlap = 2', "overlap: 2 votes on each pair, but only 1 raters"),
        (HEAD + 'generation = "nowhere"', "generation:"), (HEAD.replace('"s"', '"a\\nb"'), "name"),
    ],
)  # fmt: skip
def test_a_bad_file_is_a_sentence_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_study(file)
    assert "study.toml" in str(caught.value) and words in str(caught.value)


def test_an_unknown_contestant_is_named_with_its_neighbour_and_nothing_is_filed(
    tmp_path: Path, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, HEAD + 'contestants = ["nano-doctor", "nano-hybird"]')
    assert main(["file", str(file), "--data", str(record.parent)]) == 2
    said = capsys.readouterr().err
    assert "contestants: 'nano-hybird'" in said and "did you mean nano-hybrid?" in said
    assert not record.exists()


def test_a_study_goes_from_file_to_closed_by_commands(
    tmp_path: Path, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, HEAD + 'contestants = ["nano-doctor", "nano-hybrid"]\noverlap = 2')

    def run(*words: str) -> tuple[int, str]:
        code = main([*words, "--data", str(record.parent)])
        heard = capsys.readouterr()
        return code, heard.out + heard.err

    assert main(["check", str(file)]) == 0
    sha = read_study(file).sha256
    assert sha in capsys.readouterr().out
    assert run("list") == (0, "no study is filed\n")
    for words in ("freeze", "close"):
        code, said = run(words, "s")
        assert code == 2 and "'s' has no filed protocol" in said
    code, said = run("file", str(file))
    assert code == 0 and "draft" in said and sha in said
    assert "has no pairs yet" in run("freeze", "s")[1]
    store = Store.open(record)
    turn = (PreparedTurn("头痛", "甲", "乙"),)
    store.add_prepared("s", [PreparedPair("c", "nano-doctor", "nano-hybrid", turn)], "console")
    store.close()
    assert "frozen" in run("freeze", "s")[1]
    file.write_text(HEAD + "overlap = 3", encoding="utf-8")
    code, said = run("file", str(file))
    assert code == 2 and "another name" in said
    assert run("close", "s", "--reason", "够了")[1] == f"s\tclosed (够了)\tprotocol sha256 {sha}\n"
    assert run("list")[1].count("\n") == 1


def test_what_the_file_says_is_what_the_record_holds_raters_to(
    tmp_path: Path, record: Path
) -> None:
    file = written(tmp_path, HEAD + 'contestants = ["nano-doctor", "nano-hybrid"]\nraters = ["王"]')
    store = Store.open(record)
    wang = People(store.database).add_user("王", "physician", "hash", "system").id
    store.file_study(read_study(file), "console")
    turn = (PreparedTurn("头痛", "甲", "乙"),)
    store.add_prepared("s", [PreparedPair("c", "nano-doctor", "nano-hybrid", turn)], "console")
    with pytest.raises(RecordError, match="contestants: the pairs compare gpt-4 too"):
        store.add_prepared("s", [PreparedPair("d", "nano-doctor", "gpt-4", turn)], "console")
    given = store.next_prepared(wang, "s")
    assert given is not None and store.cast_vote(given.id, wang, "left") == "recorded"
    assert store.next_prepared(wang, "s") is None
    assert store.study("s").state == "closed"  # type: ignore[union-attr]
    with pytest.raises(RecordError, match="closed"):
        store.add_prepared("s", [PreparedPair("e", "nano-doctor", "nano-hybrid", turn)], "console")
    assert store.studies()[0].pairs == 1
    store.close()
