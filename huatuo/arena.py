"""one question to two engines; a pair exists only when both answers finished.

Blind in time as in name: what a page may show of two running answers is cut to the same number of
characters, so neither the first word nor the pace tells which engine is the faster one.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Literal

from huatuo import messages, privacy, render, safety
from huatuo.accounts import Accounts, Session
from huatuo.config import AppConfig, Generation, Protocol, settings_of
from huatuo.engines.pool import Pool
from huatuo.errors import NotSignedIn, Unavailable
from huatuo.messages import Conversation, Message
from huatuo.writing import Desk, Writing
from reviews.errors import NotFinished, UnknownAssignment
from reviews.records import LIVE_STUDY, Assignment, Case, Comparison, Side, Turn
from reviews.store import Store

FRAME_S = 0.1
"""Seconds between two looks at a running answer: quick to the eye, cheap for the server."""

HELD_BACK = 24
"""Characters at the end of a running answer that are not shown yet."""

State = Literal["writing", "votable", "broken", "voted"]


@dataclass(frozen=True)
class Pane:
    """One side of one turn as shown. finish: None while it is (shown as) being written."""

    text: str
    finish: str | None


@dataclass(frozen=True)
class DuelTurn:
    """One question and its two answers, by the side they are shown on.

    question_right: what was asked on the right where that differs (a simulated patient answers each side).
    """

    question: str
    left: Pane
    right: Pane
    question_right: str = ""

    @property
    def asked_right(self) -> str:
        """The question that the right side answered."""
        return self.question_right or self.question


@dataclass(frozen=True)
class Duel:
    """What a page shows of one comparison. names: (left, right), only after the vote."""

    assignment_id: str
    state: State
    turns: tuple[DuelTurn, ...]
    names: tuple[str, str] | None
    case: Comparison


@dataclass(frozen=True)
class Card:
    """A case that a physician plays the patient of, and the study it belongs to."""

    study: str
    case: Case


class Arena:
    """Live blind comparisons. Identity and ownership come from the caller's server-side session."""

    def __init__(
        self,
        store: Store,
        pool: Pool,
        desk: Desk,
        accounts: Accounts,
        config: AppConfig,
        rng: random.Random | None = None,
        protocol: Protocol | None = None,
    ) -> None:
        """protocol: the settings that both sides of a new comparison answer with; without one, each its own."""
        self._store, self._pool, self._desk = store, pool, desk
        self._accounts, self._config = accounts, config
        self._rng = rng or random.Random(secrets.randbits(64))
        self._protocol = protocol

    def current(self, session: Session) -> str | None:
        """The id of the rater's open live comparison, or None."""
        assignment = self._store.current_live(rater_of(session))
        return assignment.id if assignment else None

    def card(self, session: Session, assignment_id: str | None = None) -> Card | None:
        """The card of the case that is played in a comparison; without one, the next that this rater may play."""
        if assignment_id is None:
            found = self._store.next_card(rater_of(session))
            return Card(*found) if found else None
        comparison = self._live(session, assignment_id)[1]
        case = self._store.card(comparison.study, comparison.external_id)
        return Card(comparison.study, case) if case else None

    async def ask(
        self,
        session: Session,
        assignment_id: str | None,
        text: str,
        language: str,
        *,
        with_card: bool = False,
    ) -> tuple[str, dict[str, int]]:
        """Sends one message to both sides; draws the pair at the first one.

        with_card: a new comparison belongs to the study and case of this rater's next card, if there is one.

        While fewer than two contestants are ready and others load, waits for them.
        Returns the assignment's id and what was masked. Raises InputError, TooFast, NotFinished (the
        turn before is not complete), AssignmentClosed, NotYours, Unavailable (fewer than two
        contestants are ready).
        """
        text = messages.clean(text, self._config.message_limit)
        self._accounts.allow(session, "ask")
        rater = rater_of(session)
        masked = await asyncio.to_thread(privacy.mask, text)
        if assignment_id is None:  # in the first seconds after a start the models are still loading
            await self._pool.wait(2)

        def store() -> str:
            opened = assignment_id or self.current(session)
            if opened is None:
                card = self.card(session) if with_card else None
                opened = self._draw(rater, language, card).id
            elif len(self._live(session, opened)[1].turns) >= self._config.max_turns:
                raise NotFinished(
                    f"a comparison has at most {self._config.max_turns} turns; vote now"
                )
            self._store.add_turn(opened, rater, masked.text)
            return opened

        opened = await asyncio.to_thread(store)
        self._begin(opened, rater)
        return opened, dict(masked.found)

    async def retry(self, session: Session, assignment_id: str) -> None:
        """Asks both sides the last question again, after one of them failed."""
        self._accounts.allow(session, "ask")
        rater = rater_of(session)
        _, comparison = self._live(session, assignment_id)
        if self._writings(comparison):
            raise NotFinished("an answer is still being written")
        await asyncio.to_thread(self._store.retry_turn, assignment_id, rater)
        self._begin(assignment_id, rater)

    def view(self, session: Session, assignment_id: str) -> Duel:
        """The comparison as this rater may see it now. Raises NotYours, UnknownAssignment."""
        assignment, comparison = self._live(session, assignment_id)
        return show(assignment, comparison, self._names(), self._writings(comparison))

    async def watch(self, session: Session, assignment_id: str) -> AsyncIterator[Duel]:
        """The comparison again and again while it is being written, and once when it is complete."""
        assignment, comparison = self._live(session, assignment_id)
        names, writings = self._names(), self._writings(comparison)
        while not all(writing.recorded for writing in writings.values()):
            yield show(assignment, comparison, names, writings)
            await asyncio.sleep(FRAME_S)
        yield self.view(session, assignment_id)

    def _live(self, session: Session, assignment_id: str) -> tuple[Assignment, Comparison]:
        """A live comparison of this rater. A prepared pair is unknown here: its names stay hidden after the vote."""
        assignment, comparison = self._store.view(assignment_id, rater_of(session))
        if comparison.kind != "live":
            raise UnknownAssignment(assignment_id)
        return assignment, comparison

    def _draw(self, rater: int, language: str, card: Card | None) -> Assignment:
        study = self._store.study(card.study) if card else None
        named = study.protocol.contestants if study else ()
        consent = study.protocol.consent_id if study else None
        ready = [name for name in self._pool.contestants(consent) if not named or name in named]
        if len(ready) < 2:
            raise Unavailable("fewer than two contestants are ready; see the admin page")
        first, second = self._rng.sample(ready, 2)
        return self._store.open_live(
            rater,
            first,
            second,
            self._rng.choice(("a", "b")),
            language=language,
            settings_a=settings_of(self._pool.configs[first], self._protocol),
            settings_b=settings_of(self._pool.configs[second], self._protocol),
            study=card.study if card else LIVE_STUDY,
            case=card.case if card else None,
        )

    def _begin(self, assignment_id: str, rater: int) -> None:
        _, comparison = self._store.view(assignment_id, rater)
        turn = comparison.turns[-1]
        sides: tuple[tuple[Literal["a", "b"], str], ...] = (
            ("a", comparison.contestant_a),
            ("b", comparison.contestant_b),
        )
        study = self._store.study(comparison.study)
        consent = study.protocol.consent_id if study else None
        loop = asyncio.get_running_loop()
        for side, name in sides:
            seed = secrets.randbits(31)
            other = _key(comparison.id, "b" if side == "a" else "a")

            def record(
                writing: Writing,
                side: Literal["a", "b"] = side,
                seed: int = seed,
                other: str = other,
            ) -> None:
                settings = {
                    "seed": seed,
                    "first_s": writing.first_s,
                    "seconds": writing.seconds,
                    "fault": writing.fault,
                }
                self._store.finish_side(
                    comparison.id,
                    turn.number,
                    side,
                    writing.text,
                    str(writing.finish),
                    settings,
                    attempt=turn.attempt,
                )
                if (
                    writing.finish == "error"
                ):  # half a pair is no pair: do not make anybody wait for it
                    loop.call_soon_threadsafe(self._desk.cancel, other)

            stream = self._pool.stream(
                name, told(comparison, side), seed, _of_protocol(comparison, side), consent
            )
            self._desk.start(_key(comparison.id, side), stream, record)

    def _names(self) -> tuple[str, ...]:
        return model_names(self._pool)

    def _writings(self, comparison: Comparison) -> dict[str, Writing]:
        found = {side: self._desk.get(_key(comparison.id, side)) for side in ("a", "b")}
        return {side: writing for side, writing in found.items() if writing}


def told(comparison: Comparison, side: Literal["a", "b"]) -> Conversation:
    """What one side's engine is told: all questions, and this side's own earlier answers."""
    conversation: list[Message] = []
    for turn in comparison.turns:
        conversation.append(Message("user", turn.asked(side)))
        said = turn.a if side == "a" else turn.b
        if said is not None:
            conversation.append(Message("assistant", said.text))
    return tuple(conversation)


def model_names(pool: Pool) -> tuple[str, ...]:
    """Everything that a model is called here: what a blind answer must not say."""
    return tuple(sorted(pool.called))


def show(
    assignment: Assignment,
    comparison: Comparison,
    names: Collection[str],
    writings: dict[str, Writing] | None = None,
) -> Duel:
    """The comparison by sides, with running answers cut to what both may show.

    names: hidden in the answers until the vote, beside the well-known ones.
    """
    writings = writings or {}
    names = () if assignment.state == "voted" else (*names, *_contestants(comparison))
    left: Literal["a", "b"] = assignment.left_is
    right: Literal["a", "b"] = "b" if left == "a" else "a"
    turns = [
        DuelTurn(
            turn.asked(left),
            _pane(_side(turn, left), names),
            _pane(_side(turn, right), names),
            turn.asked(right) if turn.question_b else "",
        )
        for turn in comparison.turns
    ]
    if writings and turns:
        turns[-1] = _running(comparison.turns[-1], left, right, names, writings)
    state: State = "votable"
    if assignment.state == "voted":
        state = "voted"
    elif writings:
        state = "writing"
    elif any(p.finish != "stop" for turn in turns for p in (turn.left, turn.right)):
        state = "broken"
    by_side = {"a": comparison.contestant_a, "b": comparison.contestant_b}
    revealed = (by_side[left], by_side[right]) if state == "voted" else None
    return Duel(assignment.id, state, tuple(turns), revealed, comparison)


def notices(duel: Duel) -> list[str]:
    """Keys of the red flags in all questions so far, each once, in order; the same for both sides."""
    asked = [
        text for turn in duel.turns for text in dict.fromkeys((turn.question, turn.asked_right))
    ]
    return list(dict.fromkeys(flag.key for text in asked for flag in safety.triage(text)))


def _running(
    turn: Turn,
    left: Literal["a", "b"],
    right: Literal["a", "b"],
    names: Collection[str],
    writings: dict[str, Writing],
) -> DuelTurn:
    """Both running answers, each cut to the length of the shortest that is still being written.

    The last characters of a running answer wait until they cannot be the beginning of a name.
    """
    texts: dict[str, str] = {}
    unfinished = []
    for side in (left, right):
        writing, said = writings.get(side), _side(turn, side)
        texts[side] = _hidden(writing.text if writing else said.text if said else "", names)
        if writing and writing.finish is None:
            unfinished.append(max(0, len(texts[side]) - HELD_BACK))
    shown = min(unfinished, default=max(map(len, texts.values())))
    return DuelTurn(
        turn.question, Pane(texts[left][:shown], None), Pane(texts[right][:shown], None)
    )


def _pane(said: Side | None, names: Collection[str]) -> Pane:
    """One ended answer. Half an answer may end with half a name, so its end stays hidden too."""
    if said is None:
        return Pane("", "error")
    text = _hidden(said.text, names)
    if names and said.finish != "stop":
        text = text[: max(0, len(text) - HELD_BACK)]
    return Pane(text, said.finish)


def _hidden(text: str, names: Collection[str]) -> str:
    return render.hide_names(text, names) if names else text


def _contestants(comparison: Comparison) -> tuple[str, str]:
    return comparison.contestant_a, comparison.contestant_b


def _side(turn: Turn, side: Literal["a", "b"]) -> Side | None:
    return turn.a if side == "a" else turn.b


def _of_protocol(comparison: Comparison, side: Literal["a", "b"]) -> Generation | None:
    """The settings that the comparison was begun with if a protocol gave them; a later turn keeps to them."""
    settings = comparison.settings_a if side == "a" else comparison.settings_b
    return Generation(**settings["generation"]) if settings.get("protocol") else None


def rater_of(session: Session) -> int:
    """The signed-in user's id. Raises NotSignedIn for a visitor."""
    if (
        session.user_id is None
    ):  # pages for physicians require a signed-in role; this is the second lock
        raise NotSignedIn("sign in to compare")
    return session.user_id


def _key(comparison_id: str, side: str) -> str:
    return f"duel:{comparison_id}:{side}"
