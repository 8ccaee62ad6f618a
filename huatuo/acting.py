"""plays the patient: a language model in the role, or rules over the case's facts; every turn is guarded.

Guards, each counted: empty, cut (the model was stopped), long, flip (the patient gives medical advice or speaks as the
doctor), leak (huatuo/leaks.py), repetition. A bad turn is drawn again with another seed at most TRIES times; then the
sentences at fault are taken out. When nothing is left, the patient has failed and the consultation is unfinished. A
model in the role is told the case's facts only: what it does not know it can guess, but not copy.
"""

import contextlib
import hashlib
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from huatuo.engines.base import Deadlines, Engine, Finish, with_deadlines
from huatuo.errors import EngineError, Refused
from huatuo.leaks import leaks, repeats
from huatuo.messages import Conversation, Message
from huatuo.patient import Fact, PatientCase, topics, words

TRIES = 3
LONGEST = 200
"""Characters of one turn of a patient who is played by a model."""
TOLD_AT_ONCE = 3
"""Facts that the rule patient tells in one turn at most."""
_SENTENCE = re.compile(r"(?<=[。！？!?；;\n])|(?<=[a-z)]\.)(?=\s)")


@dataclass(frozen=True)
class Line:
    """One turn of the patient. text: '' if the patient failed, and `problem` says why; guards: how often each acted."""

    text: str
    guards: Mapping[str, int]
    problem: str = ""


class Patient(Protocol):
    """Somebody who plays a case. kind: what the results name; the same seed gives the same patient to everybody."""

    kind: str

    async def say(self, case: PatientCase, said: Conversation, *, seed: int, last: bool) -> Line:
        """The next turn after the assistant's. said: the consultation so far; last: no further turn follows."""
        ...


def sentences(text: str) -> list[str]:
    """The sentences with their punctuation."""
    return [part for part in _SENTENCE.split(text) if part.strip()]


def questions(text: str) -> list[str]:
    """The sentences that ask the patient something, with or without a question mark."""
    asking = words()["asking"]
    return [
        part.strip()
        for part in sentences(text)
        if re.search(asking["mark"], part) or re.search(asking["words"], part.strip(), re.I)
    ]


def faults(
    text: str, case: PatientCase, said: Conversation, *, longest: int = LONGEST
) -> dict[str, tuple[str, ...]]:
    """What is wrong with a patient's turn: guard -> the pieces at fault; empty when it may be said."""
    found: dict[str, tuple[str, ...]] = {}
    flip = words()["flip"]
    flips = [m[0] for m in re.finditer(flip["words"], text, re.I)]
    flips += [m[0] for m in re.finditer(flip["other"], text, re.I)]
    told = given_away(text, case, said)
    if flips:
        found["flip"] = tuple(flips)
    if told:
        found["leak"] = told
    if any(m.role == "user" and repeats(text, m.text) for m in said):
        found["repetition"] = (text,)
    if len(text) > longest:
        found["long"] = (text,)
    return found


def given_away(text: str, case: PatientCase, said: Conversation) -> tuple[str, ...]:
    """What of the hidden truth the text gives away; what the assistant has said, or the case tells, is no secret."""
    own = "\n".join((case.opener, *(fact.text for fact in case.facts)))
    heard = "\n".join(m.text for m in said if m.role == "assistant")
    doctor = f"{case.hidden.diagnosis}\n{case.hidden.dialogue}"
    return leaks(text, case.hidden.names, doctor, own, heard)


def mended(text: str, case: PatientCase, said: Conversation, longest: int = LONGEST) -> str:
    """The text without the sentences at fault, at most `longest` characters of whole sentences; '' if none is left.

    A repetition is harmless and stays.
    """
    kept = ""
    for part in sentences(text):
        bad = faults(part.strip(), case, said, longest=longest)
        if not bad.keys() - {"repetition"} and len(kept) + len(part) <= longest:
            kept += part
    # Two sentences may give away together what neither does alone.
    return (
        "" if faults(kept, case, said, longest=longest).keys() & {"leak", "flip"} else kept.strip()
    )


class ModelPatient:
    """A language model in the role, behind any engine."""

    def __init__(self, engine: Engine, deadlines: Deadlines | None = None) -> None:
        self.kind = engine.name
        self._engine = engine
        self._deadlines = deadlines or Deadlines()

    async def say(self, case: PatientCase, said: Conversation, *, seed: int, last: bool) -> Line:
        """The model's next turn, guarded. A fault of the engine is the patient's failure, never a turn."""
        guards: Counter[str] = Counter()
        why, best = "", ""
        for attempt in range(TRIES):
            try:
                text, whole = await self._ask(case, said, why, seed + attempt, last)
            except Refused:
                guards["empty"] += 1
                why = "empty"
                continue
            except EngineError as error:
                return Line("", guards, f"{type(error).__name__}: {error}")
            found = faults(text, case, said)
            if not text:
                found = {"empty": ()}
            elif not whole:
                found["cut"] = ()
            if not found:
                return Line(text, guards)
            guards.update(found.keys())
            why = next(key for key in (*found, "long") if key in words()["zh"])
            best = best or mended(text, case, said)
        if not best:
            return Line("", guards, f"nothing that may be said in {TRIES} tries")
        guards["mended"] += 1
        return Line(best, guards)

    async def _ask(
        self, case: PatientCase, said: Conversation, why: str, seed: int, last: bool
    ) -> tuple[str, bool]:
        """(the words, whether the model ended by itself). Raises EngineError."""
        told = prompt(case, said, why=why, last=last)
        text, whole = "", False
        stream = self._engine.stream(told, seed=seed)
        checked = with_deadlines(stream, self._deadlines, question=told[-1].text)
        async with contextlib.aclosing(checked) as items:
            async for item in items:
                if isinstance(item, Finish):
                    whole = item.reason == "stop"
                elif not item.thinking:
                    text += item.text
        return re.sub(words()["flip"]["prefix"], "", text, flags=re.I).strip(), whole


def prompt(
    case: PatientCase, said: Conversation, *, why: str = "", last: bool = False
) -> Conversation:
    """What the model in the role is told: the role and the facts, then the consultation with the roles changed.

    why: the guard that refused the words before. The hidden truth is not in it.
    """
    text = words()[case.language]
    told = [("complaint", case.opener), *((fact.key, fact.text) for fact in case.facts)]
    facts = "\n".join(f"- {text['labels'][key]}：{what}" for key, what in told)
    messages = [
        Message("user", f"{text['role'].strip().replace('{facts}', facts)}\n\n{text['start']}")
    ]
    for message in said:
        if message.role == "user":
            messages.append(Message("assistant", message.text))
        else:
            messages.append(Message("user", text["doctor"].replace("{text}", message.text)))
    notes = [text[key] for key in (why, "last" if last else "") if key]
    if notes:
        note = text["note"].replace("{why}", " ".join(notes))
        messages[-1] = Message("user", f"{messages[-1].text}\n\n{note}")
    return tuple(messages)


class RulePatient:
    """Answers questions by matching them to the case's facts; knows nothing else, and needs no model."""

    kind = "rule"

    async def say(self, case: PatientCase, said: Conversation, *, seed: int, last: bool) -> Line:
        """The facts that are asked for; a question of the patient's own when nothing is asked."""
        rng = random.Random(seed)
        text = words()[case.language]
        heard = said[-1].text if said and said[-1].role == "assistant" else ""
        before = [m.text for m in said if m.role == "user"]
        left = [
            fact for fact in case.facts if not any(fact.text.strip("，, ") in t for t in before)
        ]
        asked = questions(heard)
        parts = self._told(asked, left, text, rng) if asked else []
        if not asked or last:
            parts.append(self._own(left, before, text, rng))
        if last:
            parts.append(text["thanks"])
        line = _joined(parts, case.language)
        safe = mended(line, case, said, longest=10_000)
        if not safe:
            return Line("", {"leak": 1}, "the case's own words give the truth away")
        return Line(
            safe, {"leak": 1, "mended": 1} if safe != line and given_away(line, case, said) else {}
        )

    def _told(
        self,
        asked: Sequence[str],
        left: Sequence[Fact],
        text: Mapping[str, Any],
        rng: random.Random,
    ) -> list[str]:
        chosen: list[Fact] = []
        for question in asked:
            for fact in _fitting(question, left):
                if fact not in chosen and len(chosen) < TOLD_AT_ONCE:
                    chosen.append(fact)
        return [fact.text for fact in left if fact in chosen] or [rng.choice(text["unknown"])]

    def _own(
        self,
        left: Sequence[Fact],
        before: Sequence[str],
        text: Mapping[str, Any],
        rng: random.Random,
    ) -> str:
        """What a patient asks without being asked: the wish of the case first, then what anybody asks."""
        wish = next((fact.text for fact in left if fact.key == "wish"), "")
        if wish:
            return str(text["wish"].replace("{wish}", wish))
        fresh = [ask for ask in text["asks"] if not any(ask in told for told in before)]
        return str(rng.choice(fresh or text["asks"]))


def _fitting(question: str, left: Sequence[Fact]) -> list[Fact]:
    """The facts that answer a question: those of its narrowest topics, a form's entry before the story."""
    wanted = [key for key, asks, _ in topics() if asks.search(question)]
    told = [fact for fact in left if fact.key != "wish"]
    for key in wanted:
        own = [fact for fact in told if fact.key == key]
        found = own or [fact for fact in told if key in fact.topics and fact.key == "story"]
        if found:
            return found[:2]
    return []


def _joined(parts: Sequence[str], language: str) -> str:
    ends = "。！？!?." if language == "zh" else ".!?"
    full = "。" if language == "zh" else "."
    told = [part.strip().rstrip("，,；; ") for part in parts]
    told = [part if part[-1:] in ends else part + full for part in told if part]
    return ("" if language == "zh" else " ").join(told)


def seed_of(*parts: object) -> int:
    """A seed below 2**31 for these parts, the same on every machine."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
