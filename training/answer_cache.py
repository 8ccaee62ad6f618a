"""answers kept on disk: made once, whole or not at all, found again by model, prompt and settings.

One JSONL file per model, a row per answer. Answers that were drawn together are written together; rows that a kill cut
short, and their whole batch, are dropped when the file is opened again, and `dropped` says so. A failure is kept too, as
a failure. One process at a time holds a model's file, so two evaluations never make the same answer twice.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huatuo.errors import ConfigError

Finish = Literal["stop", "length", "error"]
_FINISHES = ("stop", "length", "error")


@dataclass(frozen=True)
class Kept:
    """One answer, or why there is none.

    finish: 'stop' is an answer; 'length' (cut at the limit) and 'error' are failures and never scored. error: the
    kind of failure and a sentence. figures: numbers in the answer's stead, such as the letters' log-probabilities.
    """

    text: str
    finish: Finish
    error: str = ""
    figures: Mapping[str, float] | None = None

    @property
    def is_answer(self) -> bool:
        """Whether it may be scored."""
        return self.finish == "stop"

    @property
    def kind(self) -> str:
        """The kind of failure, '' for an answer."""
        return "" if self.is_answer else self.error.partition(":")[0] or self.finish


def digest(value: object) -> str:
    """SHA-256 in hex of a value's canonical JSON."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Key:
    """What an answer is found by: SHA-256 in hex of the prompt and of the generation settings with the seed."""

    prompt: str
    settings: str


class AnswerCache:
    """The kept answers of one model. dropped: what was damaged and left out, in words.

    Raises ConfigError if another process holds the file, or it cannot be written.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.path = folder / f"{model[:24]}.jsonl"
        self.dropped: list[str] = []
        self._model = model
        self._kept: dict[Key, Kept] = {}
        self._batch = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+")
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(
                f"{self.path}: another evaluation is asking this model; wait for its end"
            ) from None
        self._read()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Kept | None:
        """The answer, or the failure, that is kept under the key."""
        return self._kept.get(key)

    def add(self, rows: Sequence[tuple[Key, Kept]]) -> None:
        """Keeps answers that were made together; they are on the disk when it returns. Raises OSError."""
        self._batch += 1
        lines = []
        for number, (key, kept) in enumerate(rows, 1):
            row: dict[str, Any] = {
                "model": self._model,
                "prompt": key.prompt,
                "settings": key.settings,
                "batch": [self._batch, number, len(rows)],
                "finish": kept.finish,
                "text": kept.text,
            }
            row |= {"error": kept.error} if kept.error else {}
            row |= {"figures": dict(kept.figures)} if kept.figures is not None else {}
            lines.append(json.dumps(row | {"sum": digest(row)[:16]}, ensure_ascii=False) + "\n")
        self._file.write("".join(lines).encode("utf-8", "surrogatepass"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._kept.update(rows)

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        rows = [_row(line, self._model) for line in lines]
        whole = _whole(rows)
        lost = len(rows) - whole
        if lost:
            self._file.truncate(sum(map(len, lines[:whole])))
            self.dropped.append(
                f"{self.path.name}: {lost} rows at the end were cut short by a stop and are dropped"
            )
        for number, row in enumerate(rows[:whole], 1):
            if row is None:
                self.dropped.append(f"{self.path.name}:{number}: damaged, dropped")
                continue
            self._batch = max(self._batch, row["batch"][0])
            kept = Kept(row["text"], row["finish"], row.get("error", ""), row.get("figures"))
            self._kept[Key(row["prompt"], row["settings"])] = kept


def _row(line: bytes, model: str) -> dict[str, Any] | None:
    """The row of a line, None if a byte of it is not as it was written."""
    try:
        row = json.loads(line.decode("utf-8", "surrogatepass"))
        told = row.pop("sum")
        sound = line.endswith(b"\n") and told == digest(row)[:16] and row["model"] == model
        return row if sound and row["finish"] in _FINISHES else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _whole(rows: Sequence[dict[str, Any] | None]) -> int:
    """How many rows stand before a last batch that was cut short; all if it is whole."""
    end = len(rows)
    while end and rows[end - 1] is None:
        end -= 1
    last = rows[end - 1] if end else None
    if last is None:
        return end
    number, at, size = last["batch"]
    if at == size:
        return end
    while end and _batch_of(rows[end - 1]) == number:
        end -= 1
    return end


def _batch_of(row: dict[str, Any] | None) -> int | None:
    return None if row is None else int(row["batch"][0])


def count_failures(answers: Iterable[Kept]) -> dict[str, int]:
    """Failures by kind, the most frequent first."""
    found: dict[str, int] = {}
    for kept in answers:
        if not kept.is_answer:
            found[kept.kind] = found.get(kept.kind, 0) + 1
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
