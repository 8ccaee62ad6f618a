"""what configs/app.toml, models/*.toml and protocols/*.toml may say: paths, limits, models, generation.

Defaults live here; a file holds only what differs. Reading and its guards: huatuo/toml.py.
"""

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from huatuo.engines.base import Deadlines
from huatuo.errors import ConfigError
from huatuo.toml import ROOT, InsidePath, Settings, Texts, read_toml, shown_path

__all__ = [
    "ROOT",
    "AppConfig",
    "Generation",
    "InsidePath",
    "ModelConfig",
    "OpenIdConfig",
    "Protocol",
    "Settings",
    "Texts",
    "is_safe_url",
    "read_models",
    "read_protocol",
    "read_protocols",
    "read_toml",
    "settings_of",
]


class OpenIdConfig(Settings):
    """The table [openid] of configs/app.toml; without an issuer nobody signs in that way."""

    issuer: str = Field(default="", description="the provider's address, as its documents name it")
    client_id: str = Field(default="", max_length=200)
    client_secret_env: str = Field(
        default="",
        pattern=r"^([A-Z][A-Z0-9_]{0,63})?$",
        description="environment variable with the secret; empty: a public client, PKCE alone",
    )
    title: str = Field(default="", max_length=40, description="on the button, such as a hospital")
    role_of_new: Literal["", "physician"] = Field(
        default="", description="role of people who are not known yet; empty: they stay out"
    )
    hosts: Texts = Field(default=(), description="further hosts of the provider's own addresses")

    @model_validator(mode="after")
    def _is_whole(self) -> "OpenIdConfig":
        if not self.issuer:
            stray = sorted(self.model_fields_set - {"issuer"})
            if stray:
                raise ValueError(f"{stray[0]} has no effect without an issuer; add it")
            return self
        if not is_safe_url(self.issuer):
            raise ValueError("issuer must be https, or http on this machine; no user, no query")
        for key in ("client_id", "title"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} is missing; an issuer needs it")
        return self


class AppConfig(Settings):
    """configs/app.toml"""

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=7860, ge=1, le=65535)
    public_url: str = Field(
        default="", description="address that browsers use; empty: http://{host}:{port}"
    )
    allowed_hosts: Texts = Field(default=(), description="further Host headers that are answered")
    data_dir: InsidePath = Field(default=Path("data"), description="database, logs and caches")
    models_dir: InsidePath = Field(
        default=Path("configs/models"), description="one TOML file per model"
    )
    protocols_dir: InsidePath = Field(
        default=Path("configs/protocols"), description="one TOML file per protocol"
    )
    protocol: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9.-]{0,63})?$",
        description="settings that every contestant answers with; empty: each model's own",
    )
    language: Literal["zh", "en"] = "zh"
    chat_model: str = Field(
        default="nano-hybrid", description="model that answers on the chat page"
    )
    chat_retention_days: int = Field(default=30, ge=1, le=3650)
    session_days: int = Field(default=7, ge=1, le=365)
    message_limit: int = Field(default=2000, ge=100, le=20_000, description="characters")
    max_turns: int = Field(default=8, ge=1, le=100, description="turns of one comparison")
    first_token_s: float = Field(default=30.0, gt=0, le=3600)
    between_tokens_s: float = Field(default=20.0, gt=0, le=3600)
    whole_answer_s: float = Field(default=120.0, gt=0, le=7200)
    asks_per_minute: int = Field(default=6, ge=1, description="questions of one rater")
    visitor_asks_per_minute: int = Field(default=12, ge=1, description="questions of one visitor")
    asks_per_day: int = Field(default=200, ge=1)
    votes_per_hour: int = Field(default=600, ge=1)
    sign_in_failures: int = Field(default=5, ge=1, le=100, description="then the account is locked")
    lock_minutes: int = Field(default=15, ge=1, le=10_080)
    password_length: int = Field(
        default=10,
        ge=8,
        le=64,
        description="least characters; NIST SP 800-63B-4 asks for 15 where nothing else is asked for",
    )
    trusted_proxies: Texts = Field(
        default=(), description="addresses or networks whose X-Forwarded-For is believed"
    )
    openid: OpenIdConfig = Field(
        default=OpenIdConfig(), description="sign-in by an OpenID Connect provider; off if empty"
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                network = ipaddress.ip_network(proxy)
            except ValueError:
                raise ValueError(
                    "must hold addresses or networks, such as 127.0.0.1 or 10.1.0.0/16"
                ) from None
            if network.prefixlen == 0:
                raise ValueError("must not hold everybody; name the proxies")
        return proxies

    @field_validator("public_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username):
            raise ValueError("must be empty or like https://huatuo.example.org")
        return url.rstrip("/")

    @property
    def deadlines(self) -> Deadlines:
        """How long an engine may take."""
        return Deadlines(self.first_token_s, self.between_tokens_s, self.whole_answer_s)


_DRAWN = {"temperature", "top_p", "top_k"}


class Generation(Settings):
    """How a model draws its words; what a remote server does not know is not sent to it."""

    temperature: float = Field(default=0.5, ge=0, le=2, description="0: always the likeliest token")
    top_p: float = Field(default=0.9, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0: off; local models only")
    repetition_penalty: float = Field(
        default=1.0, ge=0.5, le=2, description="1: off; local models only"
    )
    max_new_tokens: int = Field(default=512, ge=1, le=8192)
    context_tokens: int = Field(
        default=1024, ge=64, le=131_072, description="prompt and answer; local models only"
    )
    num_beams: int = Field(
        default=1, ge=1, le=16, description="1: one token after another; local models only"
    )

    @model_validator(mode="after")
    def _is_used(self) -> "Generation":
        drawn = sorted(_DRAWN & self.model_fields_set)
        if self.num_beams > 1 and drawn and not (drawn == ["temperature"] and not self.temperature):
            raise ValueError(
                f"with num_beams nothing is drawn, so {drawn[-1]} has no effect; remove it"
            )
        return self


class Protocol(Settings):
    """configs/protocols/*.toml: one set of settings that every contestant of a comparison answers with."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    title_zh: str = Field(min_length=1, max_length=60)
    title_en: str = Field(min_length=1, max_length=60)
    note_zh: str = ""
    note_en: str = ""
    generation: Generation = Generation()


FAILURES = ("", "stall", "cut", "error", "empty", "busy", "refuse", "length", "endless")
_LOCAL = {"path", "parent", "adapter", "load", "template", "sha256", "dtype", "device"}
_REMOTE = {"base_url", "model", "answers_as", "api_key_env", "leaves_country", "consent_id"}
_SCRIPTED = {"says", "tokens_per_s", "fails"}
_LOCAL_GENERATION = {"top_k", "repetition_penalty", "context_tokens", "num_beams"}
_NEEDED = {"local": {"path"}, "remote": {"base_url", "model"}, "scripted": {"says"}}


class ModelConfig(Settings):
    """configs/models/*.toml: one file, one model; `engine` says which of the other keys apply."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    title_zh: str = Field(min_length=1, max_length=60)
    title_en: str = Field(min_length=1, max_length=60)
    engine: Literal["local", "remote", "scripted"]
    enabled: bool = Field(default=True, description="false: known, but never loaded or contacted")
    demonstration: bool = Field(
        default=False, description="shown as a demonstration, not as an assistant"
    )
    contestant: bool = Field(default=True, description="may be drawn on the compare page")
    licence: str = ""
    study_use: Literal["yes", "research", "ask", "no", "unknown"] = Field(
        default="unknown",
        description="in a hospital's study: yes; research only; ask its makers; no; not known",
    )
    source: str = Field(
        default="", max_length=200, description="where it comes from: hub id or URL"
    )
    get: str = Field(
        default="", max_length=600, description="the command that fetches and converts it"
    )
    note_zh: str = ""
    note_en: str = ""
    path: InsidePath | None = Field(
        default=None, description="local: checkpoint folder; with `parent`, a branch's folder"
    )
    parent: InsidePath | None = Field(
        default=None, description="local: the whole model that the branch in `path` is laid over"
    )
    adapter: InsidePath | None = Field(
        default=None, description="local: LoRA or prefix folder that is laid over `path`"
    )
    load: Literal["full", "int8", "nf4"] = Field(
        default="full", description="local: how weights are held; int8 and nf4 by bitsandbytes"
    )
    template: str = Field(default="huatuo", description="local: prompt family")
    sha256: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64})?$",
        description="local: of model.safetensors, of a branch: branch.safetensors",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    base_url: str = Field(default="", description="remote: up to and with /v1")
    model: str = Field(default="", description="remote: the server's name of the model")
    answers_as: Texts = Field(
        default=(), description="remote: further names the server may answer under; *: any name"
    )
    api_key_env: str = Field(default="", pattern=r"^([A-Z][A-Z0-9_]{0,63})?$")
    leaves_country: bool = Field(
        default=True, description="remote: a patient's words cross the border"
    )
    consent_id: str = Field(
        default="",
        max_length=200,
        description="remote, leaves_country: the consent under which the chat and compare pages may "
        "ask it; without one they never do, and a study only with its own",
    )

    def may_ask(self, consent: str | None = None) -> bool:
        """Whether texts may go to this model. consent: a study's own id; None outside of any study."""
        if self.engine != "remote" or not self.leaves_country:
            return True
        return bool(self.consent_id if consent is None else consent)

    says: Texts = Field(default=(), description="scripted: answers, taken in turn")
    tokens_per_s: float = Field(default=0.0, ge=0, description="scripted: 0 for at once")
    fails: str = Field(
        default="", description="scripted: how it fails, one of " + ", ".join(FAILURES[1:])
    )
    generation: Generation = Generation()

    @field_validator("base_url")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        if url and not is_safe_url(url):
            raise ValueError("must be https, or http on this machine; no user, no query")
        return url.rstrip("/")

    @field_validator("fails")
    @classmethod
    def _is_known(cls, fails: str) -> str:
        if fails not in FAILURES:
            raise ValueError("should be one of " + ", ".join(FAILURES[1:]))
        return fails

    @model_validator(mode="after")
    def _fits_engine(self) -> "ModelConfig":
        own = {"local": _LOCAL, "remote": _REMOTE, "scripted": _SCRIPTED}[self.engine]
        stray = sorted(((_LOCAL | _REMOTE | _SCRIPTED) - own) & self.model_fields_set)
        if stray:
            raise ValueError(f"a {self.engine} model does not use the key {stray[0]}; remove it")
        lacking = sorted(key for key in _NEEDED[self.engine] if not getattr(self, key))
        if lacking:
            raise ValueError(f"missing key {lacking[0]}, which a {self.engine} model needs")
        if self.parent and (self.adapter or self.load != "full"):
            raise ValueError("a branch (`parent`) takes neither `adapter` nor `load`; remove them")
        if self.engine == "remote":
            unknown = sorted(_LOCAL_GENERATION & self.generation.model_fields_set)
            if unknown:
                raise ValueError(f"a remote model does not use generation.{unknown[0]}; remove it")
        return self

    def used(self, settings: Generation) -> dict[str, object]:
        """Those of the settings that change an answer of this model: what is set elsewhere is not used here."""
        values = settings.model_dump()
        unused: set[str] = set()
        if self.engine == "scripted":
            unused = set(values)
        elif self.engine == "remote":
            unused = _LOCAL_GENERATION
        elif settings.num_beams > 1:
            unused = _DRAWN
        elif not settings.temperature:
            unused = {"top_p", "top_k"}
        return {key: value for key, value in values.items() if key not in unused}


def settings_of(model: ModelConfig, protocol: Protocol | None = None) -> dict[str, object]:
    """What the record keeps of how one side answers: the weights, the template, and the settings that are used."""
    generation = protocol.generation if protocol else model.generation
    return {
        "model": model.name,
        "sha256": model.sha256,
        "template": model.template,
        "adapter": model.adapter.as_posix() if model.adapter else "",
        "load": model.load,
        "protocol": protocol.name if protocol else "",
        "generation": model.used(generation),
    }


def is_safe_url(url: str) -> bool:
    """Whether an engine may be reached there: https, or http on a loopback address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username or parts.password or parts.query or parts.fragment:
        return False
    if re.search(r"[\s\x00-\x1f\\]", url):
        return False
    loopback = host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
    return parts.scheme == "https" or (parts.scheme == "http" and loopback)


def read_models(
    folder: Path, *, roots: Sequence[Path] = (ROOT,)
) -> tuple[dict[str, ModelConfig], dict[str, ConfigError]]:
    """The models by name, and the errors by file; a broken file never stops the others.

    Of two files that use one name the first in alphabetical order counts, the other is an error.
    """
    return _read_named(folder, ModelConfig, roots)


def read_protocol(name: str, folder: Path, *, roots: Sequence[Path] = (ROOT,)) -> Protocol | None:
    """The protocol of that name; None for '', each model's own settings. Raises ConfigError for a name without a file."""
    if not name:
        return None
    protocols, errors = read_protocols(folder, roots=roots)
    if name not in protocols:
        wrong = "".join(f"; {error}" for error in errors.values())
        known = ", ".join(protocols) or "none"
        raise ConfigError(
            f"protocol: no file in {shown_path(folder)} names {name}; known: {known}{wrong}"
        )
    return protocols[name]


def read_protocols(
    folder: Path, *, roots: Sequence[Path] = (ROOT,)
) -> tuple[dict[str, Protocol], dict[str, ConfigError]]:
    """The protocols by name, and the errors by file, as `read_models`."""
    return _read_named(folder, Protocol, roots)


Named = TypeVar("Named", ModelConfig, Protocol)


def _read_named(
    folder: Path, kind: type[Named], roots: Sequence[Path]
) -> tuple[dict[str, Named], dict[str, ConfigError]]:
    found: dict[str, Named] = {}
    errors: dict[str, ConfigError] = {}
    origin: dict[str, str] = {}
    for path in sorted(Path(folder).glob("*.toml")):
        shown = shown_path(path)
        try:
            config = read_toml(path, kind, roots=roots)
        except ConfigError as error:
            errors[shown] = error
            continue
        if config.name in found:
            errors[shown] = ConfigError(
                f"{shown}: the name {config.name} is taken by {origin[config.name]}; choose another"
            )
            continue
        found[config.name], origin[config.name] = config, shown
    return found, errors
