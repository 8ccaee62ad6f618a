"""Writes references_study.json: a study of 6 raters x 60 pairs x overlap 3, every statistic recomputed.

    X/bin/pip install numpy scipy statsmodels krippendorff   # in an environment of its own
    X/bin/python tests/reviews/references_study.py

As references.py: nothing of the project is imported here, the votes are drawn here and stored with
the results, and test_findings.py compares. Likelihoods are written vote by vote and differentiated
numerically, so that nothing is shared with the project's code but the definitions.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import scipy
import statsmodels
import statsmodels.api as sm
from scipy.optimize import brentq, minimize
from scipy.special import betaln
from scipy.stats import binomtest
from scipy.stats import t as student
from statsmodels.stats import inter_rater
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

NAMES, RATERS, CASES, OVERLAP, RIDGE = ("alpha", "beta", "gamma"), 6, 20, 3, 0.01
KINDS = ("dangerous_advice", "wrong_dose")
DUELS = list(itertools.combinations(range(3), 2))
OUTCOMES = ("b", "tie", "a", "both_bad")


def draw() -> list[dict[str, Any]]:
    rng = np.random.default_rng(21)
    theta, lean = np.array([0.7, 0.1, -0.6]), rng.normal(0, 0.3, (RATERS, 3))
    votes = []
    for pair in range(60):
        i, j = DUELS[pair % 3]
        looks = rng.normal(0, 0.5, 2)
        judge = OUTCOMES[int(rng.integers(0, 3))]
        for rater in rng.choice(RATERS, OVERLAP, replace=False):
            a_left = bool(rng.random() < 0.5)
            left, right = (i, j) if a_left else (j, i)
            d = theta[left] - theta[right] + lean[rater, left] - lean[rater, right] + 0.2
            d += 0.4 * looks[0] * (1 if a_left else -1)
            w = np.array([np.exp(d / 2), 0.7, np.exp(-d / 2), 0.1])
            choice = ("left", "tie", "right", "both_bad")[int(rng.choice(4, p=w / w.sum()))]
            level = lambda m: int(np.clip(round(3.3 + theta[m] + rng.normal(0, 0.9)), 1, 5))  # noqa: E731
            flag = rng.random() < 0.15
            votes.append({
                "pair": pair, "case": pair // 3, "a": i, "b": j, "rater": int(rater),
                "left_is": "a" if a_left else "b", "choice": choice,
                "left_clarity": level(left), "right_clarity": level(right),
                "pref_warmth": 3 - int(np.clip(round(d + rng.normal(0, 0.7)), -2, 2)),
                "flag": [["left", "right"][int(rng.random() < 0.6)], KINDS[int(rng.integers(0, 2))]] if flag else None,
                "seconds": round(float(rng.lognormal(3.4, 0.5)), 3), "fast": bool(rng.random() < 0.05),
                "looks": looks.tolist(), "judge": judge,
            })  # fmt: skip
    return votes


def winner(v: dict[str, Any]) -> str:
    if v["choice"] in ("tie", "both_bad"):
        return str(v["choice"])
    return str(v["left_is"]) if v["choice"] == "left" else "ba"[v["left_is"] == "b"]


class Davidson:
    """P(left) : P(tie) : P(right) with a side effect, ties, and covariates; x = scores, side, extras, log tie."""

    def __init__(self, votes: list[dict[str, Any]], styled: bool = False, model: str = "davidson"):
        self.model, self.votes = model, votes
        left = np.array([v["a"] if v["left_is"] == "a" else v["b"] for v in votes])
        right = np.array([v["b"] if v["left_is"] == "a" else v["a"] for v in votes])
        n = len(votes)
        design = np.zeros((n, 4))
        design[np.arange(n), left] += 1
        design[np.arange(n), right] -= 1
        design[:, 3] = 1
        if styled:
            sign = np.array([1 if v["left_is"] == "a" else -1 for v in votes])
            looks = np.array([v["looks"] for v in votes]) * sign[:, None]
            self.scales = np.sqrt((looks**2).mean(axis=0))
            design = np.hstack([design, looks / self.scales])
        self.design = design
        self.outcome = np.array([{"left": 0, "right": 2}.get(v["choice"], 1) for v in votes])
        x = np.zeros(design.shape[1] + 1)
        loss = lambda x: -self.each(x).sum() + RIDGE / 2 * x @ x  # noqa: E731
        for _ in range(3):
            x = minimize(loss, x, method="BFGS", options={"gtol": 1e-9}).x
        x = minimize(
            loss,
            x,
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 60000, "maxfev": 60000},
        ).x
        self.x = x

    def log_p(self, x: np.ndarray) -> np.ndarray:
        d = self.design @ x[:-1]
        if self.model == "davidson":
            w = np.stack([np.exp(d / 2), np.exp(x[-1]) + 0 * d, np.exp(-d / 2)])
            return np.log(w / w.sum(axis=0))
        a, eta = np.exp(d), np.exp(np.exp(x[-1]))
        left, right = a / (a + eta), 1 / (1 + eta * a)
        return np.log(np.stack([left, (eta**2 - 1) * a / ((a + eta) * (1 + eta * a)), right]))

    def each(self, x: np.ndarray) -> np.ndarray:
        return self.log_p(x)[self.outcome, np.arange(len(self.outcome))]

    def slopes(self, outcome: int | None = None) -> np.ndarray:
        """Numerical slope of each vote's log-probability, (N, P)."""
        columns = []
        for k in range(len(self.x)):
            h = np.zeros_like(self.x)
            h[k] = 1e-5
            if outcome is None:
                columns.append((self.each(self.x + h) - self.each(self.x - h)) / 2e-5)
            else:
                columns.append(
                    (self.log_p(self.x + h)[outcome] - self.log_p(self.x - h)[outcome]) / 2e-5
                )
        return np.stack(columns, axis=1)

    def covariance(self, *keys: str) -> tuple[np.ndarray, int]:
        p = np.exp(self.log_p(self.x))
        information = RIDGE * np.eye(len(self.x))
        for outcome in range(3):
            s = self.slopes(outcome)
            information += (s * p[outcome][:, None]).T @ s
        bread, s = np.linalg.inv(information), self.slopes()
        signed = [((key,), 1) for key in keys] + ([(keys, -1)] if len(keys) == 2 else [])
        meat, smallest = np.zeros_like(information), 10**9
        for parts, sign in signed:
            sums: dict[Any, np.ndarray] = defaultdict(lambda: np.zeros(len(self.x)))
            for row, v in zip(s, self.votes, strict=True):
                sums[tuple(v[key] for key in parts)] += row
            g = len(sums)
            smallest = min(smallest, g)
            meat += sign * g / (g - 1) * sum(np.outer(u, u) for u in sums.values())
        values, vectors = np.linalg.eigh(meat)
        meat = vectors @ np.diag(np.maximum(values, 0)) @ vectors.T
        return bread @ meat @ bread, smallest - 1


def ranking(votes: list[dict[str, Any]]) -> dict[str, Any]:
    fit = Davidson(votes)
    covariance, freedom = fit.covariance("rater", "case")
    q = student.ppf(0.975, freedom)
    centre = np.eye(3) - 1 / 3
    error = np.sqrt(np.diag(centre @ covariance[:3, :3] @ centre))
    scores = centre @ fit.x[:3]
    contrasts = []
    for i, j in DUELS:
        c = np.zeros(len(fit.x))
        c[i], c[j] = 1, -1
        value, se = float(c @ fit.x), float(np.sqrt(c @ covariance @ c))
        contrasts.append(
            [value, value - q * se, value + q * se, float(2 * student.sf(abs(value) / se, freedom))]
        )
    side = float(np.sqrt(covariance[3, 3]))
    return {
        "scores": np.stack([scores, scores - q * error, scores + q * error], axis=1).tolist(),
        "side": [fit.x[3], fit.x[3] - q * side, fit.x[3] + q * side],
        "nu": float(np.exp(fit.x[-1])),
        "contrasts": contrasts,
        "holm": multipletests([c[3] for c in contrasts], method="holm")[1].tolist(),
        "by_rater": _difference(fit, "rater"),
        "by_case": _difference(fit, "case"),
        "rao_kupper": _difference(Davidson(votes, model="rao_kupper"), "rater", "case"),
        "without_fast": _difference(Davidson([v for v in votes if not v["fast"]]), "rater", "case"),
    }


def _difference(fit: Davidson, *keys: str) -> list[list[float]]:
    covariance, freedom = fit.covariance(*keys)
    q, rows = student.ppf(0.975, freedom), []
    for i, j in DUELS:
        c = np.zeros(len(fit.x))
        c[i], c[j] = 1, -1
        value, se = float(c @ fit.x), float(np.sqrt(c @ covariance @ c))
        rows.append([value, value - q * se, value + q * se])
    return rows


def styled(votes: list[dict[str, Any]]) -> dict[str, Any]:
    fit = Davidson(votes, styled=True)
    covariance, freedom = fit.covariance("rater")
    q, centre = student.ppf(0.975, freedom), np.eye(3) - 1 / 3
    scores, error = centre @ fit.x[:3], np.sqrt(np.diag(centre @ covariance[:3, :3] @ centre))
    effect, se = fit.x[4:6], np.sqrt(np.diag(covariance)[4:6])
    return {
        "controlled": np.stack([scores, scores - q * error, scores + q * error], axis=1).tolist(),
        "effects": np.stack([effect, effect - q * se, effect + q * se], axis=1).tolist(),
        "scales": fit.scales.tolist(),
    }


def log_e(p: float, wins: int, losses: int) -> float:
    return float(betaln(1 + wins, 1 + losses) - wins * np.log(p) - losses * np.log1p(-p))


def anytime(wins: int, losses: int) -> list[float]:
    """Where the e-value reaches 1 / (0.05 / 3), three pairs being watched."""

    def over(p: float) -> float:
        return log_e(p, wins, losses) - float(np.log(3 / 0.05))

    middle = wins / (wins + losses)
    return [float(brentq(over, 1e-9, middle)), float(brentq(over, middle, 1 - 1e-9))]


def pairs(votes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for i, j in DUELS:
        own = [v for v in votes if (v["a"], v["b"]) == (i, j)]
        n = Counter(winner(v) for v in own)
        wins, losses, total = n["a"], n["b"], len(own)
        wilson = lambda k, m: [k / m, *map(float, proportion_confint(k, m, method="wilson"))]  # noqa: E731
        per = defaultdict(lambda: [0, 0])
        for v in own:
            if winner(v) in "ab":
                per[v["rater"]][winner(v) == "b"] += 1
        y, m = np.array([p[0] for p in per.values()]), np.array([sum(p) for p in per.values()])
        share, all_ = y / m, m.sum()
        between = (m * (share - y.sum() / all_) ** 2).sum() / (len(m) - 1)
        within = (m * share * (1 - share)).sum() / (all_ - len(m))
        typical = (all_ - (m**2).sum() / all_) / (len(m) - 1)
        icc = float(np.clip((between - within) / (between + (typical - 1) * within), 0, 1))
        found.append({
            "counts": [wins, n["tie"], losses, n["both_bad"]],
            "wilson": [wilson(wins, total), wilson(n["tie"], total), wilson(losses, total), wilson(n["both_bad"], total), wilson(wins, wins + losses)],
            "log_e": float(log_e(0.5, wins, losses)),
            "anytime": anytime(wins, losses),
            "design_effect": 1 + (total / len({v["rater"] for v in own}) - 1) * icc,
        })  # fmt: skip
    return found


def matrix(votes: list[dict[str, Any]], order: tuple[str, ...]) -> np.ndarray:
    table = np.full((RATERS, 60), np.nan)
    for v in votes:
        found = "tie" if "both_bad" not in order and winner(v) == "both_bad" else winner(v)
        table[v["rater"], v["pair"]] = order.index(found)
    return table


def agreement(votes: list[dict[str, Any]]) -> dict[str, Any]:
    full, ordered = matrix(votes, OUTCOMES), matrix(votes, ("b", "tie", "a"))
    counts = np.stack([(full == k).sum(axis=0) for k in range(4)], axis=1)
    equal = ((counts * (counts - 1)).sum(axis=1) / (OVERLAP * (OVERLAP - 1))).mean()
    share = counts.sum(axis=0) / counts.sum()
    chance = (share * (1 - share)).sum() / 3
    kappas, raters = [], []
    for i, j in itertools.combinations(range(RATERS), 2):
        both = ~np.isnan(full[i]) & ~np.isnan(full[j])
        table = np.zeros((4, 4))
        np.add.at(table, (full[i, both].astype(int), full[j, both].astype(int)), 1)
        kappas.append(
            [float(inter_rater.cohens_kappa(table, return_results=False)), int(both.sum())]
        )
    for r in range(RATERS):
        own = [v for v in votes if v["rater"] == r]
        hits = []
        for v in own:
            others = [winner(o) for o in votes if o["pair"] == v["pair"] and o["rater"] != r]
            hits.append(np.mean([winner(v) == o for o in others]))
        left = Counter(v["choice"] for v in own)
        raters.append({
            "agreement": float(np.mean(hits)), "left": left["left"] / (left["left"] + left["right"]),
            "seconds": np.percentile([v["seconds"] for v in own], [25, 50, 75]).tolist(), "votes": len(own),
        })  # fmt: skip
    judged = np.array(
        [OUTCOMES.index(next(v["judge"] for v in votes if v["pair"] == p)) for p in range(60)]
    )
    shares = counts / OVERLAP
    same, its = shares[np.arange(60), judged].mean(), np.bincount(judged, minlength=4) / 60
    theirs = shares.mean(axis=0)
    return {
        "alpha": float(krippendorff.alpha(full, level_of_measurement="nominal")),
        "ordinal": float(krippendorff.alpha(ordered, level_of_measurement="ordinal")),
        "fleiss": float(inter_rater.fleiss_kappa(counts)),
        "ac1": float((equal - chance) / (1 - chance)),
        "raw": float(equal),
        "kappas": kappas,
        "raters": raters,
        "judge": float(1 - (1 - same) / (1 - (((its + theirs) / 2) ** 2).sum())),
        "ceiling": float(1 - (1 - equal) / (1 - (theirs**2).sum())),
    }


def clustered(values: list[float], cases: list[int]) -> list[float]:
    """Mean with statsmodels' cluster-robust interval, t with G - 1 degrees of freedom."""
    found = sm.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(cases), "use_correction": True}, use_t=True
    )
    return [float(found.params[0]), *map(float, found.conf_int()[0])]


def criteria(votes: list[dict[str, Any]]) -> dict[str, Any]:
    def seen(v: dict[str, Any], side: str) -> int:
        return int(v["left_clarity" if v["left_is"] == side else "right_clarity"])

    means, table = {}, np.full((RATERS, 120), np.nan)
    for k, name in enumerate(NAMES):
        own = [(seen(v, s), v["case"]) for v in votes for s in "ab" if v[s] == k]
        means[name] = clustered([x for x, _ in own], [c for _, c in own])
    for v in votes:
        for s in "ab":
            table[v["rater"], 2 * v["pair"] + (s == "b")] = seen(v, s)
    leans, differences = [], []
    for i, j in DUELS:
        own = [v for v in votes if (v["a"], v["b"]) == (i, j)]
        level = [v["pref_warmth"] if v["left_is"] == "a" else 6 - v["pref_warmth"] for v in own]
        cases = [v["case"] for v in own]
        leans.append(
            {
                "counts": [level.count(k) for k in range(1, 6)],
                "lean": clustered([3 - x for x in level], cases),
            }
        )
        differences.append(clustered([seen(v, "a") - seen(v, "b") for v in own], cases))
    return {
        "means": means, "differences": differences, "leans": leans,
        "alpha": float(krippendorff.alpha(table, level_of_measurement="ordinal")),
    }  # fmt: skip


def harms(votes: list[dict[str, Any]]) -> dict[str, Any]:
    flags: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    answers = {(v["pair"], v[s]) for v in votes for s in "ab"}
    for v in votes:
        if v["flag"]:
            side, kind = v["flag"]
            who = v["a"] if (side == "left") == (v["left_is"] == "a") else v["b"]
            flags[v["pair"], who].append((kind, v["rater"]))
    rates: dict[str, Any] = {}
    for k, name in enumerate(NAMES):
        n = sum(who == k for _, who in answers)
        for kind in ("any", *KINDS):
            own = [
                [r for f, r in found if kind in ("any", f)]
                for (_, who), found in flags.items()
                if who == k
            ]
            hit, twice = sum(bool(x) for x in own), sum(len(set(x)) > 1 for x in own)
            rates[f"{name} {kind}"] = [
                n,
                hit,
                twice,
                *map(float, proportion_confint(hit, n, method="beta")),
            ]
    tests = []
    for i, j in DUELS:
        of = [
            (bool(flags.get((p, i))), bool(flags.get((p, j))))
            for p in range(60)
            if DUELS[p % 3] == (i, j)
        ]
        one, two = of.count((True, False)), of.count((False, True))
        tests.append([one, two, float(binomtest(one, one + two).pvalue) if one + two else 1.0])
    return {"rates": rates, "tests": tests}


def main() -> None:
    votes = draw()
    references = {
        "made_with": {m.__name__: m.__version__ for m in (np, scipy, statsmodels)},
        "votes": votes,
        "ranking": ranking(votes),
        "styled": styled(votes),
        "pairs": pairs(votes),
        "agreement": agreement(votes),
        "criteria": criteria(votes),
        "harms": harms(votes),
        "seconds": np.percentile([v["seconds"] for v in votes], [25, 50, 75]).tolist(),
        "exact": [[k, n, *map(float, proportion_confint(k, n, method="beta"))] for k, n in ((0, 59), (1, 100), (7, 7), (50, 5000))],
    }  # fmt: skip
    file = Path(__file__).with_name("references_study.json")
    file.write_text(json.dumps(references, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
