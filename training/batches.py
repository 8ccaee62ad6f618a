"""the batches of one judging model at the OpenAI Batch API: noted on disk, made, looked at, their replies kept.

Several commands may use one cache at once: whatever reads notes and acts on them does so under one lock, so that no
question is sent twice, and each command follows the batches that hold its own questions.
"""

import fcntl
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx2
from openai import OpenAIError
from openai.types import Batch as RemoteBatch
from openai.types.chat import ChatCompletion

from huatuo.errors import Busy, Unavailable
from training.data import BadData
from training.endpoint import TRIES, WAIT_S, Endpoint, Question

MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
"""Of one batch; OpenAI takes 50,000 requests and 200 MB."""
ENDED = ("completed", "failed", "expired", "cancelled")
_PATH = "/v1/chat/completions"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Note:
    """A batch as it stands on disk. id: empty until the server made it; sha256: of its requests; counts: once merged.

    attempt: the same requests are asked anew when a batch ended without an answer to any of them.
    """

    sha256: str
    requests: int
    attempt: int = 1
    id: str = ""
    status: str = ""
    merged: bool = False
    counts: dict[str, int] | None = None

    @property
    def key(self) -> str:
        """What tells it from all others, here and in the batch's metadata."""
        return f"{self.sha256}-{self.attempt}"


class Batches:
    """The batches of one judging model. share: of the price that a reply costs here. Raises what Endpoint raises."""

    def __init__(self, endpoint: Endpoint, share: float = 1.0) -> None:
        self.endpoint = endpoint
        self._share = share
        self._known: dict[str, set[str]] = {}
        self.folder = endpoint.cache / "batches" / endpoint.place

    def notes(self) -> list[Note]:
        """All batches known here, oldest first. Raises BadData for a note that cannot be read."""
        found = []
        for path in sorted(
            self.folder.glob("*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)
        ):
            try:
                found.append(Note(**json.loads(path.read_text(encoding="utf-8"))))
            except (ValueError, TypeError):
                raise BadData(
                    f"{path}: cannot be read; name its batch with --batch and remove the file"
                ) from None
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other command reads these notes and acts on them meanwhile. Waits for its turn: a look, an upload or a download."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def under_way(self, keys: Collection[str]) -> list[Note]:
        """The notes that are not merged and hold one of these custom ids."""
        notes = [note for note in self.notes() if not note.merged]
        return [note for note in notes if not self.ids(note).isdisjoint(keys)]

    def own(self, keys: Collection[str]) -> list[Note]:
        """The notes under way that hold one of these custom ids; of those that no server made yet, the ones of these alone.

        What another command noted before it was killed waits for that command: its price was never asked here.
        """
        return [note for note in self.under_way(keys) if note.id or self.ids(note) <= set(keys)]

    def submit(self, questions: Sequence[Question]) -> list[Note]:
        """Makes batches of the questions that no batch holds yet, noted before they are made; returns their notes."""
        made = []
        once = {self.endpoint.key(question): question for question in questions}
        for note in self.own(once):
            for key in self.ids(note) & once.keys():
                del once[key]
        for lines in _parts(self._lines(list(once.values()))):
            raw = b"".join(lines)
            sha256 = hashlib.sha256(raw).hexdigest()
            self._keep_requests(sha256, raw)
            before = sum(note.sha256 == sha256 for note in self.notes())
            note = Note(sha256, len(lines), before + 1)
            self._write(note)
            made.append(self.make(note))
        return made

    def make(self, note: Note) -> Note:
        """The note with the id of its batch: one that the server already has for these requests, else a new one."""
        batch = self._already_there(note)
        if batch is None:
            raw = self._requests(note.sha256).read_bytes()
            client = self.endpoint.client
            file = self._tried(lambda: client.files.create(file=("in.jsonl", raw), purpose="batch"))
            # Not tried again: a create that failed half-way is found by its metadata on the next run.
            batch = self._once(
                lambda: client.batches.create(
                    input_file_id=file.id,
                    endpoint=_PATH,
                    completion_window="24h",
                    metadata={"requests": note.key},
                )
            )
        return self._write(replace(note, id=batch.id, status=batch.status))

    def adopt(self, id: str) -> Note:
        """Notes a batch by its id alone; its requests come from the server."""
        batch = self._tried(lambda: self.endpoint.client.batches.retrieve(id))
        raw = self._download(batch.input_file_id)
        sha256 = hashlib.sha256(raw).hexdigest()
        self._keep_requests(sha256, raw)
        known = [note for note in self.notes() if note.sha256 == sha256]
        same = next((note for note in known if note.id in ("", id)), None)
        note = same or Note(sha256, raw.count(b"\n"), len(known) + 1)
        return self._write(replace(note, id=id, status=batch.status, merged=False, counts=None))

    def look(self, note: Note) -> Note:
        """The note with the batch's present status; once it has ended, its replies are kept and counted."""
        batch = self._tried(lambda: self.endpoint.client.batches.retrieve(note.id))
        if batch.status not in ENDED:
            return self._write(replace(note, status=batch.status))
        counts = self._merge(note, batch)
        return self._write(replace(note, status=batch.status, merged=True, counts=dict(counts)))

    def _merge(self, note: Note, batch: RemoteBatch) -> Counter[str]:
        """Keeps the replies of a batch that has ended; counts them, and what went wrong by its reason."""
        asked = self._asked(note)
        counts: Counter[str] = Counter()
        for file in (batch.output_file_id, batch.error_file_id):
            for line in self._download(file).splitlines() if file else ():
                self._take(line, asked, counts)
        for error in (batch.errors.data if batch.errors else None) or ():
            counts[f"batch: {error.code or 'failed'}"] += 1
        counts["unanswered"] = len(asked)
        return counts

    def _take(self, line: bytes, asked: dict[str, Question], counts: Counter[str]) -> None:
        """One line of a result; what is answered is taken out of `asked`. Raises Refused for another model."""
        try:
            row = json.loads(line)
            question = asked.get(row["custom_id"])
            if question is None:
                counts["not asked here, or twice"] += 1
                return
            response = row.get("response") or {}
            if row.get("error") or response.get("status_code") != 200:
                code = (row.get("error") or {}).get("code") or response.get("status_code")
                counts[f"request: {code}"] += 1
                return
            said, usage = self.endpoint.read(ChatCompletion.model_validate(response["body"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            counts["broke off or damaged"] += 1
            return
        self.endpoint.keep(question, said, usage, self._share)
        del asked[row["custom_id"]]
        counts["answered"] += 1
        if usage:
            counts["tokens_in"] += int(usage[0])
            counts["tokens_out"] += int(usage[1])

    def ids(self, note: Note) -> set[str]:
        """The custom ids of its requests."""
        if note.sha256 not in self._known:
            path = self._requests(note.sha256)
            try:
                lines = path.read_bytes().splitlines()
                self._known[note.sha256] = {json.loads(line)["custom_id"] for line in lines}
            except (OSError, ValueError, TypeError, KeyError):
                raise BadData(
                    f"{path}: the requests of batch {note.id or note.key} cannot be read; remove this file and the note "
                    "beside it, and name the batch with --batch if it was made"
                ) from None
        return self._known[note.sha256]

    def _asked(self, note: Note) -> dict[str, Question]:
        """The batch's questions by custom id, from the requests that lie beside its note."""
        found = {}
        for line in self._requests(note.sha256).read_bytes().splitlines():
            row = json.loads(line)
            prompt, body = row["body"]["messages"][0]["content"], row["body"]
            for number in range(2 * TRIES):
                question = Question(prompt, number, body.get("temperature"))
                if self.endpoint.key(question) == row["custom_id"]:
                    found[row["custom_id"]] = question
        return found

    def _lines(self, questions: Sequence[Question]) -> Iterator[bytes]:
        for question in questions:
            row = {
                "custom_id": self.endpoint.key(question),
                "method": "POST",
                "url": _PATH,
                "body": self.endpoint.body(question),
            }
            yield json.dumps(row, ensure_ascii=False).encode() + b"\n"

    def _already_there(self, note: Note) -> RemoteBatch | None:
        """The batch of this very note that the server has made already."""
        page = self._tried(lambda: self.endpoint.client.batches.list(limit=100))
        for batch in page.data:
            if (batch.metadata or {}).get("requests") == note.key:
                return batch
        return None

    def _download(self, file: str) -> bytes:
        return self._tried(lambda: self.endpoint.client.files.content(file).read())

    def _keep_requests(self, sha256: str, raw: bytes) -> None:
        temporary = self.folder / f".{sha256}.tmp"
        temporary.write_bytes(raw)
        temporary.replace(self._requests(sha256))

    def _requests(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.jsonl"

    def _write(self, note: Note) -> Note:
        path = self.folder / f"{note.key}.json"
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(json.dumps(asdict(note), indent=1), encoding="utf-8")
        temporary.replace(path)
        return note

    def _once(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except (OpenAIError, httpx2.HTTPError) as error:
            raise self.endpoint.as_engine_error(error) from None

    def _tried(self, call: Callable[[], Result]) -> Result:
        """Up to three tries of what may be repeated."""
        for attempt in range(1, TRIES):
            try:
                return self._once(call)
            except (Busy, Unavailable):
                time.sleep(WAIT_S * 2**attempt)
        return self._once(call)


def _parts(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    """The requests in parts that one batch takes."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and (len(part) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part
