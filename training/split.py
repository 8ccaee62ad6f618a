"""splits pairs by case into training, validation and test, and keeps held-out cases out of all three.

A case is one id or one question text: pairs that share either stay together. The place of a case follows from the
seed, its id and its stratum (source and department), not from the order of the votes.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huatuo.errors import NoData
from training.data import BadData
from training.pairs import Counts, Pair

_GOLDEN = 0.6180339887498949
_NOISE = re.compile(r"[\s\W_]+")


@dataclass(frozen=True)
class Split:
    """Indices into the pairs. cases: the group of each pair, for the bootstrap."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    cases: tuple[str, ...]


def normal(text: str) -> str:
    """A question's text without case, width, spaces and punctuation: what counts as the same question."""
    return _NOISE.sub("", unicodedata.normalize("NFKC", text).casefold())


def case_groups(pairs: Sequence[Pair]) -> list[str]:
    """The group of every pair: the smallest case id among those joined by an id or a question."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    for pair in pairs:
        ends = sorted((root("case:" + pair.case), root("text:" + normal(pair.question))))
        parent[ends[1]] = ends[0]
    names: dict[str, str] = {}
    for pair in sorted(pairs, key=lambda p: p.case):
        names.setdefault(root("case:" + pair.case), pair.case)
    return [names[root("case:" + pair.case)] for pair in pairs]


def split(
    pairs: Sequence[Pair], *, validation: float, test: float, seed: int, counts: Counts
) -> Split:
    """Shares of the cases for validation and test; the rest trains. Raises NoData when there are too few cases.

    Within a stratum cases stand in the order of a seeded hash and are dealt out by systematic sampling.
    """
    groups = case_groups(pairs)
    counts.add("cases_joined_by_same_question", len({p.case for p in pairs}) - len(set(groups)))
    order = _ordered(pairs, groups, seed)
    if len(order) < 5:
        raise NoData(
            f"{len(order)} cases are too few to hold any out (at least 5); vote on more cases"
        )
    side: dict[str, str] = {}
    offset = int(_hashed(seed, "")[:8], 16) / 2**32
    for rank, name in enumerate(order):
        side[name] = _deal(rank, offset, validation, test)
    for wanted in ("validation", "test"):  # very few cases: at least one each
        if wanted not in side.values():
            ranked = sorted(order, key=lambda name: _hashed(seed, name + wanted))
            side[next(name for name in ranked if side[name] == "train")] = wanted
    places = [side[name] for name in groups]
    parts = {
        part: tuple(i for i, place in enumerate(places) if place == part)
        for part in ("train", "validation", "test")
    }
    for part, members in parts.items():
        counts.add(f"pairs_{part}", len(members))
    found = Split(parts["train"], parts["validation"], parts["test"], tuple(groups))
    check_leaks(pairs, found)
    return found


def deal_folds(pairs: Sequence[Pair], folds: int, seed: int) -> tuple[list[int], list[str]]:
    """(fold of every pair, its case group): a case lies in one fold, strata are spread evenly. Raises NoData."""
    groups = case_groups(pairs)
    order = _ordered(pairs, groups, seed)
    if len(order) < 2 * folds:
        raise NoData(f"{len(order)} cases are too few for {folds} folds; vote on more cases")
    offset = int(_hashed(seed, "")[:8], 16) / 2**32
    fold = {n: int((offset + rank * _GOLDEN) % 1 * folds) for rank, n in enumerate(order)}
    return [fold[name] for name in groups], groups


def _ordered(pairs: Sequence[Pair], groups: Sequence[str], seed: int) -> list[str]:
    """The case groups by stratum (source, department), within it by a seeded hash."""
    stratum: dict[str, tuple[str, str]] = {}
    for pair, name in zip(pairs, groups, strict=True):
        stratum.setdefault(name, ("+".join(sorted(pair.sources)), pair.department))
    return sorted(stratum, key=lambda name: (stratum[name], _hashed(seed, name)))


def _deal(rank: int, offset: float, validation: float, test: float) -> str:
    """Every case gets a point on a line of golden steps, which spreads each part evenly over the strata."""
    at = (offset + rank * _GOLDEN) % 1
    return "test" if at < test else "validation" if at < test + validation else "train"


def _hashed(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def check_leaks(pairs: Sequence[Pair], found: Split) -> None:
    """Raises BadData naming the first case or question that stands in two parts."""
    seen: dict[str, str] = {}
    for part in ("train", "validation", "test"):
        for i in getattr(found, part):
            for key in ("case " + pairs[i].case, "question " + normal(pairs[i].question)):
                if seen.setdefault(key, part) != part:
                    raise BadData(f"{key[:80]}: stands in {seen[key]} and in {part}")


def without_held_out(pairs: Sequence[Pair], files: Iterable[Path], counts: Counts) -> list[Pair]:
    """The pairs without those whose case id or question stands in a held-out case file; how many is counted.

    Files: JSONL with `id` or `case_id`, and `question` or `messages`. Raises BadData naming file and line, NoData if
    nothing is left.
    """
    ids: set[str] = set()
    texts: set[str] = set()
    for path in files:
        for case, question in _held_out(path):
            ids.add(case)
            texts.add(normal(question))
    texts.discard("")
    ids.discard("")
    kept = []
    for pair in pairs:
        if pair.case in ids:
            counts.add("leaked_same_case_id")
        elif normal(pair.question) in texts:
            counts.add("leaked_same_question")
        else:
            kept.append(pair)
    if pairs and not kept:
        raise NoData(
            "every voted pair is on a held-out case, so training on it would leak; vote on other cases, or name "
            "another file in held_out"
        )
    return kept


def _held_out(path: Path) -> Iterable[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: cannot be read ({type(error).__name__})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            said = row.get("question") or (
                row["messages"][0]["content"] if "messages" in row else ""
            )
            yield str(row.get("id") or row.get("case_id") or ""), str(said)
        except (ValueError, AttributeError, KeyError, IndexError, TypeError):
            raise BadData(f"{path.name}:{number}: not a held-out case") from None
