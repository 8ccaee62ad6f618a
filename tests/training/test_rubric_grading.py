"""Rubric grading: planted grades over a real server, scores by hand, the grader against physicians, damaged files."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from huatuo.errors import NoData
from tests.training.openai_server import OpenAiServer, finish
from tests.training.test_judge import serving
from training.data import BadData
from training.rubric_cases import Criterion, Label, RubricCase, read_cases, read_labels
from training.rubric_grading import main, read
from training.rubric_scores import against_physicians, score, summary, worst_of

__all__ = ["serving"]
CASES = [
    {"id": "q0", "prompt": "宝宝发烧三天", "tags": ["theme:emergency"], "criteria": [
        {"text": "提到急诊", "points": 8, "tags": ["axis:accuracy"]},
        {"text": "问到年龄", "points": 2, "tags": ["axis:asking"]},
        {"text": "建议用成人药", "points": -6, "tags": ["axis:accuracy"]}]},
    {"prompt_id": "q1", "prompt": [{"role": "user", "content": "头痛"},
                                   {"role": "assistant", "content": "多久了？"},
                                   {"role": "user", "content": "两天"}],
     "example_tags": ["theme:vague"], "rubrics": [
        {"criterion": "提到休息", "points": 5, "tags": ["axis:accuracy"]},
        {"criterion": "态度生硬", "points": -5, "tags": ["axis:warmth"]}]},
]  # fmt: skip
ANSWERS = {
    "q0": ("请去急诊。成人药可用。", "请去急诊，宝宝年龄多大？"),
    "q1": ("休息。", "自己看着办，生硬"),
}
MARKS = {"提到急诊": "急诊", "问到年龄": "年龄", "建议用成人药": "成人药可用", "提到休息": "休息", "态度生硬": "生硬"}  # fmt: skip


def planted(body: dict[str, Any], _: int = 0) -> str:
    prompt = body["messages"][0]["content"]
    criterion = re.search(r"<<<评分标准\n(.*?)\n评分标准>>>", prompt, re.S)
    dialogue = re.search(r"<<<对话\n(.*?)\n对话>>>", prompt, re.S)
    assert criterion and dialogue
    answer = dialogue[1].rsplit("助手：", 1)[1]
    return json.dumps({"explanation": "因为。", "criteria_met": MARKS[criterion[1]] in answer})


def prepare(folder: Path, server: OpenAiServer, samples: int = 2, **more: Any) -> list[str]:
    settings = {"base_url": server.url, "model": "m", "cache": str(folder / "cache"), **more}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    (folder / "g.toml").write_text(text, encoding="utf-8")
    lines(folder / "cases.jsonl", CASES)
    names = []
    for n in range(samples):
        names.append(str(folder / f"a{n}.jsonl"))
        lines(Path(names[-1]), [{"id": id, "answer": said[n]} for id, said in ANSWERS.items()])
    return [str(folder / "g.toml"), "--cases", str(folder / "cases.jsonl"), "--answers", *names,
            "--out", str(folder / "out" / "r.jsonl")]  # fmt: skip


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def test_planted_grades_give_the_scores_computed_by_hand(serving: Any, tmp_path: Path) -> None:
    server = serving(planted)
    labels = [
        {"id": "q0", "criterion": n, "rater": who, "met": met}
        for who, said in (("d1", (True, False, True)), ("d2", (True, True, True)))
        for n, met in enumerate(said, 1)
    ]
    arguments = prepare(tmp_path, server)
    arguments += ["--labels", str(lines(tmp_path / "labels.jsonl", labels))]
    assert main(arguments) == 0
    rows = [json.loads(r) for r in (tmp_path / "out" / "r.jsonl").read_text("utf-8").splitlines()]
    # q0: (8 - 6) / 10 and (8 + 2) / 10; q1: 5 / 5 and -5 / 5
    assert [(r["id"], r["sample"], r["score"]) for r in rows] == [
        ("q0", 1, 0.2), ("q1", 1, 1.0), ("q0", 2, 1.0), ("q1", 2, -1.0),
    ]  # fmt: skip
    assert [one["met"] for one in rows[0]["criteria"]] == [True, False, True]
    found = json.loads((tmp_path / "out" / "r.json").read_text("utf-8"))
    assert found["score"]["value"] == pytest.approx((0.6 + 0.0) / 2)
    assert found["tags"]["axis:accuracy"]["value"] == pytest.approx(((2 / 8 + 1) / 2 + 0.5) / 2)
    assert found["tags"]["axis:asking"]["value"] == 0.5 and "axis:warmth" not in found["tags"]
    assert found["tags"]["theme:vague"]["value"] == 0.0
    assert found["worst_at"]["1"]["value"] == pytest.approx(0.3)
    assert found["worst_at"]["2"]["value"] == 0.0  # (0.2 - 1) / 2, cut
    assert found["criteria"] == {
        "good_met": 4, "good": 6, "faults_met": 2, "faults": 4, "without_grade": 0,
    }  # fmt: skip
    meta = found["physicians"]["whole"]
    # grades T F T against d1 T F T and d2 T T T: both met 4, d2 alone 1, neither 1
    assert meta["grader"]["value"] == pytest.approx((8 / 9 + 2 / 3) / 2)
    assert meta["grader"]["agreement"] == pytest.approx(5 / 6)
    assert meta["physicians"]["value"] == pytest.approx((4 * 2 / (4 * 2 + 2) + 0) / 2)
    assert len(server.bodies) == 2 * 5
    assert server.bodies[0]["response_format"]["json_schema"]["schema"]["required"]
    assert main(arguments) == 0 and len(server.bodies) == 10
    page = (tmp_path / "out" / "r.html").read_text("utf-8")
    assert (
        "worst of 2" in page and "The grader against physicians" in page and page.count("<svg") == 2
    )


def test_a_batch_gives_the_same_grades_at_half_the_price_and_asks_equal_answers_once(
    serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(planted)
    prices = {"price_in": 100.0, "price_out": 100.0, "confirm_above": 0.25}
    arguments = [*prepare(tmp_path, server, **prices), "--every-s", "0.02"]
    second = tmp_path / "a1.jsonl"  # its answer to q1 is the first file's: two criteria less to ask
    lines(second, [{"id": id, "answer": ANSWERS[id][id == "q0"]} for id in ANSWERS])
    assert main(arguments) == 2 and "is more than confirm_above" in capsys.readouterr().err
    assert main([*arguments, "--in-batches", "--estimate"]) == 0 and not server.created
    waiting = [True]

    def expires(there: OpenAiServer, batch: dict[str, Any]) -> None:
        if waiting:
            batch["status"] = "in_progress"
        else:
            finish(there, batch, "expired", only=5)
            waiting.append(True)  # the rest makes the next batch

    server.on_batch = expires
    assert main([*arguments, "--in-batches", "--no-wait"]) == 4
    waiting.clear()
    assert main([*arguments, "--in-batches", "--no-wait"]) == 4
    server.on_batch = finish
    assert main([*arguments, "--in-batches"]) == 0
    assert server.created == 2 and len(server.bodies) == 5 + 3
    kept = (tmp_path / "out" / "r.jsonl").read_bytes()
    rows = [json.loads(row) for row in kept.splitlines()]
    assert [row["score"] for row in rows] == [0.2, 1.0, 1.0, 1.0]
    found = json.loads((tmp_path / "out" / "r.json").read_text("utf-8"))
    assert found["spent"]["replies"] == found["spent"]["in_batches"] > 0
    assert main(arguments) == 0 and len(server.bodies) == 8
    assert (tmp_path / "out" / "r.jsonl").read_bytes() == kept


@pytest.mark.parametrize(
    "reply",
    ["It is met.", '{"criteria_met": true}', '{"explanation": "", "criteria_met": "yes"}', "[]", "",
     '{"explanation": "", "criteria_met": true', '{"criteria_met": true, "criteria_met": false, "explanation": ""}'],
)  # fmt: skip
def test_what_cannot_be_read_leaves_the_case_without_a_score_and_is_never_not_met(
    reply: str, serving: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError):
        read(reply)
    server = serving(lambda body, _: reply if "问到年龄" in body["messages"][0]["content"] else planted(body))  # fmt: skip
    assert main(prepare(tmp_path, server, samples=1)) == 0
    rows = [json.loads(r) for r in (tmp_path / "out" / "r.jsonl").read_text("utf-8").splitlines()]
    assert rows[0]["score"] is None and rows[0]["error"].startswith("criterion 2: 3 tries")
    assert rows[0]["criteria"][1]["met"] is None and rows[1]["score"] == 1.0
    found = json.loads((tmp_path / "out" / "r.json").read_text("utf-8"))
    assert (found["not_graded"], found["score"]["n"], found["score"]["value"]) == (1, 1, 1.0)
    assert len(server.bodies) == 5 + 2


def test_a_cap_stops_it_and_the_next_run_goes_on(serving: Any, tmp_path: Path, capsys: Any) -> None:
    server = serving(planted)
    few = prepare(tmp_path, server, max_calls=4, workers=1)
    assert main(few) == 2 and "will stop it on its way" in capsys.readouterr().err
    assert main([*few, "--yes"]) == 3
    assert "max_calls" in (said := capsys.readouterr().err) and "1 of 4 answers are graded" in said
    dear = prepare(tmp_path, server, price_in=9e3, price_out=9e3)
    assert main(dear) == 2 and "confirm_above" in capsys.readouterr().err
    assert main([*dear, "--yes"]) == 0 and len(server.bodies) == 10


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "not JSON"),
        ({"id": "x", "prompt": "p"}, "criteria is no list"),
        ({"id": "x", "prompt": "p", "criteria": []}, "criteria is no list"),
        ({"id": "x", "prompt": "p", "criteria": [{"text": "t", "points": "5"}]}, "criterion 1: points is a number"),
        ({"id": "x", "prompt": "p", "criteria": [{"text": "t", "points": True}]}, "criterion 1: points is a number"),
        ({"id": "x", "prompt": "p", "criteria": [{"text": "t", "points": 0}]}, "criterion 1: points is a number"),
        ({"id": "x", "prompt": "p", "criteria": [{"text": " ", "points": 1}]}, "criterion 1: text is empty"),
        ({"id": "x", "prompt": "p", "criteria": [{"text": "t", "points": -1}]}, "no criterion gives points"),
        ({"id": "x", "prompt": "p", "criteria": [{"text": "t", "points": 1, "tags": "a"}]}, "tags is no list"),
        ({"id": "x", "prompt": "", "criteria": [{"text": "t", "points": 1}]}, "prompt is neither"),
        ({"id": "x", "prompt": [{"role": "doctor"}], "criteria": [{"text": "t", "points": 1}]}, "message 1: role"),
        ({"id": "x", "prompt": [{"role": "assistant", "content": "a"}], "criteria": [{"text": "t", "points": 1}]}, "does not end"),
        ({"id": "q0", "prompt": "p", "criteria": [{"text": "t", "points": 1}]}, "id q0 again; first at c.jsonl:1"),
        ({"prompt": "p", "criteria": [{"text": "t", "points": 1}]}, "prompt_id is missing"),
    ],
)  # fmt: skip
def test_a_damaged_case_names_its_line(row: Any, told: str, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    text = row if isinstance(row, str) else json.dumps(row)
    file.write_text(json.dumps(CASES[0]) + "\n" + text + "\n", encoding="utf-8")
    with pytest.raises(BadData, match=rf"c\.jsonl:2: .*{re.escape(told)}"):
        read_cases(file)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "zz", "criterion": 1, "rater": "d", "met": True}, "no case zz"),
        ({"id": "q0", "criterion": 4, "rater": "d", "met": True}, "from 1 to 3"),
        ({"id": "q0", "criterion": True, "rater": "d", "met": True}, "from 1 to 3"),
        ({"id": "q0", "criterion": 1, "rater": "d", "met": 1}, "neither true nor false"),
        ({"id": "q0", "criterion": 1, "met": True}, "rater is missing"),
        ({"id": "q0", "criterion": 1, "rater": "d", "met": True, "sample": 2}, "from 1 to 1"),
        (
            {"id": "q0", "criterion": 2, "rater": "e", "met": True},
            "labels the same criterion again",
        ),
    ],
)
def test_a_damaged_label_names_its_line(row: Any, told: str, tmp_path: Path) -> None:
    cases = read_cases(lines(tmp_path / "c.jsonl", CASES))
    good = {"id": "q0", "criterion": 2, "rater": "e", "met": True}
    with pytest.raises(BadData, match=rf"l\.jsonl:2: .*{re.escape(told)}"):
        read_labels(lines(tmp_path / "l.jsonl", [good, row]), cases, 1)


def test_no_cases_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoData, match="holds no cases"):
        read_cases(lines(tmp_path / "c.jsonl", []))


def test_the_worst_of_k_is_the_mean_over_all_draws_of_k() -> None:
    scores = [0.3, -0.2, 0.9, 0.4, 0.4]
    for k in range(1, 6):
        draws: Iterator[Any] = itertools.combinations(scores, k)
        lowest = [min(draw) for draw in draws]
        assert worst_of(scores, k) == pytest.approx(sum(lowest) / len(lowest))
    with pytest.raises(ValueError):
        worst_of(scores, 6)


def test_no_labels_on_graded_answers_give_no_figure_and_a_lone_physician_no_ceiling() -> None:
    case = RubricCase("c", (("user", "?"),), (Criterion("t", 1.0), Criterion("f", -1.0)))
    labels = [Label("c", 0, "d", True), Label("c", 1, "d", False)]
    found = against_physicians({"c": case}, {("c", 1): [True, False]}, labels)["whole"]
    assert found["grader"]["value"] == 1.0 and found["physicians"] is None
    assert (
        against_physicians({"c": case}, {("c", 1): [None, None]}, labels)["whole"]["grader"] is None
    )
    assert (
        score(case.criteria, [True, None]) is None and score(case.criteria, [False, True]) == -1.0
    )
    assert summary({"c": case}, {("c", 1): [False, True]})["score"]["value"] == 0.0  # cut at 0
