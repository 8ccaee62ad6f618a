"""evaluates assistants by consultations with a simulated patient: `python -m training.multiturn`.

    python -m training.multiturn --cases CASES.json --models nano-hybrid nano-doctor --out data/multiturn.json

Per model: what it asks, what it finds out, whether it names the condition and the department that the doctor of the
case named, when it begins to advise, how long it talks, and signs of safety. All are plain counts of wordings against
the doctor's own text and no measure of medical quality (NOTE). Unfinished consultations are counted and never scored.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from huatuo.acting import questions, sentences
from huatuo.consultations import Consultation
from huatuo.errors import ConfigError, HuatuoError, NoData
from huatuo.leaks import bare
from huatuo.patient import PatientCase, words
from reviews.stats import wilson
from training.consult import Cast, Played, parser_of, play_cases, read_flags
from training.rows import write_text

NOTE = {
    "zh": "按字面统计，与原病例医生的用词比较，不代表医疗质量；未完成的问诊不计分。",
    "en": "Counts of wordings against the words of the case's own doctor; no measure of medical quality. "
    "Unfinished consultations are not scored.",
}
SHARES = (
    "asks_back", "finds_all", "names_condition", "names_exactly", "names_department", "advises",
    "answers_red_flag", "gives_dose", "repeats",
)  # fmt: skip
MEANS = ("questions", "facts_found", "turns_until_advice", "characters", "seconds")


@dataclass(frozen=True)
class CaseFigures:
    """One consultation. None: the case does not tell (no diagnosis, no facts, no red flag).

    asks_back: the first answer asks. questions: of all answers. facts_found: share of the case's facts that came out
    after the opener. names_condition: a name of the doctor's, or its head, in an answer outside of questions, that the
    patient had not said; names_exactly: the name itself. turns_until_advice: the first turn that advises. repeats: an
    answer is the same as an earlier one.
    """

    case: str
    department: str
    asks_back: bool
    questions: int
    facts_found: float | None
    finds_all: bool | None
    names_condition: bool | None
    names_exactly: bool | None
    names_department: bool
    advises: bool
    turns_until_advice: int | None
    answers_red_flag: bool | None
    gives_dose: bool
    repeats: bool
    characters: int
    seconds: float


def score(case: PatientCase, said: Consultation) -> CaseFigures:
    """The figures of a finished consultation. Raises NoData for an unfinished one, or one of another case."""
    if not said.is_finished or said.case != case.id:
        raise NoData(f"case {case.id}: only its own finished consultations are scored")
    answers = [turn.answer for turn in said.turns]
    stated = [_stated(answer) for answer in answers]
    asked = [len(questions(answer)) for answer in answers]
    facts = [number for number, fact in enumerate(case.facts) if fact.key != "wish"]
    found = len(said.told) / len(facts) if facts else None
    names = _names(case)
    plain = [(bare(name.text), bare(name.head)) for name in names]
    heard = bare("".join(stated))
    exact = any(text in heard for text, _ in plain) if names else None
    near = any(head in heard for _, head in plain) if names else None
    advises = [number for number, text in enumerate(stated, 1) if _has("words", text)]
    flags = sorted(said.red_flags.values())
    return CaseFigures(
        case.id,
        case.department,
        asked[0] > 0,
        sum(asked),
        found,
        None if found is None else found == 1.0,
        near,
        exact,
        _names_department(case, heard),
        bool(advises),
        advises[0] if advises else None,
        any(_has("urgent", text) for text in answers[flags[0] - 1 :]) if flags else None,
        any(_has("dose", text) for text in stated),
        len(set(map(bare, answers))) < len(answers),
        sum(map(len, answers)),
        sum(turn.seconds for turn in said.turns),
    )


def _stated(answer: str) -> str:
    """The answer without its questions: what is only asked is not named."""
    asked = set(questions(answer))
    return "".join(part for part in sentences(answer) if part.strip() not in asked)


def _names(case: PatientCase) -> list[Any]:
    """The doctor's names that tell: diseases, or, if there are none, complaints that are not the patient's own words."""
    diseases = [name for name in case.hidden.names if name.is_disease]
    return diseases or [name for name in case.hidden.names if not name.known]


def _names_department(case: PatientCase, heard: str) -> bool:
    known = (case.department, *words()["departments"].get(case.department, ()))
    return any(bare(name) in heard for name in known if name)


def _has(key: str, text: str) -> bool:
    return re.search(words()["advice"][key], text, re.I) is not None


def scored(
    cases: Iterable[PatientCase], consultations: Iterable[Consultation]
) -> list[CaseFigures]:
    """The figures of the finished consultations, in their order. Raises NoData for one of an unknown case."""
    by = {case.id: case for case in cases}
    rows = []
    for said in consultations:
        if said.case not in by:
            raise NoData(f"consultation of case {said.case}: the cases' file does not hold it")
        if said.is_finished:
            rows.append(score(by[said.case], said))
    return rows


def figures(consultations: Sequence[Consultation], cases: Sequence[PatientCase]) -> dict[str, Any]:
    """The figures of one assistant's consultations, for machines and for the report.

    shares: name -> {value, low, high, count}, Wilson's 95 %; means: name -> {value, count}; departments: name -> its
    shares' values; guards: of the patient; unfinished: by who failed. A share of no case has the value None.
    """
    rows = scored(cases, consultations)
    unfinished = Counter(said.finish for said in consultations if not said.is_finished)
    guards: Counter[str] = Counter()
    for said in consultations:
        guards.update(said.guards)
    departments: dict[str, list[CaseFigures]] = {}
    for row in rows:
        departments.setdefault(row.department, []).append(row)
    return {
        "consultations": len(rows),
        "unfinished": dict(unfinished),
        "shares": {name: _share(rows, name) for name in SHARES},
        "means": {name: _mean(rows, name) for name in MEANS},
        "departments": {
            name: {key: _share(own, key)["value"] for key in SHARES}
            for name, own in sorted(departments.items())
        },
        "guards": dict(guards),
        "cases": [asdict(row) for row in rows],
    }


def _known(rows: Sequence[CaseFigures], name: str) -> list[float]:
    return [float(value) for row in rows if (value := getattr(row, name)) is not None]


def _share(rows: Sequence[CaseFigures], name: str) -> dict[str, Any]:
    values = _known(rows, name)
    low, high = wilson(sum(values), len(values))
    value = mean(values) if values else None
    return {"value": value, "low": low, "high": high, "count": len(values)}


def _mean(rows: Sequence[CaseFigures], name: str) -> dict[str, Any]:
    values = _known(rows, name)
    return {"value": mean(values) if values else None, "count": len(values)}


def report(
    cases: Sequence[PatientCase], played: Played, cast: Cast, turns: int, seed: int
) -> dict[str, Any]:
    """Everything for the JSON file: settings, what was taken out of the cases, and the figures by model."""
    return {
        "note": NOTE,
        "cases": len(cases),
        "taken_out": {
            note: [case.id for case in cases if note in case.notes]
            for note in sorted({note for case in cases for note in case.notes})
        },
        "patient": cast.recorded(cast.patient, answers=False),
        "turns": turns,
        "seed": seed,
        "models": {
            name: {"settings": cast.recorded(name), **figures(played.of(name), cases)}
            for name in cast.models
        },
    }


def table(found: Mapping[str, Any]) -> list[str]:
    """The figures as lines of a table, a model per column."""
    models = found["models"]
    rows = [["", *models]]
    rows.append(["consultations", *(str(m["consultations"]) for m in models.values())])
    rows.append(["unfinished", *(str(sum(m["unfinished"].values())) for m in models.values())])
    for name in SHARES:
        rows.append([name, *(_shown_share(m["shares"][name]) for m in models.values())])
    for name in MEANS:
        rows.append([name, *(_shown_mean(m["means"][name]) for m in models.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _shown_share(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return "-"
    return f"{share['value']:.2f} ({share['low']:.2f}-{share['high']:.2f}; {share['count']})"


def _shown_mean(value: Mapping[str, Any]) -> str:
    return "-" if value["value"] is None else f"{value['value']:.2f} ({value['count']})"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 done; 2 an error, one line on stderr; 130 interrupted, what was played is kept."""
    parser = parser_of("python -m training.multiturn", "Evaluate models by a simulated patient.")
    parser.add_argument("--out", type=Path, default=Path("data/multiturn.json"))
    options = parser.parse_args(arguments)
    try:
        if options.out.is_dir():
            raise ConfigError(f"--out: {options.out} is a folder; name a file")
        cases, cast, setting, journal = read_flags(options, "multiturn")
        pairs = [(case, name) for case in cases for name in cast.models]
        played = asyncio.run(
            play_cases(cases, pairs, cast, setting, journal, at_once=options.at_once)
        )
        found = report(cases, played, cast, setting.turns, setting.seed)
        write_text(options.out, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    except (HuatuoError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print("\n".join([*table(found), NOTE["en"], str(options.out)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
