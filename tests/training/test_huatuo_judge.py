"""The published judge: its prompts to the letter, planted verdicts in both orders, and no verdict that is none."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from huatuo.errors import ConfigError, Refused, Unavailable
from training import endpoint
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


class Server:
    """Speaks the protocol; `say(prompt, number)` gives the judge's text, a status, or (model, text)."""

    def __init__(self, say: Callable[[str, int], Any]) -> None:
        self.bodies: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.bodies.append(body)
                said = say(body["messages"][0]["content"], len(outer.bodies))
                status = said if isinstance(said, int) else 200
                model, text = said if isinstance(said, tuple) else ("gpt-4-0613", said)
                reason, text = ("length", text[3:]) if str(text)[:3] == "cut" else ("stop", text)
                message = {"role": "assistant", "content": str(text)}
                choice = {"index": 0, "message": message, "finish_reason": reason}
                answer = {"id": "1", "object": "chat.completion", "created": 0, "model": model}
                raw = json.dumps({**answer, "choices": [choice]}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"] for body in self.bodies]

    def config(self, **more: Any) -> HuatuoJudgeConfig:
        url = f"http://127.0.0.1:{self.http.server_port}/v1"
        return HuatuoJudgeConfig(base_url=url, model="gpt-4", **more)

    def judge(self, cache: Path, **more: Any) -> HuatuoJudge:
        return HuatuoJudge(self.config(**more), cache)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Server]]:
    monkeypatch.setattr(endpoint, "WAIT_S", 0.01)
    started: list[Server] = []

    def start(say: Callable[[str, int], Any]) -> Server:
        started.append(Server(say))
        return started[-1]

    yield start
    for server in started:
        server.http.shutdown()
        server.http.server_close()


def says(label: str) -> str:
    return f"Both are fine.\nAssistant 1 is {label} Assistant 2"


def prefers(text: str) -> Callable[[str, int], str]:
    """A judge that prefers the answer holding `text`, wherever it stands."""

    def say(prompt: str, _: int) -> str:
        first = prompt.split("[Assistant 1]")[1].split("[End of Assistant 1]")[0]
        return says("better than" if text in first else "worse than")

    return say


def test_the_prompts_are_the_published_ones_to_the_letter(serving: Any, tmp_path: Path) -> None:
    judge = serving(lambda *_: says("equal to")).judge(tmp_path)
    there, back = judge.prompts(A, B)
    assert there == SINGLE
    assert back == SINGLE.replace("乙", "丙").replace("甲{}", "乙").replace("丙", "甲{}")
    assert judge.prompts(TALK_A, TALK_B, multi=True)[0] == MULTI
    assert render(TALK_B.turns) == "User: 头痛\nAI assistant: 不知道。"


def test_only_the_prompt_and_the_model_are_sent(serving: Any, tmp_path: Path) -> None:
    server = serving(prefers("甲"))
    server.judge(tmp_path).judge(A, B)
    assert all(set(body) == {"model", "messages"} for body in server.bodies)
    limited = server.judge(tmp_path / "other", max_tokens=900)
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
    serving: Any,
    tmp_path: Path,
) -> None:
    server = serving(lambda _, number: says((there, back)[number - 1]))
    pair = (TALK_A, TALK_B) if multi else (A, B)
    ruling = server.judge(tmp_path).judge(*pair, multi)
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
    serving: Any, tmp_path: Path
) -> None:
    server = serving(lambda _, number: says("better than") if number == 1 else "I like both.")
    judge = server.judge(tmp_path)
    ruling = judge.judge(A, B)
    assert (ruling.scores, ruling.outcome, ruling.flipped) == (None, "no verdict", False)
    assert [order.tries for order in ruling.orders] == [1, 3] and len(server.bodies) == 4
    counted = summarise([ruling])
    assert (counted["no verdict"], counted["win"], counted["win_rate"]) == (1, 0, None)
    # the useless replies are kept too: the same run again costs nothing and says the same
    again = server.judge(tmp_path)
    assert again.judge(A, B) == ruling and again.endpoint.calls == 0


def test_a_reply_that_broke_off_is_a_try_and_is_not_kept(serving: Any, tmp_path: Path) -> None:
    replies = ["cut" + says("better than"), says("worse than"), says("better than")]
    server = serving(lambda _, number: replies[number - 1])
    judge = server.judge(tmp_path)
    assert judge.judge(A, B).outcome == "loss" and judge.endpoint.calls == 3
    assert len(list(tmp_path.rglob("*.json"))) == 2


def test_a_label_off_the_last_line_counts_and_is_counted(serving: Any, tmp_path: Path) -> None:
    replies = [says("better than") + "\nI hope this helps.", says("worse than")]
    server = serving(lambda _, number: replies[number - 1])
    counted = summarise([server.judge(tmp_path).judge(A, B)])
    assert (counted["win"], counted["labels_not_on_last_line"]) == (1, 1)


@pytest.mark.parametrize("model", ["gpt-3.5-turbo", "gpt-4-turbo", "", "gpt-40613"])
def test_a_server_that_answers_for_another_model_is_refused(
    model: str, serving: Any, tmp_path: Path
) -> None:
    server = serving(lambda *_: (model, says("better than")))
    judge = server.judge(tmp_path)
    with pytest.raises(Refused, match="answered for the model"):
        judge.judge(A, B)
    assert judge.endpoint.calls == 1 and not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4-0613", "gpt-4-2024-05-13"])
def test_a_dated_name_of_the_same_model_is_good(model: str, serving: Any, tmp_path: Path) -> None:
    server = serving(lambda *_: (model, says("equal to")))
    assert server.judge(tmp_path).judge(A, B).outcome == "tie"
    other = serving(lambda *_: ("qwen", says("equal to")))
    assert other.judge(tmp_path / "x", answers_as="qwen").judge(A, B).outcome == "tie"


def test_two_equal_answers_are_asked_twice(serving: Any, tmp_path: Path) -> None:
    server = serving(lambda _, number: says(("better than", "equal to")[number - 1]))
    ruling = server.judge(tmp_path).judge(A, A)
    assert len(server.bodies) == 2 and ruling.scores == (15, 5)


def test_a_failing_server_stops_the_run_and_is_no_verdict(serving: Any, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        serving(lambda *_: 500).judge(tmp_path).judge(A, B)


def test_identifiers_are_masked_only_when_texts_leave_the_country(
    serving: Any, tmp_path: Path
) -> None:
    told = Said("q", "请打13800138000", "头痛？")
    judge = serving(prefers("x")).judge(tmp_path)
    assert "13800138000" not in judge.prompts(told, B_SAME)[0]
    at_home = serving(prefers("x")).judge(tmp_path, leaves_country=False)
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
    a: Said, b: Said, multi: bool, told: str, serving: Any, tmp_path: Path
) -> None:
    server = serving(prefers("x"))
    with pytest.raises(BadData, match=told):
        server.judge(tmp_path).judge(a, b, multi)
    assert not server.bodies


# The command.


def prepare(folder: Path, server: Server, count: int = 12, **more: Any) -> list[str]:
    """Answers of two models: a wins on even ids, b on odd ones; every third id is a tie by position."""
    for name, mark in (("a", 0), ("b", 1)):
        rows = [
            {"id": i, "query": f"问题{i}", "label": f"组{i % 2}",
             "model_output": f"回答 {name}{i} {'flip' if i % 3 == 0 else 'good' if i % 2 == mark else 'bad'}"}
            for i in range(count)
        ]  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    config = server.config(cache=str(folder / "cache"), **more).model_dump(exclude_defaults=True)
    config.pop("cache")
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items()]
    lines.append(f"cache = {json.dumps(str(folder / 'cache'))}")
    (folder / "judge.toml").write_text("\n".join(lines), encoding="utf-8")
    names = [str(folder / name) for name in ("judge.toml", "a.json", "b.json")]
    return [*names, "--out", str(folder / "out.json")]


def plain(prompt: str, _: int) -> str:
    first = prompt.split("[Assistant 1]")[1].split("[End of Assistant 1]")[0]
    return says("better than" if "good" in first or "flip" in first else "worse than")


def test_the_command_estimates_judges_and_goes_on_where_it_stopped(
    serving: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = serving(lambda prompt, number: plain(prompt, number) if number <= 9 else 401)
    arguments = prepare(tmp_path, broken)
    assert main([*arguments, "--estimate"]) == 0
    assert "12 cases: 24 calls, 72 at most" in capsys.readouterr().out and not broken.bodies
    assert main(arguments) == 2 and not (tmp_path / "out.json").exists()
    whole = serving(plain)
    arguments = prepare(tmp_path, whole)
    assert main(arguments) == 0 and len(whole.bodies) == 24 - 9
    assert "15 calls, 45 at most" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (found["win"], found["loss"], found["tie"], found["no verdict"]) == (4, 4, 4, 0)
    assert (found["position_flips"], found["cases"]) == (4, 12)
    assert found["first_shown"] == pytest.approx((8 + 8) / 24)
    assert {g: c["win"] for g, c in found["by_group"].items()} == {"组0": 4, "组1": 0}
    assert found["rulings"][1]["outcome"] == "loss" and found["rulings"][1]["scores"] == [0, 20]
    low, high = found["win_interval"]
    assert low < 1 / 3 < high
    assert not set(broken.prompts[:9]) & set(whole.prompts)
    assert main(arguments) == 0 and len(whole.bodies) == 15


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
    serving: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = serving(plain)
    assert main(prepare(tmp_path, server, **more)) == 2
    assert re.search(re.escape(told), capsys.readouterr().err) and not server.bodies


def test_the_cap_holds_while_it_runs(serving: Any, tmp_path: Path) -> None:
    server = serving(lambda *_: "no label")
    judge = server.judge(tmp_path, max_calls=4)
    with pytest.raises(ConfigError, match="max_calls: the 4 calls"):
        judge.judge(A, B)
    assert len(server.bodies) == 4
