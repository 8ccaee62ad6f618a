"""what a model says, as its family's own demo shows it, while it is still being said.

The same text comes out however it is cut into pieces: what a later piece could still change is held back. Sources:
ChatGLM-6B's process_response, BenTsao's utils/prompter.py (get_response), HuatuoGPT-o1's README (`## Thinking`, then
`## Final Response`).
"""

import re
from dataclasses import dataclass

from huatuo.engines.base import Chunk
from huatuo.templates import template_of

_THINKING, _FINAL = "## Thinking", "\n## Final Response"
_YEAR = ("[[训练时间]]", "2023年")
_WIDE = str.maketrans(",!:;?", "，！：；？")
_NEXT_TO_HAN = re.compile(r"(?<=[\u4e00-\u9fff])[,!:;?]|[,!:;?](?=[\u4e00-\u9fff])")


@dataclass(frozen=True)
class _Manner:
    """How a family's answers are read."""

    stops: tuple[str, ...] = ()
    """With one of these the model goes on as somebody else: the answer ended before it."""
    widened: bool = False
    """ChatGLM: half-width punctuation beside a Chinese character becomes full-width, the placeholder a year."""
    thinks: bool = False
    """What stands before `## Final Response` is no part of the answer."""


_HUATUO = _Manner(stops=("<病人>", "<HuatuoGPT>", "</s>"))
_GLM = ("[Round ", "<eop>")
_MANNERS: dict[str, _Manner] = {
    "huatuo": _HUATUO,
    "huatuo-nano": _HUATUO,
    "huatuo-demo": _HUATUO,
    "huatuo-evaluator": _HUATUO,
    "huatuo2": _Manner(stops=("<问>", "<答>", "</s>")),
    "ziya": _Manner(stops=("<human>:", "<bot>:", "</s>")),
    "bloomz": _Manner(stops=("</s>",)),
    "bentsao-med": _Manner(stops=("### 问题:", "### 回答:", "</s>")),
    "bentsao-bloom": _Manner(stops=("### 回答：", "</s>")),
    "bentsao-literature": _Manner(stops=("### 说明:", "### 回复:", "<user>:", "<bot>:", "</s>")),
    "chatglm": _Manner(stops=_GLM, widened=True),
    "chatglm-med": _Manner(stops=("\n问题：", *_GLM), widened=True),
    "t5": _Manner(stops=("</s>",)),
    "chat": _Manner(stops=("<|im_start|>", "<|im_end|>", "<|eot_id|>"), thinks=True),
}


def reader_of(family: str) -> "Reader":
    """A new reader for one answer. Raises ConfigError for an unknown family."""
    template_of(family)
    return Reader(_MANNERS[family])


class Reader:
    """Turns the pieces of one answer into chunks: add them one by one, then ask for the rest."""

    def __init__(self, manner: _Manner) -> None:
        self._manner = manner
        self._raw = ""
        self._shown = {True: 0, False: 0}  # characters given out, by `thinking`
        self._ended = False
        self._unfinished = False

    @property
    def ended(self) -> bool:
        """Whether the model went on as somebody else: stop it, the answer is whole; `rest` has its end."""
        return self._ended

    @property
    def problem(self) -> str:
        """After `rest`: a sentence if what was said is no whole answer, else ''."""
        if not self._unfinished:
            return ""
        return "the model ended while it was still thinking, without a final response; ask again"

    def add(self, text: str) -> list[Chunk]:
        """What became certain with this piece, maybe nothing. After `ended`, pieces are ignored."""
        if self._ended:
            return []
        self._raw += text
        start = self._answer_start()  # a mark among the thoughts ends nothing
        found = [
            place for stop in self._manner.stops if (place := self._raw.find(stop, start)) >= 0
        ]
        if found:
            self._ended, self._raw = True, self._raw[: min(found)]
            return self._said(self._raw)
        return self._said(_certain(self._raw, self._manner))

    def rest(self) -> list[Chunk]:
        """What was held back."""
        thinks = self._manner.thinks and _is_thinking(self._raw)
        self._unfinished = thinks and _FINAL not in self._raw
        return self._said(self._raw)

    def _answer_start(self) -> int:
        """Where the answer begins in `_raw`; its end while there are only thoughts."""
        if not (self._manner.thinks and _is_thinking(self._raw)):
            return 0
        final = self._raw.find(_FINAL)
        return final + len(_FINAL) if final >= 0 else len(self._raw)

    def _said(self, raw: str) -> list[Chunk]:
        """The new part of what is said up to here; raw: a beginning that nothing later changes."""
        thought, answer = _split(raw, self._manner)
        chunks = []
        for thinking, text in ((True, thought), (False, answer)):
            if len(text) > self._shown[thinking]:
                chunks.append(Chunk(text[self._shown[thinking] :], thinking=thinking))
                self._shown[thinking] = len(text)
        return chunks


def _is_thinking(raw: str) -> bool:
    return raw.lstrip().startswith(_THINKING)


def _split(raw: str, manner: _Manner) -> tuple[str, str]:
    """(thoughts, answer), both stripped and as they are shown."""
    thought, answer = "", raw
    if manner.thinks and _is_thinking(raw):
        thought, _, answer = raw.lstrip()[len(_THINKING) :].partition(_FINAL)
    if manner.widened:
        answer = answer.strip().replace(*_YEAR)
        answer = _NEXT_TO_HAN.sub(lambda match: match[0].translate(_WIDE), answer)
    return thought.strip(), answer.strip()


def _certain(raw: str, manner: _Manner) -> str:
    """The beginning of `raw` that reads the same whatever follows."""
    marks = [*manner.stops]
    if manner.widened:
        marks.append(_YEAR[0])
    if manner.thinks:
        if _THINKING.startswith(raw.lstrip()):
            return ""
        marks.append(_FINAL)
    cut = len(raw) - max((_overlap(raw, mark) for mark in marks), default=0)
    return re.sub(r"[\s,!:;?]+\Z" if manner.widened else r"\s+\Z", "", raw[:cut])


def _overlap(raw: str, mark: str) -> int:
    """Length of the longest end of `raw` that begins `mark`, short of all of it."""
    sizes = range(min(len(raw), len(mark) - 1), 0, -1)
    return next((size for size in sizes if raw.endswith(mark[:size])), 0)
