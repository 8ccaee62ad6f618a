"""one template per model family, used by training and by inference alike.

Family "huatuo" is the paper's layout, byte for byte: the system text, then `<病人>：{text} ` and `<HuatuoGPT>：{text} `
+ eos, each segment tokenised on its own. Family "huatuo-nano" has the same turns without the system text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huatuo.errors import ConfigError, TooLong
from huatuo.messages import Conversation, Message

SYSTEM = (
    "一位用户和智能医疗大模型HuatuoGPT之间的对话。对于用户的医疗问诊，HuatuoGPT给出准确的、详细的、温暖的指导建议。"
    "对于用户的指令问题，HuatuoGPT给出有益的、详细的、有礼貌的回答。"
)
IGNORED = -100
"""Label of a token without loss (torch's cross entropy skips it)."""
# A role mark in any shape that a tokenizer's normaliser (NFKC) could turn into the real one.
_ROLE_MARK = re.compile(
    r"[<＜﹤〈]([\s\u200b-\u200d\ufeff]*(?:病人|(?i:huatuogpt))[\s\u200b-\u200d\ufeff]*)[>＞﹥〉]"
)


@dataclass(frozen=True)
class Template:
    """The fixed texts of a model family, around each turn."""

    system: str
    patient: str
    doctor: str


FAMILIES: dict[str, Template] = {
    "huatuo": Template(system=SYSTEM, patient="<病人>：", doctor="<HuatuoGPT>："),
    "huatuo-nano": Template(system="", patient="<病人>：", doctor="<HuatuoGPT>："),
}


@dataclass(frozen=True)
class Prompt:
    """Token ids that end where the doctor speaks. dropped_turns: messages left out, oldest first."""

    ids: list[int]
    dropped_turns: int


@dataclass(frozen=True)
class Example:
    """Token ids of a whole conversation; labels are IGNORED outside the doctor's turns."""

    input_ids: list[int]
    labels: list[int]


def template_of(family: str) -> Template:
    """The template. Raises ConfigError naming the known families."""
    if family not in FAMILIES:
        raise ConfigError(f"unknown template {family!r}; one of {', '.join(FAMILIES)}")
    return FAMILIES[family]


def defuse(text: str, tokenizer: Any) -> str:
    """The text with role marks and special tokens broken, so that it can forge neither turn nor end."""
    text = _ROLE_MARK.sub(lambda match: f"〈 {match[1].strip()} 〉", text)
    specials = sorted({s for s in _special_strings(tokenizer) if len(s) > 1}, key=len, reverse=True)
    while any(special in text for special in specials):
        for special in specials:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text


def _special_strings(tokenizer: Any) -> list[str]:
    added = [str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()]
    return [*map(str, tokenizer.all_special_tokens), *added]


def encode(tokenizer: Any, conversation: Conversation, family: str, *, max_tokens: int) -> Prompt:
    """The ids of a prompt that opens the doctor's turn, at most `max_tokens` long.

    Oldest exchanges are dropped whole, the system text stays. Raises TooLong if the last question alone does not
    fit, ValueError if the conversation does not end with the patient.
    """
    if not conversation or conversation[-1].role != "user":
        raise ValueError("a prompt ends with the patient's turn")
    template = template_of(family)
    head = _system(tokenizer, template)
    turns = [_turn(tokenizer, template, message) for message in conversation]
    opening = _ids(tokenizer, template.doctor)
    room = max_tokens - len(head) - len(opening)
    first = 0
    while sum(map(len, turns[first:])) > room:
        first += 1
        while first < len(conversation) and conversation[first].role != "user":
            first += 1  # a doctor's answer never stands first
        if first >= len(conversation):
            raise TooLong(
                f"the message has {len(turns[-1])} tokens and the model takes {max(room, 0)}; please shorten it"
            )
    ids = [*head, *(i for turn in turns[first:] for i in turn), *opening]
    return Prompt(ids=ids, dropped_turns=first)


def encode_training(
    tokenizer: Any, conversation: Conversation, family: str, *, max_tokens: int
) -> Example:
    """The ids and labels of a whole conversation: loss on the doctor's turns, role text and eos included.

    Turns that do not fit are left out whole from the end, never cut, and so is a last turn of the patient.
    Raises TooLong if not even the first exchange fits.
    """
    template = template_of(family)
    ids = _system(tokenizer, template)
    labels = [IGNORED] * len(ids)
    end = 0
    for message in conversation:
        turn = _turn(tokenizer, template, message)
        if len(ids) + len(turn) > max_tokens:
            break
        ids += turn
        labels += turn if message.role == "assistant" else [IGNORED] * len(turn)
        if message.role == "assistant":
            end = len(ids)
    if not end:
        raise TooLong(f"the first exchange does not fit into {max_tokens} tokens")
    return Example(input_ids=ids[:end], labels=labels[:end])


def _system(tokenizer: Any, template: Template) -> list[int]:
    """The opening ids, with whatever the tokenizer puts at the start of a text; empty for no system text."""
    if not template.system:
        return []
    return list(tokenizer(template.system, add_special_tokens=True)["input_ids"])


def _turn(tokenizer: Any, template: Template, message: Message) -> list[int]:
    text = defuse(message.text, tokenizer)
    if message.role == "user":
        return _ids(tokenizer, f"{template.patient}{text} ")
    return [*_ids(tokenizer, f"{template.doctor}{text} "), int(tokenizer.eos_token_id)]


def _ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of plain text: what still became a special token is dropped."""
    ids: Sequence[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    special = {i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id}
    return [i for i in ids if i not in special]
