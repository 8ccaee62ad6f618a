"""a visitor's conversation with one assistant: ask, watch, stop, regenerate, rate."""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from huatuo import messages, privacy, safety
from huatuo.accounts import Accounts, Session
from huatuo.config import AppConfig
from huatuo.engines.pool import Pool
from huatuo.errors import Busy, Unavailable
from huatuo.messages import Conversation, Message
from huatuo.writing import Desk, Writing
from reviews.chats import ChatMessage, Chats


@dataclass(frozen=True)
class ChatView:
    """What a page shows: the turns so far, and the answer that is being written, if any."""

    chat_id: str | None
    turns: tuple[ChatMessage, ...]
    writing: Writing | None


class ChatDesk:
    """The visitors' conversations; each belongs to the session's owner and to nobody else."""

    def __init__(
        self, chats: Chats, pool: Pool, desk: Desk, accounts: Accounts, config: AppConfig
    ) -> None:
        self._chats, self._pool, self._desk = chats, pool, desk
        self._accounts, self._config = accounts, config
        self._asking: set[str] = set()  # owners whose question is on its way into the record

    @property
    def model(self) -> str:
        """The name of the model that visitors talk to."""
        return self._config.chat_model

    def view(self, session: Session) -> ChatView:
        """The owner's latest conversation, or an empty one."""
        chat_id = self._chats.latest(session.owner)
        if chat_id is None:
            return ChatView(None, (), None)
        writing = self._desk.get(_key(chat_id))
        return ChatView(chat_id, tuple(self._chats.messages(chat_id, session.owner)), writing)

    async def ask(self, session: Session, text: str, language: str) -> dict[str, int]:
        """Stores the question and begins the answer; returns what was masked, kind -> times.

        Raises InputError, TooFast, Busy (an answer is still being written), Unavailable.
        """
        text = messages.clean(text, self._config.message_limit)
        self._accounts.allow(session, "ask")
        self._pool.check_consent(self.model)
        if self._pool.state(self.model) == "down":
            raise Unavailable(self._pool.why(self.model))

        def store() -> tuple[str, privacy.Masked]:  # masking takes long: not where all others wait
            masked = privacy.mask(text)
            notices = [flag.key for flag in safety.triage(masked.text)]
            chat_id = self._chats.latest(session.owner)
            if chat_id is not None and self._desk.get(_key(chat_id)):
                raise Busy("the last answer is still being written")
            chat_id = chat_id or self._chats.new_chat(session.owner, self.model, language)
            self._chats.add_question(chat_id, session.owner, masked.text, notices)
            return chat_id, masked

        with self._filing(session):
            chat_id, masked = await asyncio.to_thread(store)
            self._begin(chat_id, session)
        return dict(masked.found)

    async def regenerate(self, session: Session) -> None:
        """Answers the last question again; the earlier answer is kept in the record. Raises TooFast, Busy."""
        self._accounts.allow(session, "ask")
        chat_id = self._chats.latest(session.owner)
        if chat_id is None:
            return
        if self._desk.get(_key(chat_id)):
            raise Busy("the last answer is still being written")
        with self._filing(session):
            await asyncio.to_thread(self._chats.supersede_last_answer, chat_id, session.owner)
            self._begin(chat_id, session)

    def stop(self, session: Session) -> None:
        """Stops the answer that is being written, if there is one."""
        chat_id = self._chats.latest(session.owner)
        if chat_id is not None:
            self._desk.cancel(_key(chat_id))

    def new(self, session: Session, language: str) -> None:
        """Starts a new conversation; the old one stays in the record until it expires. Raises Busy."""
        with self._filing(session):
            self.stop(session)
            if self._chats.latest(session.owner) is not None:
                self._chats.new_chat(session.owner, self.model, language)

    def rate(self, session: Session, thumb: int) -> int:
        """Sets the thumb (+1, -1) of the last answer, or takes it back when it stands already.

        Returns the thumb that stands now (0 when there is no answer to rate).
        """
        chat_id = self._chats.latest(session.owner)
        turns = self._chats.messages(chat_id, session.owner) if chat_id else []
        if not turns or turns[-1].role != "assistant":
            return 0
        now = 0 if turns[-1].thumb == thumb else thumb
        self._chats.thumb(turns[-1].id, session.owner, now)
        return now

    @contextmanager
    def _filing(self, session: Session) -> Iterator[None]:
        """One change of a visitor's conversation at a time: some wait in a thread. Raises Busy."""
        if session.owner in self._asking:
            raise Busy("another question of this visitor is being filed")
        self._asking.add(session.owner)
        try:
            yield
        finally:
            self._asking.discard(session.owner)

    def _begin(self, chat_id: str, session: Session) -> None:
        seed = secrets.randbits(31)
        conversation = told(self._chats.messages(chat_id, session.owner))

        def record(writing: Writing) -> None:
            settings = {
                "model": self.model,
                "seed": seed,
                "first_s": writing.first_s,
                "seconds": writing.seconds,
                "fault": writing.fault,
            }
            self._chats.add_answer(chat_id, writing.text, str(writing.finish), settings)

        self._desk.start(_key(chat_id), self._pool.stream(self.model, conversation, seed), record)


def told(turns: Sequence[ChatMessage]) -> Conversation:
    """What the model is told: every question that got words in answer, and the last question.

    A question whose answer failed is left out, so that turns alternate and no failure is context.
    """
    conversation: list[Message] = []
    for position, turn in enumerate(turns):
        last = position == len(turns) - 1
        answered = not last and turns[position + 1].role == "assistant"
        if turn.role == "user" and last:
            conversation.append(Message("user", turn.text))
        elif turn.role == "user" and answered:
            answer = turns[position + 1]
            if answer.finish != "error" and answer.text.strip():
                conversation += [Message("user", turn.text), Message("assistant", answer.text)]
    return tuple(conversation)


def _key(chat_id: str) -> str:
    return f"chat:{chat_id}"
