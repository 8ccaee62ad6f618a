"""rows of data files one at a time: JSONL, JSON arrays, CSV and TSV, in UTF-8, every error with file and line.

Nothing is read whole: files of several hundred megabytes stream. A damaged line raises BadData; none is skipped.
"""

import codecs
import csv
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from training.data import BadData

CHUNK = 1 << 20
"""Bytes read at a time."""
LONGEST_ITEM = 1 << 22
"""Most characters of one item of a JSON array, and of one CSV field."""
LONGEST_LINE = 4 * LONGEST_ITEM
"""Most bytes of one line."""
_NO_TEXT = {
    b"version https://git-lfs": "a git-LFS pointer, not the file; run git lfs pull",
    b"\x1f\x8b": "a gzip file; unpack it first (gunzip)",
    b"PK\x03\x04": "a zip or Excel file; unpack it, or export the sheet as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel file; export the sheet as CSV in UTF-8",
    codecs.BOM_UTF16_LE: "UTF-16; save the file as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16; save the file as UTF-8",
}
"""What a file of rows cannot begin with."""

Row = tuple[str, dict[str, Any]]
"""(place, the row); place is file:line, where the row begins."""


@dataclass(frozen=True)
class Source:
    """A file, or a member of a zip file."""

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.path.name}/{self.member}" if self.member else self.path.name

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes. Raises BadData when there is no such file, or the zip file is damaged."""
        try:
            if not self.member:
                with self.path.open("rb") as file:
                    yield file
                return
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield member
        except (
            OSError,
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            KeyError,
            NotImplementedError,
        ) as error:
            why = getattr(error, "strerror", None) or "damaged; load it again"
            raise BadData(f"{self.name}: cannot be read ({why})") from None

    def sha256(self) -> str:
        """SHA-256 of the file on disk (of the zip file, for a member), in hex."""
        with Source(self.path).open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def lines(source: Source) -> Iterator[tuple[int, str]]:
    """(number from 1, the line with its end); a byte order mark is left out.

    Raises BadData for bytes that are not UTF-8, a line without end, and for a packed file or a git-LFS pointer.
    """
    with source.open() as file:
        for number, raw in enumerate(iter(partial(file.readline, LONGEST_LINE + 1), b""), 1):
            if len(raw) > LONGEST_LINE:
                raise BadData(f"{source.name}:{number}: a line of more than {LONGEST_LINE:,} bytes")
            if number == 1:
                _refuse_no_text(raw, source)
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError:
                raise _not_utf8(source, number) from None


def json_rows(source: Source) -> Iterator[Row]:
    """The objects of a JSONL file, or of a JSON array, in order; blank lines of JSONL do not count.

    Raises BadData for what is no JSON and for an item that is no object.
    """
    with source.open() as file:
        start = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    if start.startswith(b"["):
        yield from _array_rows(source)
        return
    for number, line in lines(source):
        if line.strip():
            place = f"{source.name}:{number}"
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadData(f"{place}: not JSON: {_why(error)}") from None
            yield place, _object(item, place, line)


def _array_rows(source: Source) -> Iterator[Row]:
    decoder = json.JSONDecoder()
    text = _Text(source)
    text.skip(" \t\r\n")
    text.take()  # the [
    first = True
    while True:
        text.skip(" \t\r\n")
        if first and text.next() == "]":
            text.take()
            break
        if not first:
            mark = text.take()
            if mark == "]":
                break
            if mark != ",":
                told = "a comma or ] is expected" if mark else "ends before the array does"
                raise BadData(f"{source.name}:{text.line}: {told}")
            text.skip(" \t\r\n")
        place = f"{source.name}:{text.line}"
        item, raw = text.item(decoder)
        yield place, _object(item, place, raw)
        first = False
    text.skip(" \t\r\n")
    if text.next():
        raise BadData(f"{source.name}:{text.line}: something follows the end of the array")


class _Text:
    """A window on a file's text that grows as needed. line: of the place that is read next."""

    def __init__(self, source: Source) -> None:
        self.line = 1
        self._source = source
        self._chunks = self._decoded()
        self._buffer, self._at, self._ended = "", 0, False

    def _decoded(self) -> Iterator[str]:
        decoder, line = codecs.getincrementaldecoder("utf-8-sig")(), 1
        with self._source.open() as file:
            while chunk := file.read(CHUNK):
                try:
                    yield decoder.decode(chunk)
                except UnicodeDecodeError as error:
                    line += error.object[: error.start].count(b"\n")
                    raise _not_utf8(self._source, line) from None
                line += chunk.count(b"\n")
        try:
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise _not_utf8(self._source, line) from None

    def _more(self) -> bool:
        if self._ended:
            return False
        piece = next(self._chunks, None)
        self._ended = piece is None
        self._buffer, self._at = self._buffer[self._at :] + (piece or ""), 0
        return piece is not None

    def next(self) -> str:
        """The next character, or nothing at the end."""
        while self._at >= len(self._buffer):
            if not self._more():
                return ""
        return self._buffer[self._at]

    def take(self) -> str:
        """The next character, which is passed over."""
        char = self.next()
        self._at += len(char)
        return char

    def skip(self, chars: str) -> None:
        """Pass over all of `chars` that come next."""
        while (char := self.next()) and char in chars:
            self.line += char == "\n"
            self._at += 1

    def item(self, decoder: json.JSONDecoder) -> tuple[Any, str]:
        """(the next JSON value, its text). Raises BadData with the line of the damage."""
        while True:
            try:
                item, end = decoder.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError) as error:
                full = len(self._buffer) - self._at >= LONGEST_ITEM
                if not full and self._more():
                    continue
                line = self.line
                if isinstance(error, json.JSONDecodeError):
                    line += self._buffer.count("\n", self._at, error.pos)
                place = f"{self._source.name}:{line}"
                told = f", or more than {LONGEST_ITEM:,} characters" if full else ""
                raise BadData(f"{place}: not JSON: {_why(error)}{told}") from None
            raw = self._buffer[self._at : end]
            self.line += raw.count("\n")
            self._at = end
            return item, raw


def csv_rows(source: Source, columns: Sequence[str], delimiter: str = ",") -> Iterator[Row]:
    """The rows of a CSV file with a header, by column name.

    columns: those that must be there; others are kept too. Raises BadData for a header without them, a row with
    more or fewer fields than the header, and broken quoting.
    """
    at = 0

    def counted() -> Iterator[str]:
        nonlocal at
        for number, line in lines(source):
            at = number
            yield line

    csv.field_size_limit(LONGEST_ITEM)
    reader = csv.reader(counted(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        begins = at + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise BadData(f"{source.name}:{begins}: not CSV: {error}") from None
        if fields is None:
            break
        if header is None:
            header = _header([field.strip() for field in fields], columns, source)
        elif len(fields) == len(header):
            yield f"{source.name}:{begins}", dict(zip(header, fields, strict=True))
        elif fields:
            raise BadData(
                f"{source.name}:{begins}: {len(fields)} fields, the header has {len(header)}"
            )
    if header is None:
        raise BadData(f"{source.name}:1: empty; the columns {', '.join(columns)} are expected")


def tsv_rows(source: Source, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a TSV file without header or quoting; blank lines do not count.

    Raises BadData for a row with more or fewer fields than `columns`.
    """
    for number, line in lines(source):
        if not line.strip():
            continue
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != len(columns):
            raise BadData(
                f"{source.name}:{number}: {len(fields)} fields between tabs; "
                f"{len(columns)} are expected: {', '.join(columns)}"
            )
        yield f"{source.name}:{number}", dict(zip(columns, fields, strict=True))


def text_of(row: dict[str, Any], key: str, place: str, *, blank: bool = False) -> str:
    """The row's text under `key`, without white space at its ends. Raises BadData if it is missing or no text.

    blank: whether it may be empty.
    """
    value = row.get(key)
    if not isinstance(value, str):
        told = "is missing" if key not in row else f"is {type(value).__name__}, not text"
        raise BadData(f"{place}: {key} {told}")
    if not value.strip() and not blank:
        raise BadData(f"{place}: {key} is empty")
    return value.strip()


def id_of(row: dict[str, Any], key: str, place: str) -> str:
    """The row's id as text; files write it as a number or as text. Raises BadData for anything else."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(row, key, place)


def write_text(path: Path, text: str) -> None:
    """The file whole or not at all, its folder too; half a character becomes "?". Raises OSError, the old file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _header(found: list[str], columns: Sequence[str], source: Source) -> list[str]:
    missing = [name for name in columns if name not in found]
    if missing or len(set(found)) != len(found):
        told = ", ".join(missing) or "every column once"
        raise BadData(
            f"{source.name}:1: the header lacks {told}; it reads {', '.join(found)[:200]}"
        )
    return found


def _object(item: object, place: str, raw: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise BadData(f"{place}: a JSON object is expected, not {type(item).__name__}")
    if "\\ud" in raw.lower():
        try:
            json.dumps(item, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise BadData(
                f"{place}: half a character, {half}; the text was cut in a sign"
            ) from None
    return item


def _refuse_no_text(start: bytes, source: Source) -> None:
    for mark, told in _NO_TEXT.items():
        if start.startswith(mark):
            raise BadData(f"{source.name}:1: {told}")


def _not_utf8(source: Source, line: int) -> BadData:
    return BadData(f"{source.name}:{line}: not UTF-8; save the file as UTF-8")


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    deep = isinstance(error, RecursionError)
    return "nested too deeply" if deep else "a number of too many digits"
