"""Six physicians, sixty pairs, three votes on each, in a real browser: every statistic computed again, and mirrored."""

import itertools
import random
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

import krippendorff
import numpy as np
import pytest
from playwright.sync_api import expect
from scipy.optimize import minimize
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from huatuo.toml import ROOT
from reviews import findings, reading
from reviews.store import Store

pytestmark = [pytest.mark.browser, pytest.mark.slow]
MODELS = ("alpha", "beta", "gamma")
STRENGTH = {"alpha": 1.0, "beta": 0.2, "gamma": -0.9}
SAYS = {"alpha": "请问疼了多久？", "beta": "先量血压，", "gamma": "多喝热水，"}
RATERS, PAIRS, OVERLAP = 6, 60, 3
KEYS = {"left": "1", "right": "2", "tie": "3", "both_bad": "4"}
MIRROR = {"left": "right", "right": "left", "tie": "tie", "both_bad": "both_bad"}
RIDGE = 0.01


def pairs() -> list[dict[str, str]]:
    """Twenty cases, each with all three pairs of contestants."""
    return [
        {
            "id": f"case-{case}-{a}-{b}",
            "question": f"第 {case} 号病例，{a[0]}{b[0]} 组：头疼 {case + 1} 天，怎么办？",
            "answer_a": f"{SAYS[a]}第 {case} 号。",
            "answer_b": f"{SAYS[b]}第 {case} 号。",
            "model_a": a,
            "model_b": b,
            "department": ("神经内科", "骨科")[case % 2],
            "intent": "病情诊断",
        }
        for case in range(PAIRS // 3)
        for a, b in itertools.combinations(MODELS, 2)
    ]


def filed(app: Any, study: str, raters: list[str]) -> None:
    """The pairs by the importer's command line, the protocol by its own."""
    app.import_pairs(study, pairs())
    path = app.data / f"{study}.toml"
    names = ", ".join(f'"{name}"' for name in raters)
    path.write_text(
        f'name = "{study}"\ntitle_zh = "六人研究"\ntitle_en = "Six raters"\nraters = [{names}]\n'
        f"overlap = {OVERLAP}\nseed = 7\n",
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "huatuo.study_files",
        "file",
        str(path),
        "--data",
        str(app.data),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def opinion(question: str, rater: int, left: str, right: str) -> str:
    """What a rater thinks of a pair: by strength, with a lean to the left and some ties. The same each time."""
    draw = random.Random(f"{question}/{rater}").random()
    gap = STRENGTH[left] - STRENGTH[right] + 0.2
    weights = np.array([np.exp(gap / 2), 0.5, np.exp(-gap / 2), 0.08])
    bounds = np.cumsum(weights / weights.sum())
    return ("left", "tie", "right", "both_bad")[int(np.searchsorted(bounds, draw))]


def contestant(text: str) -> str:
    return next(name for name, words in SAYS.items() if text.strip().startswith(words[:4]))


def play(tabs: list[Any], study: str) -> None:
    """They take turns, one vote at a time, by keyboard, until nobody has a pair left."""
    for tab in tabs:
        tab.open("/zh/review/")
        tab.choose_study(study)
    busy = list(enumerate(tabs))
    while busy:
        for rater, tab in list(busy):
            tab.state("votable")
            question, *sides = tab.page.evaluate(
                "['.case', '.pane.left', '.pane.right'].map("
                "place => document.querySelector(`#duel ${place} .said`).innerText)"
            )
            left, right = (contestant(text) for text in sides)
            tab.press(KEYS[opinion(question, rater, left, right)], "Enter")
            still_there = tab.page.wait_for_function(
                "before => { const now = document.querySelector('#duel .case .said');"
                " return now ? now.innerText !== before && 'next' : 'done' }",
                arg=question,
            )
            if still_there.json_value() == "done":
                busy.remove((rater, tab))


def play_mirrored(app: Any, tabs: list[Any], study: str) -> None:
    """The same raters in the same order through the record, each choosing the other side."""
    store = Store.open(app.data / "reviews.sqlite3", check=False)
    ids = [tab.user_id() for tab in tabs]
    given = [store.next_prepared(user, study) for user in ids]
    while any(given):  # as the page does: the next pair comes with the vote
        for rater, user in enumerate(ids):
            mine = given[rater]
            if mine is None:
                continue
            _, shown = store.view(mine.id, user)
            names = (shown.contestant_a, shown.contestant_b)
            left, right = names if mine.left_is == "a" else names[::-1]
            choice = opinion(shown.turns[0].question, rater, left, right)
            store.cast_vote(mine.id, user, MIRROR[choice])
            given[rater] = store.next_prepared(user, study)
    store.close()


def raw(app: Any, study: str) -> list[dict[str, Any]]:
    """The votes as SQLite holds them, read by no code of ours."""
    rows: list[dict[str, Any]] = app.rows(
        "SELECT v.choice, a.left_is, a.rater_id, c.id AS pair, c.contestant_a AS a,"
        " c.contestant_b AS b FROM votes v JOIN assignments a ON a.id = v.assignment_id"
        " JOIN comparisons c ON c.id = a.comparison_id WHERE c.study = ?",
        study,
    )
    for row in rows:
        sides = ("a", "b") if row["left_is"] == "a" else ("b", "a")
        row["left"], row["right"] = (row[side] for side in sides)
        winner = {"left": sides[0], "right": sides[1]}.get(row["choice"])
        row["winner"] = winner or row["choice"]
    return rows


def found(app: Any, study: str) -> findings.Findings:
    store = Store.open(app.data / "reviews.sqlite3", check=False)
    try:
        return findings.find(reading.read(store, study), now=datetime.now(UTC))
    finally:
        store.close()


def davidson(rows: list[dict[str, Any]]) -> np.ndarray:
    """(3 scores, side effect) by scipy: Davidson's model with a side effect and the same small ridge."""

    def loss(x: np.ndarray) -> float:
        total = RIDGE / 2 * float(x @ x)
        for row in rows:
            d = x[MODELS.index(row["left"])] - x[MODELS.index(row["right"])] + x[3]
            logs = {"left": d / 2, "right": -d / 2}
            lines = np.array([d / 2, -d / 2, x[4]])
            chosen = logs.get(row["choice"], x[4])
            total += float(np.logaddexp.reduce(lines) - chosen)
        return total

    x = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    return np.append(x[:3] - x[:3].mean(), x[3])


def hold_against(app: Any, study: str) -> findings.Findings:
    """Every statistic once more by scipy, statsmodels and krippendorff, from the raw rows."""
    rows, told = raw(app, study), found(app, study)
    assert len(rows) == PAIRS * OVERLAP == told.counts.votes
    assert set(Counter(row["pair"] for row in rows).values()) == {OVERLAP}
    assert told.closing.state == "closed" and told.counts.raters == RATERS
    for duel in told.headline.duels:
        first, second = duel.result.first, duel.result.second
        mine = [row for row in rows if {row["a"], row["b"]} == {first, second}]
        wins = sum(row[row["winner"]] == first for row in mine if row["winner"] in "ab")
        losses = sum(row[row["winner"]] == second for row in mine if row["winner"] in "ab")
        assert (duel.result.wins, duel.result.losses) == (wins, losses)
        assert duel.result.ties == sum(row["winner"] == "tie" for row in mine)
        wilson = proportion_confint(wins, len(mine), method="wilson")
        assert duel.result.win_interval == pytest.approx(wilson, abs=1e-9)
    scores = davidson(rows)
    board = {rating.name: rating.score.value for rating in told.headline.board.ratings}
    assert [board[name] for name in MODELS] == pytest.approx(scores[:3].tolist(), abs=1e-4)
    assert told.headline.board.side_effect is not None
    assert told.headline.board.side_effect.value == pytest.approx(scores[3], abs=1e-4)
    by_pair: dict[str, dict[int, str]] = defaultdict(dict)
    for row in rows:
        by_pair[row["pair"]][row["rater_id"]] = row["winner"]
    people, names = sorted({row["rater_id"] for row in rows}), ("a", "b", "tie", "both_bad")
    matrix = np.array(
        [[names.index(votes[p]) if p in votes else np.nan for votes in by_pair.values()] for p in people]
    )  # fmt: skip
    alpha = krippendorff.alpha(matrix, level_of_measurement="nominal")
    assert told.concord.alpha.value == pytest.approx(alpha, abs=1e-9)
    table, _ = aggregate_raters(np.array([list(votes.values()) for votes in by_pair.values()]))
    assert told.concord.fleiss.value == pytest.approx(fleiss_kappa(table), abs=1e-9)
    same = [a == b for votes in by_pair.values() for a, b in itertools.combinations(votes.values(), 2)]  # fmt: skip
    assert told.concord.raw.value == pytest.approx(np.mean(same), abs=1e-9)
    return told


def test_six_raters_finish_sixty_pairs_and_a_second_run_with_sides_swapped_is_mirrored(
    app: Any, signed_in: Any
) -> None:
    tabs = [signed_in() for _ in range(RATERS)]
    told = []
    for study in ("six-raters", "six-mirrored"):
        filed(app, study, [tab.name for tab in tabs])
        if study == "six-raters":
            play(tabs, study)
        else:
            play_mirrored(app, tabs, study)
        told.append(hold_against(app, study))
    one, other = told
    wins = [
        {
            **{(d.result.first, d.result.second): d.result.wins for d in t.headline.duels},
            **{(d.result.second, d.result.first): d.result.losses for d in t.headline.duels},
        }
        for t in told
    ]
    assert wins[0] == {(loser, winner): count for (winner, loser), count in wins[1].items()}
    boards = [{r.name: r.score.value for r in t.headline.board.ratings} for t in told]
    assert {name: -value for name, value in boards[0].items()} == pytest.approx(boards[1], abs=1e-6)
    assert one.concord.alpha.value == pytest.approx(other.concord.alpha.value)
    researcher = signed_in("researcher")
    researcher.open("/zh/results/")
    expect(researcher.page.locator("#results .finding").first).to_be_visible()
