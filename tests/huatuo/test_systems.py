"""Every system of the paper: published files, converted, loaded by its own model file, compared in the arena, exported."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from huatuo.accounts import Accounts, Session
from huatuo.arena import Arena
from huatuo.config import (
    ROOT,
    AppConfig,
    Generation,
    ModelConfig,
    Protocol,
    read_models,
    read_protocol,
)
from huatuo.engines.local import LocalEngine
from huatuo.engines.pool import Pool
from huatuo.errors import EngineError
from huatuo.messages import Message
from huatuo.writing import Desk
from reviews.people import People
from reviews.store import Store
from tests.huatuo.systems import BUILDERS, build
from tests.huatuo.test_remote_engine import DONE, Server, event, serving, streamed
from tests.patience import LONG_S

MODELS, _ = read_models(ROOT / "configs/models")
TRIES = 8
"""An answer of random words may begin with its end; the physician then asks again, as in the app."""


def configured(name: str, folder: Path, **generation: Any) -> ModelConfig:
    """The system's own file with tiny weights: paths, device and how long it speaks differ, template and beams do not."""
    config = MODELS[name]
    beams = config.generation.num_beams
    drawn = {} if beams > 1 else {"temperature": 1.0, "top_p": 1.0}
    settings = Generation(
        max_new_tokens=200, context_tokens=900, num_beams=beams, **{**drawn, **generation}
    )
    return config.model_copy(
        update={**build(name, folder), "device": "cpu", "dtype": "float32", "generation": settings}
    )


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    name: str = request.param
    return configured(name, tmp_path_factory.mktemp(name))


def scene(
    folder: Path, models: list[ModelConfig], protocol: Protocol | None = None
) -> tuple[Arena, Pool, Session, Store]:
    store = Store.open(folder / "reviews.sqlite3")
    people = People(store.database)
    config = AppConfig(asks_per_minute=100, asks_per_day=1000)
    accounts = Accounts(people, config)
    pool = Pool({m.name: m for m in models}, Path("/"))
    user = people.add_user("wang", "physician", "x", "test")
    session = Session(f"user:{user.id}", user.id, "wang", "physician", "zh")
    return (
        Arena(store, pool, Desk(), accounts, config, random.Random(1), protocol),
        pool,
        session,
        store,
    )


async def compared(arena: Arena, session: Session, question: str) -> str:
    """A comparison that may be voted on; asks again when a side ended at once."""
    ticket, _ = await arena.ask(session, None, question, "zh")
    for _ in range(TRIES):
        duel = [duel async for duel in arena.watch(session, ticket)][-1]
        if duel.state == "votable":
            return ticket
        assert duel.state == "broken"
        await arena.retry(session, ticket)
    raise AssertionError(f"never votable: {duel.turns[-1]}")


def test_every_local_system_of_the_paper_has_a_builder() -> None:
    local = {name for name, m in MODELS.items() if m.engine == "local" and not m.demonstration}
    assert set(BUILDERS) == {name for name in local if not MODELS[name].parent}


def test_a_system_is_converted_loaded_and_compared_to_the_end(
    system: ModelConfig, tmp_path: Path
) -> None:
    partner = ModelConfig(
        name="partner", title_zh="伴", title_en="partner", engine="scripted", says=("请多休息，必要时就诊。",)
    )  # fmt: skip
    arena, pool, session, store = scene(tmp_path, [system, partner])

    async def act() -> None:
        pool.start()
        async with asyncio.timeout(LONG_S):
            await pool.wait(2)
            while pool.state(system.name) == "loading":
                await asyncio.sleep(0.02)
        assert pool.state(system.name) == "ready", pool.why(system.name)
        ticket = await compared(arena, session, "我头痛三天了，怎么办？")
        store.cast_vote(ticket, session.user_id, "left")
        comparison = arena.view(session, ticket).case
        side = "a" if comparison.contestant_a == system.name else "b"
        said = getattr(comparison.turns[-1], side)
        assert said.finish == "stop" and said.text.strip()
        kept = getattr(comparison, f"settings_{side}")
        assert kept["template"] == system.template and kept["generation"]["max_new_tokens"] == 200
        assert bool(kept["adapter"]) == (system.adapter is not None)
        await pool.close()

    asyncio.run(act())
    store.close()


@pytest.mark.parametrize("load", ["int8", "nf4"])
@pytest.mark.parametrize("name", ["huatuogpt-7b", "chatglm-6b", "t5", "bentsao"])
def test_a_system_speaks_in_eight_and_four_bits(name: str, load: Any, tmp_path: Path) -> None:
    config = configured(name, tmp_path).model_copy(update={"load": load, "dtype": "auto"})
    engine = LocalEngine(config, Path("/"))
    kinds = {type(module).__name__ for module in engine.model.modules()}
    assert kinds & {"Linear8bitLt", "Linear4bit"}

    async def act() -> str:
        for seed in range(TRIES):
            items = [i async for i in engine.stream((Message("user", "咳嗽怎么办？"),), seed=seed)]
            if items[-1].reason == "stop" and len(items) > 1:
                return "".join(item.text for item in items[:-1])
        raise AssertionError("it never ended")

    assert asyncio.run(act()).strip()


def answered_as(model: str) -> Any:
    return streamed(
        event("多喝水，", model=model), event("多休息。", model=model), event(finish="stop", model=model), DONE
    )  # fmt: skip


def remote(name: str, port: int, **more: Any) -> ModelConfig:
    own = MODELS[name]
    changes = {
        "base_url": f"http://127.0.0.1:{port}/v1",
        "api_key_env": "",
        "enabled": True,
        "consent_id": "a-test" if own.leaves_country else "",
        **more,
    }
    return own.model_copy(update=changes)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gpt-3.5-turbo", "gpt-3.5-turbo-0125"),
        ("gpt-4", "gpt-4-2026-06-13"),
        ("local-server", "huatuo"),
    ],
)
def test_a_remote_system_is_compared_to_the_end(name: str, says: str, tmp_path: Path) -> None:
    partner = ModelConfig(
        name="partner", title_zh="伴", title_en="partner", engine="scripted", says=("请多休息。",)
    )  # fmt: skip

    async def act() -> list[dict[str, Any]]:
        async with serving(answered_as(says)) as server:
            protocol = read_protocol("huatuo2-evaluator", ROOT / "configs/protocols")
            arena, pool, session, store = scene(
                tmp_path, [remote(name, server.port), partner], protocol
            )
            pool.start()
            await pool.wait(2)
            ticket = await compared(arena, session, "头痛")
            comparison = arena.view(session, ticket).case
            side = "a" if comparison.contestant_a == name else "b"
            kept = getattr(comparison, f"settings_{side}")
            assert kept["protocol"] == "huatuo2-evaluator"
            assert kept["generation"] == {"temperature": 0.5, "top_p": 0.7, "max_new_tokens": 768}
            await pool.close()
            store.close()
            return server.requests

    (asked,) = asyncio.run(act())
    assert (asked["temperature"], asked["top_p"], asked["max_tokens"]) == (0.5, 0.7, 768)


@pytest.mark.parametrize(
    "says", ["gpt-3.5-turbo", "gpt-4-turbo", "GPT-4", "gpt-4-", "gpt-4-01255", "x"]
)
def test_a_server_that_answers_as_another_model_is_refused(says: str) -> None:
    from huatuo.engines.remote import RemoteEngine

    async def act(**more: Any) -> tuple[str, Server]:
        async with serving(answered_as(says)) as server:
            engine = RemoteEngine(remote("gpt-4", server.port, **more))
            items = [i async for i in engine.stream((Message("user", "头痛"),), seed=1)]
            return "".join(getattr(item, "text", "") for item in items), server

    with pytest.raises(EngineError, match="another model"):
        asyncio.run(act())
    for allowed in ((says,), ("*",)):
        text, server = asyncio.run(act(answers_as=allowed))
        assert text == "多喝水，多休息。" and len(server.requests) == 1


def test_a_protocol_gives_both_sides_the_same_settings_also_at_a_later_turn(tmp_path: Path) -> None:
    models = [configured(name, tmp_path / name) for name in ("huatuogpt-7b", "chatglm-6b")]
    settings = Generation(temperature=0.9, top_p=0.95, max_new_tokens=150, context_tokens=800)
    protocol = Protocol(name="fair", title_zh="公平", title_en="fair", generation=settings)
    arena, pool, session, store = scene(tmp_path, models, protocol)
    used: list[Any] = []

    async def act() -> None:
        pool.start()
        async with asyncio.timeout(LONG_S):
            while {pool.state(m.name) for m in models} != {"ready"}:
                await asyncio.sleep(0.02)
        for name in pool.ready():
            engine = pool._slots[name].engine
            inner = engine.stream  # type: ignore[union-attr]

            def spied(*args: Any, inner: Any = inner, **how: Any) -> Any:
                used.append(how["settings"])
                return inner(*args, **how)

            engine.stream = spied  # type: ignore[union-attr, method-assign]
        ticket = await compared(arena, session, "头痛")
        arena._protocol = None  # another start of the app, with other settings
        await arena.ask(session, ticket, "还痛", "zh")
        duel = [duel async for duel in arena.watch(session, ticket)][-1]
        kept = [duel.case.settings_a, duel.case.settings_b]
        assert {k["protocol"] for k in kept} == {"fair"}
        assert kept[0]["generation"] == kept[1]["generation"] == settings.model_dump()
        await pool.close()

    asyncio.run(act())
    store.close()
    assert len(used) >= 4 and set(map(str, used)) == {str(settings)}
