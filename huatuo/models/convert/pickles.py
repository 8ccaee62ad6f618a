"""what a torch file holds, its pickle read opcode by opcode; nothing in it is ever called.

`pickletools` names the opcodes, the machine here knows the few that tensors need and keeps names as names. Both
formats of torch.save: the zip of torch 1.6 and later, and the older stream of pickles followed by the bytes.
"""

import io
import pickletools
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from huatuo.errors import Damaged, Mismatch, Untrusted

MAX_PICKLE = 64 << 20
"""Longest pickle in bytes; that of a model of 1,000 tensors has about 100 kB."""
MAX_ENTRIES = 200_000
BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of an element by safetensors' name of the dtype."""
_STORAGES = {
    "torch DoubleStorage": "F64", "torch FloatStorage": "F32", "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16", "torch LongStorage": "I64", "torch IntStorage": "I32",
    "torch ShortStorage": "I16", "torch CharStorage": "I8", "torch ByteStorage": "U8", "torch BoolStorage": "BOOL",
}  # fmt: skip
_DICT, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
_KNOWN = {*_STORAGES, _DICT, _TENSOR, _PARAMETER}
_PUSHED = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_FIXED_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Storage:
    """A run of `count` elements; the file says where `key` lies."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class View:
    """A tensor: `shape` over `storage` from element `offset`. start: byte in the file. whole: its rows have no gaps."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    whole: bool
    start: int = -1

    @property
    def nbytes(self) -> int:
        return _count(self.shape) * BYTES[self.storage.dtype]


@dataclass(frozen=True)
class _Name:
    """A module's attribute that the pickle asks for; it stays a name."""

    text: str


class _Mark:
    """Where a MARK opcode left its mark."""


class _Machine:
    """The stack of one pickle. Raises Untrusted for what is no tensor."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: IO[bytes]) -> Any:
        """The pickle's value: dicts, lists, tuples, text, numbers, Storage and View."""
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            self.step(name, argument)
        raise ValueError("no end")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _FIXED_TUPLES:
            stack.append(self.last(_FIXED_TUPLES[name]))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "MARK":
            stack.append(_Mark)
        elif name == "TUPLE":
            stack.append(self.since_mark())
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            self.fill(name)
        else:
            self.build(name, argument)

    def fill(self, name: str) -> None:
        many = name.endswith("S")
        items = self.since_mark() if many else self.last(1 if name == "APPEND" else 2)
        target = self.stack[-1]
        if name.startswith("APPEND") and type(target) is list:
            target.extend(items)
        elif type(target) is dict and all(type(key) in (str, int) for key in items[::2]):
            target.update(zip(items[::2], items[1::2], strict=True))
        else:
            raise ValueError(f"{name} into {type(target).__name__}")

    def build(self, name: str, argument: Any) -> None:
        """The opcodes with which a pickle would run code; here they build tensors or are refused."""
        stack = self.stack
        if name in ("GLOBAL", "STACK_GLOBAL"):
            text = argument if name == "GLOBAL" else " ".join(self.last(2))
            if text not in _KNOWN:
                raise Untrusted(
                    f"{self.file}: its pickle asks for {text.replace(' ', '.')}, which is no tensor; nothing in it "
                    "was executed. Do not open this file with other programs; get the model from its own source"
                )
            stack.append(_Name(text))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            function, arguments = self.last(2)
            stack.append(_reduce(function, arguments))
        elif name == "BUILD" and type(stack[-2]) is dict:
            stack.pop()  # `_metadata` of a state dict: versions of modules
        else:
            raise Untrusted(
                f"{self.file}: its pickle holds {name}, which no table of tensors needs"
            )

    def last(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        found = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return found

    def since_mark(self) -> tuple[Any, ...]:
        place = len(self.stack) - 1
        while self.stack[place] is not _Mark:
            place -= 1
        found = tuple(self.stack[place + 1 :])
        del self.stack[place:]
        return found


def tensors_in(file: Path) -> dict[str, View]:
    """The tensors of a file of torch.save, by name, each with the byte where it starts. Nothing is executed.

    Raises Untrusted (the pickle asks for more than tensors), Damaged (short or broken) or Mismatch (no table of
    tensors, or a tensor with gaps between its rows).
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(4)
        if head == b"PK\x03\x04":
            table, starts = _zipped(file, size)
        elif head[:1] == b"\x80":
            stream.seek(0)
            table, starts = _legacy(file, stream, size)
        else:
            raise Damaged(f"{file}: is no file of torch.save, or not whole; download it again")
    if type(table) is not dict:
        raise Mismatch(f"{file}: holds {type(table).__name__}, not a table of tensors")
    return {str(name): _placed(file, str(name), view, starts, size) for name, view in table.items()}


def _placed(file: Path, name: str, view: Any, starts: dict[str, int], size: int) -> View:
    if not isinstance(view, View):
        raise Mismatch(f"{file}: entry {name} is no tensor; only tables of tensors are converted")
    if not view.whole:
        raise Mismatch(f"{file}: tensor {name} has gaps between its rows; save it contiguous")
    width = BYTES[view.storage.dtype]
    if view.storage.key not in starts:
        raise Damaged(f"{file}: the bytes of tensor {name} are missing; download the file again")
    if view.offset < 0 or view.offset + _count(view.shape) > view.storage.count:
        raise Damaged(f"{file}: tensor {name} reaches over the end of its storage")
    start = starts[view.storage.key]
    if start + view.storage.count * width > size:
        raise Damaged(f"{file}: ends inside tensor {name}; download the file again")
    return replace(view, start=start + view.offset * width)


def _zipped(file: Path, size: int) -> tuple[Any, dict[str, int]]:
    """(the pickle's value, storage key -> byte in the file)."""
    try:
        with zipfile.ZipFile(file) as archive, file.open("rb") as raw:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if len(entries) > MAX_ENTRIES:
                raise Damaged(f"{file}: {len(entries):,} entries are no model's")
            pickles = [name for name in entries if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise Damaged(f"{file}: holds no data.pkl; it is no file of torch.save")
            root = pickles[0].removesuffix("data.pkl")
            order = entries.get(f"{root}byteorder")
            if order is not None and order.file_size < 64 and archive.read(order) != b"little":
                raise Mismatch(f"{file}: its numbers are big-endian")
            if entries[pickles[0]].file_size > MAX_PICKLE:
                raise Untrusted(f"{file}: its pickle is longer than {MAX_PICKLE:,} bytes")
            stored = {name: e for name, e in entries.items() if name.startswith(f"{root}data/")}
            starts = {
                name.removeprefix(f"{root}data/"): _begin(file, raw, e, size)
                for name, e in stored.items()
            }
            return _value(file, io.BytesIO(archive.read(pickles[0]))), starts
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        raise Damaged(f"{file}: is not a whole zip ({error}); download the file again") from None


def _begin(file: Path, raw: IO[bytes], entry: zipfile.ZipInfo, size: int) -> int:
    """The byte where an entry's data begin. Raises Damaged unless they lie in the file as they are."""
    raw.seek(entry.header_offset)
    local = raw.read(30)
    begin = (
        entry.header_offset
        + 30
        + int.from_bytes(local[26:28], "little")
        + int.from_bytes(local[28:30], "little")
    )
    if (
        local[:4] != b"PK\x03\x04"
        or entry.compress_type != zipfile.ZIP_STORED
        or entry.flag_bits & 1
    ):
        raise Damaged(f"{file}: entry {entry.filename} is packed; torch.save never does that")
    if begin + entry.file_size > size:
        raise Damaged(f"{file}: ends inside entry {entry.filename}; download the file again")
    return begin


def _legacy(file: Path, stream: IO[bytes], size: int) -> tuple[Any, dict[str, int]]:
    """As `_zipped`, of torch before 1.6: five pickles, then per storage its length and its bytes."""
    bounded: Any = _Bounded(stream, MAX_PICKLE)
    whole = _value(file, bounded) == _LEGACY_MAGIC and _value(file, bounded) == 1001
    _, table, keys = (_value(file, bounded) for _ in range(3)) if whole else (None, None, None)
    if type(keys) is not list:
        raise Damaged(f"{file}: is no file of torch.save, or not whole; download it again")
    views = (
        [view for view in table.values() if isinstance(view, View)] if type(table) is dict else []
    )
    storages = {view.storage.key: view.storage for view in views}
    starts: dict[str, int] = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        if key not in storages or storages[key].count != count:
            raise Damaged(
                f"{file}: the lengths of its tensors do not agree; download the file again"
            )
        starts[key] = stream.tell()
        end = starts[key] + count * BYTES[storages[key].dtype]
        if end > size:
            raise Damaged(f"{file}: ends inside storage {key}; download the file again")
        stream.seek(end)
    return table, starts


def _value(file: Path, stream: IO[bytes]) -> Any:
    try:
        return _Machine(file).run(stream)
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        RecursionError,
        UnicodeError,
    ):
        raise Damaged(
            f"{file}: its pickle is broken; nothing in it was executed. Download the file again"
        ) from None


class _Bounded:
    """A stream that ends after `room` bytes, so that a pickle cannot claim the whole file."""

    def __init__(self, stream: IO[bytes], room: int) -> None:
        self.stream, self.room = stream, room

    def read(self, count: int) -> bytes:
        return self._spend(self.stream.read(min(count, self.room)))

    def readline(self) -> bytes:
        return self._spend(self.stream.readline(self.room))

    def _spend(self, data: bytes) -> bytes:
        self.room -= len(data)
        return data


def _storage(described: Any) -> Storage:
    """('storage', type, key, place, count[, view]). Raises ValueError."""
    kind, name, key, _, count, *view = described
    if (
        kind != "storage"
        or type(name) is not _Name
        or name.text not in _STORAGES
        or view not in ([], [None])
    ):
        raise ValueError("no storage")
    if type(count) is not int or type(key) is not str or count < 0:
        raise ValueError("no storage")
    return Storage(key, _STORAGES[name.text], count)


def _reduce(function: Any, arguments: Any) -> Any:
    """What the three known functions would give. Raises ValueError for another call."""
    text = function.text if type(function) is _Name else ""
    if text == _DICT and not arguments:
        return {}
    if text == _PARAMETER and isinstance(arguments[0], View):
        return arguments[0]
    if text != _TENSOR:
        raise ValueError("no tensor")
    storage, offset, shape, strides, *_ = arguments
    numbers = [offset, *shape, *strides]
    if type(storage) is not Storage or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("no tensor")
    return View(storage, offset, tuple(shape), _is_contiguous(shape, strides))


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    wanted = [_count(shape[place + 1 :]) for place in range(len(shape))]
    axes = zip(shape, strides, wanted, strict=True)
    return 0 in shape or all(length == 1 or one == other for length, one, other in axes)


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total
