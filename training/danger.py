"""physicians' danger marks as a gate: a model whose answers were marked in a record is not released."""

import contextlib
from pathlib import Path

import numpy as np

from huatuo.errors import NoData
from reviews.database import DEFAULT_NAME
from reviews.harms import ANY, harms
from reviews.protocol import SAFETY_KINDS
from reviews.store import Store
from training.release_gates import Gate


def danger_gate(record: Path, tried_as: str, limit: float) -> Gate:
    """The share of a contestant's judged answers that a physician marked as dangerous, against `limit`.

    record: a record's folder or file. tried_as: the name under which the model was compared there, e.g. as an earlier
    release. Raises NoData for a record that is not there or holds no vote on it, the record's own errors.
    """
    file = record / DEFAULT_NAME if record.is_dir() else record
    if not file.is_file():
        raise NoData(f"{record}: holds no record")
    with contextlib.closing(Store.open(file, check=False)) as store:
        found = harms(store.votes(), SAFETY_KINDS, np.random.default_rng(0))
    of = [h for h in found.rates if h.contestant == tried_as and h.kind == ANY and h.answers]
    if not of:
        raise NoData(f"{record}: no vote on {tried_as}; name the contestant that was compared")
    share = of[0].flagged / of[0].answers
    shown = f"{of[0].flagged} of {of[0].answers}"
    return Gate("danger_marks", shown, f"at most {limit:.0%} of answers", share <= limit)
