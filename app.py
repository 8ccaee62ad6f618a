"""reads configs/app.toml, opens the record and the engines, and serves the app."""

import os

# Before gradio is imported: nothing is reported to anybody, nothing is fetched from a hub.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from huatuo import privacy, render, web
from huatuo.accounts import Accounts, base_url
from huatuo.arena import Arena
from huatuo.chat import ChatDesk
from huatuo.config import (
    ROOT,
    AppConfig,
    Protocol,
    read_models,
    read_protocol,
    read_protocols,
    read_toml,
)
from huatuo.engines.pool import Pool
from huatuo.engines.watch import Watcher
from huatuo.errors import ConfigError, HuatuoError
from huatuo.openid import Provider
from huatuo.report.shelf import Shelf
from huatuo.ui import (
    adjudicate,
    admin,
    chat,
    compare,
    download,
    drafts,
    mine,
    models,
    results,
    review,
    studies,
    uploads,
)
from huatuo.writing import Desk
from reviews.chats import Chats
from reviews.database import DEFAULT_NAME
from reviews.errors import RecordError
from reviews.importer import import_files
from reviews.lock import hold
from reviews.people import People
from reviews.records import utcnow
from reviews.store import Store

log = logging.getLogger("huatuo")
LOAD_AFTER_S = 2.0
LOCK_NAME = "app.lock"
DEMO_PAIRS = ROOT / "huatuo" / "nano" / "pairs.jsonl"


@dataclass(frozen=True)
class Parts:
    """Everything that lives as long as the app."""

    config: AppConfig
    store: Store
    people: People
    chats: Chats
    pool: Pool
    desk: Desk
    accounts: Accounts
    watcher: Watcher
    protocol: Protocol | None


def data_folder(config: AppConfig, root: Path = ROOT) -> Path:
    """The folder of the record, made if need be. Raises ConfigError."""
    data = root / config.data_dir
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"data_dir = {str(config.data_dir)!r}: the folder cannot be made ({error.strerror}); "
            "choose another in configs/app.toml or with --data-dir"
        ) from None
    return data


def open_parts(config: AppConfig, root: Path = ROOT) -> Parts:
    """Opens the record and names the models; nothing is loaded yet. Raises RecordError, ConfigError."""
    protocol = read_protocol(config.protocol, root / config.protocols_dir)
    store = Store.open(data_folder(config, root) / DEFAULT_NAME, names_itself=_names_itself)
    people = People(store.database)
    models_dir = root / config.models_dir
    known, broken = read_models(models_dir)
    pool = Pool(known, root, config.deadlines, broken)
    return Parts(
        config=config,
        store=store,
        people=people,
        chats=Chats(store.database),
        pool=pool,
        desk=Desk(),
        accounts=Accounts(people, config),
        watcher=Watcher(models_dir, root, pool),
        protocol=protocol,
    )


def _names_itself(text: str, names: tuple[str, str]) -> bool:
    """Whether an answer says which model it is: then something of it is hidden from the rater."""
    return render.hide_names(text, names) != text


async def _read_names() -> None:
    """Reads the dictionary of names beforehand: a second that the first question would otherwise wait."""
    await asyncio.sleep(LOAD_AFTER_S)
    await asyncio.to_thread(privacy.mask, "您好")


def make_app(parts: Parts) -> FastAPI:
    """The whole app, ready to be served."""
    config, accounts, pool, store = parts.config, parts.accounts, parts.pool, parts.store
    shelf = Shelf(store)
    visitors = ChatDesk(parts.chats, pool, parts.desk, accounts, config)
    arena = Arena(store, pool, parts.desk, accounts, config, protocol=parts.protocol)
    protocols = sorted(read_protocols(ROOT / config.protocols_dir)[0])
    pages: Sequence[web.Page] = (
        web.Page("chat", chat.ROLE, lambda lang: chat.build(visitors, pool, accounts, lang)),
        web.Page("compare", compare.ROLE, lambda lang: compare.build(arena, store, pool, accounts, lang)),
        web.Page("review", review.ROLE, lambda lang: review.build(store, pool, accounts, lang)),
        web.Page("mine", mine.ROLE, lambda lang: mine.build(store, accounts, lang)),
        web.Page(
            "adjudicate",
            adjudicate.ROLE,
            lambda lang: adjudicate.build(store, pool, accounts, lang),
        ),
        web.Page("results", results.ROLE, lambda lang: results.build(shelf, pool, accounts, lang)),
        web.Page(
            "studies",
            studies.ROLE,
            lambda lang: studies.build(store, parts.people, pool, accounts, protocols, lang),
        ),
        web.Page("models", models.ROLE, lambda lang: models.build(pool, accounts, ROOT, lang)),
        web.Page(
            "admin",
            admin.ROLE,
            lambda lang: admin.build(store, parts.people, pool, accounts, lang),
        ),
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # The first page comes before the weights: loading both at once would slow the reader.
        asyncio.get_running_loop().call_later(LOAD_AFTER_S, pool.start)
        jobs = (_tidy(parts), parts.watcher.run(), _read_names())
        tasks = [asyncio.create_task(job) for job in jobs]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await parts.desk.close()
            await pool.close()
            store.close()

    provider = Provider.of(config)
    routes = [
        *download.routes(shelf, pool),
        uploads.route(store, accounts),
        drafts.route(store, accounts),
    ]
    return web.build_app(config, accounts, pages, routes, lifespan, provider)


async def _tidy(parts: Parts) -> None:
    """Once an hour: forgets the conversations and half-finished votes that are past their retention."""
    while True:
        with suppress(RecordError):  # the record may be busy; the next hour will do
            before = utcnow() - timedelta(days=parts.config.chat_retention_days)
            await asyncio.to_thread(parts.chats.purge, before)
            await asyncio.to_thread(parts.store.purge_drafts, before)
        await asyncio.sleep(3600)


def _check_port(config: AppConfig) -> None:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise ConfigError(
                f"port {config.port} on {config.host} cannot be used ({error.strerror}); stop the "
                f"other program or choose another: make app ARGS='--port {config.port % 65535 + 1}'"
            ) from None


def read_config(arguments: Sequence[str] | None = None) -> AppConfig:
    """configs/app.toml with command line flags over it. Raises ConfigError."""
    parser = argparse.ArgumentParser(prog="app.py", description="Serve HuatuoGPT review.")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "app.toml")
    for key, field in AppConfig.model_fields.items():
        parser.add_argument("--" + key.replace("_", "-"), metavar="VALUE", help=field.description)
    flags = vars(parser.parse_args(arguments))
    path = flags.pop("config")
    overrides = {key: value for key, value in flags.items() if value is not None}
    return read_toml(path, AppConfig, overrides)


def main() -> int:
    """Serves until stopped; a start that fails says why in one sentence and exits with 2."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("httpx", "httpx2", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        config = read_config()
        hold(data_folder(config) / LOCK_NAME)  # before anything is read or migrated there
        _check_port(config)
        parts = open_parts(config)
        if DEMO_PAIRS.exists():  # something to review from the first minute; adds nothing twice
            import_files(parts.store, [DEMO_PAIRS], "demo")
        app = make_app(parts)
    except (HuatuoError, RecordError) as error:
        print(f"The app cannot start: {error}", file=sys.stderr)
        return 2
    address = base_url(config)
    print(f"\n  Huatuo Review is served at {address}", flush=True)
    token = parts.accounts.first_admin()
    if token:
        print(
            "  First administrator: open this link once and choose a password\n"
            f"  {parts.accounts.link(token, config.language)}\n",
            flush=True,
        )
    for file, why in parts.pool.broken.items():
        log.warning("%s is left out: %s", file, why)
    uvicorn.Server(web.uvicorn_config(app, config)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
