"""plays a patient's case against an assistant: a whole consultation, or an unfinished one that counts for nothing.

The first words are the case's own, so two assistants begin with the same context; a patient's seeds depend on the case
and the turn, so both meet the same patient. Every turn of the patient is looked at once more before the assistant hears
it. A failed, empty or cut answer, or a patient with nothing left to say, ends the consultation as unfinished: it is
never filed, voted on or scored. `Journal` keeps the finished ones, one JSON line each, so that none is played twice,
and every exchange of one that is under way, so that after a stop it goes on where it stood and no answer is paid twice.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from huatuo import safety
from huatuo.acting import Patient, given_away, seed_of
from huatuo.config import Generation
from huatuo.engines.base import Deadlines, Engine, Finish, with_deadlines
from huatuo.errors import BadCases, EngineError
from huatuo.leaks import bare
from huatuo.messages import Conversation, Message
from huatuo.patient import PatientCase

VERSION = 1
"""Of how a consultation is played; part of its key."""
SEEN = 0.6
"""Share of a fact's pairs of characters that the patient has said, from which the fact counts as told."""


Ending = Literal["complete", "begun", "assistant", "patient"]


@dataclass(frozen=True)
class Exchange:
    """What the patient said and what the assistant answered. seconds: of the answer."""

    patient: str
    answer: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Consultation:
    """One consultation. finish: 'complete', 'begun' (under way, in a journal only), or who failed; problem: why.

    told: numbers of the case's facts that came out; guards: how often each guard of the patient acted; red_flags: keys
    of huatuo/safety.toml in the patient's words, by turn from 1; key: of what it was played with.
    """

    case: str
    patient: str
    assistant: str
    turns: tuple[Exchange, ...]
    finish: Ending
    problem: str = ""
    told: tuple[int, ...] = ()
    guards: Mapping[str, int] = field(default_factory=dict)
    red_flags: Mapping[str, int] = field(default_factory=dict)
    key: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether it may be filed, voted on and scored."""
        return self.finish == "complete"

    @property
    def conversation(self) -> Conversation:
        """Both sides' words in order, the patient's first."""
        return tuple(
            message
            for turn in self.turns
            for message in (Message("user", turn.patient), Message("assistant", turn.answer))
        )


@dataclass(frozen=True)
class Setting:
    """How consultations are played. turns: exchanges of one consultation; generation: instead of a model's own."""

    turns: int = 4
    seed: int = 0
    generation: Generation | None = None
    deadlines: Deadlines = field(default_factory=Deadlines)


def key_of(
    case: PatientCase, patient: Mapping[str, Any], assistant: Mapping[str, Any], setting: Setting
) -> str:
    """SHA-256 in hex of all that decides a consultation. patient, assistant: what is recorded of each (settings_of)."""
    generation = setting.generation.model_dump() if setting.generation else None
    told = [
        VERSION,
        case.digest,
        dict(patient),
        dict(assistant),
        setting.turns,
        setting.seed,
        generation,
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


async def play(
    case: PatientCase,
    patient: Patient,
    assistant: Engine,
    setting: Setting,
    *,
    key: str = "",
    begun: Consultation | None = None,
    keep: Callable[[Consultation], None] = lambda _: None,
) -> Consultation:
    """Plays the case to its end: `setting.turns` exchanges, unless one of the two fails. Raises no EngineError.

    begun: the same consultation as far as it was played before; it goes on from there. keep: told of every exchange
    that is not the last.
    """
    said: list[Message] = list(begun.conversation) if begun else []
    turns: list[Exchange] = list(begun.turns) if begun else []
    guards: Counter[str] = Counter(begun.guards if begun else ())

    def ended(finish: Ending, why: str = "") -> Consultation:
        spoken = [turn.patient for turn in turns]
        return Consultation(
            case.id, patient.kind, assistant.name, tuple(turns), finish, why,
            told_of(case, spoken), dict(guards), red_flags_of(case, spoken), key,
        )  # fmt: skip

    for number in range(len(turns) + 1, setting.turns + 1):
        words, problem = case.opener, ""
        if said:
            seed = seed_of(setting.seed, case.id, patient.kind, number)
            last = number == setting.turns
            line = await patient.say(case, tuple(said), seed=seed, last=last)
            guards.update(line.guards)
            words, problem = line.text, line.problem
        if words and given_away(words, case, tuple(said)):
            guards["leak"] += 1
            return ended("patient", "the words give the hidden truth away; they were not sent")
        if not words:
            return ended("patient", problem or "the patient said nothing")
        said.append(Message("user", words))
        started = time.monotonic()
        try:
            answer = await _answer(
                assistant, tuple(said), setting, seed_of(setting.seed, case.id, number)
            )
        except EngineError as error:
            turns.append(Exchange(words, "", round(time.monotonic() - started, 3)))
            return ended("assistant", f"{type(error).__name__}: {error}")
        said.append(Message("assistant", answer))
        turns.append(Exchange(words, answer, round(time.monotonic() - started, 3)))
        if number < setting.turns:
            keep(ended("begun"))
    return ended("complete")


async def _answer(engine: Engine, said: Conversation, setting: Setting, seed: int) -> str:
    """The whole answer. Raises EngineError, also for one that was stopped at its length."""
    text = ""
    stream = engine.stream(said, seed=seed, settings=setting.generation)
    checked = with_deadlines(stream, setting.deadlines, question=said[-1].text)
    async with contextlib.aclosing(checked) as items:
        async for item in items:
            if isinstance(item, Finish):
                if item.reason != "stop":
                    raise EngineError("the answer was cut off at its longest length")
            elif not item.thinking:
                text += item.text
    return text.strip()


def told_of(case: PatientCase, spoken: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the facts, from 0, that the patient's words hold, as they stand or mostly so; wishes are no facts."""
    heard = bare("".join(spoken))
    pairs = _pairs(heard)
    found = []
    for number, fact in enumerate(case.facts):
        own = _pairs(bare(fact.text))
        if fact.key != "wish" and own and len(own & pairs) / len(own) >= SEEN:
            found.append(number)
    return tuple(found)


def _pairs(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)}


def red_flags_of(case: PatientCase, spoken: Sequence[str]) -> dict[str, int]:
    """Red flag -> the turn, from 1, in which the patient spoke of it first."""
    found: dict[str, int] = {}
    for number, words in enumerate(spoken, 1):
        for flag in safety.triage(words, case.language):
            found.setdefault(flag.key, number)
    return found


@dataclass(frozen=True)
class Job:
    """One consultation to be played, and its key."""

    case: PatientCase
    patient: Patient
    assistant: Engine
    key: str


async def play_all(
    jobs: Sequence[Job],
    setting: Setting,
    journal: "Journal",
    *,
    at_once: int = 2,
    tell: Callable[[Consultation], None] = lambda _: None,
) -> dict[str, Consultation]:
    """Plays what the journal does not hold yet, `at_once` at a time; all consultations by key, the unfinished too."""
    found = {job.key: journal.done[job.key] for job in jobs if job.key in journal.done}
    todo = {job.key: job for job in jobs if job.key not in found}
    async for consultation in _played(list(todo.values()), setting, journal, at_once):
        found[consultation.key] = consultation
        if consultation.is_finished:
            journal.add(consultation)
        tell(consultation)
    return found


async def _played(
    jobs: Sequence[Job], setting: Setting, journal: "Journal", at_once: int
) -> AsyncIterator[Consultation]:
    gate = asyncio.Semaphore(at_once)

    async def one(job: Job) -> Consultation:
        begun = journal.begun.get(job.key)
        async with gate:
            return await play(
                job.case, job.patient, job.assistant, setting,
                key=job.key, begun=begun, keep=journal.note,
            )  # fmt: skip

    tasks = [asyncio.create_task(one(job)) for job in jobs]
    try:
        for task in asyncio.as_completed(tasks):
            yield await task
    finally:
        for task in tasks:
            task.cancel()


class Journal:
    """The consultations of a file by key: done, and begun as far as they were played.

    A line that a kill tore is dropped, and its exchange played again.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file, if it is there. Raises BadCases naming file and line for damage before the last line."""
        self.path = path
        rows = _all(path) if path.exists() else []
        self.done = {row.key: row for row in rows if row.is_finished}
        self.begun = {row.key: row for row in rows if row.key not in self.done}
        if path.exists():
            whole = path.read_bytes()
            if not whole.endswith(b"\n"):  # else the next line would be glued to the torn one
                os.truncate(path, whole.rfind(b"\n") + 1)

    def add(self, consultation: Consultation) -> None:
        """Appends a finished consultation, on the disk when this returns. Raises ValueError for an unfinished one."""
        if not consultation.is_finished:
            raise ValueError("an unfinished consultation is not kept")
        self._append(consultation)
        self.done[consultation.key] = consultation
        self.begun.pop(consultation.key, None)

    def note(self, consultation: Consultation) -> None:
        """Appends one that is under way, on the disk when this returns; the last of a key counts."""
        self._append(consultation)
        self.begun[consultation.key] = consultation

    def _append(self, consultation: Consultation) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(consultation), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_consultations(path: Path) -> list[Consultation]:
    """The finished consultations of a journal; an end without a line break is dropped.

    Raises BadCases naming file and line.
    """
    return [row for row in _all(path) if row.is_finished]


def _all(path: Path) -> list[Consultation]:
    return list(_read(path.read_bytes().split(b"\n")[:-1], path))


def _read(lines: Iterable[bytes], path: Path) -> Iterable[Consultation]:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["turns"] = tuple(Exchange(**turn) for turn in row["turns"])
            row["told"] = tuple(row["told"])
            yield Consultation(**row)
        except (ValueError, TypeError, KeyError):
            raise BadCases(f"{path}, line {number}: not a consultation; remove the line") from None
