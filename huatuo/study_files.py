"""studies as files: configs/studies/*.toml checked, filed in the record, frozen and closed: `python -m huatuo.study_files`."""

import argparse
import contextlib
import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from huatuo.config import read_models, read_protocol
from huatuo.errors import ConfigError, HuatuoError
from huatuo.toml import ROOT, Settings, Texts, read_toml, shown_path
from reviews.database import DEFAULT_NAME
from reviews.errors import BadStudy, RecordError
from reviews.protocol import CRITERIA, Closing, Criterion, Protocol, Study
from reviews.store import Store

MODELS = ROOT / "configs/models"
PROTOCOLS = ROOT / "configs/protocols"
_CONSOLE = "console"


class OwnCriterion(Settings):
    """A criterion that is not among the ready ones of reviews/protocol.py, or one with other words."""

    key: str
    kind: Literal["scale", "preference"] = "scale"
    title_zh: str = Field(min_length=1, max_length=40)
    title_en: str = Field(min_length=1, max_length=40)
    required: bool = False


class ClosingRule(Settings):
    """When the study ends, besides when every pair has its overlap."""

    votes: int | None = Field(default=None, ge=1)
    until: str | None = None
    sequential: bool = False
    alpha: float = Field(default=0.05, gt=0, lt=0.5)


class StudyFile(Settings):
    """configs/studies/*.toml: one file, one study. What each key means: reviews/protocol.py."""

    name: str = Field(min_length=1, max_length=64)
    title_zh: str = Field(min_length=1, max_length=80)
    title_en: str = Field(min_length=1, max_length=80)
    language: Literal["zh", "en"] = "zh"
    kind: Literal["single", "multi", "live"] = "single"
    contestants: Texts = ()
    criteria: Texts = Field(default=(), description="keys of the ready criteria")
    required: Texts = Field(default=(), description="which of them must be rated")
    own_criteria: Annotated[tuple[OwnCriterion, ...], Field(strict=False)] = ()
    raters: Texts = Field(default=(), description="account names; default: every physician")
    overlap: int = Field(default=1, ge=1, le=50, description="votes wanted on each pair")
    gold: dict[str, str] = Field(default={}, description="pair to the better contestant, or tie")
    pairing: Literal["active", "balanced"] = "balanced"
    seed: int = 42
    closing: ClosingRule = ClosingRule()
    adjudicate: bool = False
    safety_flags: bool = True
    better_answers: bool = True
    fastest_s: float = Field(default=0.0, ge=0, le=3600)
    consent_id: str = ""
    generation: str = Field(default="", description="a file of configs/protocols, by its name")
    notes: str = ""


def read_study(path: Path) -> Protocol:
    """The file's protocol, held against the criteria and configs/protocols. Raises ConfigError naming file and key."""
    file, where = read_toml(path, StudyFile), shown_path(path)
    values = file.model_dump(exclude={"criteria", "required", "own_criteria", "closing"})
    own = tuple(Criterion(**c.model_dump()) for c in file.own_criteria)
    ready = tuple(_ready(key, file.required, where) for key in file.criteria)
    known = {c.key for c in (*ready, *own)}
    for key in file.required:
        if key not in known:
            raise ConfigError(f"{where}: required: {key!r} is no criterion of this study")
    try:
        read_protocol(file.generation, PROTOCOLS)
    except ConfigError as error:
        raise ConfigError(f"{where}: generation: {error}") from None
    try:
        return Protocol(
            **values, criteria=(*ready, *own), closing=Closing(**file.closing.model_dump())
        )
    except BadStudy as error:
        raise ConfigError(f"{where}: {error}") from None


def _ready(key: str, required: Sequence[str], where: str) -> Criterion:
    if key not in CRITERIA:
        raise ConfigError(f"{where}: criteria: {key!r} is unknown{_near(key, CRITERIA)}; one of your own is a table [[own_criteria]]")  # fmt: skip
    ready = CRITERIA[key]
    return Criterion(ready.key, ready.kind, ready.title_zh, ready.title_en, key in required)


def _near(name: str, there: Iterable[str]) -> str:
    names = sorted(there)
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"


def check_contestants(protocol: Protocol, where: str, models: Path = MODELS) -> None:
    """Raises ConfigError for a contestant that no file of configs/models names."""
    known, _ = read_models(models)
    for name in protocol.contestants:
        if name not in known:
            raise ConfigError(f"{where}: contestants: {name!r} is no model of {shown_path(models)}{_near(name, known)}")  # fmt: skip


def told(study: Study) -> str:
    """One line on a filed study."""
    reason = f" ({study.close_reason})" if study.close_reason else ""
    return f"{study.name}\t{study.state}{reason}\tprotocol sha256 {study.sha256}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 for what cannot be."""
    parser = argparse.ArgumentParser(prog="python -m huatuo.study_files", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, argument, help_text in (
        ("check", "file", "read a file, say its protocol's hash"),
        ("file", "file", "file it in the record as a draft"),
        ("freeze", "study", "register the protocol: it cannot be changed any more"),
        ("close", "study", "take no more votes"),
        ("list", "", "every filed study"),
    ):
        command = commands.add_parser(name, help=help_text)
        if argument:
            command.add_argument(argument, type=Path if argument == "file" else str)
        if argument == "file":
            command.add_argument("--models", type=Path, default=MODELS, help="the models' files")
        if name != "check":
            command.add_argument(
                "--data", type=Path, default=ROOT / "data", help="the record's folder"
            )
    commands.choices["close"].add_argument("--reason", default="")
    options = parser.parse_args(arguments)
    try:
        print(_run(options))
    except (HuatuoError, RecordError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> str:
    if options.command in ("check", "file"):
        protocol = read_study(options.file)
        check_contestants(protocol, shown_path(options.file), options.models)
        if options.command == "check":
            return f"{protocol.name}\tprotocol sha256 {protocol.sha256}"
    with contextlib.closing(Store.open(options.data / DEFAULT_NAME)) as store:
        match options.command:
            case "file":
                return told(store.file_study(protocol, _CONSOLE))
            case "freeze":
                return told(store.freeze_study(options.study, _CONSOLE))
            case "close":
                return told(store.close_study(options.study, _CONSOLE, options.reason))
            case _:
                return "\n".join(map(told, store.filed_studies())) or "no study is filed"


if __name__ == "__main__":
    raise SystemExit(main())
