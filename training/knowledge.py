"""the medical knowledge table the demonstration corpus is generated from, read and checked.

One TOML file per department under training/knowledge/. The table was written for this project; it is teaching
material for a toy model and no medical reference.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huatuo.errors import ConfigError

FOLDER = Path(__file__).parent / "knowledge"
WHO = ("adult", "woman", "man", "child", "elder")
_LISTS = {  # key: fewest and most entries
    "symptoms_en": (2, 4),
    "ask": (2, 4),
    "ask_en": (2, 3),
    "red_flags": (2, 3),
    "tests": (2, 3),
    "advice": (3, 3),
    "advice_en": (2, 3),
    "confusions": (1, 3),
}
_TEXTS = ("name", "name_en", "cause", "course", "who")


@dataclass(frozen=True)
class Condition:
    """One condition of the table. symptoms: four, each in several wordings; medicines: (name, caution)."""

    name: str
    name_en: str
    department: str
    department_en: str
    symptoms: tuple[tuple[str, ...], ...]
    symptoms_en: tuple[str, ...]
    ask: tuple[str, ...]
    ask_en: tuple[str, ...]
    red_flags: tuple[str, ...]
    tests: tuple[str, ...]
    advice: tuple[str, ...]
    advice_en: tuple[str, ...]
    medicines: tuple[tuple[str, str], ...]
    confusions: tuple[str, ...]
    cause: str
    course: str
    who: str


def read_knowledge(folder: Path = FOLDER) -> tuple[Condition, ...]:
    """Every condition in file order, names unique. Raises ConfigError naming file, condition and key."""
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise ConfigError(f"{folder}: no knowledge files (*.toml)")
    conditions: list[Condition] = []
    seen: dict[str, str] = {}
    for file in files:
        for condition in _read_file(file):
            if condition.name in seen:
                raise ConfigError(
                    f"{file.name}: {condition.name} is already in {seen[condition.name]}; "
                    "a condition belongs to one department"
                )
            seen[condition.name] = file.name
            conditions.append(condition)
    return tuple(conditions)


def _read_file(file: Path) -> list[Condition]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file.name}: not valid TOML: {error}") from None
    names = [_text(table, key, file.name) for key in ("department", "department_en")]
    entries = table.get("condition")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{file.name}: no [[condition]] entries")
    unknown = set(table) - {"department", "department_en", "condition"}
    if unknown:
        raise ConfigError(f"{file.name}: unknown key {sorted(unknown)[0]}")
    return [_condition(entry, names[0], names[1], file.name) for entry in entries]


def _condition(entry: dict[str, Any], department: str, department_en: str, file: str) -> Condition:
    where = f"{file}: condition {entry.get('name', '(without a name)')}"
    known = {*_LISTS, *_TEXTS, "symptoms", "medicines"}
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key}")
    texts = {key: _text(entry, key, where) for key in _TEXTS}
    if texts["who"] not in WHO:
        raise ConfigError(f"{where}: who is {texts['who']!r}; one of {', '.join(WHO)}")
    lists = {
        key: _texts(entry.get(key), f"{where}: {key}", *limits) for key, limits in _LISTS.items()
    }
    symptoms = entry.get("symptoms")
    if not isinstance(symptoms, list) or len(symptoms) != 4:
        raise ConfigError(f"{where}: symptoms needs 4 lists of wordings")
    return Condition(
        department=department,
        department_en=department_en,
        symptoms=tuple(_texts(words, f"{where}: symptoms", 2, 4) for words in symptoms),
        medicines=_medicines(entry.get("medicines"), where),
        **texts,
        **lists,
    )


def _medicines(value: object, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= 3:
        raise ConfigError(f"{where}: medicines needs 1 to 3 entries {{name, caution}}")
    pairs = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"name", "caution"}:
            raise ConfigError(f"{where}: a medicine has exactly the keys name and caution")
        pairs.append((_text(item, "name", where), _text(item, "caution", where)))
    return tuple(pairs)


def _text(table: dict[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where}: {key} is missing or empty")
    return value


def _texts(value: object, where: str, fewest: int, most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not fewest <= len(value) <= most:
        raise ConfigError(f"{where} needs {fewest} to {most} entries")
    if not all(isinstance(text, str) and text.strip() for text in value):
        raise ConfigError(f"{where} has an empty entry or one that is no text")
    return tuple(value)
