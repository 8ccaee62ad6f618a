"""what two texts share: n-grams of one to four tokens and the longest common subsequence, counted in one pass.

BLEU, GLEU, ROUGE and Distinct are all made from these counts (training/metrics.py). Tokens become integers and n-grams
are counted by sorting, a block of questions at a time; the common subsequence is rapidfuzz's, over one character per
token. No text is kept.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq

ORDERS = 4
"""Longest n-grams, in tokens."""
BLOCK = 400_000
"""Tokens counted at a time: bounds the memory, about 100 MB."""
_SURROGATES = range(0xD800, 0xE000)
_MOST_CHARS = 0x110000 - len(_SURROGATES)

Tokens = Literal["characters", "jieba", "zh", "13a", "rouge"]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """What the metrics are made of, for Q questions with up to R references each.

    answer: (Q,) tokens of the answer. reference: (Q, R) tokens of each reference, -1 where there is none. shared:
    (Q, R, 4) n-grams of the answer also found in that reference, each counted as often as it is in both. clipped:
    (Q, 4) the same against the reference that has most of each n-gram. common: (Q, R) length of the longest common
    subsequence. different: (Q, 4) different n-grams of the answer. all_different: (4,) those of all answers together.
    """

    answer: Ints
    reference: Ints
    shared: Ints
    clipped: Ints
    common: Ints
    different: Ints
    all_different: Ints

    def __len__(self) -> int:
        return len(self.answer)


@cache
def tokeniser(tokens: Tokens, punctuation: bool = True) -> Callable[[str], list[str]]:
    """The function that makes tokens of a text; the same tokens as the libraries' own.

    characters: every character but white space. jieba: its words (default mode), white space left out. zh, 13a:
    sacrebleu's tokenisers of these names. rouge: rouge-score's default, lower case, letters and digits of ASCII only.
    punctuation: whether tokens without a letter or digit are kept.
    """
    split = _SPLITTERS[tokens]()
    if punctuation:
        return split
    return lambda text: [token for token in split(text) if any(map(str.isalnum, token))]


def _characters() -> Callable[[str], list[str]]:
    return lambda text: list("".join(text.split()))


def _jieba() -> Callable[[str], list[str]]:
    import jieba

    words = jieba.Tokenizer()
    # Read the dictionary itself: jieba would trust a cache in the machine's shared temporary folder.
    words.FREQ, words.total = words.gen_pfdict(words.get_dict_file())
    words.initialized = True
    return lambda text: [word for word in words.cut(text) if not word.isspace()]


def _sacrebleu(name: str) -> Callable[[], Callable[[str], list[str]]]:
    def make() -> Callable[[str], list[str]]:
        from sacrebleu.metrics.bleu import _get_tokenizer

        own = _get_tokenizer(name)()
        return lambda text: own(text.strip()).split()

    return make


def _rouge() -> Callable[[str], list[str]]:
    other = re.compile(r"[^a-z0-9]+")
    return lambda text: other.sub(" ", text.lower()).split()


_SPLITTERS: dict[Tokens, Callable[[], Callable[[str], list[str]]]] = {
    "characters": _characters, "jieba": _jieba, "zh": _sacrebleu("zh"), "13a": _sacrebleu("13a"), "rouge": _rouge,
}  # fmt: skip


def count(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenise: Callable[[str], Sequence[str]],
) -> Counts:
    """The counts of all questions, in one pass.

    references: one or more per answer; none at all is allowed where only the answers' own counts are wanted.
    Raises ValueError when there are not as many lists of references as answers.
    """
    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers and references for {len(references)}")
    most = max(map(len, references), default=0)
    vocabulary: dict[str, int] = {}
    seen: list[Ints] = [np.empty(0, np.int64) for _ in range(2)]
    parts: list[list[Ints]] = [[] for _ in fields(Counts)[:-1]]
    block: list[list[list[int]]] = []
    size = 0
    for answer, refs in zip(answers, references, strict=True):
        texts = [
            [vocabulary.setdefault(token, len(vocabulary)) for token in tokenise(text)]
            for text in (answer, *refs)
        ]
        block.append(texts)
        size += sum(map(len, texts))
        if size >= BLOCK:
            _add(block, most, parts, seen)
            block, size = [], 0
    _add(block, most, parts, seen)
    return Counts(
        *(np.concatenate(part) for part in parts), np.array([len(grams) for grams in seen])
    )


def _add(
    block: Sequence[Sequence[Sequence[int]]],
    most: int,
    parts: Sequence[list[Ints]],
    seen: list[Ints],
) -> None:
    """Counts a block of questions, each (answer, *references), into `parts` and its answers' n-grams into `seen`."""
    answer = np.array([len(texts[0]) for texts in block], np.int64)
    reference = np.full((len(block), most), -1, np.int64)
    common = np.zeros((len(block), most), np.int64)
    for row, texts in enumerate(block):
        shown = [_as_text(ids) for ids in texts]
        for slot, (ids, text) in enumerate(zip(texts[1:], shown[1:], strict=True)):
            reference[row, slot] = len(ids)
            common[row, slot] = LCSseq.similarity(shown[0], text)
    shared, clipped, different = _count_grams(block, most)
    _count_different(block, seen)
    for part, counted in zip(
        parts, (answer, reference, shared, clipped, common, different), strict=True
    ):
        part.append(counted)


def _as_text(ids: Sequence[int]) -> str | list[int]:
    """One character per token, which rapidfuzz compares fastest; the numbers themselves if there are too many."""
    if max(ids, default=0) >= _MOST_CHARS:
        return list(ids)
    numbers = np.array(ids, np.uint32)
    numbers += (numbers >= _SURROGATES.start).astype(np.uint32) * len(_SURROGATES)
    return numbers.astype("<u4").tobytes().decode("utf-32-le")


def _count_grams(block: Sequence[Sequence[Sequence[int]]], most: int) -> tuple[Ints, Ints, Ints]:
    """(shared (Q, R, 4), clipped (Q, 4), different (Q, 4)) of a block.

    Every token gets the number of the (n-1)-gram that begins there within its question; that number and the next
    token together are the n-gram. One sort per order numbers them anew.
    """
    flat = np.concatenate([np.array(ids, np.int64) for texts in block for ids in texts] or [[]])
    flat = flat.astype(np.int64)
    sizes = np.array([len(ids) for texts in block for ids in texts], np.int64)
    question = np.repeat(np.arange(len(block)), [sum(map(len, texts)) for texts in block])
    slots = [slot for texts in block for slot in range(len(texts))]
    slot = np.repeat(np.array(slots, np.int64), sizes)
    left = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(flat))  # tokens to the text's end
    shared = np.zeros((len(block), most, ORDERS), np.int64)
    clipped = np.zeros((len(block), ORDERS), np.int64)
    different = np.zeros((len(block), ORDERS), np.int64)
    vocabulary = int(flat.max(initial=0)) + 1
    gram = question
    for order in range(ORDERS):
        here = np.flatnonzero(left > order)
        key = gram[here] * vocabulary + flat[here + order]
        kinds, number = np.unique(key, return_inverse=True)
        of = np.zeros(len(kinds), np.int64)
        of[number] = question[here]
        in_slot = slot[here]
        times = np.bincount(number[in_slot == 0], minlength=len(kinds))
        best = np.zeros(len(kinds), np.int64)
        for place in range(most):
            both = np.minimum(
                times, np.bincount(number[in_slot == place + 1], minlength=len(kinds))
            )
            shared[:, place, order] = _sums(of, both, len(block))
            best = np.maximum(best, both)
        clipped[:, order] = _sums(of, best, len(block))
        different[:, order] = _sums(of, (times > 0).astype(np.int64), len(block))
        gram = np.zeros(len(flat), np.int64)
        gram[here] = number
    return shared, clipped, different


def _sums(of: Ints, values: Ints, length: int) -> Ints:
    return np.bincount(of, weights=values, minlength=length).astype(np.int64)


def _count_different(block: Sequence[Sequence[Sequence[int]]], seen: list[Ints]) -> None:
    """Adds the unigrams and bigrams of the block's answers to those seen."""
    flat = np.concatenate([np.array(texts[0], np.int64) for texts in block] or [np.empty(0)])
    flat = flat.astype(np.int64)
    sizes = np.array([len(texts[0]) for texts in block], np.int64)
    left = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(flat))
    here = np.flatnonzero(left > 1)
    seen[0] = np.union1d(seen[0], flat)
    seen[1] = np.union1d(seen[1], (flat[here] << 32) | flat[here + 1])
