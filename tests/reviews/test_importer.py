"""Files into studies: the real layouts when they are at hand, and everything that can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reviews.errors import BadFile
from reviews.importer import import_files, main, read_files
from reviews.store import Store

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"


def answers(folder: Path, name: str, count: int = 3, first: int = 0) -> Path:
    items = [
        {
            "id": f"s{i}",
            "label": "就医建议",
            "query": f"问题{i}？",
            "model_output": f"{name} 答{i}\0\r\n",
        }
        for i in range(first, first + count)
    ]
    file = folder / f"{name}.json"
    file.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    return file


def test_two_files_are_paired_by_id(store: Store, tmp_path: Path, wang: int) -> None:
    files = [answers(tmp_path, "GPT4"), answers(tmp_path, "Huatuo", 3, 1)]
    report = import_files(store, files, "s", actor=wang)
    assert (report.found.read, report.stored.added) == (6, 2)
    assert dict(report.found.refused) == {
        "s0": "the second file has no such item",
        "s3": "the first file has no such item",
    }
    assert "     2 added" in report.lines()
    given = store.next_prepared(wang, "s")
    assert given is not None
    comparison = store.view(given.id, wang)[1]
    assert (comparison.contestant_a, comparison.contestant_b) == ("GPT4", "Huatuo")
    assert (comparison.intent, comparison.language) == ("就医建议", "zh")
    side = comparison.turns[0].a
    assert side is not None and side.text == f"GPT4 答{comparison.external_id[1:]}"
    again = import_files(store, files, "s")
    assert (again.stored.added, again.stored.already_there) == (0, 2)


def test_a_second_import_with_other_texts_keeps_the_first_and_says_so(
    store: Store, tmp_path: Path
) -> None:
    files = [answers(tmp_path, "A"), answers(tmp_path, "B")]
    import_files(store, files, "s")
    files[0].write_text(
        files[0].read_text(encoding="utf-8").replace("答1", "改1"), encoding="utf-8"
    )
    report = import_files(store, files, "s")
    assert report.stored.differs == ("s1",)
    assert any("s1: already there with other texts" in line for line in report.lines())


@pytest.mark.skipif(not SHARED.exists(), reason="shared data are not here")
def test_the_hundred_real_pairs_are_imported(store: Store) -> None:
    folder = SHARED / "huatuo100_inst"
    files = [folder / "GPT4.json", folder / "HuatuoGPT2-7B.json"]
    report = import_files(store, files, "huatuo100")
    assert (report.found.read, report.stored.added, report.found.refused) == (200, 100, ())
    assert store.studies()[0].pairs == 100
    kuake = import_files(store, [SHARED / "KUAKE-QIC_100.json"], "kuake")
    assert kuake.stored.added == 100
    cases = store.cases("kuake")
    assert (cases[0].id, cases[0].intent, len(cases)) == ("s53", "功效作用", 100)
    assert import_files(store, [SHARED / "KUAKE-QIC_100.json"], "kuake").stored.already_there == 100


def test_own_lines_hold_single_and_several_turns(store: Store, tmp_path: Path, wang: int) -> None:
    lines: list[dict[str, Any]] = [
        {"id": 1, "question": "问", "answer_a": "甲", "answer_b": "乙", "model_a": "m1", "model_b": "m2",
         "department": "内科", "language": "zh"},
        {"id": "two", "model_a": "m1", "model_b": "m2", "language": "en",
         "turns": [{"question": "q1", "answer_a": "a1", "answer_b": "b1"},
                   {"question": "q2", "answer_a": "a2", "answer_b": "b2"}]},
    ]  # fmt: skip
    file = tmp_path / "mine.jsonl"
    file.write_text(
        "\ufeff" + "\n\n".join(json.dumps(x, ensure_ascii=False) for x in lines) + "\n", "utf-8"
    )
    assert import_files(store, [file], "s").stored.added == 2
    found = {}
    while (given := store.next_prepared(wang, "s")) is not None:
        found[store.view(given.id, wang)[1].external_id] = store.view(given.id, wang)[1]
        store.skip(given.id, wang)
    assert found["1"].department == "内科"
    assert [t.question for t in found["two"].turns] == ["q1", "q2"]


GOOD = (
    '{"id": "1", "question": "q", "answer_a": "a", "answer_b": "b", "model_a": "m", "model_b": "n"}'
)
BAD_LINES = {
    "not json": ('{"id": ', "line 2"),
    "a list": ("[1, 2]", "line 2"),
    "no question": ('{"id": "2", "model_a": "m", "model_b": "n"}', "line 2"),
    "empty answer": (GOOD.replace('"1"', '"2"').replace('"a"', '" \\u0000"'), "line 2"),
    "number": (GOOD.replace('"1"', '"2"').replace('"b"', "7"), "line 2"),
    "same models": (GOOD.replace('"1"', '"2"').replace('"n"', '"m"'), "line 2"),
    "same id": (GOOD, "line 2"),
    "no id": (GOOD.replace('"id": "1", ', ""), "line 2"),
    "long": (GOOD.replace('"1"', '"2"').replace('"q"', f'"{"长" * 20_001}"'), "line 2"),
    "turns": (GOOD.replace('"1"', '"2", "turns": []'), "line 2"),
    "turn": (GOOD.replace('"1"', '"2", "turns": ["x"]'), "line 2, turn 1"),
    "deep": ("[" * 100_000, "line 2"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_named_and_nothing_is_filed(store: Store, tmp_path: Path, case: str) -> None:
    line, place = BAD_LINES[case]
    file = tmp_path / "mine.jsonl"
    file.write_text(f"{GOOD}\n{line}\n", "utf-8")
    with pytest.raises(BadFile) as bad:
        import_files(store, [file], "s")
    assert "mine.jsonl" in str(bad.value)
    assert bad.value.place == place
    assert store.studies() == []


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"", "line 1"),
        (b"{}", ""),
        (b"[]", ""),
        (b'[{"id": "1", "query": "q"', "line 1"),
        (b'[{"id": "1", "query": "q"}, 7]', "item 2"),
        (b'[{"id": "1", "query": "q"}, {"id": "1", "query": "q"}]', "item 2"),
        (b'[{"id": "1", "query": "q"}, {"id": "2"}]', "item 2"),
        (b'[{"id": "1", "query": ""}]', "item 1"),
        (b'[{"id": "1", "query": "q", "model_output": "a"}]', ""),
        ('[\n{"id": "1", "query": "问'.encode("gb18030"), "line 2"),
    ],
)
def test_a_bad_list_is_named(tmp_path: Path, content: bytes, place: str) -> None:
    file = tmp_path / "list.json"
    file.write_bytes(content)
    with pytest.raises(BadFile) as bad:
        read_files([file])
    assert "list.json" in str(bad.value)
    assert bad.value.place == place


def test_pairing_refuses_what_cannot_be_told_apart(tmp_path: Path) -> None:
    one = answers(tmp_path, "A")
    (tmp_path / "other").mkdir()
    two = answers(tmp_path / "other", "A")
    with pytest.raises(BadFile, match="--names"):
        read_files([one, two])
    assert len(read_files([one, two], names=["x", "y"]).pairs) == 3
    with pytest.raises(BadFile, match="no id"):
        read_files([one, answers(tmp_path, "B", 2, 50)])
    with pytest.raises(BadFile, match="cannot be read"):
        read_files([one, tmp_path / "missing.json"])
    with pytest.raises(BadFile, match="one file, or two"):
        read_files([one, one, one])


def test_different_questions_under_one_id_are_refused(tmp_path: Path) -> None:
    one, two = answers(tmp_path, "A"), answers(tmp_path, "B")
    two.write_text(two.read_text("utf-8").replace("问题2", "另问"), "utf-8")
    found = read_files([one, two])
    assert len(found.pairs) == 2
    assert found.refused == (("s2", "the two files ask different questions"),)


def test_the_command_reports_and_fails_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(answers(tmp_path, "A")), str(answers(tmp_path, "B"))]
    more = ["--study", "s", "--data", str(tmp_path / "data")]
    assert main([*files, *more]) == 0
    assert "3 added" in capsys.readouterr().out
    (tmp_path / "A.json").write_text("nonsense")
    assert main([*files, *more]) == 1
    assert "A.json: line 1: this is not JSON" in capsys.readouterr().err
    (tmp_path / "data").chmod(0o500)
    assert main([*files, *more]) == 1
    assert "cannot be written" in capsys.readouterr().err
    (tmp_path / "data").chmod(0o700)


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reviews.importer", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--study" in done.stdout
