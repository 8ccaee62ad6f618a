"""a SentencePiece model of pairs (BPE) as a tokenizer.json that gives the same ids.

The file is read field by field (it is a protocol buffer), so no library parses it. Where pieces share a score,
SentencePiece merges the leftmost pair and tokenizers the pair of lower rank: `is_exact` says whether that can happen.
"""

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huatuo.errors import Damaged

NORMAL, UNKNOWN, CONTROL, DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of pieces, as SentencePiece numbers them."""
BPE = 2
MAX_BYTES = 64 << 20
SPACE = "\u2581"


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class Words:
    """What a SentencePiece model says. A piece's place is its id."""

    pieces: tuple[Piece, ...]
    model: int
    bytes_for_unknown: bool
    charsmap: bytes
    dummy_prefix: bool
    fewer_spaces: bool

    def is_exact(self) -> bool:
        """Whether no two pieces that a merge makes share a score."""
        scores = [p.score for p in self.pieces if p.kind == NORMAL and len(p.text) > 1]
        return len(set(scores)) == len(scores)


def read_words(path: Path) -> Words:
    """The pieces and settings of a SentencePiece model. Raises Damaged."""
    if path.stat().st_size > MAX_BYTES:
        raise Damaged(f"{path}: {path.stat().st_size:,} bytes are no vocabulary")
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    try:
        for key, value in _fields(path.read_bytes()):
            if key == 1:
                one = dict(_fields(value))
                score = struct.unpack("<f", one.get(2, b"\0\0\0\0"))[0]
                pieces.append(Piece(one[1].decode(), score, one.get(3, NORMAL)))
            elif key in (2, 3):
                (trainer if key == 2 else normalizer).update(_fields(value))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error):
        raise Damaged(f"{path}: is no whole SentencePiece model; download it again") from None
    if not pieces:
        raise Damaged(f"{path}: holds no pieces; download it again")
    return Words(
        tuple(pieces),
        trainer.get(3, 1),
        bool(trainer.get(35, 0)),
        normalizer.get(2, b""),
        bool(normalizer.get(3, 1)),
        bool(normalizer.get(4, 1)),
    )


def tokenizer_json(words: Words, added: dict[str, int], special: set[str], first: str = "") -> str:
    """The text of tokenizer.json. added: further tokens and their ids. special: those that are never text.

    first: the token that stands before every text, '' for none.
    """
    tokens = [
        (place, piece.text, piece.kind != DEFINED)
        for place, piece in enumerate(words.pieces)
        if piece.kind in (UNKNOWN, CONTROL, DEFINED)
    ]
    tokens += [
        (place, text, text in special)
        for text, place in added.items()
        if place >= len(words.pieces)
    ]
    unknown = next((p.text for p in words.pieces if p.kind == UNKNOWN), None)
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if words.dummy_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(*token) for token in sorted(tokens)],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(words)},
        "pre_tokenizer": None,
        "post_processor": _template(words, first) if first else None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": words.bytes_for_unknown,
            "ignore_merges": False,
            "vocab": {piece.text: place for place, piece in enumerate(words.pieces)},
            "merges": _merges(words),
        },
    }
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def _merges(words: Words) -> list[list[str]]:
    """Pairs in the order of the score of what they make; of equals the one with the longer left part first."""
    normal = {piece.text: piece.score for piece in words.pieces if piece.kind == NORMAL}
    found: list[tuple[float, int, str, str]] = []
    for text, score in normal.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in normal and right in normal:
                found.append((-score, -cut, left, right))
    return [[left, right] for _, _, left, right in sorted(found, key=lambda one: one[:2])]


def _template(words: Words, first: str) -> dict[str, Any]:
    """`first` before a text, and before each of two."""

    def part(kind: str, name: str, place: int) -> dict[str, Any]:
        return {kind: {"id": name, "type_id": place}}

    place = next(i for i, piece in enumerate(words.pieces) if piece.text == first)
    one, two = ([part("SpecialToken", first, i), part("Sequence", "AB"[i], i)] for i in range(2))
    token = {"id": first, "ids": [place], "tokens": [first]}
    return {
        "type": "TemplateProcessing",
        "single": one,
        "pair": [*one, *two],
        "special_tokens": {first: token},
    }


def _normalizers(words: Words) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if words.charsmap:
        steps.append(
            {
                "type": "Precompiled",
                "precompiled_charsmap": base64.b64encode(words.charsmap).decode(),
            }
        )
    if words.fewer_spaces:
        steps.append({"type": "Replace", "pattern": {"Regex": "^ +| +$"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if words.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    return [*steps, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]


def _added(place: int, text: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": place, "content": text, **flags, "special": special}


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protocol buffer: integers, or bytes. Raises ValueError, IndexError."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if kind == 2:
            length, place = _varint(data, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + length > len(data):
            raise ValueError("ends too early")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("no number")
