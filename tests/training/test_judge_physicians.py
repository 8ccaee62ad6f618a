"""The judge against physicians: figures recomputed by hand from a real record, the export alike, and honest silence."""

import csv
import io
import itertools
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reviews.export import export
from reviews.people import People
from reviews.protocol import CRITERIA, Criterion, Protocol
from reviews.records import PreparedPair, PreparedTurn, Span
from reviews.store import Store
from training.alternative import alternative, benjamini_yekutieli
from training.data import BadData
from training.judge_physicians import compare, from_export, from_record, from_verdicts, main
from training.judge_rows import write_rows

PAIRS, PHYSICIANS = 40, 4
TURNED = {"a": "b", "b": "a", "tie": "tie"}


def plan(seed: int = 0) -> list[str]:
    """What is true of each pair: mostly a, some b, some ties."""
    rng = random.Random(seed)
    return [rng.choice(["a", "a", "b", "b", "tie"]) for _ in range(PAIRS)]


def noisy(truth: str, rng: random.Random, right: float) -> str:
    return truth if rng.random() < right else rng.choice(["a", "b", "tie"])


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], str]]:
    """A filed study voted on by four physicians; (folder, what each said of each case, by model letter)."""
    folder = tmp_path_factory.mktemp("record")
    store = Store.open(folder / "reviews.sqlite3", rng=random.Random(3))
    turn = [PreparedTurn(f"问题{i}", f"甲的回答第{i}号", f"乙的回答第{i}号") for i in range(PAIRS)]
    pairs = [
        PreparedPair(f"c{i}", "zeta", "alpha", (turn[i],), department=f"科{i % 2}")
        for i in range(PAIRS)
    ]
    store.add_prepared("s", pairs, "system")
    criteria = (CRITERIA["diagnosis"], Criterion("clarity", "preference", "清楚", "Clarity"))
    store.file_study(Protocol("s", criteria=criteria, overlap=PHYSICIANS), "system")
    people, rng, truth = People(store.database), random.Random(5), plan()
    said: dict[tuple[str, str], str] = {}
    for n in range(PHYSICIANS):
        who = people.add_user(f"p{n}", "physician", "hash", "system").id
        while (given := store.next_prepared(who, "s")) is not None:
            _, comparison = store.view(given.id, who)
            case = comparison.external_id
            letter = noisy(truth[int(case[1:])], rng, 0.8)
            said[f"p{n}", case] = letter
            a, b = comparison.contestant_a, comparison.contestant_b
            zeta = "left" if (a if given.left_is == "a" else b) == "zeta" else "right"
            is_left = (letter == "a") == (zeta == "left")
            choice = "tie" if letter == "tie" else "left" if is_left else "right"
            stars = (3, 3) if letter == "tie" else (4, 2) if is_left else (2, 4)
            spans = [Span(zeta, 1, 0, 3, "wrong_dose")] if case == "c0" else []
            store.cast_vote(
                given.id, who, choice, spans=spans,
                ratings={"left_diagnosis": stars[0], "right_diagnosis": stars[1],
                         "pref_clarity": 3 + (stars[1] - stars[0]) // 2},
            )  # fmt: skip
    store.close()
    return folder, said


def verdicts(right: float = 0.85, seed: int = 9) -> list[dict[str, Any]]:
    """The judge's rows; model_a is zeta, the record's contestant a."""
    rng = random.Random(seed)
    return [
        {"id": f"c{i}", "model_a": "zeta", "model_b": "alpha", "winner": (w := noisy(t, rng, right)),
         "criteria": {"diagnosis": w, "clarity": None if i % 4 == 0 else TURNED[w], "warmth": "a"},
         "safety": [{"answer": "a", "kind": "wrong_dose", "quote": ""}] if i in (0, 1) else [],
         "department": "", "error": None}
        for i, t in enumerate(plan())
    ]  # fmt: skip


def test_the_figures_are_those_computed_by_hand(record: Any) -> None:
    folder, said = record
    rows = verdicts()
    found = compare(from_record(folder), from_verdicts(rows))
    judge = {row["id"]: row["winner"] for row in rows}
    people = [f"p{n}" for n in range(PHYSICIANS)]
    own = np.mean([judge[c] == said[p, c] for c in judge for p in people])
    ceiling = np.mean(
        [said[p, c] == said[q, c] for c in judge for p, q in itertools.combinations(people, 2)]
    )
    whole = found["whole"]
    assert (found["votes"], found["pairs"], found["raters"]) == (160, 40, 4)
    assert whole["agreement"]["value"] == pytest.approx(own)
    assert whole["ceiling"]["value"] == pytest.approx(ceiling)
    shares = [np.mean([said[p, c] == x for c in judge for p in people]) for x in ("a", "b", "tie")]
    chance = sum(share**2 for share in shares)
    assert whole["ceiling_kappa"]["value"] == pytest.approx(1 - (1 - ceiling) / (1 - chance))
    assert whole["agreement"]["low"] < own < whole["agreement"]["high"]
    # the same votes rate diagnosis, so its figures are the whole's; clarity was planted the wrong way round
    diagnosis, clarity = found["criteria"]["diagnosis"], found["criteria"]["clarity"]
    assert diagnosis["agreement"]["value"] == pytest.approx(own)
    assert (
        clarity["pairs"] == 30 and clarity["kappa"]["value"] < 0 < clarity["ceiling_kappa"]["value"]
    )
    assert clarity["advice"] == "may not" and "warmth" not in found["criteria"]
    assert {name: part["pairs"] for name, part in found["departments"].items()} == {
        "科0": 20,
        "科1": 20,
    }
    assert found["departments"]["科0"]["advice"] == "not enough raters"  # 20 pairs each
    assert found["safety"] == {
        "answers": 80, "by_physicians": 1, "by_judge": 2, "by_both": 1,
        "recall": {"value": 1.0, "low": pytest.approx(0.207, abs=1e-3), "high": 1.0, "n": 1},
    }  # fmt: skip


def test_the_export_tells_the_same_as_the_record(record: Any, tmp_path: Path) -> None:
    folder, _ = record
    store = Store.open(folder / "reviews.sqlite3")
    export(store.database, tmp_path / "out")
    store.close()
    one = compare(from_record(folder), from_verdicts(verdicts()))
    two = compare(from_export(tmp_path / "out", "s"), from_verdicts(verdicts()))
    assert one == two and one["safety"]["by_physicians"] == 1
    file = tmp_path / "out" / "votes.csv"  # as older exports were: without the marked places
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(
            out, [key for key in rows[0] if key != "spans"], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(rows)
    three = compare(from_export(tmp_path / "out", "s"), from_verdicts(verdicts()))
    assert three == {**one, "safety": None}


def test_swapping_the_judges_models_changes_nothing(record: Any) -> None:
    folder, _ = record
    rows = verdicts()
    mirrored = [
        {**row, "model_a": row["model_b"], "model_b": row["model_a"], "winner": TURNED[row["winner"]],
         "criteria": {k: v and TURNED[v] for k, v in row["criteria"].items()},
         "safety": [{**f, "answer": TURNED[f["answer"]]} for f in row["safety"]]}
        for row in rows
    ]  # fmt: skip
    votes = from_record(folder)
    assert compare(votes, from_verdicts(rows)) == compare(votes, from_verdicts(mirrored))


def test_two_judges_or_one_file_twice_are_not_mixed(tmp_path: Path, capsys: Any) -> None:
    rows = verdicts()
    with pytest.raises(BadData, match="of 2 judges, another, one without a name"):
        from_verdicts([*rows, {**rows[0], "judge": "another", "id": "more"}])
    turned = {**rows[0], "model_a": rows[0]["model_b"], "model_b": rows[0]["model_a"]}
    with pytest.raises(BadData, match=r"two verdicts on .* name each file once"):
        from_verdicts([*rows, turned])
    write_rows(tmp_path / "v.jsonl", rows)
    file = str(tmp_path / "v.jsonl")
    asked = ["--verdicts", file, file, "--record", str(tmp_path), "--out", str(tmp_path / "o")]
    assert main(asked) == 2


def test_the_command_writes_sentence_json_and_page(
    record: Any, tmp_path: Path, capsys: Any
) -> None:
    folder, _ = record
    write_rows(tmp_path / "v.jsonl", verdicts())
    out = tmp_path / "o" / "p.json"
    asked = ["--verdicts", str(tmp_path / "v.jsonl"), "--record", str(folder), "--out", str(out)]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert (
        "4 physicians gave 160 votes on 40 pairs" in said and "stand in for one physician" in said
    )
    assert json.loads(out.read_text(encoding="utf-8"))["whole"]["test"]["raters"] == 4
    page = out.with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and "Epsilon is 0.2" in page
    assert main([*asked, "--study", "another"]) == 2
    assert "none of 0 votes and 40 verdicts" in capsys.readouterr().err
    assert main([*asked[:2], "--record", str(tmp_path), "--out", str(out)]) == 2
    assert "there is no record" in capsys.readouterr().err


def test_few_raters_are_not_enough(record: Any) -> None:
    votes = [vote for vote in from_record(record[0]) if vote.rater in ("1", "2")]
    whole = compare(votes, from_verdicts(verdicts()))["whole"]
    assert whole["advice"] == "not enough raters" and whole["test"]["passes"] is None
    assert whole["test"]["raters"] == 2 and whole["agreement"] is not None
    alone = [vote for vote in votes if vote.rater == "1"]
    whole = compare(alone, from_verdicts(verdicts()))["whole"]
    assert (whole["agreement"], whole["kappa"], whole["pairs"]) == (None, None, 0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"tie"', '"draw"', "choice or left_is"),
        ('"c1"', '""', "case is empty"),
        ("{", "[", "ratings is not what an export writes"),
        ("[]", "{}", "spans is not what an export writes"),
        ('""side"":""', '""side"":""x', "a span's side"),
        ('""left_diagnosis"":', '""left_diagnosis"":""x"",""n"":', "ratings or spans are not"),
        ('"choice"', '"pick"', "the header lacks choice"),
    ],
)
def test_a_damaged_export_names_its_line(
    old: str, new: str, told: str, record: Any, tmp_path: Path
) -> None:
    store = Store.open(record[0] / "reviews.sqlite3")
    export(store.database, tmp_path / "out")
    store.close()
    file = tmp_path / "out" / "votes.csv"
    file.write_text(file.read_text(encoding="utf-8-sig").replace(old, new), encoding="utf-8")
    with pytest.raises(Exception, match=rf"votes.csv:\d+: .*{re.escape(told)}"):
        from_export(tmp_path / "out")


# The test itself.


def by_hand(
    physicians: np.ndarray, judged: np.ndarray, row: int, epsilon: float
) -> tuple[float, float, float]:
    """(judge's share, rater's share, p), one case at a time, the t distribution by numerical integration."""
    d, wins, losses = [], [], []
    for u in range(physicians.shape[1]):
        others = [
            physicians[r, u]
            for r in range(len(physicians))
            if r != row and not math.isnan(physicians[r, u])
        ]
        if not others or math.isnan(physicians[row, u]) or math.isnan(judged[u]):
            continue
        its = sum(x == judged[u] for x in others) / len(others)
        theirs = sum(x == physicians[row, u] for x in others) / len(others)
        wins.append(its >= theirs)
        losses.append(theirs >= its)
        d.append(losses[-1] - wins[-1] * 1.0)
    n = len(d)
    t = (np.mean(d) - epsilon) / (np.std(d, ddof=1) / math.sqrt(n))
    nu = n - 1
    x = np.linspace(-200, t, 400_001)
    density = (1 + x**2 / nu) ** (-(nu + 1) / 2)
    density *= math.exp(math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2)) / math.sqrt(nu * math.pi)
    return float(np.mean(wins)), float(np.mean(losses)), float(np.trapezoid(density, x))


def panel_of(
    rights: list[float], judge: float, cases: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, cases)
    rows = [
        np.where(rng.random(cases) < r, truth, rng.integers(0, 3, cases)) for r in (*rights, judge)
    ]
    physicians = np.array(rows[:-1], float)
    physicians[rng.random(physicians.shape) < 0.2] = np.nan
    return physicians, rows[-1].astype(float)


@pytest.mark.parametrize("seed", range(4))
def test_each_rater_left_out_is_as_computed_by_hand(seed: int) -> None:
    physicians, judged = panel_of([0.8, 0.7, 0.6], 0.7, 90, seed)
    found = alternative(physicians, judged)
    for row, stand in enumerate(found.stands):
        expected = by_hand(physicians, judged, row, 0.2)
        assert (stand.judge, stand.rater) == pytest.approx(expected[:2])
        assert stand.p == pytest.approx(expected[2], abs=1e-5)
    assert found.win_rate == sum(s.rejected for s in found.stands) / 3
    assert found.advantage == pytest.approx(np.mean([s.judge for s in found.stands]))


def test_a_good_judge_passes_a_guessing_one_does_not_and_few_cases_conclude_nothing() -> None:
    assert all(alternative(*panel_of([0.8] * 4, 0.95, 150, seed)).passes for seed in range(5))
    assert not any(alternative(*panel_of([0.8] * 4, 0.0, 150, seed)).passes for seed in range(5))
    physicians, judged = panel_of([0.8] * 4, 0.95, 28, 0)
    assert alternative(physicians, judged).passes is None
    assert alternative(physicians[:2], judged).passes is None
    same = np.tile(np.zeros(40), (3, 1))
    assert alternative(same, np.zeros(40)).passes is True  # no spread at all: always the same
    assert alternative(same, np.ones(40)).passes is False


def test_the_false_discoveries_are_held_as_benjamini_and_yekutieli_hold_them() -> None:
    # thresholds for m = 4, q = .05: k * .05 / (4 * 25/12) = .006, .012, .018, .024
    assert benjamini_yekutieli([0.005, 0.013, 0.017, 0.5], 0.05) == [True, True, True, False]
    assert benjamini_yekutieli([0.5, 0.011, 0.0059, 0.9], 0.05) == [False, True, True, False]
    assert benjamini_yekutieli([0.02], 0.05) == [True] and benjamini_yekutieli([], 0.05) == []
