"""Both judges over the published answers: what a scripted server says in both orders, counted again here with numpy."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from huatuo.toml import ROOT
from tests.training.openai_server import OpenAiServer
from tests.training.test_judge import form, serving, texts
from training import huatuo_judge, judge

__all__ = ["serving"]
INST = ROOT.parent / "shared/data/huatuo100_inst"
pytestmark = pytest.mark.skipif(not INST.is_dir(), reason="needs ../shared/data/huatuo100_inst")
NAMES = ("HuatuoGPT2-7B", "GPT4")
Z = 1.959963984540054


def answers() -> list[dict[str, Any]]:
    """The cases in the first file's order: {id, intent, a, b}."""
    ours, theirs = (
        {row["id"]: row for row in json.loads((INST / f"{n}.json").read_text("utf-8"))}
        for n in NAMES
    )
    return [
        {"id": id, "intent": row["label"], "a": row["model_output"], "b": theirs[id]["model_output"]}
        for id, row in ours.items()
    ]  # fmt: skip


def dice(*words: str) -> int:
    return int(hashlib.sha256("|".join(words).encode()).hexdigest()[:8], 16)


def place(one: str, two: str) -> str:
    """Who wins of two texts shown, by their hash: one in five by position alone, one in five a tie."""
    kind = dice(*sorted((one.strip(), two.strip()))) % 5
    if kind == 0:
        return "1"
    if kind == 1:
        return "tie"
    return "1" if (dice(one.strip()) > dice(two.strip())) == (kind < 4) else "2"


def points(one: str, two: str) -> tuple[int, int]:
    return dice(one.strip(), two.strip()) % 10 + 1, dice(two.strip(), one.strip(), "x") % 10 + 1


def wilson(count: int, n: int) -> list[float]:
    share, z2 = count / n, Z * Z / n
    middle, half = share + z2 / 2, Z * np.sqrt(share * (1 - share) / n + z2 / (4 * n))
    return [float((middle - half) / (1 + z2)), float((middle + half) / (1 + z2))]


def toml(folder: Path, server: OpenAiServer) -> str:
    path = folder / "judge.toml"
    path.write_text(
        f'base_url = "{server.url}"\nmodel = "gpt-4"\ncache = "{folder / "replies"}"\n'
        "leaves_country = false\n"
    )
    return str(path)


def counted(verdicts: list[tuple[str, str]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N, 2) points of a, 10 / 5 / 0 in each order; verdicts: the place that won in both orders."""
    there = {"1": 10.0, "tie": 5.0, "2": 0.0}
    return np.array([[there[one], 10 - there[two]] for one, two in verdicts])


Read = Callable[[Mapping[str, Any]], Any]


def agree(found: Mapping[str, Any], table: np.ndarray[Any, np.dtype[np.float64]], read: Read) -> None:  # fmt: skip
    """Wins, ties and losses with Wilson's intervals, flips and the share of the first, from both orders' points."""
    total = table.sum(1)
    counts = {"win": (total > 10).sum(), "tie": (total == 10).sum(), "loss": (total < 10).sum()}
    for name, count in counts.items():
        assert found[name] == count > 0
        assert found[f"{name}_rate"] == pytest.approx(count / 100)
        assert found[f"{name}_interval"] == pytest.approx(wilson(int(count), 100), abs=1e-9)
    decided = table[table != 5].size
    first = (table[:, 0] == 10).sum() + (table[:, 1] == 0).sum()
    assert read(found) == (
        ((table == [10, 0]).all(1) | (table == [0, 10]).all(1)).sum(),
        pytest.approx(first / decided),
    )


def test_the_stronger_judge_over_the_published_answers(serving: Any, tmp_path: Path) -> None:
    def say(body: dict[str, Any], _: int) -> str:
        one, two = texts(body)
        scores = points(one, two)
        return form(place(one, two), score_1=scores[0], score_2=scores[1])

    server = serving(say)
    out = tmp_path / "v.jsonl"
    files = [str(INST / f"{name}.json") for name in NAMES]
    assert judge.main([toml(tmp_path, server), "--answers", *files, "--out", str(out)]) == 0
    assert len(server.bodies) == 200
    cases = answers()
    table = counted([(place(c["a"], c["b"]), place(c["b"], c["a"])) for c in cases])
    found = json.loads(out.with_suffix(".json").read_text("utf-8"))
    agree(found, table, lambda f: (f["flips"]["count"], f["flips"]["first_shown"]["share"]))
    share = np.select([table.sum(1) > 10, table.sum(1) == 10], [1.0, 0.5], 0.0)
    assert found["share"]["value"] == pytest.approx(share.mean())
    low, high = found["share"]["low"], found["share"]["high"]
    half = Z * share.std() / 10
    assert (low, high) == pytest.approx((share.mean() - half, share.mean() + half), abs=0.02)
    scores = np.array([
        [(points(c["a"], c["b"])[0] + points(c["b"], c["a"])[1]) / 2,
         (points(c["a"], c["b"])[1] + points(c["b"], c["a"])[0]) / 2] for c in cases
    ])  # fmt: skip
    assert found["ratio"]["value"] == pytest.approx(scores[:, 1].mean() / scores[:, 0].mean())
    apart = np.array([len(c["a"]) - len(c["b"]) for c in cases], float)
    assert found["length"]["correlation"]["value"] == pytest.approx(np.corrcoef(share, apart)[0, 1])
    assert found["length"]["mean_a"] == pytest.approx(np.mean([len(c["a"]) for c in cases]))
    for intent, one in found["by_intent"].items():
        here = np.array([c["intent"] == intent for c in cases])
        assert (one["win"], one["loss"]) == ((share[here] == 1).sum(), (share[here] == 0).sum())
        assert one["ratio"]["value"] == pytest.approx(scores[here, 1].mean() / scores[here, 0].mean())  # fmt: skip
    assert sum(one["cases"] for one in found["by_intent"].values()) == 100


def test_the_authors_judge_over_the_published_answers(serving: Any, tmp_path: Path) -> None:
    words = {"1": "better than", "2": "worse than", "tie": "equal to"}

    def say(body: dict[str, Any], _: int) -> str:
        prompt = body["messages"][0]["content"]
        one, two = (
            re.search(rf"\[Assistant {n}\]\n(.*?)\n\[End of Assistant {n}\]", prompt, re.S)
            for n in "12"
        )
        assert one and two
        return f"Fine.\nAssistant 1 is {words[place(one[1], two[1])]} Assistant 2"

    server = serving(say)
    files = [str(INST / f"{name}.json") for name in NAMES]
    out = tmp_path / "h.json"
    assert huatuo_judge.main([toml(tmp_path, server), *files, "--out", str(out)]) == 0
    assert len(server.bodies) == 200
    cases = answers()
    table = counted([(place(c["a"], c["b"]), place(c["b"], c["a"])) for c in cases])
    found = json.loads(out.read_text("utf-8"))
    agree(found, table, lambda f: (f["position_flips"], f["first_shown"]))
    assert [r["scores"][0] for r in found["rulings"]] == table.sum(1).tolist()
    apart = [len(c["a"]) - len(c["b"]) for c in cases]
    assert found["length_correlation"] == pytest.approx(np.corrcoef(2 * table.sum(1) - 20, apart)[0, 1])  # fmt: skip
    for intent, one in found["by_group"].items():
        here = np.array([c["intent"] == intent for c in cases])
        assert (one["cases"], one["win"]) == (here.sum(), (table.sum(1)[here] > 10).sum())
