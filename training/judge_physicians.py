"""the judge against physicians: agreement beside the physicians' own, by criterion and department, and whom it may replace.

    python -m training.judge_physicians --verdicts V.jsonl (--record data [--study NAME] | --export FOLDER) [--out FILE]

Votes come from the record, or from votes.csv of an export; verdicts are rows of training.judge. Both meet on the case's
id and the two models' names. "Both bad" counts as a tie here, for a judge of pairs cannot say it. Agreement and kappa
stand beside those of physicians with each other on the same pairs, the ceiling; intervals draw whole pairs
(reviews/panel.py). Where the judge may stand in for one physician is tested by leaving each out (alternative.py).
Serious faults: how many answers that physicians flagged the judge flagged too (record only).
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from huatuo.errors import HuatuoError, NoData
from reviews import panel
from reviews.database import DEFAULT_NAME
from reviews.errors import RecordError
from reviews.records import winner_of
from reviews.store import Store
from training.alternative import ASSUMPTIONS, EPSILON, alternative
from training.data import BadData
from training.judge_figures import dumbbells
from training.judge_rows import read_rows
from training.report import Page
from training.yardsticks import exported

Unit = tuple[str, str, str]
"""(case, the models' names in order): what was compared."""
_VALUES = {"b": 0.0, "tie": 1.0, "a": 2.0, "both_bad": 1.0}
"""Category numbers; a is the model whose name sorts first."""
_TURNED = {"a": "b", "b": "a"}
FEWEST_PAIRS = 10
"""Fewer shared pairs than this say nothing about a department or a criterion."""


@dataclass(frozen=True)
class Opinion:
    """What one rater, or the judge, says of one unit. said: "" for the whole, or a criterion, to a, tie, b or both_bad.

    flagged: the sides ("a", "b") with a serious fault, None where that is not known.
    """

    unit: Unit
    rater: str
    said: Mapping[str, str]
    department: str = ""
    flagged: frozenset[str] | None = field(default=None)


def from_record(folder: Path, study: str | None = None) -> list[Opinion]:
    """The standing votes of a record. Raises NoData without a record or votes; RecordError."""
    path = folder / DEFAULT_NAME
    if not path.exists():
        raise NoData(f"{path}: there is no record; name its folder with --record")
    with closing(Store.open(path)) as store:
        votes = store.votes(study)
    found = []
    for vote in votes:
        names = (vote.contestant_a, vote.contestant_b)
        said = {"": vote.winner} | _criteria(vote.ratings, vote.left_is)
        sides = {"left": vote.left_is, "right": _TURNED[vote.left_is]}
        flags = frozenset(sides[span.side] for span in vote.spans)
        case = vote.external_id or vote.comparison_id
        found.append(_opinion(case, names, str(vote.rater), said, vote.department, flags))
    return found


def from_export(folder: Path, study: str | None = None) -> list[Opinion]:
    """The votes of an export's votes.csv. Raises BadData naming file and line."""
    found = []
    for place, row in exported(folder / "votes.csv", study or ""):
        try:
            criteria = _criteria(row.get("ratings", {}), row["left_is"])
            flags = frozenset(span["side"] for span in row["spans"]) if "spans" in row else None
        except (TypeError, KeyError, AttributeError):
            raise BadData(f"{place}: ratings or spans are not what an export writes") from None
        if not (flags or frozenset()) <= {"a", "b"}:
            raise BadData(f"{place}: a span's side is neither a nor b")
        said = {"": winner_of(row["choice"], row["left_is"])} | criteria
        names = (row["contestant_a"], row["contestant_b"])
        department = str(row.get("department") or "")
        found.append(_opinion(row["case"], names, row["rater"], said, department, flags))
    return found


def from_verdicts(rows: Iterable[dict[str, Any]]) -> list[Opinion]:
    """The judge's rows that hold a verdict. Raises BadData for rows of two judges, or two rows on the same answers."""
    rows = list(rows)
    judges = sorted({str(row.get("judge") or "one without a name") for row in rows})
    if len(judges) > 1:
        raise BadData(
            f"the verdicts are of {len(judges)} judges, {', '.join(judges)}; compare one at a time"
        )
    seen: set[tuple[Any, ...]] = set()
    for row in rows:
        unit = (row["id"], *sorted((row["model_a"], row["model_b"])))
        if unit in seen:
            raise BadData(
                f"id {row['id']}: two verdicts on {unit[1]} and {unit[2]}; name each file once"
            )
        seen.add(unit)
    return [
        _opinion(
            row["id"],
            (row["model_a"], row["model_b"]),
            "judge",
            {"": row["winner"]} | {k: v for k, v in (row.get("criteria") or {}).items() if v},
            row.get("department") or "",
            frozenset(flag["answer"] for flag in row.get("safety") or ()),
        )
        for row in rows
        if row["winner"] is not None
    ]


def compare(
    votes: Sequence[Opinion],
    verdicts: Sequence[Opinion],
    *,
    epsilon: float = EPSILON,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures, ready for JSON: parts "" (the whole), each criterion, each department. Raises NoData.

    A rater who voted twice on one pair counts with the last vote. advice: "may replace one physician", "may not", or
    "not enough raters".
    """
    ruled = {one.unit: one for one in verdicts}
    shared = [vote for vote in votes if vote.unit in ruled]
    if not shared:
        raise NoData(
            f"none of {len(votes)} votes and {len(verdicts)} verdicts are about the same case and models; names in the "
            "verdicts (--names) must be those of the study"
        )
    criteria = sorted(
        {key for vote in shared for key in vote.said} & {k for o in verdicts for k in o.said} - {""}
    )
    departments = sorted({_department(vote, ruled) for vote in shared} - {""})
    return {
        "votes": len(shared),
        "pairs": len({vote.unit for vote in shared}),
        "raters": len({vote.rater for vote in shared}),
        "votes_without_verdict": len(votes) - len(shared),
        "both_bad_as_tie": sum(vote.said.get("") == "both_bad" for vote in shared),
        "whole": _part(shared, ruled, "", epsilon, seed),
        "criteria": {key: _part(shared, ruled, key, epsilon, seed) for key in criteria},
        "departments": {
            name: _part(
                [v for v in shared if _department(v, ruled) == name], ruled, "", epsilon, seed
            )
            for name in departments
        },
        "safety": _safety(shared, ruled),
        "assumptions": list(ASSUMPTIONS),
    }


def _part(
    votes: Sequence[Opinion], ruled: Mapping[Unit, Opinion], key: str, epsilon: float, seed: int
) -> dict[str, Any]:
    physicians, judged = matrices([v for v in votes if key in v.said], ruled, key)
    found = panel.judge(physicians, judged, np.random.default_rng((seed, 0)))
    test = alternative(physicians, judged, epsilon=epsilon)
    measures = {
        name: {"value": one.value, "low": one.low, "high": one.high}
        for name in ("agreement", "ceiling", "kappa", "ceiling_kappa", "gap")
        if (one := getattr(found, name)).units >= FEWEST_PAIRS and np.isfinite(one.value)
    }
    advice = {True: "may replace one physician", False: "may not", None: "not enough raters"}
    return {
        "pairs": found.agreement.units,
        **{
            name: measures.get(name)
            for name in ("agreement", "ceiling", "kappa", "ceiling_kappa", "gap")
        },
        "advice": advice[test.passes],
        "test": asdict(test),
    }


def matrices(
    votes: Sequence[Opinion], ruled: Mapping[Unit, Opinion], key: str = ""
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Category numbers of physicians (R, U) and of the judge (U,), NaN for none; raters and units sorted."""
    raters = {name: i for i, name in enumerate(sorted({vote.rater for vote in votes}))}
    units = {unit: i for i, unit in enumerate(sorted({vote.unit for vote in votes}))}
    physicians = np.full((len(raters), len(units)), np.nan)
    judged = np.full(len(units), np.nan)
    for vote in votes:
        physicians[raters[vote.rater], units[vote.unit]] = _VALUES[vote.said[key]]
    for unit, place in units.items():
        if key in ruled[unit].said:
            judged[place] = _VALUES[ruled[unit].said[key]]
    return physicians, judged


def _safety(votes: Sequence[Opinion], ruled: Mapping[Unit, Opinion]) -> dict[str, Any] | None:
    """Answers flagged by physicians and by the judge; None where the votes do not say."""
    known = [vote for vote in votes if vote.flagged is not None]
    if not known:
        return None
    seen = {(vote.unit, side) for vote in known for side in vote.flagged or ()}
    answers = {(vote.unit, side) for vote in known for side in "ab"}
    its = {(unit, side) for unit, side in answers if side in (ruled[unit].flagged or ())}
    return {
        "answers": len(answers),
        "by_physicians": len(seen),
        "by_judge": len(its),
        "by_both": len(seen & its),
        "recall": asdict(panel.share(len(seen & its), len(seen))) if seen else None,
    }


def _opinion(
    case: str,
    names: tuple[str, str],
    rater: str,
    said: Mapping[str, str],
    department: str,
    flagged: frozenset[str] | None,
) -> Opinion:
    """With the models in order of their names."""
    if names[0] > names[1]:
        names = (names[1], names[0])
        said = {key: _TURNED.get(value, value) for key, value in said.items()}
        flagged = None if flagged is None else frozenset(_TURNED[side] for side in flagged)
    return Opinion((case, *names), rater, said, department, flagged)


def _criteria(ratings: Mapping[str, int], left_is: str) -> dict[str, str]:
    """Which answer a rater's ratings prefer on each criterion, by contestant."""
    found = {}
    for key, value in ratings.items():
        name = key.removeprefix("left_")
        if name != key and f"right_{name}" in ratings:
            lean = value - ratings[f"right_{name}"]
        elif key.startswith("pref_"):
            name, lean = key.removeprefix("pref_"), 3 - value
        else:
            continue
        found[name] = "tie" if not lean else left_is if lean > 0 else _TURNED[left_is]
    return found


def _department(vote: Opinion, ruled: Mapping[Unit, Opinion]) -> str:
    return vote.department or ruled[vote.unit].department


def section(page: Page, found: Mapping[str, Any]) -> None:
    """Sentence, figures and tables for a page that may hold more."""
    page.heading("Judge against physicians").text(sentence(found))
    parts = {"all": found["whole"], **found["criteria"], **found["departments"]}
    for measure, ceiling, title in (
        ("agreement", "ceiling", "Share of equal answers"),
        ("kappa", "ceiling_kappa", "Agreement beyond chance (kappa)"),
    ):
        rows = {
            name: {
                "physicians among themselves": _triple(part[ceiling]),
                "judge with physicians": _triple(part[measure]),
            }
            for name, part in parts.items()
            if part[measure]
        }
        if rows:
            page.figure(dumbbells(rows, title, label="95 % intervals over pairs"))
    page.table(
        [
            [name, part["pairs"], _told(part["agreement"]), _told(part["ceiling"]), _told(part["kappa"]),
             _told(part["ceiling_kappa"]), part["advice"]]
            for name, part in parts.items()
        ],
        ["part", "pairs", "judge", "ceiling", "judge, kappa", "ceiling, kappa", "the judge"],
        "Ceiling: physicians with each other on the same pairs, those with two or more votes.",
    )  # fmt: skip
    if safety := found["safety"]:
        page.text(
            f"Serious faults: physicians flagged {safety['by_physicians']} of {safety['answers']} answers, the judge "
            f"{safety['by_judge']}, both the same {safety['by_both']}."
        )
    page.text(
        "What the test takes for granted:\n"
        + "\n".join(f"• {line}" for line in found["assumptions"]),
        note=True,
    )


def sentence(found: Mapping[str, Any]) -> str:
    """What follows, in plain words."""
    whole, test = found["whole"], found["whole"]["test"]
    seen = f"{found['raters']} physicians gave {found['votes']} votes on {found['pairs']} pairs that the judge ruled on. "
    if whole["advice"] == "not enough raters":
        return seen + (
            f"Not enough raters to say whether the judge may replace one: only {test['raters']} of them have the 30 "
            "pairs shared with others that the test needs, and it needs three such physicians. Give more pairs to two "
            "physicians or more."
        )
    may = [
        name
        for name, part in {**found["criteria"], **found["departments"]}.items()
        if part["advice"].startswith("may r")
    ]
    told = "may" if test["passes"] else "may not"
    hits = sum(stand["rejected"] for stand in test["stands"])
    return (
        f"{seen}On the whole the judge {told} stand in for one physician when answers are compared: it does at least as "
        f"well as the one it replaces for {hits} of {test['raters']} physicians (half are needed). "
        + (
            f"Taken alone, it may for: {', '.join(may)}. "
            if may
            else "For no criterion or department alone is that shown. "
        )
        + "It never replaces a physician in flagging serious faults."
    )


def _triple(one: Mapping[str, float] | None) -> tuple[float, float, float] | None:
    return None if one is None else (one["value"], one["low"], one["high"])


def _told(one: Mapping[str, float] | None) -> str:
    return "–" if one is None else f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes FILE (JSON) and the page beside it, prints the sentence; 2 and one line on stderr for an error."""
    parser = argparse.ArgumentParser(
        prog="python -m training.judge_physicians", description=__doc__
    )
    parser.add_argument(
        "--verdicts", type=Path, nargs="+", required=True, help="rows of training.judge"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--record", type=Path, help="the record's folder")
    source.add_argument("--export", type=Path, help="a folder of reviews.export")
    parser.add_argument("--study", help="only this study's votes")
    parser.add_argument("--epsilon", type=float, default=EPSILON, help="set it before looking")
    parser.add_argument("--out", type=Path, default=Path("data/judge/physicians.json"))
    given = parser.parse_args(arguments)
    try:
        rows = [row for path in given.verdicts for row in read_rows(path)]
        read = from_record if given.record else from_export
        found = compare(
            read(given.record or given.export, given.study),
            from_verdicts(rows),
            epsilon=given.epsilon,
        )
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(
            json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        page = Page(
            "Judge against physicians",
            "How far a language model's verdicts agree with physicians' votes.",
        )
        section(page, found)
        page.save(given.out.with_suffix(".html"))
    except (HuatuoError, RecordError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(sentence(found))
    print(f"written to {given.out} and {given.out.with_suffix('.html').name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
