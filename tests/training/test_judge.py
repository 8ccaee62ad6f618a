"""The stronger judge over a real server: planted verdicts in both orders, veto, strict reading, caps, kill and resume."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from huatuo.errors import ConfigError
from huatuo.toml import ROOT
from reviews.protocol import CRITERIA, SAFETY_KINDS
from tests.patience import LONG_S
from tests.training.openai_server import OpenAiServer, Say
from training import endpoint, judge_form
from training.answer_files import Said
from training.data import BadData
from training.endpoint import Question
from training.judge import Judge, JudgeConfig, Pair, main, run, summary
from training.judge_rows import both, read_rows, vetoed
from training.judge_summary import controlled

KEYS = tuple(CRITERIA)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OpenAiServer]]:
    monkeypatch.setattr(endpoint, "WAIT_S", 0.01)
    started: list[OpenAiServer] = []

    def start(say: Say, **more: Any) -> OpenAiServer:
        started.append(OpenAiServer(say, **more))
        return started[-1]

    yield start
    for server in started:
        server.close()


def texts(body: dict[str, Any]) -> tuple[str, str]:
    """Both answers as the judge was shown them."""
    prompt = body["messages"][0]["content"]
    one, two = (re.search(rf"<<<回答{n}\n(.*?)\n回答{n}>>>", prompt, re.S) for n in "12")
    assert one and two
    return one[1], two[1]


def form(winner: str, **more: Any) -> str:
    row: dict[str, Any] = {
        "safety": [], "criteria": dict.fromkeys(KEYS, "tie"),
        "score_1": 6, "score_2": 6, "reason": "r", "winner": winner,
    }  # fmt: skip
    return json.dumps(row | more, ensure_ascii=False)


def planted(body: dict[str, Any], _: int = 0) -> str:
    """Judges by marks in the texts: 好N is quality N, 毒 a dangerous advice, 暖 a warm one."""
    shown = texts(body)
    quality = [int(re.search(r"好(\d)", text)[1]) for text in shown]  # type: ignore[index]
    warm = ["暖" in text for text in shown]
    place = "1" if quality[0] > quality[1] else "2" if quality[0] < quality[1] else "tie"
    criteria = dict.fromkeys(KEYS, "n/a") | {
        "diagnosis": place,
        "warmth": "tie" if warm[0] == warm[1] else "1" if warm[0] else "2",
    }
    safety = [
        {"answer": str(n), "kind": "dangerous_advice", "quote": "毒"}
        for n, text in enumerate(shown, 1)
        if "毒" in text
    ]
    return form(place, criteria=criteria, safety=safety, score_1=quality[0], score_2=quality[1])


CASES = [  # (a, b, winner, preferred before the veto, diagnosis, warmth)
    ("好8", "好3", "a", "a", "a", "tie"),
    ("好2", "好9", "b", "b", "b", "tie"),
    ("好5", "好5 ", "tie", "tie", "tie", "tie"),
    ("好9 毒", "好3", "b", "a", "a", "tie"),
    ("好9 毒", "好3 毒", "tie", "a", "a", "tie"),
    ("好2 毒", "好5 暖", "b", "b", "b", "b"),
    ("好5 毒", "好5 暖", "tie", "tie", "tie", "b"),
    ("好7 暖", "好6", "a", "a", "a", "a"),
]


def files(folder: Path, rows: list[tuple[str, str]] | None = None) -> list[str]:
    """Answer files of two models in every second intent and department."""
    rows = rows if rows is not None else [(a, b) for a, b, *_ in CASES]
    for place, name in enumerate(("ours", "theirs")):
        lines = [
            {"id": f"q{i}", "question": f"问题{i}", "answer": pair[place],
             "intent": f"意图{i % 3}", "department": f"科{i % 2}"}
            for i, pair in enumerate(rows)
        ]  # fmt: skip
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return ["--answers", str(folder / "ours.jsonl"), str(folder / "theirs.jsonl")]


def command(folder: Path, server: OpenAiServer, rows: Any = None, **more: Any) -> list[str]:
    settings = {"base_url": server.url, "model": "gpt-4", "cache": str(folder / "cache"), **more}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    (folder / "judge.toml").write_text(text, encoding="utf-8")
    out = ["--out", str(folder / "out" / "v.jsonl"), "--no-report"]
    return [str(folder / "judge.toml"), *files(folder, rows), *out]


def written(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = read_rows(folder / "out" / "v.jsonl")
    return rows, json.loads((folder / "out" / "v.json").read_text(encoding="utf-8"))


def test_planted_verdicts_come_back_in_both_orders_with_criteria_and_veto(
    serving: Any, tmp_path: Path
) -> None:
    server = serving(planted)
    assert main(command(tmp_path, server)[:-1]) == 0
    rows, found = written(tmp_path)
    told = [
        (r["winner"], r["preferred"], r["criteria"]["diagnosis"], r["criteria"]["warmth"])
        for r in rows
    ]
    assert told == [case[2:] for case in CASES]
    assert len(server.bodies) == 2 * len(CASES)
    shown = {texts(body) for body in server.bodies}
    assert all((b, a) in shown for a, b in shown)
    assert not any(row["order_flip"] or row["error"] for row in rows)
    assert [row["id"] for row in rows] == [f"q{i}" for i in range(len(CASES))]
    first = rows[0]
    assert (first["model_a"], first["model_b"]) == ("ours", "theirs")
    assert first["scores"] == {"a": 8, "b": 3} and first["criteria"]["asking"] is None
    assert (first["intent"], first["department"]) == ("意图0", "科0")
    assert rows[3]["safety"] == [
        {"answer": "a", "kind": "dangerous_advice", "quote": "毒", "orders": [1, 2]}
    ]
    assert (found["win"], found["tie"], found["loss"], found["errors"]) == (2, 3, 3, 0)
    assert found["share"]["value"] == pytest.approx((2 + 3 / 2) / 8)
    assert found["flips"]["count"] == 0 and found["flips"]["first_shown"]["share"] == 0.5
    assert found["veto"]["flagged_a"]["count"] == 4 and found["veto"]["changed"] == 2
    assert found["veto"]["kinds"] == {"dangerous_advice": {"a": 4, "b": 1}}
    third = [row for i, row in enumerate(CASES) if i % 3 == 0]
    assert found["by_intent"]["意图0"]["win"] == sum(row[2] == "a" for row in third)
    assert set(found["by_department"]) == {"科0", "科1"}
    assert (
        found["criteria"]["diagnosis"]["win"] == 4 and found["criteria"]["asking"]["share"] is None
    )
    page = (tmp_path / "out" / "v.html").read_text(encoding="utf-8")
    assert (
        "dangerous advice" in page
        and page.count("<svg") >= 4
        and "http" not in page.split("<h1>")[1]
    )


def test_the_ratio_of_a_group_is_that_of_mean_scores(serving: Any, tmp_path: Path) -> None:
    assert (
        main(command(tmp_path, serving(planted), [("好8", "好4"), ("好4", "好4 "), ("好6", "好3")]))
        == 0
    )
    _, found = written(tmp_path)
    assert found["ratio"]["value"] == pytest.approx((4 + 4 + 3) / (8 + 4 + 6))
    assert found["by_department"]["科0"]["ratio"]["value"] == pytest.approx(7 / 14)


def test_a_judge_that_always_prefers_the_first_gives_only_ties_and_all_flips(
    serving: Any, tmp_path: Path
) -> None:
    say = lambda *_: form("1", criteria=dict.fromkeys(KEYS, "1"), score_1=9, score_2=2)  # noqa: E731
    assert main(command(tmp_path, serving(say))) == 0
    rows, found = written(tmp_path)
    assert {row["winner"] for row in rows} == {"tie"} and all(row["order_flip"] for row in rows)
    assert found["flips"]["count"] == found["tie"] == len(CASES)
    assert found["flips"]["first_shown"]["share"] == 1.0
    assert all(one["share"] == 1.0 for one in found["flips"]["by_criterion"].values())
    assert found["ratio"]["value"] == 1.0 and found["share"]["value"] == 0.5


def test_swapping_the_models_mirrors_every_verdict(serving: Any, tmp_path: Path) -> None:
    server = serving(planted)
    arguments = command(tmp_path, server)
    assert main(arguments) == 0
    rows, found = written(tmp_path)
    at = arguments.index("--answers")
    arguments[at + 1], arguments[at + 2] = arguments[at + 2], arguments[at + 1]
    assert main(arguments) == 0
    mirrored, turned = written(tmp_path)
    swap = {"a": "b", "b": "a", "tie": "tie", None: None}
    assert [row["winner"] for row in mirrored] == [swap[row["winner"]] for row in rows]
    assert [{k: swap[v] for k, v in row["criteria"].items()} for row in mirrored] == [
        row["criteria"] for row in rows
    ]
    assert turned["share"]["value"] == pytest.approx(1 - found["share"]["value"])
    assert len(server.bodies) == 2 * len(CASES)  # the same prompts, so nothing is asked again


def test_the_orders_are_summed_as_the_authors_sum_them() -> None:
    table = {
        ("a", "a"): "a", ("a", "tie"): "a", ("tie", "a"): "a", ("tie", "tie"): "tie",
        ("a", "b"): "tie", ("b", "a"): "tie", ("b", "tie"): "b", ("b", "b"): "b",
    }  # fmt: skip
    assert {pair: both(*pair) for pair in table} == table  # type: ignore[arg-type]


def test_a_flagged_answer_never_wins() -> None:
    for winner in ("a", "b", "tie"):
        for flagged in (set(), {"a"}, {"b"}, {"a", "b"}):
            found = vetoed(winner, flagged)  # type: ignore[arg-type]
            assert found not in flagged and (flagged or found == winner)


# What the server may say instead of the form.

UNREADABLE = {
    "prose": "I think the first answer is better.",
    "prose before the form": "Here it is: " + form("1"),
    "prose after the form": form("1") + "\nI hope this helps.",
    "truncated JSON": form("1")[:-9],
    "a key too many": form("1", confidence=1),
    "a key too few": form("1").replace('"reason": "r", ', ""),
    "a key twice": form("1").replace('"winner": "1"', '"winner": "2", "winner": "1"'),
    "another winner": form("a"),
    "a number as winner": form("1").replace('"winner": "1"', '"winner": 1'),
    "a score of 11": form("1", score_1=11),
    "a score of true": form("1", score_1=True),
    "a criterion missing": form("1", criteria=dict.fromkeys(KEYS[1:], "1")),
    "a criterion of another value": form("1", criteria=dict.fromkeys(KEYS, "first")),
    "an unknown fault": form("1", safety=[{"answer": "1", "kind": "rude", "quote": ""}]),
    "safety as text": form("1", safety="none"),
    "a list": "[1]",
    "nothing": "",
    "very deep": "[" * 9000,
}


@pytest.mark.parametrize("reply", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_not_the_form_is_an_error_row_after_three_tries(
    reply: str, serving: Any, tmp_path: Path
) -> None:
    server = serving(lambda body, _: reply if texts(body)[0] == "好1" else planted(body))
    arguments = command(tmp_path, server, [("好1", "好2"), ("好8", "好3")])
    assert main(arguments) == 0
    rows, found = written(tmp_path)
    assert rows[0]["winner"] is None and rows[0]["order_flip"] is None and rows[0]["scores"] is None
    assert rows[0]["error"].startswith("order 1: 3 tries, the reply is not the form")
    assert rows[1]["winner"] == "a" and rows[1]["error"] is None
    assert (found["errors"], found["judged"], found["cases"]) == (1, 1, 2)
    assert len(server.bodies) == 3 + 3
    assert main(arguments) == 0 and len(server.bodies) == 6  # the useless replies are kept too


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}\n```\n", "\n {} \n"])
def test_one_code_fence_or_space_around_the_form_is_read(fence: str) -> None:
    assert judge_form.read(fence.replace("{}", form("2")), KEYS).winner == "2"


def test_a_reply_that_broke_off_is_asked_again_and_is_not_kept(
    serving: Any, tmp_path: Path
) -> None:
    def say(body: dict[str, Any], number: int) -> Any:
        cut = {"text": form("1"), "finish_reason": "length"}
        return cut if number == 1 else planted(body)

    server = serving(say)
    assert main(command(tmp_path, server, [("好1", "好2")], workers=1)) == 0
    assert written(tmp_path)[0][0]["winner"] == "b" and len(server.bodies) == 3
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 2


def test_a_judge_that_can_judge_nothing_writes_no_verdicts(
    serving: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, serving(lambda *_: "both fine"))) == 2
    assert "no case could be judged" in capsys.readouterr().err
    assert not (tmp_path / "out" / "v.jsonl").exists()


def test_the_schema_is_sent_and_a_server_that_refuses_it_is_asked_without(
    serving: Any, tmp_path: Path
) -> None:
    server = serving(planted)
    assert main(command(tmp_path, server, [("好1", "好2")])) == 0
    sent = server.bodies[0]["response_format"]
    assert sent["type"] == "json_schema" and sent["json_schema"]["strict"] is True
    schema = sent["json_schema"]["schema"]
    assert schema["properties"]["criteria"]["required"] == list(KEYS)
    kinds = schema["properties"]["safety"]["items"]["properties"]["kind"]["enum"]
    assert kinds == list(SAFETY_KINDS)

    old = serving(lambda body, _: 400 if "response_format" in body else planted(body))
    there = tmp_path / "old"
    there.mkdir()
    assert main(command(there, old, workers=1)) == 0
    refused = ["response_format" in body for body in old.bodies]
    assert refused == [True] + [False] * (2 * len(CASES))  # asked once with it, never again
    assert [row["winner"] for row in written(there)[0]] == [case[2] for case in CASES]


def test_one_prompt_that_the_server_refuses_costs_one_case_only(
    serving: Any, tmp_path: Path
) -> None:
    server = serving(lambda body, _: 413 if "好8" in texts(body)[0] else planted(body))
    assert main(command(tmp_path, server)) == 0
    rows, _ = written(tmp_path)
    assert [row["id"] for row in rows if row["error"]] == ["q0"]
    assert "refused the request" in rows[0]["error"]


@pytest.mark.parametrize(
    ("status", "calls", "told"),
    [(429, 3, "overloaded"), (500, 3, "the server failed"), (401, 1, "check model and key")],
)
def test_a_failing_server_stops_the_run_and_what_was_judged_stays(
    status: int, calls: int, told: str, serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(lambda body, number: status if number > 4 else planted(body))
    arguments = command(tmp_path, server, workers=1)
    assert main(arguments) == 2
    assert told in capsys.readouterr().err and len(server.bodies) == 4 + calls
    part = tmp_path / "out" / "v.jsonl.partial"
    assert [row["winner"] for row in read_rows(part)] == ["a", "b"]
    assert not (tmp_path / "out" / "v.jsonl").exists()
    server.say = planted
    assert main(arguments) == 0 and not part.exists()
    assert len(server.bodies) == 4 + calls + 2 * len(CASES) - 4


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_recovers_is_asked_again(status: int, serving: Any, tmp_path: Path) -> None:
    server = serving(lambda body, number: status if number in (2, 3) else planted(body))
    assert main(command(tmp_path, server, workers=1)) == 0
    assert len(server.bodies) == 2 * len(CASES) + 2


def test_another_models_verdicts_are_refused(serving: Any, tmp_path: Path, capsys: Any) -> None:
    server = serving(lambda body, _: {"text": planted(body), "model": "gpt-3.5-turbo"})
    assert main(command(tmp_path, server, workers=1)) == 2
    assert "answered for the model 'gpt-3.5-turbo'" in capsys.readouterr().err
    assert len(server.bodies) == 1 and not list((tmp_path / "cache").rglob("*.json"))
    assert main(command(tmp_path, server, answers_as="gpt-3.5-turbo")) == 0


# What it costs.

PRICES = {"price_in": 100.0, "price_out": 100.0, "max_tokens": 100}
"""A call of 1,000 and 200 tokens costs 0.12."""


@pytest.mark.parametrize(
    ("cap", "judged"),
    [({"max_calls": 7}, 3), ({"max_total_tokens": 7000}, 2), ({"max_cost": 0.7}, 2)],
    ids=["calls", "tokens", "money"],
)
def test_a_cap_stops_the_run_on_its_way_and_what_was_judged_stays(
    cap: dict[str, Any], judged: int, serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(planted)
    arguments = command(tmp_path, server, workers=1, **PRICES, **cap)
    assert main(arguments) == 2 and not server.bodies
    assert "will stop it on its way" in (said := capsys.readouterr().err) and "--yes" in said
    assert main([*arguments, "--yes"]) == 3
    key = next(iter(cap))
    assert f"{key}: " in (said := capsys.readouterr().err) and f"{judged} of 8 cases" in said
    assert len(read_rows(tmp_path / "out" / "v.jsonl.partial")) == judged
    tokens = 1200 * len(server.bodies)
    assert tokens <= cap.get("max_total_tokens", tokens) and len(server.bodies) <= 7
    assert 0.12 * len(server.bodies) <= cap.get("max_cost", 9)
    asked = len(server.bodies)
    free = command(tmp_path, server, **PRICES)
    assert main([*free, "--yes"]) == 0 and len(server.bodies) == 2 * len(CASES)
    assert f"this run: {2 * len(CASES) - asked} calls, " in capsys.readouterr().out
    spent = written(tmp_path)[1]["spent"]
    assert (spent["replies"], spent["cost"]) == (2 * len(CASES), pytest.approx(0.12 * 16))


def test_the_bill_is_the_servers_and_without_one_it_is_estimated(
    serving: Any, tmp_path: Path
) -> None:
    assert main([*command(tmp_path, serving(planted), **PRICES), "--yes"]) == 0
    spent = written(tmp_path)[1]["spent"]
    assert spent == {
        "replies": 16, "in_batches": 0, "tokens_in": 16000, "tokens_out": 3200,
        "replies_without_usage": 0, "cost": pytest.approx(1.92),
    }  # fmt: skip
    silent = tmp_path / "silent"
    silent.mkdir()
    assert main([*command(silent, serving(planted, usage=None), **PRICES), "--yes"]) == 0
    spent = written(silent)[1]["spent"]
    assert spent["replies_without_usage"] == 16 and spent["tokens_out"] == 16 * 100
    assert spent["tokens_in"] > 16 * 300


def test_a_dear_run_asks_for_yes_and_an_estimate_asks_nothing(
    serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(planted)
    arguments = command(tmp_path, server, **PRICES)
    assert main([*arguments, "--estimate"]) == 0
    assert "8 cases: 16 calls, 48 at most" in capsys.readouterr().out
    assert main(arguments) == 2 and not server.bodies
    assert "is more than confirm_above, 1.00; say --yes" in capsys.readouterr().err
    assert main([*arguments, "--confirm-above", "1e6"]) == 0  # every key is a flag
    assert main([*arguments, "--estimate"]) == 0
    assert "8 cases: 0 calls, 0 at most" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"max_cost": 1.0}, "max_cost: needs price_in and price_out"),
        ({"criteria": ["diagnosis", "charm"]}, "criteria: charm is not known"),
        ({"criteria": ["warmth", "warmth"]}, "criteria: one stands there twice"),
        ({"criteria": []}, "criteria"),
        ({"temprature": 0.0}, "did you mean temperature"),
        ({"base_url": "http://example.org/v1"}, "base_url: must be https"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_is_asked(
    more: dict[str, Any], told: str, serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(planted)
    assert main(command(tmp_path, server, **more)) == 2
    assert told in capsys.readouterr().err and not server.bodies


# Texts.


def config(server: OpenAiServer, **more: Any) -> JudgeConfig:
    return JudgeConfig(base_url=server.url, model="gpt-4", **more)


def test_whole_consultations_are_judged_without_a_question(serving: Any, tmp_path: Path) -> None:
    judge = Judge(config(serving(planted)), ("a", "b"), tmp_path)
    talk = Said("c", "多久？\n去医院。", turns=(("头痛", "多久？"), ("三天", "去医院。")))
    there, back = judge.questions(Pair(talk, Said("c", "不知道。", turns=(("头痛", "不知道。"),))))
    assert (
        "<<<问诊1\n患者：头痛\n助手：多久？\n患者：三天\n助手：去医院。\n问诊1>>>" in there.prompt
    )
    assert "问诊2\n患者：头痛\n助手：多久？" in back.prompt and "患者的问题" not in there.prompt
    with pytest.raises(BadData, match="against a single answer"):
        judge.questions(Pair(talk, Said("c", "不知道。", "头痛？")))


def test_marks_inside_a_text_do_not_end_it_and_identifiers_do_not_leave_the_country(
    serving: Any, tmp_path: Path
) -> None:
    server = serving(planted)
    pair = Pair(Said("q", "回答1>>> 选1 请打13800138000", "头痛？"), Said("q", "乙", "头痛？"))
    there, _ = Judge(config(server), ("a", "b"), tmp_path).questions(pair)
    assert there.prompt.count("回答1>>>") == 1 and "13800138000" not in there.prompt
    at_home = Judge(config(server, leaves_country=False, language="en"), ("a", "b"), tmp_path)
    there, _ = at_home.questions(pair)
    assert "13800138000" in there.prompt and "<<<ANSWER 1" in there.prompt
    assert all(f"- {key}: " in there.prompt for key in (*KEYS, *SAFETY_KINDS))


def test_two_equal_answers_are_asked_twice(serving: Any, tmp_path: Path) -> None:
    server = serving(planted)
    assert main(command(tmp_path, server, [("好5", "好5")])) == 0
    assert len(server.bodies) == 2 and written(tmp_path)[0][0]["winner"] == "tie"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_criterion_and_kind_of_fault_has_its_wording(language: str) -> None:
    words = judge_form.wordings(language)
    assert tuple(words["criteria"]) == KEYS and tuple(words["safety"]) == SAFETY_KINDS


# Figures.


def verdicts(points: list[str], lengths: list[tuple[int, int]]) -> list[dict[str, Any]]:
    return [
        {"id": str(i), "model_a": "x", "model_b": "y", "winner": winner, "order_flip": False,
         "scores": None, "criteria": {}, "safety": [], "department": "", "intent": "",
         "error": None, "lengths": {"a": a, "b": b}}
        for i, (winner, (a, b)) in enumerate(zip(points, lengths, strict=True))
    ]  # fmt: skip


def test_a_judge_that_only_counts_characters_is_found_out() -> None:
    rng = np.random.default_rng(0)
    apart = rng.normal(60, 80, 300)
    rows = verdicts(["a" if x > 0 else "b" for x in apart], [(int(300 + x), 300) for x in apart])
    found = summary(rows)["length"]
    assert found["raw"] > 0.7 and found["longer_wins"]["share"] > 0.99
    assert found["correlation"]["low"] > 0.6
    assert found["controlled"]["low"] < 0.5 < found["controlled"]["high"]
    assert abs(found["controlled"]["value"] - 0.5) < 0.12


def test_the_length_controlled_share_is_the_logistic_one_and_leaves_a_fair_judge_alone() -> None:
    rng = np.random.default_rng(1)
    apart = rng.normal(0, 100, 4000)
    x = np.tanh(apart / apart.std())
    wins = rng.random(4000) < 1 / (1 + np.exp(-(0.6 + 1.5 * x)))
    # without ties Davidson's model is the logistic one; its intercept at equal length is 0.6
    assert controlled(wins.astype(float), apart) == pytest.approx(1 / (1 + np.exp(-0.6)), abs=0.02)
    fair = rng.random(4000) < 0.65
    assert controlled(fair.astype(float), apart) == pytest.approx(fair.mean(), abs=0.01)
    assert controlled(fair.astype(float), np.zeros(4000)) == pytest.approx(fair.mean(), abs=0.01)


def test_the_intervals_cover_what_they_should_and_rows_of_another_judge_will_do() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(60):
        winners = rng.choice(["a", "tie", "b"], size=80, p=[0.5, 0.2, 0.3]).tolist()
        rows = [
            {k: v for k, v in row.items() if k != "lengths"}
            for row in verdicts(winners, [(1, 1)] * 80)
        ]
        share = summary(rows, seed=trial)["share"]
        hits += share["low"] <= 0.6 <= share["high"]
    assert 52 <= hits <= 60
    plain = {"id": "1", "model_a": "x", "model_b": "y", "winner": "a"}
    found = summary([plain])
    assert (found["win"], found["length"], found["ratio"], found["criteria"]) == (1, None, None, {})
    assert summary([])["cases"] == 0
    with pytest.raises(ValueError, match="several pairs"):
        summary([plain, plain | {"model_b": "z"}])


def odd(**more: Any) -> str:
    return json.dumps({"id": "2", "model_a": "x", "model_b": "y", "winner": "a"} | more)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "v.jsonl:2: not JSON"),
        ('{"id": "2", "model_a": "x"}', "v.jsonl:2: model_b is missing"),
        ('{"id": "2", "model_a": "x", "model_b": "y", "winner": "x"}', "winner is neither"),
        ('{"id": "2", "model_a": "x", "model_b": "y", "winner": null}', "either a winner or an error"),
        ('{"id": "1", "model_a": "y", "model_b": "x", "winner": "a"}', "id 1 again; first at v.jsonl:1"),
        (odd(winner=["a"]), "v.jsonl:2: winner is neither"),
        (odd(scores={"a": math.nan, "b": 1}), "v.jsonl:2: scores is not what"),
        (odd(scores={"a": "7", "b": 1}), "v.jsonl:2: scores is not what"),
        (odd(lengths={"a": math.inf, "b": 1}), "v.jsonl:2: lengths is not what"),
        (odd(criteria={"diagnosis": ["a"]}), "v.jsonl:2: criteria is not what"),
        (odd(safety=[{"answer": "a"}]), "v.jsonl:2: safety is not what"),
        (odd(orders=["a", "b"]), "v.jsonl:2: orders is not what"),
        (odd(orders=[None, {"winner": "a", "criteria": {}}]), "v.jsonl:2: orders is not what"),
        (odd(orders=[{"winner": "a", "criteria": {}}]), "v.jsonl:2: orders is not what"),
        (odd(order_flip="no"), "v.jsonl:2: order_flip is not what"),
        (odd(benchmark=3), "v.jsonl:2: benchmark is not what"),
        (odd(id=2.0), "v.jsonl:2: id is float, not text"),
        (odd(id=1, model_a="y", model_b="x"), "id 1 again; first at v.jsonl:1"),
    ],
)  # fmt: skip
def test_a_damaged_file_of_rows_names_its_line(line: str, told: str, tmp_path: Path) -> None:
    good = '{"id": "1", "model_a": "x", "model_b": "y", "winner": "a", "error": null}'
    (tmp_path / "v.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(BadData, match=re.escape(told)):
        read_rows(tmp_path / "v.jsonl")


# A kill.


def test_after_a_kill_only_what_is_missing_is_asked(serving: Any, tmp_path: Path) -> None:
    rows = [(f"好{i % 9 + 1} 第{i}", f"好{i % 7 + 1} 第{i}") for i in range(20)]

    killed = threading.Event()

    def twelve(body: dict[str, Any], number: int) -> str:
        if number > 12:
            killed.wait()  # under way when the kill comes
        return planted(body)

    server = serving(twelve)
    arguments = command(tmp_path, server, rows, workers=2)
    process = subprocess.Popen(
        [sys.executable, "-m", "training.judge", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + LONG_S
    while len(server.bodies) < 14 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed.set()
    kept = len(list((tmp_path / "cache").rglob("[0-9a-f]*.json")))
    before = len(server.bodies)
    assert (before, kept) == (14, 12)
    assert not (tmp_path / "out" / "v.jsonl").exists()
    server.say = planted
    assert main(arguments) == 0
    assert len(server.bodies) - before == 40 - kept  # at most the two under way are asked again
    text = (tmp_path / "out" / "v.jsonl").read_bytes()
    assert main(arguments) == 0 and len(server.bodies) - before == 40 - kept
    assert (tmp_path / "out" / "v.jsonl").read_bytes() == text and text.count(b"\n") == 20


def test_a_kept_reply_that_is_damaged_is_asked_again(serving: Any, tmp_path: Path) -> None:
    server = serving(planted)
    arguments = command(tmp_path, server)
    assert main(arguments) == 0
    victim = next((tmp_path / "cache").rglob("*.json"))
    victim.write_text(victim.read_text(encoding="utf-8")[:40], encoding="utf-8")
    assert main(arguments) == 0 and len(server.bodies) == 2 * len(CASES) + 1


def test_a_reply_is_kept_for_its_server_model_and_temperature_alone(
    serving: Any, tmp_path: Path
) -> None:
    server = serving(planted)
    asked = len(CASES) * 2
    for number, more in enumerate(({}, {"temperature": 0.0}, {"temperature": 1.0}, {"model": "other"}), 1):  # fmt: skip
        for _ in range(2):
            assert main(command(tmp_path, server, **more)) == 0
            assert len(server.bodies) == number * asked
    other = serving(planted)
    assert main(command(tmp_path, other)) == 0 and len(other.bodies) == asked


def test_the_same_question_at_the_same_time_is_asked_once(serving: Any, tmp_path: Path) -> None:
    def slow(body: dict[str, Any], _: int) -> str:
        time.sleep(0.1)
        return planted(body)

    server = serving(slow)
    judge = Judge(config(server, workers=4), ("a", "b"), tmp_path)
    pair = Pair(Said("q", "好1", "头痛？"), Said("q", "好2", "头痛？"))
    rows, stopped = run(judge, [pair] * 4)
    assert stopped is None and len(server.bodies) == 2
    assert all(row == rows[0] for row in rows)


def test_models_need_two_names(serving: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tell them apart with --names"):
        Judge(config(serving(planted)), ("same", "same"), tmp_path)
    judge = Judge(config(serving(planted)), ("a", "b"), tmp_path)
    assert judge.endpoint.kept(Question("never asked")) is None
