"""the tensors of a model folder by name: which are its top blocks, and whether a branch is just those."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open

from huatuo.errors import Mismatch
from huatuo.models import registry

Kind = Literal["policy", "reward", "value"]
HEAD = ("head.weight", "head.bias")
"""The head of a reward or value branch; no parent has tensors of these names."""
_BLOCK = re.compile(r"^(.*?\.)(\d+)\.")


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in a model folder, from the headers alone. Raises Damaged."""
    shapes: dict[str, tuple[int, ...]] = {}
    for weights in registry.weight_files(folder):
        registry.check_safetensors(weights)
        with safe_open(weights, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                shapes[name] = tuple(file.get_slice(name).get_shape())
    return shapes


def name_in(names: Mapping[str, Any], name: str) -> str | None:
    """The name under which a file holds a state dict's tensor: BLOOM's own files leave `transformer.` out."""
    if name in names:
        return name
    short = name.partition(".")[2]
    return short if short in names else None


def check_names(
    shapes: Mapping[str, tuple[int, ...]],
    kind: Kind,
    blocks: int,
    parent: Mapping[str, tuple[int, ...]],
    folder: Path,
) -> None:
    """Raises Mismatch unless the branch is the parent's top `blocks` blocks, whole, and tensors outside the blocks."""
    head = {name: shape for name, shape in shapes.items() if name in HEAD}
    body = {name: shape for name, shape in shapes.items() if name not in HEAD}
    if kind == "policy" and head:
        raise Mismatch(f"{folder}: tensor {min(head)} belongs to a reward or value branch")
    if kind != "policy" and set(head) != set(HEAD):
        raise Mismatch(f"{folder}: tensor {min(set(HEAD) - set(head))} is missing")
    if head:
        numbers = (
            len(head[HEAD[1]]) == 1 and head[HEAD[1]][0]
        )  # a reward's: one for each part it reads
        if not numbers or len(head[HEAD[0]]) != 2 or head[HEAD[0]][0] != numbers:
            raise Mismatch(f"{folder}: head.weight must be (n, H) and head.bias (n,)")
        if kind == "value" and numbers != 1:
            raise Mismatch(f"{folder}: a value branch says one number, this head {numbers}")
    stem, top = _top_blocks(parent, blocks, folder)
    matched: set[str] = set()
    for name in sorted(body):
        own = name_in(parent, name)
        if own is None:
            raise Mismatch(f"{folder}: tensor {name} is not one of the parent's")
        if body[name] != parent[own]:
            raise Mismatch(
                f"{folder}: tensor {name} has shape {list(body[name])}, the parent's {list(parent[own])}"
            )
        found = _BLOCK.match(own)
        if found and found[1] == stem and own not in top:
            raise Mismatch(f"{folder}: tensor {name} lies below the top {blocks} blocks")
        matched.add(own)
    for name in sorted(top - matched):
        raise Mismatch(f"{folder}: tensor {name} of the top {blocks} blocks is missing")


def _top_blocks(parent: Mapping[str, Any], blocks: int, folder: Path) -> tuple[str, set[str]]:
    """(stem of the list of blocks, e.g. `transformer.h.`, names in its last `blocks`). The longest list counts."""
    lists: dict[str, dict[int, set[str]]] = {}
    for name in parent:
        if found := _BLOCK.match(name):
            lists.setdefault(found[1], {}).setdefault(int(found[2]), set()).add(name)
    if not lists:
        raise Mismatch(f"{folder}: the parent has no list of blocks")
    stem = max(lists, key=lambda one: len(lists[one]))
    layers = lists[stem]
    if blocks > len(layers):
        raise Mismatch(f"{folder}: {blocks} blocks of a parent that has {len(layers)}")
    return stem, set().union(*(layers[index] for index in sorted(layers)[-blocks:]))
