"""the models of configs/models: loads them in the background, says which are ready, streams from them.

A model that cannot be loaded is 'down' with a sentence that says why; the others and the app live on.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huatuo.config import Generation, ModelConfig
from huatuo.engines.base import Chunk, Deadlines, Engine, Finish, with_deadlines
from huatuo.errors import ConfigError, HuatuoError, NoConsent, Unavailable
from huatuo.messages import Conversation
from huatuo.models.inventory import lacks

State = Literal["ready", "loading", "down"]
_SHOWN = {
    *("title_zh", "title_en", "note_zh", "note_en", "licence", "study_use", "source", "get"),
    *("demonstration", "contestant"),
}
"""Keys that only say how a model is shown and used: a change of them needs no other engine."""
log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """One model: what it should be, and what became of it."""

    config: ModelConfig
    state: State = "loading"
    why: str = "is being loaded"
    engine: Engine | None = None
    lacks: bool = False
    answers: int = 0
    retired: bool = False

    async def retire(self) -> None:
        """No new answers; closes the engine when the last answer that is running has ended."""
        self.retired = True
        if self.engine is not None and not self.answers:
            await self.engine.close()


class Pool:
    """Every model of `models` behind one door. root: the folder that relative checkpoint paths start at.

    broken: why a file of configs/models names no model, by file.
    """

    def __init__(
        self,
        models: Mapping[str, ModelConfig],
        root: Path,
        deadlines: Deadlines | None = None,
        broken: Mapping[str, ConfigError] | None = None,
    ) -> None:
        self.broken: Mapping[str, ConfigError] = dict(broken or {})
        self._root = root
        self._deadlines = deadlines or Deadlines()
        self._slots = {name: _new_slot(config) for name, config in models.items()}
        self._called = _names(models)
        self._loading = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Loads in a background thread, one model after another, the light ones first; returns at once."""
        threading.Thread(target=self._load_all, name="models", daemon=True).start()

    async def refresh(
        self,
        models: Mapping[str, ModelConfig],
        broken: Mapping[str, ConfigError] | None = None,
    ) -> None:
        """Takes over changed configurations: new and changed models and those that were down are loaded
        again, removed ones closed when the answers that are running have ended."""
        old, slots = self._slots, {}
        for name, config in models.items():
            kept = old.get(name)
            if kept is not None and kept.state != "down" and _same_engine(kept.config, config):
                kept.config = config
                slots[name] = kept
            else:
                slots[name] = _new_slot(config)
        self._called |= _names(models)
        self._slots = slots
        self.broken = dict(broken or {})
        self.start()
        for name, slot in old.items():
            if slots.get(name) is not slot:
                await slot.retire()

    def state(self, name: str) -> State:
        """'ready', 'loading' or 'down'; an unknown name is 'down'."""
        slot = self._slots.get(name)
        return slot.state if slot else "down"

    def why(self, name: str) -> str:
        """A sentence for the administrator when the model is not ready, else ''."""
        slot = self._slots.get(name)
        if slot is None:
            return f"no file in configs/models names the model {name}"
        return "" if slot.state == "ready" else slot.why

    def lacks(self, name: str) -> bool:
        """Whether the model is down because a folder of weights is not there yet."""
        slot = self._slots.get(name)
        return slot is not None and slot.lacks

    def config(self, name: str) -> ModelConfig:
        """What the model's file says. Raises Unavailable for an unknown name."""
        if name not in self._slots:
            raise Unavailable(self.why(name))
        return self._slots[name].config

    @property
    def configs(self) -> dict[str, ModelConfig]:
        """Name -> what its file says, of every model that is known."""
        return {name: slot.config for name, slot in self._slots.items()}

    @property
    def called(self) -> frozenset[str]:
        """Every name and title that a model had here since the start, also of those removed."""
        return frozenset(self._called)

    def ready(self) -> list[str]:
        """Names of the models that can answer now."""
        return [name for name, slot in self._slots.items() if slot.state == "ready"]

    def contestants(self, consent: str | None = None) -> list[str]:
        """Names of the ready models that may be drawn for a comparison; consent: as in stream()."""
        return [
            name
            for name, slot in self._slots.items()
            if slot.state == "ready" and slot.config.contestant and slot.config.may_ask(consent)
        ]

    def check_consent(self, name: str, consent: str | None = None) -> None:
        """Raises NoConsent when the model is on a server abroad and nothing allows to send texts there."""
        slot = self._slots.get(name)
        if slot is not None and not slot.config.may_ask(consent):
            raise NoConsent(
                f"{name} is on a server abroad: set consent_id in its file in configs/models for the "
                "pages, or in the study's protocol for a study"
            )

    def awaits(self, contestants: int) -> bool:
        """Whether fewer contestants than this are ready, and others still load that make up for it."""
        slots = [s for s in self._slots.values() if s.config.contestant and s.config.may_ask()]
        ready = sum(slot.state == "ready" for slot in slots)
        return ready < contestants <= ready + sum(slot.state == "loading" for slot in slots)

    async def wait(self, contestants: int) -> None:
        """Until this many contestants are ready, or cannot be, or the patience for a first token is over."""
        patience = time.monotonic() + self._deadlines.first_token_s
        while self.awaits(contestants) and time.monotonic() < patience:
            await asyncio.sleep(0.05)

    async def stream(
        self,
        name: str,
        conversation: Conversation,
        seed: int,
        settings: Generation | None = None,
        consent: str | None = None,
    ) -> AsyncGenerator[Chunk | Finish, None]:
        """The model's answer under the deadlines; while it loads, waits as long as for a first token.

        settings: instead of the model's own, as a protocol has it. consent: of the study that asks; None
        outside of any study. Raises NoConsent before anything is sent to a server abroad, Unavailable when it is down or does not come up, and whatever the engine raises.
        """
        self.check_consent(name, consent)
        slot = await self._ready_slot(name)
        engine: Engine | None = slot.engine
        if engine is None:
            raise Unavailable(f"{name}: {self.why(name)}")
        question = conversation[-1].text if conversation else ""
        slot.answers += 1
        checked = with_deadlines(
            engine.stream(conversation, seed=seed, settings=settings),
            self._deadlines,
            question=question,
        )
        try:
            async for item in checked:
                yield item
        except Unavailable as error:
            if slot.config.engine == "local":  # it does not come back by itself
                slot.state, slot.why = "down", str(error)
            raise
        finally:
            slot.answers -= 1
            await checked.aclose()
            if slot.retired and not slot.answers:
                await engine.close()

    async def close(self) -> None:
        """Closes every engine; what is still loading is dropped when it is done."""
        self._closed = True
        for slot in list(self._slots.values()):
            slot.state, slot.why = "down", "the app is shutting down"
            if slot.engine is not None:
                await slot.engine.close()

    async def _ready_slot(self, name: str) -> _Slot:
        patience = time.monotonic() + self._deadlines.first_token_s
        while self.state(name) == "loading" and time.monotonic() < patience:
            await asyncio.sleep(0.05)
        slot = self._slots.get(name)
        if slot is None or slot.state != "ready":
            raise Unavailable(f"{name}: {self.why(name)}")
        return slot

    def _load_all(self) -> None:
        with self._loading:
            while not self._closed:
                waiting = [slot for slot in self._slots.values() if slot.state == "loading"]
                if not waiting:
                    return
                self._load(min(waiting, key=lambda slot: slot.config.engine == "local"))

    def _load(self, slot: _Slot) -> None:
        started = time.monotonic()
        lacking = lacks(slot.config, self._root) if slot.config.engine == "local" else ""
        if lacking:  # no fault: most systems that are compared have to be fetched first
            slot.state, slot.why, slot.lacks = "down", lacking, True
            log.info("model %s has no weights yet", slot.config.name)
            return
        try:
            engine = make_engine(slot.config, self._root)
            if self._closed or slot.retired:
                return  # nobody waits for it any more
            slot.engine = engine
            slot.state, slot.why = "ready", ""
            log.info("model %s ready in %.1f s", slot.config.name, time.monotonic() - started)
        except HuatuoError as error:
            slot.state, slot.why = "down", str(error)
        except Exception as error:  # a border: a model's loader may raise anything, the app lives
            log.exception("model %s cannot be loaded", slot.config.name)
            slot.state, slot.why = "down", f"cannot be loaded ({type(error).__name__}); see the log"
        if slot.state == "down":
            log.warning("model %s is down: %s", slot.config.name, slot.why)


def _same_engine(one: ModelConfig, other: ModelConfig) -> bool:
    return one.model_dump(exclude=_SHOWN) == other.model_dump(exclude=_SHOWN)


def _names(models: Mapping[str, ModelConfig]) -> set[str]:
    titles = {title for model in models.values() for title in (model.title_zh, model.title_en)}
    return titles | set(models)


def _new_slot(config: ModelConfig) -> _Slot:
    if config.enabled:
        return _Slot(config)
    return _Slot(config, "down", "is switched off by `enabled = false` in its file")


def make_engine(config: ModelConfig, root: Path) -> Engine:
    """The engine that a configuration names. Raises CheckpointError, ConfigError, EngineError."""
    if config.engine == "scripted":
        from huatuo.engines.scripted import ScriptedEngine

        return ScriptedEngine(config)
    if config.engine == "remote":
        from huatuo.engines.remote import RemoteEngine

        return RemoteEngine(config)
    from huatuo.engines.local import LocalEngine

    return LocalEngine(config, root)
