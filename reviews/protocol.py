"""A study's protocol: what is compared, by whom, on which criteria and until when; frozen and hashed before the first vote."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import sha256
from typing import Any, Literal, NoReturn, get_args

from reviews.errors import BadStudy
from reviews.records import clean_text

Kind = Literal["single", "multi", "live"]
Scale = Literal["scale", "preference"]
Pairing = Literal["active", "balanced"]
State = Literal["draft", "frozen", "closed"]

SAFETY_KINDS = (
    "dangerous_advice",
    "missed_emergency",
    "fabricated_fact",
    "wrong_dose",
    "machine_prescription",
)
"""What a span of an answer can be flagged as; counted apart from the votes."""

_NAME = re.compile(r"[^\n\t\x00-\x1f]{1,64}")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,23}")
_HIGHEST_OVERLAP = 50


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that is rated. scale: 1-5 per side; preference: 1 (left much better) to 5 (right much better)."""

    key: str
    kind: Scale
    title_zh: str
    title_en: str
    required: bool = False

    @property
    def rating_keys(self) -> tuple[str, ...]:
        """The keys under which a ballot holds its ratings, as the rater saw the sides."""
        if self.kind == "scale":
            return (f"left_{self.key}", f"right_{self.key}")
        return (f"pref_{self.key}",)


CRITERIA: dict[str, Criterion] = {
    criterion.key: criterion
    for criterion in (
        Criterion("diagnosis", "scale", "诊断", "Diagnosis"),
        Criterion("treatment", "scale", "治疗建议", "Treatment"),
        Criterion("medication", "scale", "用药与处方安全", "Medication and prescription safety"),
        Criterion("asking", "scale", "追问", "Asking back"),
        Criterion("clarity", "scale", "清楚易懂", "Clarity"),
        Criterion("warmth", "scale", "关怀", "Warmth"),
    )
}
"""Ready criteria by key: the three of the paper's manual evaluation and three from practice."""


@dataclass(frozen=True, slots=True)
class Closing:
    """When a study ends, besides when every pair has its overlap. until: the last day, ISO date.

    sequential: when every pair of contestants is settled by a test that survives looking (alpha).
    """

    votes: int | None = None
    until: str | None = None
    sequential: bool = False
    alpha: float = 0.05


@dataclass(frozen=True)
class Protocol:
    """A study's plan. Raises BadStudy naming study and key for what cannot be.

    contestants: empty means those of the filed pairs. raters: account names; empty means every
    physician. gold: external id of a pair to the contestant that is known to be better, or "tie".
    fastest_s: a vote that took less is marked, never refused. consent_id: under which consent
    texts may go to a remote engine; empty means never.
    """

    name: str
    title_zh: str = ""
    title_en: str = ""
    language: Literal["zh", "en"] = "zh"
    kind: Kind = "single"
    contestants: tuple[str, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    raters: tuple[str, ...] = ()
    overlap: int = 1
    gold: Mapping[str, str] = field(default_factory=dict)
    pairing: Pairing = "balanced"
    seed: int = 42
    closing: Closing = field(default_factory=Closing)
    adjudicate: bool = False
    safety_flags: bool = True
    better_answers: bool = True
    fastest_s: float = 0.0
    consent_id: str = ""
    generation: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        _check(self)

    def canonical(self) -> str:
        """The whole protocol as JSON with sorted keys: what is hashed and kept."""
        return json.dumps(
            dataclasses.asdict(self), ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )

    @property
    def sha256(self) -> str:
        """Of the canonical JSON: what is registered before the first vote."""
        return sha256(self.canonical().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Protocol:
        """The protocol that canonical() wrote. Raises BadStudy."""
        try:
            values: dict[str, Any] = json.loads(text)
            values["closing"] = Closing(**values.get("closing", {}))
            values["criteria"] = tuple(Criterion(**c) for c in values.get("criteria", ()))
            for key in ("contestants", "raters"):
                values[key] = tuple(values.get(key, ()))
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise BadStudy("not a study's protocol: {error}", error=error) from None


@dataclass(frozen=True, slots=True)
class Study:
    """A filed protocol and how far the study is. frozen_at: set before the first pair is given out.

    pairs_sha256: of the pairs that were frozen with the protocol (audit.pairs_sha256); empty for a
    draft, a live study, or one frozen by a version that did not register its pairs.
    """

    protocol: Protocol
    state: State
    sha256: str
    filed_at: datetime
    frozen_at: datetime | None = None
    closed_at: datetime | None = None
    close_reason: str = ""
    pairs_sha256: str = ""

    @property
    def name(self) -> str:
        """The study's name."""
        return self.protocol.name


def _check(p: Protocol) -> None:
    """Raises BadStudy for the first key that cannot be."""

    def refuse(key: str, why: str, **values: object) -> NoReturn:
        raise BadStudy(why, where=f"study {str(p.name)[:64]!r}: {key}", **values)

    def plain(key: str, text: object, most: int = 200) -> None:
        if not isinstance(text, str) or len(text) > most or clean_text(text) != text:
            refuse(key, "must be plain text of at most {most} characters", most=most)

    if not isinstance(p.name, str) or not _NAME.fullmatch(p.name) or p.name != p.name.strip():
        refuse("name", "a study's name has 1 to {most} characters on one line", most=64)
    for key, most in (("title_zh", 80), ("title_en", 80), ("consent_id", 200), ("generation", 64), ("notes", 4000)):  # fmt: skip
        plain(key, getattr(p, key), most)
    for key, allowed in (("language", ("zh", "en")), ("kind", get_args(Kind)), ("pairing", get_args(Pairing))):  # fmt: skip
        if (given := getattr(p, key)) not in allowed:
            refuse(key, "must be one of {all}, not {given!r}", all=", ".join(allowed), given=given)
    for key in ("contestants", "raters"):
        names = getattr(p, key)
        if len(set(names)) != len(names):
            refuse(key, "names one twice")
        for name in names:
            plain(key, name)
            if not name.strip():
                refuse(key, "a name is empty")
    if len(p.contestants) == 1:
        refuse("contestants", "name at least two, or none for those of the filed pairs")
    _check_numbers(p, refuse)
    _check_criteria(p, refuse)
    for case, better in p.gold.items():
        plain("gold", case)
        if better != "tie" and p.contestants and better not in p.contestants:
            refuse(
                "gold", "{case}: {name!r} is no contestant of this study", case=case, name=better
            )


def _check_numbers(p: Protocol, refuse: Any) -> None:
    def whole(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    if not whole(p.overlap) or not 1 <= p.overlap <= _HIGHEST_OVERLAP:
        refuse("overlap", "must be a whole number from 1 to {most}", most=_HIGHEST_OVERLAP)
    if p.raters and p.overlap > len(p.raters):
        refuse(
            "overlap", "{votes} votes on each pair, but only {raters} raters",
            votes=p.overlap, raters=len(p.raters),
        )  # fmt: skip
    if not whole(p.seed):
        refuse("seed", "must be a whole number")
    if not isinstance(p.fastest_s, int | float) or not 0 <= p.fastest_s <= 3600:
        refuse("fastest_s", "must be seconds from 0 to 3600")
    c = p.closing
    if c.votes is not None and (not whole(c.votes) or c.votes < 1):
        refuse("closing.votes", "must be a whole number of votes, at least 1")
    if c.until is not None:
        try:
            date.fromisoformat(c.until)
        except (TypeError, ValueError):
            refuse("closing.until", "must be a date like 2026-12-31, not {given!r}", given=c.until)
    if not isinstance(c.alpha, int | float) or not 0 < c.alpha < 0.5:
        refuse("closing.alpha", "must lie between 0 and 0.5")


def _check_criteria(p: Protocol, refuse: Any) -> None:
    keys = [c.key for c in p.criteria]
    if len(set(keys)) != len(keys):
        refuse("criteria", "names one twice")
    for c in p.criteria:
        if not isinstance(c.key, str) or not _KEY.fullmatch(c.key):
            refuse(
                "criteria",
                "{name!r} is no key: lower-case letters, digits, _; at most 24",
                name=c.key,
            )
        if c.kind not in get_args(Scale):
            refuse(
                "criteria", "{name}: kind must be scale or preference, not {given!r}",
                name=c.key, given=c.kind,
            )  # fmt: skip
        if not c.title_zh.strip() or not c.title_en.strip():
            refuse("criteria", "{name}: needs a title in both languages", name=c.key)
