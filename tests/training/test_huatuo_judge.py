"""The published judge: its prompts to the letter, planted verdicts in both orders, and no verdict that is none."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from huatuo.errors import ConfigError, Refused, Unavailable
from tests.training.openai_server import OpenAiServer, Say
from tests.training.test_judge import serving
from training.answer_files import Said
from training.data import BadData
from training.huatuo_judge import (
    HuatuoJudge,
    HuatuoJudgeConfig,
    label_of,
    main,
    render,
    summarise,
)
from training.judge_rows import read_rows
from training.judge_summary import summary

__all__ = ["serving"]
SINGLE = """[Question]
头痛怎么办？
[End of Question]

[Assistant 1]
甲{}
[End of Assistant 1]

[Assistant 2]
乙
[End of Assistant 2]

[System]
We would like to request your feedback on the two AI assistants in response to the user question displayed above.
Requirements: The response should be to the point and adress the problem of user. The description of symptoms should be comprehensive and accurate, and the provided diagnosis should be the most reasonable inference based on all relevant factors and possibilities. The treatment recommendations should be effective and reliable, taking into account the severity or stages of the illness. The prescriptions should be effective and reliable, considering indications, contraindications, and dosages.
Please compare the performance of their responses. You should tell me whether Assistant 1 is `better than`, `worse than`, or `equal to` Assistant 2.
Please first compare their responses and analyze which one is more in line with the given requirements.
In the last line, please output a single line containing only a single label selecting from `Assistant 1 is better than Assistant 2`, `Assistant 1 is worse than Assistant 2`, and `Assistant 1 is equal to Assistant 2`."""
MULTI = (
    SINGLE.split("[End of Question]\n\n")[1]
    .replace("甲{}", "User: 头痛\nAI assistant: 多久了？\n\nUser: 三天\nAI assistant: 去医院。")
    .replace("乙", "User: 头痛\nAI assistant: 不知道。")
    .replace(
        "the two AI assistants in response to the user question displayed above",
        "two multi-turn conversations between the AI assistant and the user displayed above",
    )
    .replace("of their responses. You", "of the AI assistant in each conversation. You")
)
A, B = Said("q1", "甲{}", "头痛怎么办？", label="治疗方案"), Said("q1", "乙", "头痛怎么办？")
TALK_A = Said("c", "", turns=(("头痛", "多久了？"), ("三天", "去医院。")))
TALK_B = Said("c", "", turns=(("头痛", "不知道。"),))


def by_prompt(say: Callable[[str, int], Any]) -> Say:
    """`say(prompt, number)` gives the judge's text ("cut…": it breaks off), a status, or (model, text)."""

    def answer(body: dict[str, Any], number: int) -> Any:
        said = say(body["messages"][0]["content"], number)
        if isinstance(said, int):
            return said
        model, text = said if isinstance(said, tuple) else ("gpt-4-0613", said)
        reason = "length" if text.startswith("cut") else "stop"
        return {"model": model, "text": text.removeprefix("cut"), "finish_reason": reason}

    return answer


def config(server: OpenAiServer, **more: Any) -> HuatuoJudgeConfig:
    return HuatuoJudgeConfig(base_url=server.url, model="gpt-4", **more)


def judge_at(server: OpenAiServer, cache: Path, **more: Any) -> HuatuoJudge:
    return HuatuoJudge(config(server, **more), cache)


@pytest.fixture
def judging(serving: Any) -> Callable[[Callable[[str, int], Any]], OpenAiServer]:
    """Starts the scripted server with a script that sees the prompt."""
    return lambda say: serving(by_prompt(say), usage=None)


def says(label: str) -> str:
    return f"Both are fine.\nAssistant 1 is {label} Assistant 2"


def prefers(text: str) -> Callable[[str, int], str]:
    """A judge that prefers the answer holding `text`, wherever it stands."""

    def say(prompt: str, _: int) -> str:
        first = prompt.split("[Assistant 1]")[1].split("[End of Assistant 1]")[0]
        return says("better than" if text in first else "worse than")

    return say


def test_the_prompts_are_the_published_ones_to_the_letter(judging: Any, tmp_path: Path) -> None:
    judge = judge_at(judging(lambda *_: says("equal to")), tmp_path)
    there, back = judge.prompts(A, B)
    assert there == SINGLE
    assert back == SINGLE.replace("乙", "丙").replace("甲{}", "乙").replace("丙", "甲{}")
    assert judge.prompts(TALK_A, TALK_B, multi=True)[0] == MULTI
    assert render(TALK_B.turns) == "User: 头痛\nAI assistant: 不知道。"


def test_only_the_prompt_and_the_model_are_sent(judging: Any, tmp_path: Path) -> None:
    server = judging(prefers("甲"))
    judge_at(server, tmp_path).judge(A, B)
    assert all(set(body) == {"model", "messages"} for body in server.bodies)
    limited = judge_at(server, tmp_path / "other", max_tokens=900)
    limited.judge(A, B)
    assert server.bodies[-1]["max_tokens"] == 900


PLANTED = [
    ("better than", "worse than", (20, 0), "win", False),
    ("worse than", "better than", (0, 20), "loss", False),
    ("better than", "better than", (10, 10), "tie", True),
    ("worse than", "worse than", (10, 10), "tie", True),
    ("equal to", "equal to", (10, 10), "tie", False),
    ("better than", "equal to", (15, 5), "win", False),
    ("equal to", "better than", (5, 15), "loss", False),
    ("worse than", "equal to", (5, 15), "loss", False),
]


@pytest.mark.parametrize(("there", "back", "scores", "outcome", "flipped"), PLANTED)
@pytest.mark.parametrize("multi", [False, True])
def test_planted_verdicts_of_both_orders_are_summed(
    there: str,
    back: str,
    scores: tuple[int, int],
    outcome: str,
    flipped: bool,
    multi: bool,
    judging: Any,
    tmp_path: Path,
) -> None:
    server = judging(lambda _, number: says((there, back)[number - 1]))
    pair = (TALK_A, TALK_B) if multi else (A, B)
    ruling = judge_at(server, tmp_path).judge(*pair, multi)
    assert (ruling.scores, ruling.outcome, ruling.flipped) == (scores, outcome, flipped)
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        (says("better than"), "better"),
        ("Assistant 1 is `Worse than` Assistant 2", "worse"),
        ("`Assistant 1 is equal to Assistant 2`", "equal"),
        ("**Assistant 1 is Better than Assistant 2.**", "better"),
        ("Assistant 1 is better than Assistant 2 in tone.\nAssistant 1 is worse than Assistant 2", "worse"),
        ("Assistant 2 is better than Assistant 1", "worse"),
        ("Assistant 2 is worse than Assistant 1", "better"),
        ("Assistant 2 is `equal to` Assistant 1", "equal"),
        ("Assistant 1 is worse than Assistant 2. So Assistant 2 is worse than Assistant 1", "worse"),
        ("They are equal in quality.", "equal"),
        ("Both are equally good.", None),
        ("Assistant 1 is much better than Assistant 2", None),
        ("Assistant 1 is BETTER THAN Assistant 2", None),
        ("Assistant 1 is `better than Assistant 2", None),
        ("The first.", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_reply_is_read_as_the_authors_read_it(reply: str, label: str | None) -> None:
    assert label_of(reply) == label


def test_prose_without_a_label_is_tried_three_times_and_is_no_verdict(
    judging: Any, tmp_path: Path
) -> None:
    server = judging(lambda _, number: says("better than") if number == 1 else "I like both.")
    judge = judge_at(server, tmp_path)
    ruling = judge.judge(A, B)
    assert (ruling.scores, ruling.outcome, ruling.flipped) == (None, "no verdict", False)
    assert [order.tries for order in ruling.orders] == [1, 3] and len(server.bodies) == 4
    counted = summarise([ruling])
    assert (counted["no verdict"], counted["win"], counted["win_rate"]) == (1, 0, None)
    # the useless replies are kept too: the same run again costs nothing and says the same
    again = judge_at(server, tmp_path)
    assert again.judge(A, B) == ruling and again.endpoint.calls == 0


def test_a_reply_that_broke_off_is_a_try_and_is_not_kept(judging: Any, tmp_path: Path) -> None:
    replies = ["cut" + says("better than"), says("worse than"), says("better than")]
    server = judging(lambda _, number: replies[number - 1])
    judge = judge_at(server, tmp_path)
    assert judge.judge(A, B).outcome == "loss" and judge.endpoint.calls == 3
    assert len(list(tmp_path.rglob("*.json"))) == 2


def test_a_label_off_the_last_line_counts_and_is_counted(judging: Any, tmp_path: Path) -> None:
    replies = [says("better than") + "\nI hope this helps.", says("worse than")]
    server = judging(lambda _, number: replies[number - 1])
    counted = summarise([judge_at(server, tmp_path).judge(A, B)])
    assert (counted["win"], counted["labels_not_on_last_line"]) == (1, 1)


@pytest.mark.parametrize("model", ["gpt-3.5-turbo", "gpt-4-turbo", "", "gpt-40613"])
def test_a_server_that_answers_for_another_model_is_refused(
    model: str, judging: Any, tmp_path: Path
) -> None:
    server = judging(lambda *_: (model, says("better than")))
    judge = judge_at(server, tmp_path)
    with pytest.raises(Refused, match="answered for the model"):
        judge.judge(A, B)
    assert judge.endpoint.calls == 1 and not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4-0613", "gpt-4-2024-05-13"])
def test_a_dated_name_of_the_same_model_is_good(model: str, judging: Any, tmp_path: Path) -> None:
    server = judging(lambda *_: (model, says("equal to")))
    assert judge_at(server, tmp_path).judge(A, B).outcome == "tie"
    other = judging(lambda *_: ("qwen", says("equal to")))
    assert judge_at(other, tmp_path / "x", answers_as="qwen").judge(A, B).outcome == "tie"


def test_two_equal_answers_are_asked_twice(judging: Any, tmp_path: Path) -> None:
    server = judging(lambda _, number: says(("better than", "equal to")[number - 1]))
    ruling = judge_at(server, tmp_path).judge(A, A)
    assert len(server.bodies) == 2 and ruling.scores == (15, 5)


def test_a_failing_server_stops_the_run_and_is_no_verdict(judging: Any, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        judge_at(judging(lambda *_: 500), tmp_path).judge(A, B)


def test_identifiers_are_masked_only_when_texts_leave_the_country(
    judging: Any, tmp_path: Path
) -> None:
    told = Said("q", "请打13800138000", "头痛？")
    judge = judge_at(judging(prefers("x")), tmp_path)
    assert "13800138000" not in judge.prompts(told, B_SAME)[0]
    at_home = judge_at(judging(prefers("x")), tmp_path, leaves_country=False)
    assert "13800138000" in at_home.prompts(told, B_SAME)[0]


B_SAME = Said("q", "乙", "头痛？")


@pytest.mark.parametrize(
    ("a", "b", "multi", "told"),
    [
        (A, Said("q1", "乙", "别的问题"), False, "not the question"),
        (Said("q1", "甲"), Said("q1", "乙"), False, "no question"),
        (TALK_A, A, True, "no consultation"),
    ],
)
def test_what_cannot_be_judged_is_said_before_anything_is_sent(
    a: Said, b: Said, multi: bool, told: str, judging: Any, tmp_path: Path
) -> None:
    server = judging(prefers("x"))
    with pytest.raises(BadData, match=told):
        judge_at(server, tmp_path).judge(a, b, multi)
    assert not server.bodies


# The command.


def prepare(folder: Path, server: OpenAiServer, count: int = 12, **more: Any) -> list[str]:
    """Answers of two models: a wins on even ids, b on odd ones; every third id is a tie by position."""
    for name, mark in (("a", 0), ("b", 1)):
        rows = [
            {"id": i, "query": f"问题{i}", "label": f"组{i % 2}",
             "model_output": f"回答 {name}{i} {'flip' if i % 3 == 0 else 'good' if i % 2 == mark else 'bad'}"}
            for i in range(count)
        ]  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    settings = {"base_url": server.url, "model": "gpt-4", "cache": str(folder / "cache"), **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (folder / "judge.toml").write_text("\n".join(lines), encoding="utf-8")
    names = [str(folder / name) for name in ("judge.toml", "a.json", "b.json")]
    return [*names, "--out", str(folder / "out.json")]


def plain(prompt: str, _: int) -> str:
    first = prompt.split("[Assistant 1]")[1].split("[End of Assistant 1]")[0]
    return says("better than" if "good" in first or "flip" in first else "worse than")


def test_the_command_estimates_judges_and_goes_on_where_it_stopped(
    judging: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = judging(lambda prompt, number: plain(prompt, number) if number <= 9 else 401)
    arguments = prepare(tmp_path, server)
    assert main([*arguments, "--estimate"]) == 0
    assert "12 cases: 24 calls, 72 at most" in capsys.readouterr().out and not server.bodies
    assert main(arguments) == 2 and not (tmp_path / "out.json").exists()
    server.say, asked = by_prompt(plain), len(server.bodies)
    assert main(arguments) == 0 and len(server.bodies) == asked + 24 - 9
    assert "15 calls, 45 at most" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (found["win"], found["loss"], found["tie"], found["no verdict"]) == (4, 4, 4, 0)
    assert (found["position_flips"], found["cases"]) == (4, 12)
    assert found["first_shown"] == pytest.approx((8 + 8) / 24)
    assert {g: c["win"] for g, c in found["by_group"].items()} == {"组0": 4, "组1": 0}
    assert found["rulings"][1]["outcome"] == "loss" and found["rulings"][1]["scores"] == [0, 20]
    assert (found["model_a"], found["model_b"]) == ("a", "b")
    rows = read_rows(tmp_path / "out.json")
    assert [row["winner"] for row in rows[:4]] == ["tie", "b", "a", "tie"]
    assert rows[0]["order_flip"] and rows[1]["scores"] == {"a": 0, "b": 20}
    told = summary(rows)
    assert (told["win"], told["loss"], told["tie"], told["flips"]["count"]) == (4, 4, 4, 4)
    assert told["flips"]["first_shown"]["count"] == 16 and set(told["by_intent"]) == {"组0", "组1"}
    low, high = found["win_interval"]
    assert low < 1 / 3 < high
    assert not set(server.prompts[:9]) & set(server.prompts[asked:])
    assert main(arguments) == 0 and len(server.bodies) == asked + 15


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"max_calls": 23}, "max_calls: 24 calls are needed and 23 allowed"),
        ({"max_cost": 0.001, "price_in": 30.0, "price_out": 60.0}, "max_cost: about 0.84 expected"),
        ({"max_cost": 1.0}, "max_cost: needs price_in"),
    ],
)
def test_a_run_over_its_cap_is_refused_before_the_first_call(
    more: dict[str, Any],
    told: str,
    judging: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = judging(plain)
    assert main(prepare(tmp_path, server, **more)) == 2
    assert re.search(re.escape(told), capsys.readouterr().err) and not server.bodies


def test_the_cap_holds_while_it_runs(judging: Any, tmp_path: Path) -> None:
    server = judging(lambda *_: "no label")
    judge = judge_at(server, tmp_path, max_calls=4)
    with pytest.raises(ConfigError, match="max_calls: the 4 calls"):
        judge.judge(A, B)
    assert len(server.bodies) == 4


def test_both_models_need_a_name(judging: Any, tmp_path: Path, capsys: Any) -> None:
    arguments = prepare(tmp_path, judging(plain))
    assert main([arguments[0], arguments[1], arguments[1]]) == 2
    assert "both models are called a" in capsys.readouterr().err
    assert main([*arguments, "--names", "ours", "theirs"]) == 0
    assert {row["model_b"] for row in read_rows(tmp_path / "out.json")} == {"theirs"}


RULING = {
    "id": "1", "intent": "x", "department": "", "outcome": "win", "scores": [20, 0], "lengths": [3, 4],
    "orders": [{"label": "better", "tries": 1}, {"label": "worse", "tries": 1}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"outcome": "won"}, "ruling 1: is not what"),
        ({"outcome": "no verdict"}, "ruling 1: is not what"),
        ({"orders": [{"label": "best"}, {"label": "worse"}]}, "ruling 1: is not what"),
        ({"scores": [20]}, "ruling 1: is not what"),
        ({"scores": ["a", "b"]}, "ruling 1: scores"),
        ({"id": 7.5}, "ruling 1: id is float, not text"),
        ({"intent": 3}, "ruling 1: intent"),
        (None, "no `rulings` with model_a"),
    ],
)
def test_a_damaged_file_of_rulings_is_named(change: Any, told: str, tmp_path: Path) -> None:
    found = {"judge": "llm:m", "model_a": "a", "model_b": "b", "rulings": [RULING | (change or {})]}
    file = tmp_path / "r.json"
    file.write_text(json.dumps([] if change is None else found), "utf-8")
    with pytest.raises(BadData, match=f"r.json.*{told}"):
        read_rows(file)


def test_a_model_that_got_no_points_has_no_ratio() -> None:
    lost = [
        {"id": str(n), "model_a": "a", "model_b": "b", "winner": "b", "scores": {"a": 0, "b": 20}, "intent": "x"}
        for n in range(5)
    ]  # fmt: skip
    found = summary(lost)
    assert found["ratio"] is None and found["by_intent"]["x"]["ratio"] is None
    json.dumps(found, allow_nan=False)
