"""the form of a study: its boxes, and the protocol that they mean."""

import html as escape
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import gradio as gr

from huatuo.ui import frame
from huatuo.ui.text import TEXT, Language, say
from reviews.errors import BadStudy
from reviews.protocol import CRITERIA, Closing, Criterion, Protocol, Scale

KEYS = (
    "name", "title_zh", "title_en", "kind", "language", "contestants", "criteria", "rated", "required", "own_criteria",
    "raters", "overlap", "gold", "pairing", "votes", "until", "sequential", "adjudicate",
    "safety_flags", "better_answers", "fastest_s", "consent_id", "generation", "notes",
)  # fmt: skip
"""The boxes in their order."""


def protocol_of(values: Mapping[str, Any]) -> Protocol:
    """The protocol that the boxes mean. Raises BadStudy naming the key."""
    text = {key: str(values.get(key) or "").strip() for key in KEYS}
    scale: Scale = "preference" if values.get("rated") == "preference" else "scale"
    wanted, required = values.get("criteria") or (), values.get("required") or ()
    stray = [key for key in required if key not in wanted]
    if stray or any(key not in CRITERIA for key in wanted):
        where = f"study {text['name']!r}: required"
        raise BadStudy("must be among the chosen criteria", where=where)
    criteria = tuple(
        Criterion(one.key, scale, one.title_zh, one.title_en, one.key in required)
        for one in CRITERIA.values()
        if one.key in wanted
    ) + _own(text["own_criteria"], text["name"])
    votes = _whole(values, "votes", None)
    closing = Closing(
        votes=votes, until=text["until"] or None, sequential=bool(values["sequential"])
    )
    return Protocol(
        name=text["name"],
        title_zh=text["title_zh"] or text["name"],
        title_en=text["title_en"] or text["name"],
        language=values["language"],
        kind=values["kind"],
        contestants=tuple(values.get("contestants") or ()),
        criteria=criteria,
        raters=tuple(values.get("raters") or ()),
        overlap=_whole(values, "overlap", 1) or 1,
        gold=_gold(text["gold"], text["name"]),
        pairing=values["pairing"],
        closing=closing,
        adjudicate=bool(values["adjudicate"]),
        safety_flags=bool(values["safety_flags"]),
        better_answers=bool(values["better_answers"]),
        fastest_s=float(values.get("fastest_s") or 0),
        consent_id=text["consent_id"],
        generation=text["generation"],
        notes=text["notes"],
    )


def _whole(values: Mapping[str, Any], key: str, default: int | None) -> int | None:
    value = values.get(key)
    if value in (None, "", 0):
        return default
    if float(value) != int(value):
        raise BadStudy("must be a whole number", where=f"study {values['name']!r}: {key}")
    return int(value)


def _own(text: str, study: str) -> tuple[Criterion, ...]:
    """Criteria from lines of `key | Chinese title | English title | scale or preference | required`."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.replace("｜", "|").split("|")]
        key, title_zh, title_en, *rest = parts if len(parts) > 2 else ("", "", "", "?")
        needed = bool(rest) and rest[-1] in ("required", "必评")
        kind, *more = rest[: len(rest) - needed] or ["scale"]
        if more or kind not in get_args(Scale):
            raise BadStudy(
                "line {n} must be like `tone | 语气 | Tone | scale | required`",
                where=f"study {study!r}: own_criteria", n=number,
            )  # fmt: skip
        scale: Scale = "preference" if kind == "preference" else "scale"
        found.append(Criterion(key, scale, title_zh, title_en, needed))
    return tuple(found)


def _gold(text: str, study: str) -> dict[str, str]:
    """Lines of `id = the better contestant, or tie`."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        case, mark, better = (part.strip() for part in line.rpartition("="))
        if not line.strip():
            continue
        if not mark or not case or not better or case in found:
            raise BadStudy(
                "line {n} must be like `pair-7 = tie`, each pair once",
                where=f"study {study!r}: gold", n=number,
            )  # fmt: skip
        found[case] = better
    return found


def refusal(error: Exception, language: Language) -> str:
    """Why a protocol cannot be, in a box; the key is named as its box on the page."""
    found = re.search(r": (?:closing\.)?([a-z_]+)$", getattr(error, "where", ""))
    label = say(f"studies.{found[1]}", language) if found else ""
    words = frame.reason(error, language)
    shown = say("studies.about", language, label=label, words=words) if label else words
    head = say("studies.refused", language)
    return f'<div class="problem" role="alert">{head} {escape.escape(shown)}</div>'


def boxes(language: Language, models: Sequence[str], protocols: Sequence[str]) -> list[Any]:
    """Puts the boxes on the page, in the order of KEYS. The raters are filled when it opens."""

    def label(key: str) -> str:
        return say(f"studies.{key}", language)

    def info(key: str) -> str:
        return say(f"studies.{key}_info", language)

    def text(key: str, limit: int, *, lines: int = 1) -> gr.Textbox:
        told = info(key) if f"studies.{key}_info" in TEXT else None
        return gr.Textbox(
            label=label(key), info=told, elem_id=f"study-{key}", max_length=limit, lines=lines
        )

    def tick(key: str, value: bool) -> gr.Checkbox:
        return gr.Checkbox(label=label(key), value=value, elem_id=f"study-{key}")

    def choose(key: str, names: Sequence[str], value: str | None) -> gr.Dropdown:
        shown = {name: label(name) if f"studies.{name}" in TEXT else name for name in names}
        shown |= {"": label("each_their_own")} if "" in shown else {}
        choices = [(title, name) for name, title in shown.items()]
        return gr.Dropdown(choices, value=value, label=label(key), elem_id=f"study-{key}")

    def several(key: str, choices: list[Any], *, own: bool = False) -> gr.Dropdown:
        return gr.Dropdown(
            choices,
            multiselect=True,
            label=label(key),
            info=info(key),
            elem_id=f"study-{key}",
            allow_custom_value=own,
        )

    def number(key: str, value: float | None) -> gr.Number:
        told = info(key) if f"studies.{key}_info" in TEXT else None
        return gr.Number(value, label=label(key), info=told, minimum=0, elem_id=f"study-{key}")

    titles = "title_zh" if language == "zh" else "title_en"
    ready = [(getattr(one, titles), one.key) for one in CRITERIA.values()]
    found: dict[str, Any] = {}
    with gr.Row(elem_classes=["fields"]):
        found["name"] = text("name", 64)
        found["title_zh"] = text("title_zh", 80)
        found["title_en"] = text("title_en", 80)
    with gr.Row(elem_classes=["fields"]):
        found["kind"] = choose("kind", ("single", "multi", "live"), "single")
        found["language"] = choose("language", ("zh", "en"), "zh")
        found["pairing"] = choose("pairing", ("balanced", "active"), "balanced")
        found["generation"] = choose("generation", ("", *protocols), "")
    with gr.Row(elem_classes=["fields"]):
        found["contestants"] = several("contestants", list(models), own=True)
        found["raters"] = several("raters", [])
        found["overlap"] = number("overlap", 3)
    with gr.Row(elem_classes=["fields"]):
        found["criteria"] = several("criteria", ready)
        found["required"] = several("required", ready)
        found["rated"] = choose("rated", ("scale", "preference"), "scale")
    with gr.Row(elem_classes=["fields"]):
        found["votes"] = number("votes", None)
        found["until"] = text("until", 10)
        found["fastest_s"] = number("fastest_s", 0)
    with gr.Row(elem_classes=["fields"]):
        found["sequential"] = tick("sequential", False)
        found["adjudicate"] = tick("adjudicate", True)
        found["safety_flags"] = tick("safety_flags", True)
        found["better_answers"] = tick("better_answers", True)
    with gr.Row(elem_classes=["fields"]):
        found["gold"] = text("gold", 20_000, lines=3)
        found["own_criteria"] = text("own_criteria", 4000, lines=3)
        found["notes"] = text("notes", 4000, lines=3)
    with gr.Row(elem_classes=["fields"]):
        found["consent_id"] = text("consent_id", 200)
    frame.html(f'<p class="quiet">{say("studies.form_help", language)}</p>')
    return [found[key] for key in KEYS]
