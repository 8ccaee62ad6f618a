"""Writes references.json: the project's statistics recomputed with scipy, statsmodels and krippendorff.

    X/bin/pip install numpy scipy statsmodels krippendorff   # in an environment of its own
    X/bin/python tests/reviews/references.py

These packages are not in tests/requirements.txt, because transformers imports scipy where it finds
it, and the app would no longer be tested as it is installed. Nothing of the project is imported
here. The votes are drawn here and stored with the results; test_ranking.py, test_agreement.py and
test_stopping.py compare.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import scipy
import statsmodels
import statsmodels.api as sm
from scipy.optimize import minimize
from scipy.special import betaln
from scipy.stats import t as student
from statsmodels.stats import inter_rater
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.sandwich_covariance import cov_cluster, cov_cluster_2groups

RIDGE, MODELS, VOTES, RATERS, CASES = 0.01, 5, 600, 9, 40


def draw() -> dict[str, list[int]]:
    rng = np.random.default_rng(11)
    theta, lean = rng.normal(0, 0.7, MODELS), rng.normal(0, 0.4, (RATERS, MODELS))
    left = rng.integers(0, MODELS, VOTES)
    right = (left + rng.integers(1, MODELS, VOTES)) % MODELS
    rater, case = rng.integers(0, RATERS, VOTES), rng.integers(0, CASES, VOTES)
    own = theta + lean
    d = own[rater, left] - own[rater, right] + 0.2
    p = np.stack([np.exp(d / 2), np.full(VOTES, 0.8), np.exp(-d / 2)], axis=1)
    p /= p.sum(axis=1, keepdims=True)
    outcome = (rng.random(VOTES)[:, None] > p.cumsum(axis=1)[:, :2]).sum(axis=1)
    columns = {"left": left, "right": right, "outcome": outcome, "rater": rater, "case": case}
    return {name: column.tolist() for name, column in columns.items()}


def optimum(votes: dict[str, list[int]], model: str) -> dict[str, Any]:
    """Penalised maximum likelihood by scipy's BFGS, the likelihood written vote by vote."""
    left, right, outcome = (np.array(votes[name]) for name in ("left", "right", "outcome"))

    def likelihood(x: np.ndarray) -> float:
        worth, beta, tie = np.exp(x[:MODELS]), np.exp(x[MODELS]), np.exp(x[MODELS + 1])
        a, b = worth[left] * beta, worth[right]
        if model == "davidson":
            even = tie * np.sqrt(a * b)
            p = np.stack([a, even, b]) / (a + b + even)
        else:
            eta = np.exp(tie)
            p = np.stack([a / (a + eta * b), 0 * a, b / (b + eta * a)])
            p[1] = (eta**2 - 1) * a * b / ((a + eta * b) * (b + eta * a))
        return float(np.log(p[outcome, np.arange(VOTES)]).sum())

    def loss(x: np.ndarray) -> float:
        return -likelihood(x) + RIDGE / 2 * float(x @ x)

    x = minimize(loss, np.zeros(MODELS + 2), method="BFGS", options={"gtol": 1e-7}).x
    x = minimize(
        loss, x, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 40000}
    ).x
    return {"parameters": x.tolist(), "log_likelihood": likelihood(x)}


def logit(votes: dict[str, list[int]]) -> dict[str, Any]:
    """Bradley-Terry on decisive votes as statsmodels' Logit; contestant 0 is the reference."""
    left, right, outcome, rater, case = (
        np.array(votes[n]) for n in ("left", "right", "outcome", "rater", "case")
    )
    style = np.random.default_rng(12).normal(0, 1, (VOTES, 2))
    keep = outcome != 1
    design = np.zeros((VOTES, MODELS + 1))
    design[np.arange(VOTES), left] += 1
    design[np.arange(VOTES), right] -= 1
    design[:, MODELS] = 1
    design = design[keep, 1:]
    y = (outcome[keep] == 0).astype(float)
    plain = sm.Logit(y, design).fit(disp=0, tol=1e-12)
    both, one, two = cov_cluster_2groups(plain, rater[keep], case[keep], use_correction=False)
    styled = sm.Logit(y, np.hstack([design, style[keep]])).fit(disp=0, tol=1e-12)
    return {
        "parameters": plain.params.tolist(),
        "by_rater": np.sqrt(np.diag(one)).tolist(),
        "by_case": np.sqrt(np.diag(two)).tolist(),
        "by_both": np.sqrt(np.diag(both)).tolist(),
        "style": style.tolist(),
        "styled": styled.params.tolist(),
        "styled_by_rater": np.sqrt(
            np.diag(cov_cluster(styled, rater[keep], use_correction=False))
        ).tolist(),
    }


def agreement() -> dict[str, Any]:
    rng = np.random.default_rng(13)
    truth = rng.integers(0, 4, 60)
    ratings = np.where(rng.random((5, 60)) < 0.6, truth, rng.integers(0, 4, (5, 60))).astype(float)
    full = ratings.copy()
    ratings[rng.random((5, 60)) < 0.4] = np.nan
    levels = ("nominal", "ordinal", "interval")
    table = np.zeros((4, 4))
    np.add.at(table, (full[0].astype(int), full[1].astype(int)), 1)
    weights = {"none": None, "linear": "linear", "quadratic": "quadratic"}
    counts = inter_rater.aggregate_raters(full.T.astype(int))[0]
    return {
        "ratings": [[None if np.isnan(x) else int(x) for x in row] for row in ratings],
        "full": full.astype(int).tolist(),
        "alpha": {
            level: krippendorff.alpha(ratings, level_of_measurement=level) for level in levels
        },
        "cohen": {
            name: float(inter_rater.cohens_kappa(table, wt=wt, return_results=False))
            for name, wt in weights.items()
        },
        "fleiss": float(inter_rater.fleiss_kappa(counts)),
    }


def main() -> None:
    votes = draw()
    p = [0.01, 0.04, 0.03, 0.2, 0.005, 0.9]
    references = {
        "made_with": {m.__name__: m.__version__ for m in (np, scipy, statsmodels)},
        "votes": votes,
        "davidson": optimum(votes, "davidson"),
        "rao_kupper": optimum(votes, "rao_kupper"),
        "logit": logit(votes),
        "agreement": agreement(),
        "student": [[df, q, float(student.ppf(q, df))] for df in (1, 2, 5, 8, 30, 150) for q in (0.9, 0.975, 0.999)],
        "holm": {"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()},
        "wilson": [[w, n, *proportion_confint(w, n, method="wilson")] for w, n in ((0, 7), (3, 9), (54, 84), (9, 9))],
        "log_e": [
            [w, n, float(betaln(1 + w, 1 + n) - w * np.log(q) - n * np.log(1 - q)), q]
            for w, n, q in ((10, 0, 0.5), (30, 10, 0.5), (60, 40, 0.5), (7, 30, 0.3))
        ],
    }  # fmt: skip
    file = Path(__file__).with_name("references.json")
    file.write_text(
        json.dumps(references, indent=None, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
