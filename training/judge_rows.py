"""what both orders say of one pair: the summed verdict, the safety veto, and the row that is written.

A row: {id, model_a, model_b, winner: "a" | "b" | "tie" | null, order_flip, scores: {a, b} | null, criteria: {key: winner
or null}, safety: [{answer, kind, quote, orders}], department, intent, error: text | null}, and beside that `preferred`
(the winner before the veto), `orders` (each order's own word, by model), `lengths`, `judge`, and `benchmark` where it is
known. A row with an error has no winner, and no row without one lacks it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from training.data import BadData
from training.judge_form import Place, Reading
from training.rows import Source, id_of, json_rows, write_text

Winner = Literal["a", "b", "tie"]
_SHOWN: tuple[dict[Place, Winner], dict[Place, Winner]] = (
    {"1": "a", "2": "b", "tie": "tie"},
    {"1": "b", "2": "a", "tie": "tie"},
)
"""Whose answer stood where, in the first and in the second order."""
_LABELS: dict[str, Place] = {"better": "1", "worse": "2", "equal": "tie"}
_OUTCOMES: dict[str, Winner | None] = {"win": "a", "loss": "b", "tie": "tie", "no verdict": None}
"""What training.huatuo_judge says of the answer shown first, and of both orders."""


def row(
    case: str,
    names: tuple[str, str],
    found: Sequence[Reading | None],
    criteria: Sequence[str],
    problem: str | None,
) -> dict[str, Any]:
    """The row of one pair. found: both orders' readings, a first in the first, None for one that cannot be read."""
    there, back = (
        None if reading is None else _SHOWN[order][reading.winner]
        for order, reading in enumerate(found)
    )
    flags = _flags(found)
    preferred = both(there, back) if there and back else None
    return {
        "id": case,
        "model_a": names[0],
        "model_b": names[1],
        "winner": vetoed(preferred, {f["answer"] for f in flags}) if preferred else None,
        "order_flip": None if preferred is None else {there, back} == {"a", "b"},
        "scores": _scores(found) if preferred else None,
        "criteria": _criteria(found, criteria) if preferred else {},
        "safety": flags,
        "department": "",
        "intent": "",
        "error": problem,
        "preferred": preferred,
        "orders": [
            None if reading is None else _as_said(order, reading)
            for order, reading in enumerate(found)
        ],
    }


def both(there: Winner, back: Winner) -> Winner:
    """The orders' sum: what they agree on; a win and a tie is that win; two opposite wins are a tie."""
    if there == back or back == "tie":
        return there
    return back if there == "tie" else "tie"


def vetoed(winner: Winner, flagged: set[str]) -> Winner:
    """The winner after the veto. flagged: "a", "b", whose answers show a serious fault."""
    if winner not in flagged:
        return winner
    other: Winner = "b" if winner == "a" else "a"
    return "tie" if other in flagged else other


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A file of verdict rows, or the .json that training.huatuo_judge writes.

    Raises BadData with the line (or the number of the ruling) for a row without its keys, or a pair that occurs twice.
    """
    rows, seen = [], dict[tuple[str, ...], str]()
    for place, found in _rulings(path) if path.suffix == ".json" else json_rows(Source(path)):
        found["id"] = id_of(found, "id", place)
        for key in ("model_a", "model_b"):
            if not isinstance(found.get(key), str) or not found[key]:
                raise BadData(f"{place}: {key} is missing; a row of training.judge is expected")
        if found.get("winner", "") not in ("a", "b", "tie", None):
            raise BadData(f"{place}: winner is neither a, b, tie nor null")
        if (found["winner"] is None) != bool(found.get("error")):
            raise BadData(f"{place}: a row has either a winner or an error")
        if wrong := _odd(found):
            raise BadData(f"{place}: {wrong} is not what a judge writes")
        models = sorted((found["model_a"], found["model_b"]))
        pair = (found.get("benchmark") or "", found["id"], *models)
        if pair in seen:
            raise BadData(f"{place}: id {found['id']} again; first at {seen[pair]}")
        seen[pair] = place
        rows.append(found)
    return rows


def _odd(row: Mapping[str, Any]) -> str:
    """The key of a row whose value is none that a judge writes; "" if all are sound."""
    numbers = ("scores", "lengths")
    for key in numbers:
        pair = row.get(key)
        if pair is not None and not (isinstance(pair, dict) and all(_is_number(pair.get(s)) for s in "ab")):  # fmt: skip
            return key
    if not _are_winners(row.get("criteria") or {}):
        return "criteria"
    flags = row.get("safety") or []
    if not isinstance(flags, list) or not all(
        isinstance(f, dict)
        and f.get("answer") in ("a", "b")
        and isinstance(f.get("kind"), str)
        and isinstance(f.get("orders", []), list)
        for f in flags
    ):
        return "safety"
    orders = row.get("orders")
    if orders is not None and not (
        isinstance(orders, list) and len(orders) == 2 and all((o is None and row["winner"] is None) or _is_order(o) for o in orders)
    ):  # fmt: skip
        return "orders"
    if not isinstance(row.get("order_flip"), bool | None):
        return "order_flip"
    return next((k for k in ("department", "intent", "judge", "benchmark") if not isinstance(row.get(k) or "", str)), "")  # fmt: skip


def _is_order(said: object) -> bool:
    """Whether it is what one order says, by model."""
    known = isinstance(said, dict) and said.get("winner") in ("a", "b", "tie")
    return known and isinstance(said, dict) and _are_winners(said.get("criteria"))


def _are_winners(found: object) -> bool:
    """Whether it is {criterion: a, b, tie or None}."""
    values = list(found.values()) if isinstance(found, dict) else [0]
    return all(value is None or value in ("a", "b", "tie") for value in values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rulings(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rulings of training.huatuo_judge as rows; scores are the points of both orders, 0 to 20."""
    try:
        with Source(path).open() as file:
            found = json.load(file)
        names = {key: found[key] for key in ("model_a", "model_b")}
        judge = f"{found['judge']}, the authors' protocol"
        rulings, benchmark = list(found["rulings"]), found.get("benchmark") or ""
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadData(
            f"{path.name}: no `rulings` with model_a and model_b; training.huatuo_judge writes them, or name JSONL of "
            "training.judge"
        ) from None
    for number, ruling in enumerate(rulings, 1):
        place = f"{path.name}: ruling {number}"
        try:
            orders = [_said_by(order, one["label"]) for order, one in enumerate(ruling["orders"])]
            there, back = orders
            winner = _OUTCOMES[ruling["outcome"]]
            both_said = there is not None and back is not None
            if both_said != (winner is not None):
                raise ValueError
            scores, lengths = ({**dict(zip("ab", v, strict=True))} if v else None
                               for v in (ruling["scores"], ruling["lengths"]))  # fmt: skip
        except (KeyError, TypeError, ValueError):
            raise BadData(f"{place}: is not what training.huatuo_judge writes") from None
        yield place, {
            "id": ruling.get("id"), **names, "winner": winner, "order_flip": {there, back} == {"a", "b"},
            "scores": scores, "criteria": {}, "safety": [], "department": ruling.get("department"),
            "intent": ruling.get("intent"), "error": None if winner else "no label in three tries",
            "orders": [one and {"winner": one, "criteria": {}} for one in orders], "lengths": lengths, "judge": judge,
            "benchmark": benchmark,
        }  # fmt: skip


def _said_by(order: int, label: str | None) -> Winner | None:
    return None if label is None else _SHOWN[order][_LABELS[label]]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A JSONL file, whole or not at all."""
    write_text(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows))


def _flags(found: Sequence[Reading | None]) -> list[dict[str, Any]]:
    """Faults by answer and kind, with the orders in which they were seen and a passage."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for order, reading in enumerate(found):
        for flag in reading.flags if reading else ():
            key = (_SHOWN[order][flag.place], flag.kind)
            told = {"answer": key[0], "kind": key[1], "quote": flag.quote, "orders": []}
            orders = seen.setdefault(key, told)["orders"]
            if order + 1 not in orders:
                orders.append(order + 1)
    return list(seen.values())


def _scores(found: Sequence[Reading | None]) -> dict[str, float]:
    """Mean of both orders, 1 to 10."""
    there, back = (reading.scores for reading in found if reading)
    return {"a": (there[0] + back[1]) / 2, "b": (there[1] + back[0]) / 2}


def _criteria(found: Sequence[Reading | None], keys: Sequence[str]) -> dict[str, Winner | None]:
    """The orders' sum by criterion; None where neither order says that it matters."""
    result: dict[str, Winner | None] = {}
    for key in keys:
        said = [
            _SHOWN[order][place]
            for order, reading in enumerate(found)
            if reading and (place := reading.criteria[key]) is not None
        ]
        result[key] = both(said[0], said[-1]) if said else None
    return result


def _as_said(order: int, reading: Reading) -> dict[str, Any]:
    turned = _SHOWN[order]
    return {
        "winner": turned[reading.winner],
        "criteria": {k: None if p is None else turned[p] for k, p in reading.criteria.items()},
        "scores": dict(zip("ab" if order == 0 else "ba", reading.scores, strict=True)),
        "safety": [{"answer": turned[flag.place], **asdict(flag)} for flag in reading.flags],
        "reason": reading.reason,
    }
