"""what a judge's verdict rows say together: shares with intervals, flips, length, criteria, safety, groups.

summary(rows) takes rows of training/judge.py about one pair of models; rows of another judge may lack `orders`,
`lengths`, `scores` or `criteria`, then what needs them is None. Intervals draw whole cases (bootstrap), those of plain
counts are Wilson's. All shares count a tie as half a win and are model a's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reviews import ranking, style
from reviews.stats import wilson
from training.significance import intervals

Floats = NDArray[np.float64]
Rows = Sequence[dict[str, Any]]
POINTS = {"a": 1.0, "tie": 0.5, "b": 0.0}
REFITS = 200
"""Draws for the length-controlled share, each of which is a fit."""


def summary(rows: Rows, seed: int = 0) -> dict[str, Any]:
    """All figures of one pair of models, ready for JSON. Raises ValueError for rows about several pairs.

    ratio: b's mean score divided by a's, as in the paper's radar figures, where its own model is 1; None near a's 0. first_shown: share
    of the decided orders that favour the answer shown first, 0.5 for a fair judge. length.controlled: the share if both
    answers were equally long (see controlled()). veto.changed: verdicts that the veto turned.
    """
    pairs = {(row["model_a"], row["model_b"]) for row in rows}
    if len(pairs) > 1:
        raise ValueError(
            f"rows about several pairs of models: {sorted(pairs)}; summarise each alone"
        )
    names = next(iter(pairs), ("", ""))
    judged = [row for row in rows if row["winner"] is not None]
    keys = list(dict.fromkeys(key for row in judged for key in row.get("criteria") or {}))
    return {
        "model_a": names[0],
        "model_b": names[1],
        "judge": next((row["judge"] for row in rows if row.get("judge")), ""),
        "errors": len(rows) - len(judged),
        **_group(rows, seed),
        "flips": _flips(judged, keys),
        "length": _length(judged, seed),
        "criteria": {key: _criterion(judged, key, seed) for key in keys},
        "veto": _veto(judged),
        "by_intent": _groups(rows, "intent", seed),
        "by_department": _groups(rows, "department", seed),
        "by_benchmark": _groups(rows, "benchmark", seed),
    }


def controlled(points: Floats, lengths: Floats, weights: Floats | None = None) -> float:
    """The share (a tie is half) that a would have if both answers were equally long.

    points: (N,) 1, 0.5 or 0 for a. lengths: (N,) characters, a minus b. Logistic regression with ties (Davidson) on
    tanh(length difference / its standard deviation), taken at 0. Source: Dubois et al. 2024 (length-controlled
    AlpacaEval); without their term for the difficulty of a question, which needs a fit over many models.
    """
    use = np.ones(len(points)) if weights is None else weights
    spread = float(lengths.std())
    x = np.tanh(lengths / spread) if spread > 0 else np.zeros(len(lengths))
    design = np.stack([np.ones(len(points)), x], axis=1)
    counts = np.stack([points == 1, points == 0.5, points == 0], axis=1) * use[:, None]
    found, _ = style.fit(design, counts)
    share = np.exp(ranking.slopes(found[:1], found[-1:], "davidson").log)[:, 0]
    return float(share[0] + share[1] / 2)


def _group(rows: Rows, seed: int) -> dict[str, Any]:
    """Counts, shares and scores of some rows."""
    judged = [row for row in rows if row["winner"] is not None]
    n = len(judged)
    result: dict[str, Any] = {"cases": len(rows), "judged": n}
    for name, letter in (("win", "a"), ("tie", "tie"), ("loss", "b")):
        count = sum(row["winner"] == letter for row in judged)
        result[name] = count
        result[f"{name}_rate"] = count / n if n else None
        result[f"{name}_interval"] = list(wilson(count, n)) if n else None
    result["share"] = _mean([POINTS[row["winner"]] for row in judged], seed)
    scored = [row["scores"] for row in judged if row.get("scores")]
    table = np.array([[one["a"], one["b"]] for one in scored], np.float64).reshape(-1, 2)
    result["score_a"], result["score_b"] = (
        (float(column.mean()) if len(table) else None) for column in table.T
    )
    result["ratio"] = _ratio(table, seed)
    return result


def _ratio(table: Floats, seed: int) -> dict[str, Any] | None:
    """b's mean score by a's, (N, 2) scores; None where a's may be 0, in the cases or in a draw of them."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = _interval(table, lambda sums, _: sums[..., 1:] / sums[..., :1], seed)
    return (
        found
        if found and np.isfinite([found["value"], found["low"], found["high"]]).all()
        else None
    )


def _groups(rows: Rows, field: str, seed: int) -> dict[str, Any]:
    names = sorted({row.get(field) or "" for row in rows} - {""})
    return {name: _group([row for row in rows if row.get(field) == name], seed) for name in names}


def _flips(judged: Rows, keys: Sequence[str]) -> dict[str, Any]:
    flips = sum(bool(row.get("order_flip")) for row in judged)
    orders = [row["orders"] for row in judged if row.get("orders")]
    said = [winner for one in orders for winner in _shown(one, None)]
    first, decided = said.count("first"), len(said) - said.count("tie")
    by_criterion = {}
    for key in keys:
        pairs = [(_of(one[0], key), _of(one[1], key)) for one in orders]
        known = [pair for pair in pairs if None not in pair]
        count = sum(set(pair) == {"a", "b"} for pair in known)
        by_criterion[key] = _share(count, len(known))
    return {
        **_share(flips, len(judged)),
        "first_shown": _share(first, decided),
        "second_shown": decided - first,
        "ties_said": said.count("tie"),
        "by_criterion": by_criterion,
    }


def _of(order: dict[str, Any], key: str | None) -> str | None:
    value: str | None = order["winner"] if key is None else order["criteria"].get(key)
    return value


def _shown(orders: Sequence[dict[str, Any]], key: str | None) -> list[str]:
    """What was favoured in each order: first, second or tie."""
    places = ({"a": "first", "b": "second"}, {"b": "first", "a": "second"})
    return [
        place.get(said, "tie")
        for place, one in zip(places, orders, strict=True)
        if (said := _of(one, key)) is not None
    ]


def _length(judged: Rows, seed: int) -> dict[str, Any] | None:
    known = [row for row in judged if row.get("lengths")]
    if not known:
        return None
    lengths = np.array([[row["lengths"]["a"], row["lengths"]["b"]] for row in known], np.float64)
    points = np.array([POINTS[row["winner"]] for row in known])
    apart = lengths[:, 0] - lengths[:, 1]
    return {
        "mean_a": float(lengths[:, 0].mean()),
        "mean_b": float(lengths[:, 1].mean()),
        "longer_wins": _share(
            int((((apart > 0) & (points == 1)) | ((apart < 0) & (points == 0))).sum()),
            int(((apart != 0) & (points != 0.5)).sum()),
        ),
        "correlation": _correlation(points, apart, seed),
        "raw": float(points.mean()),
        "controlled": _controlled(points, apart, seed),
    }


def _controlled(points: Floats, apart: Floats, seed: int) -> dict[str, Any] | None:
    n = len(points)
    if n < 3:
        return None
    draws = np.random.default_rng((seed, 2)).multinomial(n, np.full(n, 1 / n), REFITS)
    found = [controlled(points, apart, weights.astype(np.float64)) for weights in draws]
    low, high = np.quantile(found, (0.025, 0.975))
    return {"value": controlled(points, apart), "low": float(low), "high": float(high), "n": n}


def _correlation(points: Floats, apart: Floats, seed: int) -> dict[str, Any] | None:
    """Pearson's, of the verdict and the length difference; None where one of them never varies."""
    if len(points) < 3 or points.std() == 0 or apart.std() == 0:
        return None
    y, x = points - points.mean(), apart / apart.std()

    def finish(sums: Floats, count: int) -> Floats:
        mean_x, mean_y, xx, yy, xy = np.moveaxis(sums / count, -1, 0)
        spread = np.maximum((xx - mean_x**2) * (yy - mean_y**2), 1e-12)
        return np.asarray(((xy - mean_x * mean_y) / np.sqrt(spread))[..., None])

    return _interval(np.stack([x, y, x * x, y * y, x * y], axis=1), finish, seed)


def _criterion(judged: Rows, key: str, seed: int) -> dict[str, Any]:
    said = [row["criteria"].get(key) for row in judged if row.get("criteria")]
    known = [winner for winner in said if winner is not None]
    return {
        "win": known.count("a"),
        "tie": known.count("tie"),
        "loss": known.count("b"),
        "not_applicable": len(said) - len(known),
        "share": _mean([POINTS[winner] for winner in known], seed),
    }


def _veto(judged: Rows) -> dict[str, Any]:
    flags = [flag for row in judged for flag in row.get("safety") or ()]
    flagged = {
        side: sum(any(f["answer"] == side for f in row.get("safety") or ()) for row in judged)
        for side in "ab"
    }
    return {
        "flagged_a": _share(flagged["a"], len(judged)),
        "flagged_b": _share(flagged["b"], len(judged)),
        "changed": sum(row.get("preferred", row["winner"]) != row["winner"] for row in judged),
        "kinds": {
            kind: {
                side: sum(f["kind"] == kind and f["answer"] == side for f in flags) for side in "ab"
            }
            for kind in sorted({f["kind"] for f in flags})
        },
        "seen_in_both_orders": _share(
            sum(len(f.get("orders") or ()) == 2 for f in flags), len(flags)
        ),
    }


def _share(count: int, n: int) -> dict[str, Any]:
    """A count of n with Wilson's interval; None for n of 0."""
    return {
        "count": count,
        "n": n,
        "share": count / n if n else None,
        "interval": list(wilson(count, n)) if n else None,
    }


def _mean(points: Sequence[float], seed: int) -> dict[str, Any] | None:
    column = np.array(points, np.float64).reshape(-1, 1)
    return _interval(column, lambda sums, count: sums / count, seed)


def _interval(columns: Floats, finish: Any, seed: int) -> dict[str, Any] | None:
    if not len(columns):
        return None
    value = float(finish(columns.sum(0), len(columns))[0])
    low, high = intervals(columns, finish, resamples=1000, seed=seed)[0]
    return {"value": value, "low": float(low), "high": float(high), "n": len(columns)}
