"""lets a simulated patient consult two or more models, as a blind multi-turn study: `python -m training.consult`.

    python -m training.consult --cases CASES.json --models nano-hybrid nano-doctor --patient rule --turns 4 --study NAME

CASES.json: patient cases as huatuo/patient.py reads them, such as Med-dialog_100.json. --patient: `rule` needs no
model; any other name is a model of configs/models that plays the role. Each case gets one pair of whole consultations,
the pairs of models in turn, filed in the record (--data) for the review page. An unfinished consultation is never
filed: its case is left out and counted, and so is a case that tells nothing. Finished ones are kept under
data/consultations, so a run that was stopped goes on where it stood. --out writes the pairs to a file as well, for
`python -m reviews.importer`. A model on a server abroad needs --consent, the id under which the texts may go there.
With --live no model is asked: the cases themselves are filed, each with a card for the physician who plays the patient
on the compare page.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from huatuo.acting import ModelPatient, Patient, RulePatient
from huatuo.config import (
    ROOT,
    ModelConfig,
    Protocol,
    read_models,
    read_protocol,
    settings_of,
)
from huatuo.consultations import Consultation, Job, Journal, Setting, key_of, play_all
from huatuo.engines.base import Engine
from huatuo.engines.pool import make_engine
from huatuo.engines.trial import PATIENCE
from huatuo.errors import ConfigError, HuatuoError, NoData
from huatuo.patient import PatientCase, card_of, read_cases
from reviews.database import DEFAULT_NAME
from reviews.errors import RecordError
from reviews.records import LIVE_STUDY, Case, ImportReport, PreparedPair, PreparedTurn
from reviews.store import Store
from reviews.studies import check_name
from training.rows import write_text
from training.study import plan

RULE = "rule"
JOURNALS = "consultations"
"""Folder of the journals, in the record's folder."""


@dataclass(frozen=True)
class Cast:
    """Who consults whom. models: by name, at least one; patient: RULE or a model's name; known: every model."""

    models: tuple[str, ...]
    patient: str
    known: Mapping[str, ModelConfig]
    protocol: Protocol | None = None
    consent: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError naming the flag."""
        for flag, names in (("--models", self.models), ("--patient", (self.patient,))):
            for name in names:
                if name not in self.known and not (flag == "--patient" and name == RULE):
                    raise ConfigError(f"{flag}: no file in configs/models names {name}")
        if len(set(self.models)) != len(self.models) or not self.models:
            raise ConfigError("--models: name at least one model, and each once")
        asked = [name for name in (*self.models, self.patient) if name != RULE]
        far = [name for name in asked if not self.known[name].may_ask(self.consent)]
        if far:
            raise ConfigError(
                f"{far[0]} is on a server abroad; --consent names what allows the cases to be sent there"
            )

    def recorded(self, name: str, *, answers: bool = True) -> dict[str, object]:
        """What the record keeps of a model's settings; answers: by the protocol, if there is one."""
        if name == RULE:
            return {"model": RULE}
        return settings_of(self.known[name], self.protocol if answers else None)


@dataclass(frozen=True)
class Played:
    """What became of the cases. by: (case id, model) -> consultation, unfinished ones too."""

    by: Mapping[tuple[str, str], Consultation]
    empty: tuple[str, ...] = ()
    problems: Mapping[str, int] = field(default_factory=dict)

    def of(self, model: str) -> list[Consultation]:
        """The model's consultations, in the cases' order."""
        return [said for (_, name), said in self.by.items() if name == model]


async def play_cases(
    cases: Sequence[PatientCase],
    pairs: Sequence[tuple[PatientCase, str]],
    cast: Cast,
    setting: Setting,
    journal: Journal,
    *,
    at_once: int = 2,
) -> Played:
    """Plays every (case, model) of `pairs` that the journal does not hold. Raises HuatuoError if no engine comes up."""
    names = list(dict.fromkeys(name for _, name in pairs))
    actors = names if cast.patient == RULE else [*names, cast.patient]
    engines = {name: make_engine(cast.known[name], ROOT) for name in dict.fromkeys(actors)}
    try:
        patient = _patient(cast, engines, setting)
        told = cast.recorded(cast.patient, answers=False)
        jobs = {
            (case.id, name): Job(
                case, patient, engines[name], key_of(case, told, cast.recorded(name), setting)
            )
            for case, name in pairs
        }
        bar = tqdm(total=len(jobs), unit="consultation")
        bar.update(sum(job.key in journal.done for job in jobs.values()))

        def tell(said: Consultation) -> None:
            bar.update()
            if not said.is_finished:
                tqdm.write(f"case {said.case}, {said.assistant}: left out, {said.problem}")

        found = await play_all(list(jobs.values()), setting, journal, at_once=at_once, tell=tell)
        bar.close()
    finally:
        for engine in engines.values():
            await engine.close()
    by = {place: found[job.key] for place, job in jobs.items()}
    failed = Counter(said.finish for said in by.values() if not said.is_finished)
    empty = tuple(case.id for case in cases if "empty" in case.notes)
    return Played(by, empty, dict(failed))


def _patient(cast: Cast, engines: Mapping[str, Engine], setting: Setting) -> Patient:
    if cast.patient == RULE:
        return RulePatient()
    return ModelPatient(engines[cast.patient], setting.deadlines)


def pair_of(
    case: PatientCase, a: Consultation, b: Consultation, cast: Cast, setting: Setting
) -> PreparedPair:
    """The two consultations as one comparison. Raises NoData if one is unfinished or they differ in length."""
    if not (a.is_finished and b.is_finished) or len(a.turns) != len(b.turns):
        raise NoData(f"case {case.id}: only two finished consultations of one length are compared")
    turns = tuple(
        PreparedTurn(
            one.patient,
            one.answer,
            other.answer,
            question_b="" if other.patient == one.patient else other.patient,
        )
        for one, other in zip(a.turns, b.turns, strict=True)
    )
    settings = [
        {
            **cast.recorded(said.assistant),
            "patient": cast.recorded(said.patient, answers=False),
            "consultation": said.key,
            "turns": setting.turns,
            "seed": setting.seed,
            "guards": dict(said.guards),
            "consent": cast.consent,
        }
        for said in (a, b)
    ]
    return PreparedPair(
        case.id,
        a.assistant,
        b.assistant,
        turns,
        department=case.department,
        language=case.language,
        source=f"simulated consultation, patient {a.patient}",
        settings_a=settings[0],
        settings_b=settings[1],
    )


def pairs_of(
    cases: Sequence[PatientCase], cast: Cast, setting: Setting, journal: Journal, *, at_once: int
) -> tuple[list[PreparedPair], Played]:
    """Plays one pair of models per case and returns the pairs that are whole."""
    told = [case for case in cases if "empty" not in case.notes]
    if not told:
        raise NoData("no case tells anything that a patient could say")
    chosen = [(told[i], a, b) for i, a, b in plan([{}] * len(told), cast.models, setting.seed)]
    wanted = [(case, name) for case, *both in chosen for name in both]
    played = asyncio.run(play_cases(cases, wanted, cast, setting, journal, at_once=at_once))
    pairs = []
    for case, first, second in chosen:
        a, b = played.by[case.id, first], played.by[case.id, second]
        if a.is_finished and b.is_finished:
            pairs.append(pair_of(case, a, b, cast, setting))
    return pairs, played


def write_pairs(pairs: Sequence[PreparedPair], out: Path) -> None:
    """Writes the pairs as reviews.importer reads them, whole or not at all."""
    rows = []
    for pair in pairs:
        turns: list[dict[str, Any]] = []
        for turn in pair.turns:
            row = {
                "question": turn.question,
                "answer_a": turn.answer_a,
                "answer_b": turn.answer_b,
            }
            turns.append({**row, "question_b": turn.question_b} if turn.question_b else row)
        rows.append(
            {
                "id": pair.external_id,
                "model_a": pair.contestant_a,
                "model_b": pair.contestant_b,
                "turns": turns,
                "department": pair.department,
                "language": pair.language,
                "source": pair.source,
                "settings_a": pair.settings_a,
                "settings_b": pair.settings_b,
            }
        )
    write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def file_pairs(pairs: Sequence[PreparedPair], study: str, data: Path) -> ImportReport:
    """Files the pairs in the study. Raises BadStudy, Store*."""
    data.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Store.open(data / DEFAULT_NAME)) as store:
        return store.add_prepared(study, pairs, "consult")


def card_case(case: PatientCase) -> Case:
    """The case for the compare page, with the card of the one who plays the patient."""
    return Case(case.id, case.opener, case.department, "", case.language, card_of(case))


def file_cards(cases: Sequence[PatientCase], study: str, data: Path) -> ImportReport:
    """Files the cases with their cards; those that tell nothing are left out. Raises BadStudy, Store*."""
    told = [card_case(case) for case in cases if "empty" not in case.notes]
    data.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Store.open(data / DEFAULT_NAME)) as store:
        return store.add_cases(study, told, "consult")


def parser_of(prog: str, description: str) -> argparse.ArgumentParser:
    """The flags that this command and training.multiturn share."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--cases", type=Path, required=True, help="a file of patient cases")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--patient", default=RULE, metavar="NAME", help="rule, or a model's name")
    parser.add_argument("--turns", type=int, default=4, choices=range(1, 9), metavar="1-8")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", default="", metavar="NAME", help="of configs/protocols")
    parser.add_argument("--consent", default="", metavar="ID", help="for models on servers abroad")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the record's folder")
    parser.add_argument("--at-once", type=int, default=2, choices=range(1, 65), metavar="1-64")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N cases")
    return parser


def read_flags(
    options: argparse.Namespace, name: str
) -> tuple[Sequence[PatientCase], Cast, Setting, Journal]:
    """What the shared flags say. name: of the journal's file. Raises HuatuoError."""
    known, _ = read_models(ROOT / "configs/models")
    protocol = (
        read_protocol(options.protocol, ROOT / "configs/protocols") if options.protocol else None
    )
    cast = Cast(tuple(options.models), options.patient, known, protocol, options.consent)
    cases = read_cases(options.cases)
    if options.limit:
        cases = cases[: options.limit]
    generation = protocol.generation if protocol else None
    setting = Setting(options.turns, options.seed, generation, PATIENCE)
    return cases, cast, setting, Journal(options.data / JOURNALS / f"{name}.jsonl")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 done; 2 an error, one line on stderr; 130 interrupted, what was played is kept."""
    parser = parser_of("python -m training.consult", "File simulated consultations in a study.")
    parser.add_argument("--study", required=True, metavar="NAME")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the pairs here")
    parser.add_argument("--live", action="store_true", help="file cards for physicians instead")
    options = parser.parse_args(arguments)
    try:
        if check_name(options.study) == LIVE_STUDY:
            raise ConfigError(f"--study: {LIVE_STUDY} is kept for live comparisons")
        if options.live:
            cards = file_cards(read_cases(options.cases), options.study, options.data)
            print(f"{cards.added:6d} cards filed, {cards.already_there} were there already")
            return 0
        if len(options.models) < 2:
            raise ConfigError("--models: a comparison needs two different models")
        cases, cast, setting, journal = read_flags(options, options.study)
        pairs, played = pairs_of(cases, cast, setting, journal, at_once=options.at_once)
        if not pairs:
            raise NoData("no pair of consultations was finished; nothing was filed")
        if options.out:
            write_pairs(pairs, options.out)
        report = file_pairs(pairs, options.study, options.data)
    except (HuatuoError, RecordError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for line in lines(cases, played, report):
        print(line)
    return 0


def lines(cases: Sequence[PatientCase], played: Played, report: ImportReport) -> list[str]:
    """What was done, in words."""
    notes = Counter(note for case in cases for note in case.notes)
    guards: Counter[str] = Counter()
    for said in played.by.values():
        guards.update(said.guards)
    told = [
        f"{len(cases):6d} cases read",
        f"{len(played.empty):6d} of them tell nothing and were left out",
        f"{sum(said.is_finished for said in played.by.values()):6d} consultations finished",
        *(f"{count:6d} unfinished: the {who} failed" for who, count in played.problems.items()),
        f"{report.added:6d} pairs filed, {report.already_there} were there already",
    ]
    told += [
        f"       taken out of the cases: {note}, {count} times" for note, count in notes.items()
    ]
    told += [
        f"       guard of the patient: {name}, {count} times" for name, count in guards.items()
    ]
    told += [f"       {case}: there already with other texts; use another study's name" for case in report.differs]  # fmt: skip
    return told


if __name__ == "__main__":
    sys.exit(main())
