"""One report of every yardstick: the same after any kill, equal to the libraries, and a gate that says what fell."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from nltk.translate.bleu_score import corpus_bleu
from nltk.translate.gleu_score import corpus_gleu
from rouge_score.rouge_scorer import RougeScorer

from huatuo.config import Generation
from huatuo.errors import ConfigError, HuatuoError, NoData
from huatuo.toml import ROOT
from tests.patience import LONG_S
from tests.training.answering_server import AnsweringServer
from training.data import BadData
from training.evaluate import EvaluateConfig, evaluate, main
from training.gate import GateConfig, check
from training.opinions import consulted
from training.questions import BenchmarkConfig

SHARED = ROOT.parent / "shared/data"
INST = SHARED / "huatuo100_inst"
DRIVER = Path(__file__).with_name("evaluate_in_processes.py")
DEPARTMENTS = ("内科", "外科", "儿科", "眼科")


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return str(path)


def world(folder: Path, count: int = 24) -> dict[str, Any]:
    """Questions with references, and answers of a good, a poor and a silent model."""
    texts = [f"第{n}个问题，我头痛{n}天了怎么办" for n in range(count)]
    truth = [f"您好，头痛{n}天建议到神经内科就诊，注意休息，多喝水。" for n in range(count)]
    own = folder / "q.jsonl"
    labels = [DEPARTMENTS[n % 4] for n in range(count)]
    rows = zip(texts, truth, labels, strict=True)
    questions = [
        {"id": str(n), "question": q, "references": [t], "label": d}
        for n, (q, t, d) in enumerate(rows)
    ]
    write(own, questions)
    good = [{"id": str(n), "answer": truth[n][: 20 + n % 9]} for n in range(count)]
    poor = [{"id": str(n), "answer": truth[n][14:20] + "吃药。"} for n in range(count)]
    return {
        "questions": str(own),
        "good": f"good={write(folder / 'good.jsonl', good)}",
        "poor": f"poor={write(folder / 'poor.jsonl', poor)}",
    }


def config(folder: Path, models: Sequence[str], questions: str, **more: Any) -> EvaluateConfig:
    benchmark = BenchmarkConfig(name="own", file=questions, licence="CC-BY", title="Ours")
    return EvaluateConfig(
        models=tuple(models), benchmark=(benchmark,), out=folder / "out", cache=folder / "cache",
        resamples=100, **more,
    )  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    return world(tmp_path)


# Kill at any point.


def test_a_killed_evaluation_goes_on_to_the_same_bytes_and_asks_nothing_twice(
    tmp_path: Path,
) -> None:
    server = AnsweringServer(lambda q: f"关于“{q[:6]}”，建议就医。" if "3" not in q else "", pause_s=0.01)  # fmt: skip
    made = world(tmp_path)
    models = ["nano-doctor", server.file(tmp_path, "far"), made["poor"]]

    def job(name: str, kills: Sequence[object], tear: int = 0) -> Path:
        wanted = config(tmp_path / name, models, made["questions"], batch=4, at_once=2,
                        generation=Generation(max_new_tokens=24, temperature=0.7))  # fmt: skip
        told = {"config": json.loads(wanted.model_dump_json()), "cache": str(tmp_path / name / "cache"), "kills": kills, "tear": tear}  # fmt: skip
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(told), "utf-8")
        return path

    def run(path: Path) -> list[int]:
        command = [sys.executable, str(DRIVER), str(path)]
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=5 * LONG_S)  # fmt: skip
        assert not done.returncode, done.stderr
        found: list[int] = json.loads(done.stdout.splitlines()[-1])
        return found

    assert run(job("whole", [])) == [0]
    once = sorted(server.asked)
    assert once == sorted(set(once)) and len(once) == 24
    server.asked.clear()
    assert run(job("killed", [0, 4, 9, 25, 47, ["open", ".report.html", 1]])) == [-9] * 6 + [0]
    assert set(server.asked) == set(once)
    assert len(server.asked) <= len(once) + 2 * 5  # only what was under way when the kill came
    assert run(job("torn", [30], tear=7))[-1] == 0
    reports = [tmp_path / name / "out" for name in ("whole", "killed", "torn")]
    for file in ("report.json", "report.html"):
        first, *others = [(folder / file).read_bytes() for folder in reports]
        assert all(other == first for other in others), file
    lines = [
        json.loads(line)
        for file in (tmp_path / "killed/cache").glob("*.jsonl")
        for line in file.read_text("utf-8").splitlines()
    ]
    keys = [(row["model"], row["prompt"], row["settings"]) for row in lines]
    assert len(keys) == len(set(keys)) == 48
    before = len(server.asked)
    assert run(tmp_path / "whole.json") == [0] and len(server.asked) == before
    failed = json.loads((reports[0] / "report.json").read_text("utf-8"))["answers"]["own"]["far"]
    assert failed["failed"] == {"Refused": 3} and failed["finished"] == 21  # 3, 13 and 23 days
    server.close()


# Equal to the libraries.


class Characters:
    def tokenize(self, text: str) -> list[str]:
        return list("".join(text.split()))


@pytest.mark.skipif(not INST.is_dir(), reason="needs ../shared/data/huatuo100_inst")
@pytest.mark.parametrize(("ours", "theirs"), [("HuatuoGPT2-7B", "GPT4"), ("GPT4", "HuatuoGPT2-7B")])
def test_the_published_answers_score_against_each_other_as_the_libraries_say(
    ours: str, theirs: str, tmp_path: Path
) -> None:
    benchmark = BenchmarkConfig(
        name="kuake-qic", folder=str(SHARED), split="100", references=str(INST / f"{theirs}.json")
    )
    report = evaluate(
        EvaluateConfig(
            models=tuple(str(INST / f"{name}.json") for name in (ours, theirs)),
            benchmark=(benchmark,),
            out=tmp_path / "out",
            cache=tmp_path / "cache",
            resamples=100,
        )
    )
    found = report["metrics"]["kuake-qic"]
    assert found["questions"] == 100
    assert found["left_out"] == {theirs: "its answers are the references"}
    texts = [
        {row["id"]: row["model_output"] for row in json.loads((INST / f"{n}.json").read_text("utf-8"))}
        for n in (ours, theirs)
    ]  # fmt: skip
    ids = [row["id"] for row in json.loads((SHARED / "KUAKE-QIC_100.json").read_text("utf-8"))]
    said, truth = ([Characters().tokenize(side[id]) for id in ids] for side in texts)
    expected = {
        f"bleu-{n}": corpus_bleu([[t] for t in truth], said, (1 / n,) * n) for n in range(1, 5)
    }
    expected["gleu"] = corpus_gleu([[t] for t in truth], said)
    scorer = RougeScorer(["rouge1", "rouge2"], tokenizer=Characters())
    each = [scorer.score(texts[1][id], texts[0][id]) for id in ids]
    for key, name in (("rouge-1", "rouge1"), ("rouge-2", "rouge2")):
        expected[key] = sum(row[name].fmeasure for row in each) / len(each)
    few = [scorer_l().score(texts[1][id], texts[0][id])["rougeL"].fmeasure for id in ids[:6]]
    for n in (1, 2):
        shares = [len(set(g)) / len(g) for s in said if (g := list(zip(*(s[i:] for i in range(n)), strict=False)))]  # fmt: skip
        expected[f"distinct-{n}"] = sum(shares) / len(shares)
    scores = found["scores"][ours]
    for name, value in expected.items():
        assert scores[name]["value"] == pytest.approx(value, abs=1e-9), name
        low, high = scores[name]["interval"]
        assert low <= value <= high
    assert sum(few) / 6 == pytest.approx(rouge_l_of(ids[:6], texts), abs=1e-9)
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert "Published numbers" in page and "HuatuoGPT is the Bloomz-7b1-mt" in page
    assert "by application at Tianchi" in page


def scorer_l() -> RougeScorer:
    return RougeScorer(["rougeL"], tokenizer=Characters())


def rouge_l_of(ids: Sequence[str], texts: Sequence[dict[str, str]]) -> float:
    from training.scores import score

    found = score([texts[0][id] for id in ids], [[texts[1][id]] for id in ids]).values["rouge-l"]
    assert found is not None
    return found


# What the report says.


def verdicts(folder: Path, count: int = 24) -> str:
    """good beats poor on 3 of 4 questions, one in eight has no verdict."""
    rows: list[dict[str, Any]] = []
    for n in range(count):
        winner = None if n % 8 == 7 else "a" if n % 4 else "b"
        scores = None if winner is None else {"a": 8.0, "b": 5.0} if winner == "a" else {"a": 4.0, "b": 6.0}  # fmt: skip
        rows.append({"id": str(n), "model_a": "good", "model_b": "poor", "winner": winner, "order_flip": n % 6 == 0,
                     "scores": scores, "criteria": {}, "safety": [], "department": DEPARTMENTS[n % 4], "intent": "",
                     "error": None if winner else "3 tries", "lengths": {"a": 20, "b": 9}, "judge": "llm:toy"})  # fmt: skip
    rows.append({**rows[0], "id": "x", "model_b": "nobody"})
    return write(folder / "verdicts.jsonl", rows)


def votes(folder: Path, count: int = 24) -> str:
    """An export of three raters: good wins but on every fourth case."""
    lines = ["study,case,rater,contestant_a,contestant_b,choice,left_is"]
    for n in range(count):
        for rater in (1, 2, 3):
            left = "ab"[(n + rater) % 2]
            wins = "a" if n % 4 else "b"
            lines.append(f"s,{n},{rater},good,poor,{'left' if left == wins else 'right'},{left}")
    lines.append("s,0,1,good,nobody,tie,a")
    (folder / "export").mkdir(exist_ok=True)
    (folder / "export/votes.csv").write_text("\n".join(lines) + "\n", "utf-8-sig")
    return str(folder / "export")


def test_all_yardsticks_stand_on_one_page_that_needs_no_network(
    made: dict[str, Any], tmp_path: Path
) -> None:
    share = {"value": 0.5, "low": 0.2, "high": 0.8, "count": 10}
    talks = {"note": {"en": "Counts."}, "cases": 10, "turns": 4, "models": {
        "good": {"consultations": 10, "unfinished": {"assistant": 1}, "shares": {"asks_back": share}, "means": {"questions": {"value": 2.0, "count": 10}}, "cases": []}}}  # fmt: skip
    (tmp_path / "talks.json").write_text(json.dumps(talks), "utf-8")
    report = evaluate(
        config(
            tmp_path, [made["good"], made["poor"]], made["questions"], judge=(verdicts(tmp_path),),
            votes=votes(tmp_path), multiturn=str(tmp_path / "talks.json"),
            gate=GateConfig(candidate="poor", baseline="good", margins={"rouge-l": 0.01, "judge": 0.05, "finished": 0.0}),
        )
    )  # fmt: skip
    judged = report["judge"]["pairs"][0]
    assert (judged["win"], judged["tie"], judged["loss"], judged["errors"]) == (15, 0, 6, 3)
    assert report["judge"]["left_out"] == 1
    voted = report["physicians"]
    assert (voted["votes"], voted["raters"], voted["left_out"]) == (72, 3, 1)
    assert voted["pairs"][0]["win"] == 54 and voted["pairs"][0]["share"]["value"] == 0.75
    between = {(b["one"], b["two"]): b for b in report["agreement"]["between"]}
    questions = between["judge", "physicians"]["questions"]
    assert (questions["same"], questions["decided"]) == (21, 21)
    assert between["judge", "physicians"]["same_winner"]["same"] == 1
    assert between["judge", "physicians"]["rank_correlation"] is None
    assert report["agreement"]["few_models"]
    assert not report["gate"]["passed"]
    assert [c["passed"] for c in report["gate"]["checks"]] == [False, False, True]
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert not re.search(r"(?i)<script|https?://|@import|<link", page)
    for words in ("At a glance", "Gate", "CC-BY", "Judge", "Consultations with", "Physicians", "Do the yardsticks agree",
                  "Wins and losses side by side", "no verdict", "Only 2 models"):  # fmt: skip
        assert words in page, words
    kept = json.loads((tmp_path / "out/report.json").read_text("utf-8"))
    assert kept == json.loads(json.dumps(report))
    assert len(kept["files"]) == 6 and all(len(sha) == 64 for sha in kept["files"].values())


def test_turning_the_models_round_turns_every_difference(
    made: dict[str, Any], tmp_path: Path
) -> None:
    there, back = (
        evaluate(config(tmp_path / str(n), models, made["questions"]))
        for n, models in enumerate([(made["good"], made["poor"]), (made["poor"], made["good"])])
    )
    one, two = (report["metrics"]["own"]["differences"] for report in (there, back))
    for a, b in zip(one, two, strict=True):
        assert a["difference"] == pytest.approx(-b["difference"]) and a["metric"] == b["metric"]
        assert a["low"] == pytest.approx(-b["high"])
    assert there["metrics"]["own"]["scores"] == back["metrics"]["own"]["scores"]


@pytest.mark.parametrize("odd", ["", "。，！", " \n"])
def test_odd_answers_and_references_have_defined_numbers(odd: str, tmp_path: Path) -> None:
    rows = [{"id": str(n), "question": "头痛怎么办", "references": [odd if n == 1 else "多休息。"]} for n in range(4)]  # fmt: skip
    said = [{"id": str(n), "answer": odd if n != 2 else "多休息。"} for n in range(4)]
    models = [f"odd={write(tmp_path / 'odd.jsonl', said)}"]
    report = evaluate(config(tmp_path, models, write(tmp_path / "q.jsonl", rows)))
    scores = report["metrics"]["own"]["scores"]["odd"]
    assert all(0 <= row["value"] <= 1 for row in scores.values())
    assert report["answers"]["own"]["odd"]["empty"] == (0 if odd.strip() else 3)
    assert report["metrics"]["own"]["questions"] == 4


def test_models_are_compared_where_all_of_them_answered(
    made: dict[str, Any], tmp_path: Path
) -> None:
    half = [
        {"id": str(n), "answer": "您好，头痛建议就诊。"} for n in range(24) if n % 2
    ]  # fmt: skip
    models = [made["good"], f"half={write(tmp_path / 'half.jsonl', half)}"]
    report = evaluate(config(tmp_path, models, made["questions"]))
    found = report["metrics"]["own"]
    assert (found["questions"], found["of"]) == (12, 24)
    assert report["answers"]["own"]["half"]["failed"] == {"Missing": 12}
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert "On 12 questions of 24" in page and "12 Missing" in page


def test_a_benchmark_of_letters_is_marked_and_compared(tmp_path: Path) -> None:
    options = {"A": "甲", "B": "乙", "C": "丙"}
    rows = [
        {"id": str(n), "question": f"第{n}题", "options": options, "answer": "ABC"[n % 3], "label": "药学" if n < 6 else "中医"}
        for n in range(12)
    ]  # fmt: skip
    right = [{"id": r["id"], "answer": f"答案是{r['answer']}"} for r in rows]
    wild = [{"id": r["id"], "answer": "A" if int(r["id"]) % 2 else "说不清"} for r in rows]
    models = [f"right={write(tmp_path / 'r.jsonl', right)}", f"wild={write(tmp_path / 'w.jsonl', wild)}", "nano-doctor"]  # fmt: skip
    report = evaluate(
        config(
            tmp_path,
            models,
            write(tmp_path / "q.jsonl", rows),
            letters=True,
            generation=Generation(max_new_tokens=8),
        )
    )
    found = report["choice"]["own"]["models"]
    assert found["right"]["accuracy"] == 1.0 and found["right"]["by_subject"]["药学"]["of"] == 6
    assert (found["wild"]["right"], found["wild"]["wrong"], found["wild"]["unanswerable"]) == (2, 4, 6)  # fmt: skip
    assert found["nano-doctor"]["by_letters"]["of"] == 12 and found["right"]["by_letters"] is None
    pair = report["choice"]["own"]["differences"][0]
    assert (pair["a"], pair["b"], pair["only_first"]) == ("right", "wild", 10)
    assert pair["p"] == pytest.approx(2 / 2**10)
    assert not report["metrics"] and "Multiple choice" in (tmp_path / "out/report.html").read_text("utf-8")  # fmt: skip


def test_the_judge_may_be_asked_from_here(made: dict[str, Any], tmp_path: Path) -> None:
    from tests.training.openai_server import OpenAiServer

    def say(body: dict[str, Any], _: int) -> str:
        raise AssertionError("replaced below")

    judge = tmp_path / "judge.toml"
    server = OpenAiServer(say)
    from tests.training.test_judge import form

    server.say = lambda body, number: form("1" if number % 2 else "2")
    judge.write_text(
        f'base_url = "{server.url}"\nmodel = "toy"\nworkers = 1\ncache = "{tmp_path / "judged"}"\n', "utf-8"
    )  # fmt: skip
    wanted = config(tmp_path, [made["good"], made["poor"]], made["questions"], judge_config=str(judge))  # fmt: skip
    report = evaluate(wanted)
    asked = len(server.bodies)
    pair = report["judge"]["pairs"][0]
    assert (pair["model_a"], pair["win"], pair["cases"]) == ("good", 24, 24)
    assert evaluate(wanted) == report and len(server.bodies) == asked
    server.close()


def test_two_judges_stand_beside_each_other(made: dict[str, Any], tmp_path: Path) -> None:
    orders = {"win": ("better", "worse"), "loss": ("worse", "better"), "tie": ("equal", "equal")}
    rulings = [
        {"id": str(n), "intent": "", "department": "内科", "outcome": outcome, "lengths": [20, 9],
         "scores": {"win": [20, 0], "loss": [0, 20], "tie": [10, 10]}[outcome],
         "orders": [{"label": label} for label in orders[outcome]]}
        for n in range(24) for outcome in [("win", "loss", "tie")[n % 3]]
    ]  # fmt: skip
    authors = tmp_path / "authors.json"
    found = {"judge": "llm:toy", "model_a": "poor", "model_b": "good", "rulings": rulings}
    authors.write_text(json.dumps(found), "utf-8")
    gate = GateConfig(candidate="good", baseline="poor", margins={"judge": 0.0})
    files = (verdicts(tmp_path), str(authors))
    report = evaluate(config(tmp_path, [made["good"], made["poor"]], made["questions"], judge=files, gate=gate))  # fmt: skip
    assert report["judge"]["judges"] == ["llm:toy", "llm:toy, the authors' protocol"]
    stronger, theirs = report["judge"]["pairs"]
    assert (stronger["win"], stronger["loss"]) == (15, 6)  # as if it were alone
    assert (theirs["model_a"], theirs["win"], theirs["tie"], theirs["loss"]) == ("poor", 8, 8, 8)
    sticks = report["agreement"]["yardsticks"]
    assert sticks[:2] == ["judge llm:toy", "judge llm:toy, the authors' protocol"]
    checks = {row["name"]: row["difference"] for row in report["gate"]["checks"]}
    assert checks["judge, llm:toy"] == pytest.approx(15 / 21 - 0.5)
    assert checks["judge, llm:toy, the authors' protocol"] == pytest.approx(0.0)
    assert "the authors&#x27; protocol" in (tmp_path / "out/report.html").read_text("utf-8")
    copy = tmp_path / "again.jsonl"
    copy.write_text((tmp_path / "verdicts.jsonl").read_text("utf-8"), "utf-8")
    with pytest.raises(
        BadData, match=r"again\.jsonl: id 0: the same judge says it in verdicts\.jsonl"
    ):
        evaluate(config(tmp_path, [made["good"], made["poor"]], made["questions"], judge=(files[0], str(copy))))  # fmt: skip
    with pytest.raises(BadData, match=r"verdicts\.jsonl: id 0: the same judge says it here too"):
        evaluate(config(tmp_path, [made["good"], made["poor"]], made["questions"], judge=(files[0], files[0])))  # fmt: skip


def test_a_judges_cap_holds_for_all_pairs_together(made: dict[str, Any], tmp_path: Path) -> None:
    from tests.training.openai_server import OpenAiServer
    from tests.training.test_judge import form

    server = OpenAiServer(lambda body, number: form("1" if number % 2 else "2"))
    judge = tmp_path / "judge.toml"
    judge.write_text(
        f'base_url = "{server.url}"\nmodel = "toy"\nworkers = 1\nmax_calls = 60\ncache = "{tmp_path / "judged"}"\n', "utf-8"
    )  # fmt: skip
    other = [{"id": str(n), "answer": f"第{n}种说法。"} for n in range(24)]
    models = [made["good"], made["poor"], write(tmp_path / "third.jsonl", other)]
    wanted = config(tmp_path, models, made["questions"], judge_config=str(judge))
    with pytest.raises(ConfigError, match="max_calls, 60, will stop it on its way"):
        evaluate(wanted)  # 2 pairs of 24 questions in two orders: 96
    assert not server.bodies
    with pytest.raises(ConfigError, match="the 60 calls allowed are used up"):
        evaluate(wanted, yes=True)
    assert len(server.bodies) == 60
    server.close()


def test_what_is_wrong_is_told_before_anything_is_answered(
    made: dict[str, Any], tmp_path: Path
) -> None:
    server = AnsweringServer(lambda q: "建议就医。")
    models = [server.file(tmp_path, "far"), made["good"]]
    gate = GateConfig(candidate="far", baseline="nobody", margins={"gleu": 0.0})
    for more in (
        {"gate": gate},
        {"gate": gate.model_copy(update={"baseline": "good", "benchmarks": ("x",)})},
        {"gate": gate.model_copy(update={"report": "nothing.json"})},
        {"votes": str(tmp_path)},
        {"multiturn": str(tmp_path / "none.json")},
        {"judge": (str(tmp_path / "none.jsonl"),)},
        {"judge_config": str(tmp_path / "none.toml")},
    ):
        with pytest.raises(HuatuoError):
            evaluate(config(tmp_path, models, made["questions"], **more))
    assert not server.asked
    server.close()


def test_an_answer_to_another_question_of_the_same_id_is_an_error(
    made: dict[str, Any], tmp_path: Path
) -> None:
    rows = [{"id": str(n), "question": f"第{n}个问题，我头痛{n}天了 怎么办", "answer": "休息。"} for n in range(24)]  # fmt: skip
    same = write(tmp_path / "same.jsonl", rows)
    assert (
        evaluate(config(tmp_path, [same], made["questions"]))["metrics"]["own"]["questions"] == 24
    )
    rows[5]["question"] = "别的问题"
    with pytest.raises(BadData, match=r"other\.jsonl:6: id 5 answers another question than own"):
        evaluate(config(tmp_path, [write(tmp_path / "other.jsonl", rows)], made["questions"]))


# The gate.


def test_the_baseline_may_stand_in_an_earlier_report_on_the_same_questions(
    made: dict[str, Any], tmp_path: Path
) -> None:
    margins = {"rouge-l": 0.02, "distinct-2": 0.5, "finished": 0.0, "judge": 0.1}
    together = GateConfig(candidate="poor", baseline="good", margins=margins)
    before = evaluate(config(tmp_path / "a", [made["good"]], made["questions"]))
    both = evaluate(config(tmp_path / "b", [made["good"], made["poor"]], made["questions"]))
    apart = together.model_copy(update={"report": str(tmp_path / "a/out/report.json")})
    alone = evaluate(config(tmp_path / "c", [made["poor"]], made["questions"], gate=apart))
    paired = {row["name"]: row for row in check(together, both)["checks"]}
    found = {row["name"]: row for row in alone["gate"]["checks"]}
    assert [row["passed"] for row in found.values()] == [False, True, True, False]
    for name in ("rouge-l, own", "distinct-2, own", "finished, own"):
        assert found[name]["difference"] == pytest.approx(paired[name]["difference"])
    one, two = (r["metrics"]["own"]["scores"][m]["rouge-l"] for r, m in ((alone, "poor"), (before, "good")))  # fmt: skip
    (low, _), (_, over) = one["interval"], two["interval"]
    apart_by = ((one["value"] - low) ** 2 + (over - two["value"]) ** 2) ** 0.5
    row = found["rouge-l, own"]
    assert row["low"] == pytest.approx(row["difference"] - apart_by)
    assert "cannot be told across two reports" in found["judge"]["why"]
    assert alone["gate"]["report"]["sha256"] == alone["files"]["baseline: report.json"]
    assert "of an earlier report (report.json" in (tmp_path / "c/out/report.html").read_text(
        "utf-8"
    )


def test_an_earlier_report_that_was_made_otherwise_is_no_baseline(
    made: dict[str, Any], tmp_path: Path
) -> None:
    earlier = tmp_path / "a/out/report.json"
    evaluate(config(tmp_path / "a", [made["good"]], made["questions"]))
    gate = GateConfig(candidate="poor", baseline="good", report=str(earlier), margins={"gleu": 0.1})
    wanted = config(tmp_path / "b", [made["poor"]], made["questions"], gate=gate)
    sound = json.loads(earlier.read_text("utf-8"))
    for path, value, told in (
        (("convention", "bleu"), "sentence", "convention was"),
        (("benchmarks", "own", "items"), 23, "own: items was 23 in"),
        (("benchmarks", "own", "files"), {"q.jsonl": "0"}, "own: files was"),
        (("benchmarks",), {}, "has no benchmark own"),
        (("metrics", "own", "scored"), "x", "other questions were scored"),
        (("models",), {"else": {}}, "good is not in"),
        (("models",), [], "is no report.json"),
    ):
        changed = json.loads(json.dumps(sound))
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        earlier.write_text(json.dumps(changed), "utf-8")
        with pytest.raises(HuatuoError, match=told):
            evaluate(wanted)
    earlier.write_text("{", "utf-8")
    with pytest.raises(BadData, match=r"is no report\.json"):
        evaluate(wanted)


def test_the_gate_says_what_fell_by_more_than_its_margin(
    made: dict[str, Any], tmp_path: Path
) -> None:
    report = evaluate(config(tmp_path, [made["good"], made["poor"]], made["questions"]))
    margins = {"bleu-4": 0.0, "distinct-2": 0.5}
    fell = check(GateConfig(candidate="poor", baseline="good", margins=margins), report)
    assert not fell["passed"] and [c["passed"] for c in fell["checks"]] == [False, True]
    assert re.search(r"fell by 0\.\d+ \[0\.\d+, 0\.\d+\], margin 0$", fell["checks"][0]["why"])
    rose = check(GateConfig(candidate="good", baseline="poor", margins={"bleu-4": 0.0}), report)
    assert rose["passed"]
    row = rose["checks"][0]
    edge = fell["checks"][0]["difference"]
    assert row["difference"] == pytest.approx(-edge)
    exactly = GateConfig(candidate="poor", baseline="good", margins={"bleu-4": -edge})
    assert check(exactly, report)["passed"]
    strict = exactly.model_copy(update={"by": "interval"})
    assert not check(strict, report)["passed"]
    unmeasured = GateConfig(candidate="good", baseline="poor", margins={"accuracy": 0.5})
    assert not check(unmeasured, report)["passed"]
    for wrong in ({"candidate": "x"}, {"margins": {"bleu": 0.1}}, {"margins": {}}, {"margins": {"gleu": -1.0}}):  # fmt: skip
        with pytest.raises(ConfigError, match=r"gate\."):
            check(exactly.model_copy(update=wrong), report)


@pytest.fixture
def inside() -> Iterator[Path]:
    """A folder in the project: the command line takes no other for its output."""
    folder = ROOT / "data" / f"test-evaluate-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_the_command_exits_1_when_the_gate_fails_and_2_for_an_error(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = world(inside)
    gate = inside / "gate.toml"
    gate.write_text('candidate = "poor"\nbaseline = "good"\nmargins = { "rouge-l" = 0.02 }\n', "utf-8")  # fmt: skip
    toml = inside / "e.toml"
    toml.write_text(
        f'models = ["nano-hybrid"]\nout = "data/{inside.name}/out"\ncache = "data/{inside.name}/cache"\n'
        f'resamples = 100\n[[benchmark]]\nname = "own"\nfile = "{made["questions"]}"\n',
        "utf-8",
    )
    both = [str(toml), "--models", made["good"], made["poor"], "--benchmarks", "own"]
    assert main(both) == 0
    assert main([*both, "--gate", str(gate)]) == 1
    told = capsys.readouterr()
    assert re.search(r"gate: rouge-l, own fell by 0\.\d+ \[", told.err) and "FAIL" in told.out
    earlier = inside / "earlier.json"
    shutil.copy(inside / "out/report.json", earlier)
    alone = [str(toml), "--models", made["poor"], "--benchmarks", "own", "--baseline", str(earlier)]
    assert main([*alone, "--gate", str(gate)]) == 1
    assert main(alone) == 2 and "--gate FILE, that says what may fall" in capsys.readouterr().err
    assert main([*both, "--gate", str(gate)]) == 1
    report = json.loads((inside / "out/report.json").read_text("utf-8"))
    assert report["gate"]["passed"] is False
    assert main([*both[:4], "--benchmarks", made["questions"]]) == 0
    for arguments, words in (
        ([str(toml), "--models", "nobody"], "nobody is no model"),
        ([str(toml), "--models", made["good"], made["good"]], "two are called good"),
        ([*both[:4], "--benchmarks", "nothing"], "no [[benchmark]] of this name"),
        ([*both, "--votes", str(inside)], "holds neither"),
        ([*both, "--multiturn", str(gate)], "not what training.multiturn writes"),
        ([*both, "--judge", f'["{made["questions"]}"]'], "model_a is missing"),
        ([*both, "--out", "../x"], "out leads out of the project"),
        ([*both, "--resamples", "1"], "resamples"),
    ):
        capsys.readouterr()
        assert main(arguments) == 2
        found = capsys.readouterr().err.strip()
        assert words in found and "\n" not in found, found


@pytest.mark.parametrize(
    "change",
    [
        {"shares": {"asks_back": {"value": float("nan"), "low": 0.0, "high": 1.0}}},
        {"shares": {"asks_back": {"value": "0.5", "low": 0.0, "high": 1.0}}},
        {"shares": {"asks_back": {"value": 0.5}}},
        {"shares": [1]}, {"means": {"questions": 3}}, {"means": {"questions": {"value": float("inf")}}},
        {"consultations": None}, {"unfinished": [1]}, None,
    ],
)  # fmt: skip
def test_figures_of_consultations_that_are_none_are_refused(change: Any, tmp_path: Path) -> None:
    share = {"value": 0.5, "low": 0.2, "high": 0.8}
    sound = {"consultations": 1, "unfinished": {}, "shares": {"asks_back": share}, "means": {"questions": {"value": None}}}  # fmt: skip
    file = tmp_path / "talks.json"
    figures = {"note": {"en": "Counts."}, "models": {"m": sound}}
    file.write_text("\ufeff" + json.dumps(figures), "utf-8")
    assert consulted(str(file)).figures == figures
    file.write_text(json.dumps(figures | {"models": {"m": sound | change} if change else {}}), "utf-8")  # fmt: skip
    with pytest.raises(BadData, match=r"talks\.json: not what training\.multiturn writes"):
        consulted(str(file))


def test_what_is_about_other_models_is_an_error(made: dict[str, Any], tmp_path: Path) -> None:
    models = [made["good"]]
    with pytest.raises(NoData, match="none of 25 verdicts"):
        evaluate(config(tmp_path, models, made["questions"], judge=(verdicts(tmp_path),)))
    with pytest.raises(NoData, match="none on two of the models"):
        evaluate(config(tmp_path, models, made["questions"], votes=votes(tmp_path)))
    with pytest.raises(HuatuoError, match="not both"):
        evaluate(config(tmp_path, models, made["questions"], judge=("a",), judge_config="b"))


def test_a_release_takes_the_gate_of_its_own_branch_only(
    made: dict[str, Any], tmp_path: Path
) -> None:
    from huatuo.errors import Mismatch
    from huatuo.models.branch import read_branch, save_branch
    from huatuo.models.trunk import load_trunk
    from training.gate import read_gates

    parent = ROOT / "huatuo/nano/doctor"
    trunk, _ = load_trunk(parent, 1)
    save_branch(tmp_path / "b", dict(trunk.branch_tensors(trunk.policy)), kind="policy", blocks=1, parent=parent, template="huatuo-nano")  # fmt: skip
    gate = GateConfig(candidate="poor", baseline="good", margins={"rouge-l": 0.01})
    report = evaluate(config(tmp_path, [made["good"], made["poor"]], made["questions"], gate=gate))
    file = tmp_path / "out/report.json"
    with pytest.raises(Mismatch, match="its gate is about poor"):
        read_gates(file, tmp_path / "b")
    sha256 = read_branch(tmp_path / "b").sha256
    report["models"]["poor"]["weights"] = f"branch {sha256[:12]} on x"
    file.write_text(json.dumps(report), "utf-8")
    (found,) = read_gates(file, tmp_path / "b")
    assert found.name == "evaluation: rouge-l, own" and not found.passed
    file.write_text("{}", "utf-8")
    with pytest.raises(BadData, match="no checks of a gate"):
        read_gates(file, tmp_path / "b")


def test_verdicts_on_two_benchmarks_with_the_same_ids_stay_apart(tmp_path: Path) -> None:
    """good is better in `one`, poor in `two`; ids are the same."""
    made = world(tmp_path, 8)
    other = tmp_path / "two.jsonl"
    rows = [json.loads(line) for line in Path(made["questions"]).read_text("utf-8").splitlines()]
    write(other, [{**row, "question": "又问：" + row["question"], "references": ["吃药。"]} for row in rows])  # fmt: skip
    sets = tuple(BenchmarkConfig(name=n, file=f) for n, f in (("one", made["questions"]), ("two", str(other))))  # fmt: skip

    def verdict(n: int, benchmark: str) -> dict[str, Any]:
        winner = "a" if benchmark == "one" else "b"
        named = {"benchmark": benchmark} if benchmark else {}
        return {"id": str(n), "model_a": "good", "model_b": "poor", "winner": winner, "error": None} | named  # fmt: skip

    def evaluated(*files: str) -> dict[str, Any]:
        wanted = config(tmp_path, [made["good"], made["poor"]], made["questions"], judge=files)
        return evaluate(wanted.model_copy(update={"benchmark": sets}))

    told = [verdict(n, name) for name in ("one", "two", "elsewhere") for n in range(8)]
    report = evaluated(write(tmp_path / "v.jsonl", told))
    assert report["judge"]["left_out"] == 8
    (pair,) = report["judge"]["pairs"]
    assert {n: (g["win"], g["loss"]) for n, g in pair["by_benchmark"].items()} == {"one": (8, 0), "two": (0, 8)}  # fmt: skip
    between = {(b["one"], b["two"]): b["questions"] for b in report["agreement"]["between"]}
    assert between["judge", "rouge-l, one"]["same"] == between["judge", "rouge-l, two"]["same"] == 8
    assert between["rouge-l, one", "rouge-l, two"]["decided"] == 0
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert "The same verdicts by benchmark." in page
    assert page.count("good is ahead by the judge") == page.count("poor is ahead by the judge") == 3
    with pytest.raises(BadData, match=r"w\.jsonl: id 0 is in one and in two; judge again with --benchmark"):  # fmt: skip
        evaluated(write(tmp_path / "w.jsonl", [verdict(0, "")]))
