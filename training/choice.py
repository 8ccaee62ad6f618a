"""multiple choice: the prompt, the one strict rule that reads letters out of an answer, and accuracy with intervals.

The rule, first match counts; letters may be full width, joined by `、`, `,`, `/`, `和` or `and`:
1. the whole answer is letters, with or without brackets and a full stop: "B", "（B）。", "A、C";
2. the last statement of an answer: "答案是B", "正确选项为 A和C", "应选D", "the answer is B";
3. the answer begins with letters and a mark, and no other line begins with an option: "B. 肺炎，因为……".
Anything else is unanswerable: counted as such, and as wrong in the accuracy. A statement with a letter that is no option
("应选CT") is none. Several letters where one is right are a wrong answer; nothing is mended.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from reviews.stats import wilson
from training.benchmark_layouts import Item

ASK = {
    None: "请回答下面选择题。",
    False: "请回答下面选择题。（单项选择题）",
    True: "请回答下面选择题。（多项选择题）",
}
"""First line of the prompt, by whether several options may be right; the wording of HuatuoGPT-II's maintainers
(HuatuoGPT-II#9). The kind of question is said where the set says it. The rest of their prompt is not published."""
_JOIN = r"\s*(?:[、,/]|和|及|与|and)?\s*"
_LETTERS = rf"[A-Z](?:{_JOIN}[A-Z])*(?![A-Za-z])"
_WHOLE = re.compile(rf"^[\s(\[【]*({_LETTERS})[\s)\]】。.:]*$")
_SAYS = re.compile(
    r"(?:答案|正确选项|(?<![可挑])选(?!项)择?|answers?)"
    rf"\s*(?:应该|应当|应)?(?:is|are|是|为|选|:)*\s*[(\[【\"“]?\s*({_LETTERS})",
    re.IGNORECASE,
)
_OPENS = re.compile(rf"^\s*[(\[【]?\s*({_LETTERS})\s*[)\]】]?\s*[.、:。,]")


def prompt_of(item: Item) -> str:
    """The question with its options, a line each."""
    options = [f"{letter}. {text}" for letter, text in item.options.items()]
    return "\n".join([ASK[item.several], item.question, *options])


def letters_of(text: str, options: Mapping[str, str]) -> str | None:
    """The letters that an answer names, sorted and once each; None if it names none by the module's rule."""
    flat = unicodedata.normalize("NFKC", text).strip()
    if found := _WHOLE.match(flat.upper() if len(flat) < 3 else flat):
        letters = _sorted(found[1])
        return letters if set(letters) <= set(options) else None
    said = [_sorted(match[1]) for match in _SAYS.finditer(flat) if _is_plain(match[1])]
    said = [letters for letters in said if set(letters) <= set(options)]
    if said:
        return said[-1]
    lines = [found[1] for line in flat.splitlines() if (found := _OPENS.match(line))]
    if len(lines) == 1 and _OPENS.match(flat) and set(_sorted(lines[0])) <= set(options):
        return _sorted(lines[0])
    return None


def _is_plain(letters: str) -> bool:
    """Whether only the joints, such as `and`, are in lower case: an English word is no letter."""
    return not re.search(r"[a-z]", letters.replace("and", ""))


def _sorted(letters: str) -> str:
    return "".join(sorted(set(re.findall(r"[A-Z]", letters.replace("and", "")))))


@dataclass(frozen=True)
class Marked:
    """One item of one model. letters: read out of the answer, None: unanswerable; failed: there was no answer.

    likeliest: the option whose letter the model finds likeliest as the first word, '' if not measured.
    """

    item: Item
    letters: str | None
    failed: bool = False
    likeliest: str = ""

    @property
    def right(self) -> bool:
        """Whether exactly the right letters were named."""
        return not self.failed and self.letters == self.item.answer


def tally(marked: Sequence[Marked]) -> dict[str, Any]:
    """Counts and accuracies with 95 % Wilson intervals, whole and by subject, for JSON.

    accuracy: of the finished answers, an unanswerable one as wrong; failures count for nothing and stand apart.
    by_letters: the same for the likeliest letters, of items with one right option.
    """
    result = _counts(marked)
    subjects = sorted({m.item.label for m in marked} - {""})
    result["by_subject"] = {s: _counts([m for m in marked if m.item.label == s]) for s in subjects}
    measured = [m for m in marked if m.likeliest and len(m.item.answer) == 1]
    hits = sum(m.likeliest == m.item.answer for m in measured)
    result["by_letters"] = _share(hits, len(measured)) if measured else None
    return result


def _counts(marked: Sequence[Marked]) -> dict[str, Any]:
    given = [m for m in marked if not m.failed]
    right = sum(m.right for m in given)
    nothing = sum(m.letters is None for m in given)
    return {
        "asked": len(marked),
        "right": right,
        "wrong": len(given) - right - nothing,
        "unanswerable": nothing,
        "failed": len(marked) - len(given),
        **_share(right, len(given)),
    }


def _share(hits: int, count: int) -> dict[str, Any]:
    interval = list(wilson(hits, count)) if count else None
    return {"accuracy": hits / count if count else None, "interval": interval, "of": count}


def paired(
    one: Sequence[Marked], two: Sequence[Marked], resamples: int, seed: int
) -> dict[str, Any] | None:
    """Accuracy of the first minus the second on items that both finished, for JSON; None without such items.

    interval: paired percentile bootstrap over items. p: exact McNemar test (two-sided sign test on the items where
    only one is right). Sources: Efron and Tibshirani 1993, ch. 13; McNemar 1947.
    """
    both = [(a.right, b.right) for a, b in zip(one, two, strict=True) if not (a.failed or b.failed)]
    if not both:
        return None
    table = np.array(both, np.float64)
    apart = table[:, 0] - table[:, 1]
    rng = np.random.default_rng(seed)
    drawn = apart[rng.integers(0, len(apart), (resamples, len(apart)))].mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {
        "difference": float(apart.mean()), "low": float(low), "high": float(high),
        "items": len(both), "only_first": int((apart > 0).sum()), "only_second": int((apart < 0).sum()),
        "p": _sign_test(int((apart > 0).sum()), int((apart < 0).sum())),
    }  # fmt: skip


def _sign_test(one: int, two: int) -> float:
    """Two-sided exact binomial p of one against two at 1/2; 1 where neither ever differs."""
    n, least = one + two, min(one, two)
    tail = sum(comb(n, k) for k in range(least + 1)) / 2**n
    return float(min(1.0, 2 * tail))
