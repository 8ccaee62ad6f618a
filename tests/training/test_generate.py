"""Answers are made once, kept whole, and a failure is never an answer."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from huatuo.errors import ConfigError, HuatuoError, NoData, Unavailable
from huatuo.messages import Message
from huatuo.toml import ROOT
from tests.training.answering_server import AnsweringServer
from training.answer_cache import AnswerCache, Kept, Key
from training.contestants import find
from training.data import BadData
from training.generate import Answers, How, answers
from training.questions import BenchmarkConfig, Questions, asked, read

QUESTIONS = ROOT / "training/questions.jsonl"


def questions(folder: Path, texts: list[str], name: str = "own") -> Questions:
    path = folder / f"{name}.jsonl"
    rows = [{"id": str(n), "question": text} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return read(BenchmarkConfig(name=name, file=str(path)), 0)


def how(folder: Path, **more: object) -> How:
    return How(folder=folder / "cache", progress=False, **more)  # type: ignore[arg-type]


def ask(model: str, folder: Path, *sets: Questions, **more: object) -> list[Answers]:
    return answers(find(model), sets, how(folder, **more))


# The cache.


def test_a_batch_that_a_kill_cut_short_is_dropped_whole_and_said(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, "m" * 64)
    cache.add([(Key("p0", "s"), Kept("zero", "stop"))])
    cache.add([(Key(f"p{n}", "s"), Kept(f"say {n}\u2028\n", "stop")) for n in (1, 2, 3)])
    cache.close()
    whole = cache.path.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == 10]
    for cut in (ends[0] + 1, ends[0] + 5, ends[1] + 1, ends[2] - 3, ends[2] + 1, len(whole) - 1):
        cache.path.write_bytes(whole[:cut])
        again = AnswerCache(tmp_path, "m" * 64)
        assert len(again) == 1 and again.get(Key("p0", "s")) == Kept("zero", "stop")
        assert bool(again.dropped) == (cut > ends[0] + 1)
        again.add([(Key(f"p{n}", "s"), Kept(f"say {n}\u2028\n", "stop")) for n in (1, 2, 3)])
        again.close()
        assert cache.path.read_bytes() == whole


def test_an_altered_row_is_dropped_and_named(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, "m" * 64)
    for n in range(3):
        cache.add([(Key(f"p{n}", "s"), Kept(f"say {n}", "stop"))])
    cache.close()
    cache.path.write_bytes(cache.path.read_bytes().replace(b"say 1", b"say 7"))
    again = AnswerCache(tmp_path, "m" * 64)
    assert again.get(Key("p1", "s")) is None and len(again) == 2
    assert again.dropped == [f"{cache.path.name}:2: damaged, dropped"]
    again.close()


def test_two_evaluations_never_ask_the_same_model_at_once(tmp_path: Path) -> None:
    held = AnswerCache(tmp_path, "m" * 64)
    code = f"from pathlib import Path; from training.answer_cache import AnswerCache; AnswerCache(Path({str(tmp_path)!r}), 'm' * 64)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "another evaluation is asking" in done.stderr
    held.close()


# Remote models.


def test_the_same_prompt_is_asked_once_also_between_benchmarks(tmp_path: Path) -> None:
    server = AnsweringServer(lambda question: f"关于{question}，请就医。")
    model = server.file(tmp_path)
    one = questions(tmp_path, ["头痛", "咳嗽", "头痛", "发热"])
    two = questions(tmp_path, ["咳嗽", "腹泻"], "two")
    first, second = ask(model, tmp_path, one, two)
    assert sorted(server.asked) == sorted(["头痛", "咳嗽", "发热", "腹泻"])
    assert first.by["0"] == first.by["2"] == Kept("关于头痛，请就医。", "stop")
    assert [a.by for a in ask(model, tmp_path, one, two)] == [first.by, second.by]
    assert len(server.asked) == 4
    ask(model, tmp_path, one, seed=1)
    assert len(server.asked) == 7  # other settings are other answers
    server.close()


def test_failures_are_kept_as_failures_and_asked_again_on_request(tmp_path: Path) -> None:
    down = {"咳嗽": 400, "腹泻": 200}
    server = AnsweringServer(lambda q: down.get(q, 200) if down.get(q, 200) != 200 else "" if q == "腹泻" else "多休息。")  # fmt: skip
    model = server.file(tmp_path)
    one = questions(tmp_path, ["头痛", "咳嗽", "腹泻"])
    (found,) = ask(model, tmp_path, one)
    assert found.by["0"].is_answer and not found.by["1"].is_answer and not found.by["2"].is_answer
    assert found.failures == {"Refused": 2} and "empty answer" in found.by["2"].error
    asked_before = len(server.asked)
    ask(model, tmp_path, one)
    assert len(server.asked) == asked_before
    down.clear()
    (again,) = ask(model, tmp_path, one, retry=True)
    assert again.by["1"].text == "多休息。" and again.failures == {"Refused": 1}
    server.close()


def test_an_answer_cut_at_its_limit_is_no_answer(tmp_path: Path) -> None:
    server = AnsweringServer(lambda _: "头痛可能", finish="length")
    (found,) = ask(server.file(tmp_path), tmp_path, questions(tmp_path, ["头痛"]))
    assert found.failures == {"length": 1} and found.by["0"].text == "头痛可能"
    server.close()


@pytest.mark.parametrize(
    ("model", "say", "told"),
    [("other", "好", "answered as another model"), ("toy", 500, "the server failed")],
)
def test_a_model_that_only_fails_is_given_up_with_its_reason(
    model: str, say: str | int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huatuo.engines.remote.TRIES", 1)
    server = AnsweringServer(lambda _: say, model=model)
    one = questions(tmp_path, [f"问题{n}" for n in range(40)])
    with pytest.raises(Unavailable, match=told):
        ask(server.file(tmp_path), tmp_path, one, at_once=2)
    assert len(server.asked) < 15
    server.close()


# Local models.


def test_local_answers_are_the_engines_whatever_the_batch(tmp_path: Path) -> None:
    import asyncio

    from huatuo.config import Generation
    from huatuo.engines.local import LocalEngine
    from training.batched import LocalModel
    from training.generate import _ask

    config = find("nano-doctor").config
    assert config is not None
    greedy = Generation(temperature=0, max_new_tokens=40, context_tokens=640)
    one = read(BenchmarkConfig(name="q", file=str(QUESTIONS), limit=6), 0)
    talks = [asked(item) for item in one.items]
    model = LocalModel(config)
    together = model.answer(talks, greedy, 0)
    alone = [model.answer([talk], greedy, 0)[0] for talk in talks[:3]]
    assert together[:3] == alone and all(kept.is_answer for kept in together)
    engine = LocalEngine(config, ROOT)
    by_engine = [asyncio.run(_ask(engine, talk, 0, greedy)) for talk in talks[:3]]
    asyncio.run(engine.close())
    assert by_engine == alone
    drawn = greedy.model_copy(update={"temperature": 1.0})
    assert model.answer(talks, drawn, 5) == model.answer(talks, drawn, 5)
    assert model.answer(talks, drawn, 5) != model.answer(talks, drawn, 6)
    short = greedy.model_copy(update={"max_new_tokens": 2})
    assert {kept.kind for kept in model.answer(talks, short, 0)} == {"length"}
    long = (Message("user", "头痛" * 2000),)
    (failed,) = model.answer([long], greedy, 0)
    assert failed.kind == "TooLong" and not failed.text
    letters = model.letters([talks[0]], [{"A": "甲", "B": "乙"}])[0]
    assert letters.figures is not None and set(letters.figures) == {"A", "B"}
    assert all(value < 0 for value in letters.figures.values())
    assert letters.text == max(letters.figures, key=lambda key: letters.figures[key])  # type: ignore[index]
    model.close()


def test_a_branch_folder_is_a_contestant_of_its_own(tmp_path: Path) -> None:
    from huatuo.models.branch import save_branch
    from huatuo.models.trunk import load_trunk

    parent = ROOT / "huatuo/nano/doctor"
    trunk, _ = load_trunk(parent, 1)
    tensors = {n: t + 0.01 for n, t in trunk.branch_tensors(trunk.policy).items()}
    folder = ROOT / "data" / f"test-branch-{tmp_path.name}"
    save_branch(folder, tensors, kind="policy", blocks=1, parent=parent, template="huatuo-nano")
    try:
        found = find(f"moved={folder}")
    finally:
        import shutil

        shutil.rmtree(folder)
    base = find("nano-doctor")
    assert found.name == "moved" and found.sha256 != base.sha256
    assert found.config is not None and base.config is not None
    assert found.config.generation == base.config.generation
    assert found.weights.startswith("branch ")


# Contestants and questions that cannot be used.


@pytest.mark.parametrize(
    ("text", "told"),
    [("nobody", "nobody is no model"), ("gpt-4", "switched off"), ("x=nothing.toml", "nothing.toml")],
)  # fmt: skip
def test_an_unknown_contestant_is_named(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find(text)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['{"id": 1, "question": "a"}', '{"id": "1", "question": "b"}'], r"q.jsonl:2: id 1 again; first at q.jsonl:1"),
        (['{"id": 1, "frage": "a"}'], r"q.jsonl:1: no question"),
        (['{"id": 1, "question": "a"}', '{"id": 2, "question": ""}'], r"q.jsonl:2: question is empty"),
        (['{"id": 1, "question": "a"}', "{torn"], r"q.jsonl:2: not JSON"),
        (['{"question": "a"}'], r"q.jsonl:1: id is missing"),
        (['{"id": 1, "question": "a", "references": 3}'], r"q.jsonl:1: references"),
        (['{"id": 1, "question": "a", "references": ["b"]}', '{"id": 2, "question": "c"}'], r"q.jsonl:2: id 2 has no reference"),
        (['{"id": 1, "question": "a", "options": {"A": "x", "B": "y"}, "answer": "C"}'], r"q.jsonl:1: answer C names no option"),
        (['{"id": 1, "question": "a", "before": [{"role": "assistant", "text": "x"}]}'], r"q.jsonl:1: before"),
        (['{"id": 1, "question": "a", "options": {"A": "x", "B": "y"}, "answer": "A", "several": "no"}'], r"q.jsonl:1: several is neither"),
        ([], "no questions"),
    ],
)  # fmt: skip
def test_a_damaged_file_of_questions_is_named_with_its_line(
    lines: list[str], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(HuatuoError, match=told):
        read(BenchmarkConfig(name="q", file=str(path)), 0)


ROW = '{"id": 1, "question": "头痛怎么办"}\n'


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (gzip.compress(ROW.encode(), mtime=0), "q.jsonl:1: a gzip file; unpack it first"),
        (gzip.compress(ROW.encode(), mtime=0)[:20], "q.jsonl:1: a gzip file; unpack it first"),
        (b"PK\x03\x04" + bytes(30), "q.jsonl:1: a zip or Excel file"),
        (b"\xd0\xcf\x11\xe0" + bytes(30), "q.jsonl:1: an Excel file"),
        (ROW.encode("utf-16"), "q.jsonl:1: UTF-16; save the file as UTF-8"),
        (ROW.encode("gbk"), "q.jsonl:1: not UTF-8; save the file as UTF-8"),
        (ROW.encode() + ROW.encode()[:-9], "q.jsonl:2: not JSON"),
        (b'{"id": NaN, "question": "a"}', "q.jsonl:1: id is float, not text"),
        (b'{"id": 1' + b"0" * 5000 + b', "question": "a"}', "q.jsonl:1: not JSON: a number of too many digits"),
        (b'{"id": 1, "question": "a\0"}', "q.jsonl:1: not JSON"),
    ],
    ids=("gzip", "half a gzip", "zip", "excel", "utf-16", "gbk", "half a line", "nan", "long number", "nul"),
)  # fmt: skip
def test_a_file_that_is_no_text_says_what_it_is(raw: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(raw)
    with pytest.raises(BadData) as caught:
        read(BenchmarkConfig(name="q", file=str(tmp_path / "q.jsonl")), 0)
    assert str(caught.value).startswith(told)


def test_marks_and_line_ends_of_other_systems_and_ids_as_numbers_change_nothing(
    tmp_path: Path,
) -> None:
    rows = ROW + '{"id": 2, "question": "咳嗽"}\n'
    found = []
    for raw in (rows, "\ufeff" + rows, rows.replace("\n", "\r\n"), rows.replace("1,", '"1",')):
        (tmp_path / "q.jsonl").write_text(raw, encoding="utf-8", newline="")
        found.append(read(BenchmarkConfig(name="q", file=str(tmp_path / "q.jsonl")), 0).items)
    assert all(items == found[0] for items in found) and [i.id for i in found[0]] == ["1", "2"]


def test_a_published_file_with_a_wrong_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "question.csv").write_text("question_id,content\n1,头痛\n", "utf-8")
    (tmp_path / "answer.csv").write_text("ans_id,question_id,text\n10,1,休息\n", "utf-8")
    candidates = "question_id,ans_id,cnt,label\n1,10,0,1\n"
    (tmp_path / "test_candidates.txt").write_text(candidates, "utf-8")
    with pytest.raises(BadData, match=r"answer\.csv:1: the header lacks content"):
        read(BenchmarkConfig(name="cmedqa2", folder=str(tmp_path)), 0)


def test_a_drawn_part_is_the_same_for_the_same_seed_and_in_the_files_order(tmp_path: Path) -> None:
    whole = questions(tmp_path, [f"问{n}" for n in range(50)])
    part = read(BenchmarkConfig(name="own", file=str(tmp_path / "own.jsonl"), limit=7), 3)
    again = read(BenchmarkConfig(name="own", file=str(tmp_path / "own.jsonl"), limit=7), 3)
    other = read(BenchmarkConfig(name="own", file=str(tmp_path / "own.jsonl"), limit=7), 4)
    ids = [int(item.id) for item in part.items]
    assert part == again and part.items != other.items
    assert len(ids) == 7 and ids == sorted(ids) and part.whole == len(whole.items) == 50


def test_ready_answers_must_be_about_the_questions(tmp_path: Path) -> None:
    one = questions(tmp_path, ["头痛", "咳嗽"])
    rows = tmp_path / "a.jsonl"
    rows.write_text('{"id": "0", "answer": ""}\n', "utf-8")
    (found,) = ask(f"them={rows}", tmp_path, one)
    assert found.by["0"] == Kept("", "stop") and found.failures == {"Missing": 1}
    rows.write_text('{"id": "x", "answer": "a"}\n', "utf-8")
    with pytest.raises(NoData, match="no id in common"):
        ask(f"them={rows}", tmp_path, one)
