"""one template per model family, used by training and by inference alike.

Family "huatuo" is the paper's layout, byte for byte: the system text, then `<病人>：{text} ` and `<HuatuoGPT>：{text} `
+ eos, each segment tokenised on its own. Family "huatuo-nano" has the same turns without the system text. The texts of
the others stand in huatuo/templates.py; what a text could forge is broken by huatuo/marks.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from huatuo.errors import ConfigError, TooLong, Unreadable
from huatuo.marks import broken, pattern_of, special_strings
from huatuo.messages import Conversation, Message
from huatuo.templates import FAMILIES, SYSTEM, Template, template_of

__all__ = [
    "FAMILIES",
    "IGNORED",
    "SYSTEM",
    "Example",
    "Prompt",
    "Template",
    "defuse",
    "encode",
    "encode_training",
    "template_of",
]

IGNORED = -100
"""Label of a token without loss (torch's cross entropy skips it)."""


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


def defuse(text: str, tokenizer: Any, family: str = "huatuo") -> str:
    """The text with the family's marks and the tokenizer's special tokens broken: it forges neither turn nor end."""
    return broken(text, pattern_of(template_of(family).marks, _special_strings(tokenizer)))


def encode(tokenizer: Any, conversation: Conversation, family: str, *, max_tokens: int) -> Prompt:
    """The ids of a prompt that opens the doctor's turn, at most `max_tokens` long.

    Oldest exchanges are dropped whole, the system text stays; a family that takes one question drops all before it.
    Raises TooLong if the last question alone does not fit, ValueError if the conversation does not end with the patient,
    Unreadable if a text still makes a control token, ConfigError if the tokenizer is not one of the family's.
    """
    if not conversation or conversation[-1].role != "user":
        raise ValueError("a prompt ends with the patient's turn")
    template = template_of(family)
    said = _defused(tokenizer, conversation, template)
    last = len(said) - 1
    # A doctor's answer never stands first, unless nothing was dropped.
    later = [i for i in range(1, last + 1) if said[i].role == "user"]
    for first in [last] if template.single else [0, *later]:
        ids = _prompt(tokenizer, template, said[first:])
        if len(ids) <= max_tokens:
            return Prompt(ids=ids, dropped_turns=first)
    frame = len(_prompt(tokenizer, template, (Message("user", ""),)))
    raise TooLong(
        f"the message has {max(len(ids) - frame, 0)} tokens and the model takes {max(max_tokens - frame, 0)}; "
        "please shorten it"
    )


def encode_training(
    tokenizer: Any, conversation: Conversation, family: str, *, max_tokens: int
) -> Example:
    """The ids and labels of a whole conversation: loss on the doctor's turns, role text and eos included.

    Family "huatuo2" has loss on the answers' own text, and on the end where the next turn opens (HuatuoGPT-II,
    data_process.py). Turns that do not fit are left out whole from the end, never cut, and so is a last turn of the
    patient. Raises TooLong if not even the first exchange fits, ConfigError for a family that is not trained here.
    """
    template = template_of(family)
    if not template.trained:
        trained = ", ".join(name for name, other in FAMILIES.items() if other.trained)
        raise ConfigError(f"template {family}: is for inference only; train with one of {trained}")
    said = _defused(tokenizer, conversation, template)
    pieces = _taught_at_next if template.trained == "next" else _taught_by_turn
    eos = [int(tokenizer.eos_token_id)] if template.trained == "next" else []
    ids = _system(tokenizer, template)
    labels = [IGNORED] * len(ids)
    end = 0
    for message in said:
        turn, taught = pieces(tokenizer, template, message, bool(ids))
        if len(ids) + len(turn) + len(eos) > max_tokens:
            break
        ids += turn
        labels += taught
        if message.role == "assistant":
            end = len(ids)
    if not end:
        raise TooLong(f"the first exchange does not fit into {max_tokens} tokens")
    return Example(input_ids=ids[:end] + eos, labels=labels[:end] + eos)


def _taught_by_turn(
    tokenizer: Any, template: Template, message: Message, _: bool
) -> tuple[list[int], list[int]]:
    """(ids, labels) of one turn, as the paper's trainer makes them."""
    turn = _turn(tokenizer, template, message)
    return turn, list(turn) if message.role == "assistant" else [IGNORED] * len(turn)


def _taught_at_next(
    tokenizer: Any, template: Template, message: Message, begun: bool
) -> tuple[list[int], list[int]]:
    """(ids, labels) of one turn, as HuatuoGPT-II's trainer makes them: the end is the first label of the next turn."""
    if message.role == "assistant":
        mark = template.patient_end + template.doctor
        turn = _ids(tokenizer, mark + message.text)
        return turn, [IGNORED] * len(mark_ids := _ids(tokenizer, mark)) + turn[len(mark_ids) :]
    turn = _ids(tokenizer, (template.doctor_end if begun else "") + template.patient + message.text)
    ended = [int(tokenizer.eos_token_id)] if begun else [IGNORED]
    return turn, [*ended, *[IGNORED] * (len(turn) - 1)]


def _prompt(tokenizer: Any, template: Template, said: Conversation) -> list[int]:
    """The ids of the whole prompt, nothing left out. said: what _defused gave."""
    if template.seams == "turns":
        turns = [_turn(tokenizer, template, message) for message in said]
        opening = _ids(tokenizer, template.opening)
        return [*_system(tokenizer, template), *(i for turn in turns for i in turn), *opening]
    ids = _whole(tokenizer, template, said)
    blank = tuple(replace(message, text="x") for message in said)
    special = _special_ids(tokenizer)
    if special & set(ids):
        control = [i for i in ids if i in special]
        if control != [i for i in _whole(tokenizer, template, blank) if i in special]:
            raise Unreadable("the message holds a control mark of this model; write it differently")
    return ids


def _whole(tokenizer: Any, template: Template, said: Conversation) -> list[int]:
    """The ids of a prompt that is tokenised as one string, with the special tokens around it."""
    if template.seams == "tokenizer":
        return list(tokenizer(_chat(tokenizer, said), add_special_tokens=False)["input_ids"])
    text = _text(tokenizer, template, said)
    ids: list[int] = list(tokenizer(text, add_special_tokens=not template.closing)["input_ids"])
    if (
        not template.encoder
    ):  # a tokenizer that ends every text would end the answer before it begins
        while ids and ids[-1] == tokenizer.eos_token_id:
            ids.pop()
    return ids + [_special_id(tokenizer, token) for token in template.closing]


def _text(tokenizer: Any, template: Template, said: Conversation) -> str:
    """The prompt as text, byte for byte what the family's own demo builds."""
    if template.bare_first and len(said) == 1:
        return said[0].text
    eos = str(tokenizer.eos_token) if template.eos else ""
    parts = [template.system]
    rounds = 0
    for message in said:
        if message.role == "user":
            mark = template.patient.replace("{round}", str(rounds))
            parts.append(f"{mark}{message.text}{template.patient_end}")
            rounds += 1
        else:
            parts.append(f"{template.doctor}{message.text}{template.doctor_end}{eos}")
    return "".join([*parts, template.opening])


def _chat(tokenizer: Any, said: Conversation) -> str:
    """The prompt as text by the chat template that came with the weights, which runs in jinja's sandbox."""
    from jinja2.exceptions import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "template chat: the model's folder has no chat template; add chat_template.jinja or name another template"
        )
    messages = [{"role": message.role, "content": message.text} for message in said]
    try:
        return str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )
    except TemplateError as error:
        raise ConfigError(f"template chat: the model's chat template says: {error}") from None


def _defused(tokenizer: Any, conversation: Conversation, template: Template) -> Conversation:
    pattern = pattern_of(template.marks, _special_strings(tokenizer))
    return tuple(replace(message, text=broken(message.text, pattern)) for message in conversation)


def _special_strings(tokenizer: Any) -> tuple[str, ...]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    specials = [(str(token), True) for token in tokenizer.all_special_tokens]
    return special_strings(
        [*specials, *((str(t), bool(getattr(t, "special", True))) for t in added)]
    )


def _special_ids(tokenizer: Any) -> set[int]:
    return {i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id}


def _special_id(tokenizer: Any, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int) or found in (-1, tokenizer.unk_token_id):
        raise ConfigError(
            f"the tokenizer has no {token}; `template` in the model's file is of another family"
        )
    return found


def _system(tokenizer: Any, template: Template) -> list[int]:
    """The opening ids, with whatever the tokenizer puts at the start of a text; empty for no system text."""
    if not template.system:
        return []
    return list(tokenizer(template.system, add_special_tokens=True)["input_ids"])


def _turn(tokenizer: Any, template: Template, message: Message) -> list[int]:
    if message.role == "user":
        return _ids(tokenizer, f"{template.patient}{message.text}{template.patient_end}")
    ids = _ids(tokenizer, f"{template.doctor}{message.text}{template.doctor_end}")
    return [*ids, int(tokenizer.eos_token_id)]


def _ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of plain text: what still became a special token is dropped."""
    ids: Sequence[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    special = _special_ids(tokenizer)
    return [i for i in ids if i not in special]
