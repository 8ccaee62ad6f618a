"""large runs of the judge through the OpenAI Batch API: half the price, within a day, the same kept replies.

    python -m training.batch configs/judge.toml --answers A.jsonl B.jsonl [--no-wait] [--batch ID]
    python -m training.huatuo_judge JUDGE.toml A.json B.json --in-batches [--no-wait] [--batch ID]
    python -m training.rubric_grading configs/rubric_grading.toml ... --in-batches [--no-wait] [--batch ID]

Asks what training.judge (or the other two) would ask and keeps the replies where it looks for them; when all are there,
the verdicts are written as by it. Each batch is noted under the cache (batches/) before it is made, and carries the
hash of its requests: a run that was killed at any point, or told --no-wait, goes on with the same batches and pays for
none twice. What a batch that expired, failed in part or was cancelled did answer is kept; the rest makes the next one,
an unreadable reply too, three times at most. A batch cannot be stopped at a cap, so one that could pass it is not made.
Exit status: 0 done; 2 an error, or some requests were never answered; 4 still under way (--no-wait).
"""

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx2
from openai import OpenAIError
from openai.types import Batch as RemoteBatch
from openai.types.chat import ChatCompletion

from huatuo.errors import Busy, HuatuoError, NoData, Unavailable
from training.data import BadData
from training.endpoint import TRIES, WAIT_S, Endpoint, Question
from training.judge import Judge, Pair, confirm, finish, options, prepare, run
from training.spending import CapReached, Estimate

MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
"""Of one batch; OpenAI takes 50,000 requests and 200 MB."""
ENDED = ("completed", "failed", "expired", "cancelled")
STOPPED = "stopped; the same command goes on from here, and finds the batches that are under way"
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

    def submit(self, questions: Sequence[Question]) -> list[Note]:
        """Makes batches of the questions, noted before they are made; returns their notes."""
        made = []
        once = {self.endpoint.key(question): question for question in questions}
        for lines in _parts(self._lines(list(once.values()))):
            raw = b"".join(lines)
            sha256 = hashlib.sha256(raw).hexdigest()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._requests(sha256).write_bytes(raw)
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
        self.folder.mkdir(parents=True, exist_ok=True)
        self._requests(sha256).write_bytes(raw)
        known = [note for note in self.notes() if note.sha256 == sha256]
        same = next((note for note in known if note.id in ("", id)), None)
        note = same or Note(sha256, raw.count(b"\n"), len(known) + 1)
        return self._write(replace(note, id=id, status=batch.status))

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


def collect(batches: Batches, wait_s: float | None) -> bool:
    """Makes what is noted only, waits for all and keeps their replies; False if some are still under way (wait_s None)."""
    while True:
        under_way = [note for note in batches.notes() if not note.merged]
        for note in under_way:
            seen = batches.look(note if note.id else batches.make(note))
            if seen.merged:
                told = ", ".join(f"{key} {count:,}" for key, count in (seen.counts or {}).items())
                print(f"{seen.id} {seen.status}: {told}", flush=True)
            elif seen.status != note.status:
                print(f"{seen.id} {seen.status}: {seen.requests:,} requests", flush=True)
        if all(note.merged for note in batches.notes()):
            return True
        if wait_s is None:
            return False
        time.sleep(wait_s)


def add_batch_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say how batches are waited for."""
    parser.add_argument(
        "--batch", action="append", default=[], metavar="ID", help="go on with this batch"
    )
    parser.add_argument("--no-wait", action="store_true", help="batches: look once, do not wait")
    parser.add_argument("--every-s", type=float, default=60.0, help="batches: between two looks")


def through_batches(
    endpoint: Endpoint,
    missing: Callable[[], list[Question]],
    allow: Callable[[list[Question]], bool],
    share: float,
    given: argparse.Namespace,
) -> int | None:
    """Asks in batches what has no reply yet; None once nothing is missing, else the exit status (see the module).

    missing: the questions without a readable reply. allow: says what they cost, raises if that is too dear, False to
    stop there. share: batch_price. given: the flags of add_batch_flags. Raises NoData for questions that no batch answers, CapReached.
    """
    batches, wait_s = Batches(endpoint, share), None if given.no_wait else given.every_s
    for id in given.batch:
        batches.adopt(id)
    if not collect(batches, wait_s):
        return _under_way()
    for _ in range(TRIES):
        left = missing()
        if not allow(left):
            return 0
        if not left:
            return None
        made = {note.key for note in batches.submit(left)}
        if not collect(batches, wait_s):
            return _under_way()
        ended = [note.counts or {} for note in batches.notes() if note.key in made]
        if not any(counts.get("answered") for counts in ended):
            break
    left = missing()
    if left:
        raise NoData(
            f"{len(left):,} requests have no reply; the same command asks them again in a batch, or without batches "
            "they are asked at once"
        )
    return None


def allowed(
    endpoint: Endpoint,
    left: Sequence[Question],
    estimate: Estimate,
    share: float,
    above: float,
    given: argparse.Namespace,
) -> bool:
    """Prints what a batch will take; False for --estimate. share: batch_price; above: confirm_above.

    Raises ConfigError for one dearer than `above` without --yes, CapReached for one that could pass a cap.
    """
    cost = None if estimate.cost is None else estimate.cost * share
    cheaper = replace(estimate, cost=cost)
    print(f"in batches: {cheaper}", flush=True)
    if given.estimate:
        return False
    if left:
        confirm(endpoint, above, cheaper, yes=given.yes)
        refuse_beyond_caps(endpoint, left, share)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Goes through the batches; for the exit status see the module."""
    parser = options("training.batch", __doc__)
    add_batch_flags(parser)
    given = parser.parse_args(arguments)
    try:
        judge, pairs = prepare(given)
        return _run(judge, pairs, given)
    except (HuatuoError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130


def _run(judge: Judge, pairs: Sequence[Pair], given: argparse.Namespace) -> int:
    def allow(left: list[Question]) -> bool:
        config, estimate = judge.config, judge.estimate(pairs)
        return allowed(
            judge.endpoint, left, estimate, config.batch_price, config.confirm_above, given
        )

    def missing() -> list[Question]:
        return [question for question, _ in judge.missing(pairs)]

    status = through_batches(judge.endpoint, missing, allow, judge.config.batch_price, given)
    if status is not None:
        return status
    rows, stopped = run(judge, pairs)
    return finish(judge, rows, stopped, given, len(pairs))


def _under_way() -> int:
    print("under way; the same command looks again")
    return 4


def refuse_beyond_caps(endpoint: Endpoint, left: Sequence[Question], share: float) -> None:
    """Raises CapReached for a batch that could pass a cap: it cannot be stopped on its way."""
    limits = endpoint.purse.limits
    sizes = [endpoint.size(question) for question in left]
    sent, received = (sum(size[part] for size in sizes) for part in (0, 1))
    most = limits.cost(sent, received) * share
    for key, cap, needed in (
        ("max_calls", limits.max_calls, float(len(left))),
        ("max_total_tokens", limits.max_total_tokens, sent + received),
        ("max_cost", limits.max_cost, most),
    ):
        if cap and needed > cap:
            raise CapReached(
                f"{key}: the batch could take {needed:,.2f} of {cap:,.2f} allowed and cannot be stopped on its way; "
                "raise it, or ask for fewer cases"
            )


if __name__ == "__main__":
    raise SystemExit(main())
