"""one guarded TOML file to one frozen pydantic model; every error names file and key.

Guards stand before the parser (64 kB, lines of at most 1,000 characters: one dotted key of 30,000 parts
would parse for 23 s), types are strict (`seed = true` is no integer, `lr = nan` no number), secrets are
refused, and no message repeats a value.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from huatuo.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder: relative paths in configs start here."""
MAX_BYTES = 64 * 1024
MAX_LINE = 1000

_SECRET_KEY = re.compile(
    r"(?i)^(.*_)?(api_?key|secret|secret_key|private_key|password|passwd|credentials?)$"
    r"|^((access|auth|api|hf|bearer|refresh)_)?token$"
)
_SECRET_VALUE = re.compile(
    r"\b(sk|pk|rk)-[\w-]{16,}|\bhf_\w{20,}|\bgh[pousr]_\w{20,}|\bAKIA[A-Z0-9]{12,}|\bxox[a-z]-[\w-]{10,}"
    r"|\bAIza[\w-]{30,}|\beyJ[\w-]{10,}\.|-----BEGIN |(?i:\bbearer\s+\S{12,})"
)
_UNTRUE_PATH = re.compile(
    r"(?i)[\x00-\x1f\\%*?\"<>|:]|^~|(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.[^/]*)?(/|$)"
)


def _inside(path: Path, info: ValidationInfo) -> Path:
    if not path.parts or _UNTRUE_PATH.search(str(path)):
        raise ValueError("is not a plain path")
    roots = (info.context or {}).get("roots")
    if roots is not None:
        resolved = (Path(roots[0]) / path).resolve()
        if not any(resolved.is_relative_to(Path(root).resolve()) for root in roots):
            raise ValueError("leads out of the project's folder; put it inside")
    return path


InsidePath = Annotated[Path, Field(strict=False), AfterValidator(_inside)]
"""A path that, in a file, must stay inside the project after links are followed. Join it to the root."""
Texts = Annotated[tuple[str, ...], Field(strict=False)]
"""A TOML array of strings."""


class Settings(BaseModel):
    """Base of every configuration: frozen, strict, no unknown keys, no NaN, values never in errors."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        validate_default=False,
    )


Model = TypeVar("Model", bound=BaseModel)


def read_toml(
    path: Path | str,
    model: type[Model],
    overrides: Mapping[str, str] | None = None,
    *,
    roots: Sequence[Path] = (ROOT,),
) -> Model:
    """The file as a frozen `model`; `overrides` (dotted key to text, from flags) win over it.

    roots: folders that an InsidePath may lead to; relative paths start at the first.
    Raises ConfigError naming file and key, or file and place for a syntax error.
    """
    name = shown_path(Path(path))
    try:
        data = tomllib.loads(_guarded(Path(path).read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: {_why(error)}") from None
    sources: dict[tuple[str, ...], str] = {}
    for key, text in (overrides or {}).items():
        parts = tuple(key.replace("-", "_").split("."))
        sources[parts] = flag = "--" + key.replace("_", "-")
        _put(data, parts, _flag_value(model, parts, text, flag), flag)
    _refuse_secrets(data, name)
    try:
        return model.model_validate(data, context={"roots": tuple(roots)})
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=True)
        lines = [_problem(model, dict(problem), name, sources) for problem in problems[:5]]
        raise ConfigError("; ".join(dict.fromkeys(lines))) from None


def shown_path(path: Path) -> str:
    """The path as messages name it: from the project's folder where it lies inside."""
    absolute = path.absolute()
    return str(absolute.relative_to(ROOT)) if absolute.is_relative_to(ROOT) else str(path)


def _guarded(raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise ValueError(f"has {len(raw):,} bytes; at most {MAX_BYTES:,} are read")
    text = raw.decode("utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise ValueError(
                f"line {number} has {len(line):,} characters; at most {MAX_LINE:,} are read"
            )
    return text


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text; save it as UTF-8"
    if isinstance(error, RecursionError):
        return "is nested too deep"
    return str(error)


def _put(data: dict[str, Any], parts: tuple[str, ...], value: object, flag: str) -> None:
    for part in parts[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{flag}: {part} is not a table")
    data[parts[-1]] = value


def _flag_value(model: type[BaseModel], parts: tuple[str, ...], text: str, flag: str) -> object:
    """A flag's text as the TOML value that the field takes; strings need no quotes."""
    owner = _model_at(model, parts[:-1])
    field = owner.model_fields.get(parts[-1]) if owner else None
    if field is None or _takes_text(field.annotation):
        return text
    try:
        if "\n" in text or len(text) > MAX_LINE:
            raise ValueError
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        raise ConfigError(f"{flag}: not a value for this key") from None


def _takes_text(annotation: object) -> bool:
    if annotation in (str, Path):
        return True
    return any(
        isinstance(a, str) or (a is not ... and _takes_text(a)) for a in _plain_args(annotation)
    )


def _plain_args(annotation: object) -> tuple[object, ...]:
    origin = getattr(annotation, "__origin__", None)
    return () if origin in (tuple, list, dict, frozenset, set) else get_args(annotation)


def _model_at(model: type[BaseModel], parts: Sequence[object]) -> type[BaseModel] | None:
    """The model that holds the keys under a dotted place, or None."""
    for part in parts:
        field = model.model_fields.get(str(part))
        inner = [a for a in (field.annotation, *get_args(field.annotation))] if field else []
        nested = [a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)]
        if not nested:
            return None
        model = nested[0]
    return model


def _refuse_secrets(data: Mapping[str, Any], name: str) -> None:
    for place, key, value in _leaves(data, ""):
        if (_SECRET_KEY.search(key) and value != "") or (
            isinstance(value, str) and _SECRET_VALUE.search(value)
        ):
            raise ConfigError(
                f"{name}: {place} holds a secret; put it into an environment variable and name "
                "that variable in api_key_env"
            )


def _leaves(value: object, place: str, key: str = "") -> Iterator[tuple[str, str, object]]:
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from _leaves(item, f"{place}.{inner}" if place else str(inner), str(inner))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, place, key)
    else:
        yield place, key, value


def _problem(
    model: type[BaseModel],
    problem: dict[str, Any],
    name: str,
    sources: Mapping[tuple[str, ...], str],
) -> str:
    place = tuple(str(part) for part in problem["loc"])
    shown = ".".join(place)[:80]
    where = next(
        (sources[place[:n]] for n in range(len(place), 0, -1) if place[:n] in sources), name
    )
    if problem["type"] == "extra_forbidden":
        owner = _model_at(model, place[:-1])
        near = _nearest(place[-1], list(owner.model_fields)) if owner else ""
        return f"{where}: unknown key {shown}" + (f"; did you mean {near}?" if near else "")
    if problem["type"] == "missing":
        return f"{where}: missing key {shown}"
    text = str(problem["msg"]).removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    return (
        f"{where}: {shown} {text}".replace("input should", "should")
        if shown
        else f"{where}: {text}"
    )


def _nearest(key: str, known: Sequence[str]) -> str:
    """The known key that was most likely meant, or ''. `lr` means learning_rate."""
    initials = [
        k for k in known if "_" in k and "".join(w[:1] for w in k.split("_")) == key.lower()
    ]
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    parts = [k for k in known if len(key) > 2 and key.lower() in k]
    return next(iter([*near, *initials, *parts]), "")
