"""Simulated physicians vote into a real record, in the shares that were asked for, and say that they are simulated."""

import collections
import contextlib
import json
import random
from pathlib import Path

import pytest

from huatuo.errors import ConfigError, NoData
from reviews.database import DEFAULT_NAME
from reviews.export import export
from reviews.people import People
from reviews.store import Store
from training import simulate as stage
from training.cases import draw_cases
from training.rubric import NOTE, RubricJudge
from training.simulate import (
    Match,
    Played,
    SimulationConfig,
    cast_votes,
    decide,
    pairs_for,
    plan_matches,
    simulate,
    tie_margin,
)

CONFIG = SimulationConfig(votes=60, seed=4)


def matches(count: int, seed: int = 0) -> list[Match]:
    """Made-up answers with made-up scores, a fifth of them equally good."""
    rng = random.Random(seed)
    found = []
    for n, case in enumerate(draw_cases(count, held_out=False, seed=seed)):
        scores = [round(rng.random(), 3) for _ in range(2)]
        a, b = ("nano-x", "nano-y") if n % 2 else ("nano-y", "nano-x")
        found.append(Match(case, a, b, f"甲{n}", f"乙{n}", scores[0], scores[n % 5 > 0]))
    return found


@pytest.mark.parametrize(
    ("votes", "overlap", "raters", "pairs"),
    [(600, 0.3, 5, (462, 138)), (600, 0, 5, (600, 0)), (600, 1, 5, (300, 300)), (600, 0.5, 1, (600, 0)),
     (1, 1, 5, (1, 0)), (3, 1, 2, (2, 1)), (7, 0.99, 9, (4, 3))],
)  # fmt: skip
def test_pairs_and_overlap_make_the_votes_asked_for(
    votes: int, overlap: float, raters: int, pairs: tuple[int, int]
) -> None:
    found = pairs_for(votes, overlap, raters)
    assert found == pairs and sum(found) == votes and found[1] <= found[0]


def test_the_margin_makes_the_share_of_ties() -> None:
    sizes = [0.1 * n * (-1) ** n for n in range(1, 11)]
    assert tie_margin(sizes, 0.3) == pytest.approx(0.3)
    assert tie_margin(sizes, 0) < 0 and tie_margin([], 0.5) < 0
    assert tie_margin(sizes, 1) == pytest.approx(1.0)


def test_half_of_the_matches_are_two_samples_of_the_policy_on_both_kinds_of_opener() -> None:
    plan = plan_matches(CONFIG, draw_cases(240, held_out=False, seed=1))
    kinds = collections.Counter((frozenset((a, b)), case.kind) for case, a, b in plan)
    own = frozenset({"nano-hybrid.sample1", "nano-hybrid.sample2"})
    assert kinds[own, "complete"] == kinds[own, "incomplete"] == 60
    assert {len(pair) for pair, _ in kinds} == {2} and min(kinds.values()) == 20
    assert {frozenset({"nano-hybrid", "nano-doctor"}), frozenset({"nano-hybrid", "nano-distilled"})} < {
        pair for pair, _ in kinds
    }  # fmt: skip


def test_ties_and_noise_come_in_exactly_the_shares_asked_for() -> None:
    found = matches(100)
    chosen, played = decide(SimulationConfig(noise=0.2, ties=0.3), found, twice=20)
    said = [c for votes in chosen.values() for c in votes]
    assert len(said) == played.votes == 120
    assert abs(played.ties + played.both_bad - 36) <= 2
    assert played.flipped == round(0.2 * (120 - played.ties - played.both_bad))
    right = {m.key: "a" if m.difference > 0 else "b" for m in found}
    wrong = sum(c in "ab" and c != right[key] for key, votes in chosen.items() for c in votes)
    assert wrong == played.flipped
    assert decide(SimulationConfig(noise=0.2, ties=0.3), found, twice=20) == (chosen, played)
    assert decide(SimulationConfig(noise=0.2, ties=0.3, seed=1), found, twice=20)[0] != chosen
    assert decide(SimulationConfig(noise=0, ties=0), found, twice=0)[1].flipped == 0


def test_two_poor_answers_are_both_bad_and_two_good_ones_equal() -> None:
    case = draw_cases(1, held_out=False)[0]
    pair = [Match(case, "m", "n", "x", "y", score, score) for score in (0.05, 0.9)]
    for match, choice in zip(pair, ("both_bad", "tie"), strict=True):
        assert decide(SimulationConfig(ties=1), [match], 0)[0] == {match.key: [choice]}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Played, list[Match]]:
    path = tmp_path_factory.mktemp("record") / DEFAULT_NAME
    store = Store.open(path, rng=random.Random(1))
    found = matches(46)
    return store, cast_votes(store, CONFIG, found, twice=14), found


def test_the_record_holds_the_votes_that_were_decided(
    played: tuple[Store, Played, list[Match]],
) -> None:
    store, told, found = played
    votes = store.votes("simulated")
    assert len(votes) == told.votes == 60 and told.pairs == 46
    seen = collections.Counter(v.comparison_id for v in votes)
    assert collections.Counter(seen.values()) == {1: 32, 2: 14}
    wanted = decide(CONFIG, found, 14)[0]
    got: dict[str, list[str]] = collections.defaultdict(list)
    for vote in votes:
        straight = f"{vote.external_id}\n{vote.contestant_a}\n{vote.contestant_b}"
        turned = f"{vote.external_id}\n{vote.contestant_b}\n{vote.contestant_a}"
        mirrored = {"a": "b", "b": "a"}
        if straight in wanted:
            got[straight].append(vote.winner)
        else:
            got[turned].append(mirrored.get(vote.winner, vote.winner))
    assert {k: sorted(v) for k, v in got.items()} == {k: sorted(v) for k, v in wanted.items()}
    assert store.verify_audit().rows > 60


def test_raters_share_the_work_and_both_sides_are_used(
    played: tuple[Store, Played, list[Match]],
) -> None:
    votes = played[0].votes("simulated")
    work = collections.Counter(v.rater for v in votes)
    assert len(work) == 5 and max(work.values()) - min(work.values()) <= 4
    left = collections.Counter(v.left_is for v in votes)
    assert abs(left["a"] - left["b"]) <= 5
    assert len({v.seconds for v in votes}) > 20


def test_everything_says_simulated(played: tuple[Store, Played, list[Match]]) -> None:
    store = played[0]
    assert all(user.name.startswith("simulated-") for user in People(store.database).users())
    votes = store.votes()
    assert {v.study for v in votes} == {v.source for v in votes} == {"simulated"}
    assert {v.reason for v in votes} == {"simulated"}
    with pytest.raises(ValueError, match="study"):
        SimulationConfig(study="physicians of ward 3")


def test_a_study_is_played_once_and_another_one_by_the_same_raters(
    played: tuple[Store, Played, list[Match]],
) -> None:
    store = played[0]
    with pytest.raises(ConfigError, match="in this record already"):
        cast_votes(store, CONFIG, matches(4), twice=0)
    before = len(People(store.database).users())
    again = CONFIG.model_copy(update={"study": "simulated-2"})
    assert cast_votes(store, again, matches(4, seed=9), twice=0).votes == 4
    assert len(People(store.database).users()) == before


def test_one_rater_alone_sees_each_pair_once(tmp_path: Path) -> None:
    with contextlib.closing(Store.open(tmp_path / DEFAULT_NAME)) as store:
        config = SimulationConfig(votes=8, raters=1)
        assert pairs_for(8, 1.0, 1) == (8, 0)
        assert cast_votes(store, config, matches(8), twice=0).votes == 8


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Played]:
    data = tmp_path_factory.mktemp("real")
    return data, simulate(SimulationConfig(votes=24, raters=3, seed=2), data)


def test_the_bundled_models_are_compared_from_end_to_end(real: tuple[Path, Played]) -> None:
    data, told = real
    assert (told.votes, told.raters) == (24, 3)
    judge = RubricJudge()
    cases = {c.id: c for c in draw_cases(40, held_out=False, seed=2)}
    with contextlib.closing(Store.open(data / DEFAULT_NAME)) as store:
        votes = store.votes()
        names = {n for v in votes for n in (v.contestant_a, v.contestant_b)}
        assert names <= set(stage.contestants(SimulationConfig()))
        assert {"nano-hybrid.sample1", "nano-hybrid.sample2", "nano-hybrid"} <= names
        out = data / "export"
        export(store.database, out)
    right = wrong = 0
    for line in (out / "pairs.jsonl").read_text().splitlines():
        row = json.loads(line)
        texts = [row[side][-1]["content"] for side in ("chosen", "rejected")]
        scores = [judge.grade(cases[row["case"]], text).score for text in texts]
        right, wrong = right + (scores[0] > scores[1]), wrong + (scores[0] < scores[1])
    assert wrong == told.flipped and right > 3 * wrong


@pytest.mark.slow
def test_the_same_arguments_give_the_same_answers(
    real: tuple[Path, Played], tmp_path: Path
) -> None:
    def pairs(data: Path) -> list[tuple[str, ...]]:
        with contextlib.closing(Store.open(data / DEFAULT_NAME)) as store:
            found = [
                (v.external_id, v.contestant_a, v.contestant_b, v.winner) for v in store.votes()
            ]
            export(store.database, data / "again", force=True)
        texts = [
            json.loads(line)
            for name in ("pairs", "ties", "both_bad")
            for line in (data / "again" / f"{name}.jsonl").read_text().splitlines()
        ]
        shown = {json.dumps({k: v for k, v in t.items() if k in ("chosen", "rejected", "answer_a", "answer_b")}) for t in texts}  # fmt: skip
        return sorted([*found, *((text,) for text in shown)])

    assert simulate(SimulationConfig(votes=24, raters=3, seed=2), tmp_path) == real[1]
    assert pairs(tmp_path) == pairs(real[0])


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--votes", "0"], "--votes"), (["--noise", "0.7"], "--noise"), (["--noise", "nan"], "--noise"),
     (["--study", "live"], "--study"), (["--raters", "0"], "--raters"), (["--policy", "nobody"], "nobody"),
     (["--rivals", "gpt-4"], "gpt-4")],
)  # fmt: skip
def test_wrong_wishes_are_refused_before_anything_is_written(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage.main(["--data", str(tmp_path / "d"), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_too_few_different_answers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "answer_all", lambda *_: {})
    with pytest.raises(NoData, match="only 0 of 3 pairs"):
        stage.play_matches(SimulationConfig(), 3, {})


def test_the_command_shows_the_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stage.main(["--data", str(tmp_path), "--votes", "4", "--raters", "2"]) == 0
    out = capsys.readouterr().out
    assert NOTE["en"] in out and json.loads(out.splitlines()[-1])["votes"] == 4
