"""what a conversion will write: each tensor as bytes of the source, at most added to a base or with rows of length one.

A plan holds names and places only; the weights pass through it in pieces of a few megabytes.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huatuo.errors import Damaged, Mismatch
from huatuo.models.convert.pickles import BYTES
from huatuo.models.convert.source import Source, Tensor, bytes_of, floats_of
from huatuo.models.convert.tables import Table

FLOATS = ("F16", "BF16", "F32")


@dataclass(frozen=True)
class Make:
    """A tensor to write. how: 'copy' its bytes from `start` on, 'half' as float16, 'sum' with `other` in float16,
    'unit' its rows divided by their length."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    of: Tensor
    start: int = 0
    how: Literal["copy", "half", "sum", "unit"] = "copy"
    other: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * BYTES[self.dtype]


@dataclass
class Plan:
    """Everything that a conversion does. same: pairs whose bytes must be equal; the first of each is left out."""

    layout: str
    makes: list[Make]
    same: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    """Small files to write, by name."""
    copies: dict[str, Path] = field(default_factory=dict)
    """Small files to copy as they are."""
    left_out: list[str] = field(default_factory=list)
    """Files of the source that stay behind."""
    parents: tuple[Path, ...] = ()
    """Files of the base, whose sha256 the manifest names."""
    weights: str = "model.safetensors"
    notes: list[str] = field(default_factory=list)
    """What the person should know, in sentences."""


def fitted(
    source: Source, table: Table, tensors: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The source's tensors by the table's names, ties included, buffers left out.

    Raises Mismatch naming the tensor that is missing, extra, or of another shape or dtype; Damaged for missing ones.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in (source.tensors if tensors is None else tensors).items():
        own = table.own_name(name)
        if re.fullmatch(table.dropped, own) or re.fullmatch(table.dropped, name):
            continue
        wanted = table.shapes.get(own) or table.shapes.get(table.ties.get(own, ""))
        if wanted is None:
            raise Mismatch(
                f"{tensor.file}: tensor {name} is not part of this layout; --layout names another by hand"
            )
        if tensor.shape != wanted:
            raise Mismatch(
                f"{tensor.file}: tensor {name} has shape {list(tensor.shape)}, config.json asks for {list(wanted)}"
            )
        if tensor.dtype not in FLOATS:
            raise Mismatch(
                f"{tensor.file}: tensor {name} is {tensor.dtype}; quantised weights are not converted"
            )
        found[own] = tensor
    for name in table.shapes:
        if name not in found and not any(
            of == name and alias in found for alias, of in table.ties.items()
        ):
            raise Damaged(f"{source.folder}: tensor {name} is missing, which config.json asks for")
    return found


def copied(source: Source, table: Table) -> tuple[list[Make], list[tuple[Tensor, Tensor]]]:
    """(every tensor of the table as it is, the pairs that must be equal). Raises as `fitted`."""
    found = fitted(source, table)
    same: list[tuple[Tensor, Tensor]] = []
    for alias, name in table.ties.items():
        if alias in found and name in found:
            same.append((found.pop(alias), found[name]))
        elif alias in found:
            found[name] = found.pop(alias)
    return [Make(name, one.dtype, one.shape, one) for name, one in found.items()], same


def thirds(make: Make, names: tuple[str, str, str]) -> list[Make]:
    """A matrix of three equal groups of rows as three matrices."""
    rows = make.shape[0] // 3
    part = make.nbytes // 3
    shape = (rows, *make.shape[1:])
    return [
        Make(name, make.dtype, shape, make.of, make.start + i * part)
        for i, name in enumerate(names)
    ]


def pieces_of(make: Make) -> Iterator[Any]:
    """The bytes to write, in order, each piece valid for some while (see `bytes_of`).

    Raises Damaged (a file ends early, or a sum is not finite).
    """
    if make.how == "copy":
        yield from bytes_of(make.of, make.start, make.nbytes)
    elif make.how in ("sum", "half"):
        yield from _halves(make)
    else:
        yield from _unit_rows(make)


def are_equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same dtype and bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if (one.file, one.start) == (other.file, other.start):
        return True
    return all(bytes(a) == b for a, b in zip(bytes_of(one), bytes_of(other), strict=True))


def check_rotary(source: Source, pattern: str, dim: int, base: float = 10000.0) -> None:
    """Raises Mismatch if a stored table of inverse frequencies is not the one that is computed instead of it."""
    wanted = [base ** (-2 * i / dim) for i in range(dim // 2)]
    for name, tensor in source.tensors.items():
        if not re.fullmatch(pattern, name):
            continue
        found = floats_of(tensor)
        near = len(found) == len(wanted) and all(
            abs(a - b) <= 0.01 * b + 1e-6 for a, b in zip(found, wanted, strict=True)
        )
        if not near:
            raise Mismatch(
                f"{tensor.file}: {name} is not the rotation that config.json describes; it cannot be left out"
            )


def torch_dtype(name: str) -> Any:
    """torch's dtype of a float of safetensors' name."""
    import torch

    return {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}[name]


def _halves(make: Make) -> Iterator[Any]:
    """The source, plus the base if there is one, all as float16, as the authors' apply_delta.py adds them."""
    import torch

    count = math.prod(make.shape)
    step = 1 << 21
    for first in range(0, count, step):
        total = _half(make.of, first, min(step, count - first))
        if make.other is not None:
            total = total + _half(make.other, first, min(step, count - first))
        if not bool(torch.isfinite(total).all()):
            raise Damaged(
                f"{make.of.file}: tensor {make.name} is not finite in float16; is it the right base?"
            )
        yield _raw(total)


def _half(tensor: Tensor, first: int, count: int) -> Any:
    import torch

    width = BYTES[tensor.dtype]
    data = bytearray().join(bytes_of(tensor, first * width, count * width))
    return torch.frombuffer(data, dtype=torch_dtype(tensor.dtype)).to(torch.float16)


def _raw(tensor: Any) -> memoryview:
    """The bytes of a contiguous tensor, without a copy."""
    import torch

    data: Any = tensor.view(torch.uint8).numpy()
    return memoryview(data).cast("B")


def _unit_rows(make: Make) -> Iterator[Any]:
    """Rows divided by their length, in the tensor's own dtype, as Baichuan2's NormHead divides them."""
    import torch

    rows, width = make.shape
    step = max(1, (1 << 21) // width)
    size = BYTES[make.dtype] * width
    for first in range(0, rows, step):
        data = bytearray().join(
            bytes_of(make.of, make.start + first * size, min(step, rows - first) * size)
        )
        block = torch.frombuffer(data, dtype=torch_dtype(make.dtype)).view(-1, width)
        unit = torch.nn.functional.normalize(block)
        yield _raw(unit.contiguous())
