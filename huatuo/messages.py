"""Message, Conversation; limits and cleaning of incoming text.

`clean` is the one place where text from outside enters: what passes it can be stored in SQLite, sent
to an engine and shown, and is equal wherever it is read back.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from huatuo.errors import Empty, TooLong, Unreadable

MESSAGE_LIMIT = 2000
"""Longest message of a patient, in characters (Unicode code points) after cleaning."""

_LINE_BREAKS = re.compile("\r\n?|[\u0085\u2028\u2029\x0b\x0c]")
# C0 without tab and newline, DEL and C1, byte order mark, bidi marks, embeddings and isolates.
_REMOVED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufff9-\ufffb\ufffe\uffff]"
)
# Characters that show nothing. Joiners stay inside a text (emoji, Persian), but are no content.
_INVISIBLE = re.compile(
    "[\\s\u00ad\u034f\u115f\u1160\u180b-\u180f\u200b-\u200d\u2800\u3164\ufe00-\ufe0f\uffa0]"
)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    text: str


Conversation = tuple[Message, ...]
"""Turns in order, the patient's first; an engine is asked when the last turn is the patient's."""


def clean(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """The text in NFC, without control and direction characters, stripped; never cut.

    Line breaks of every kind become a newline; tab and newline stay. limit: code points, counted after
    cleaning. Raises Empty (nothing visible), TooLong, Unreadable (not a str, or a lone surrogate).
    """
    if not isinstance(text, str):
        raise Unreadable("the message is not text; type it again")
    if len(text) > 20 * limit + 1000:  # do not normalise a megabyte to learn that it is too long
        raise TooLong(_too_long(len(text), limit))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unreadable(
            f"the message has an unreadable character at position {error.start + 1}; remove it"
        ) from None
    text = _REMOVED.sub("", _LINE_BREAKS.sub("\n", text))
    text = unicodedata.normalize("NFC", text).strip()
    if not _INVISIBLE.sub("", text):
        raise Empty("the message is empty; type a question")
    if len(text) > limit:
        raise TooLong(_too_long(len(text), limit))
    return text


def _too_long(length: int, limit: int) -> str:
    return f"the message has {length:,} characters; at most {limit:,} are taken, please shorten it"
