"""What a person types: cleaned once on the way in, or refused with a sentence."""

import pytest

from huatuo.errors import Empty, TooLong, Unreadable
from huatuo.messages import MESSAGE_LIMIT, clean


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t ", "\u200b", "\u200b\u200d\ufeff ", "\u3000", "\x00", "\u202e"]
)
def test_nothing_visible_is_empty(text: str) -> None:
    with pytest.raises(Empty):
        clean(text)


@pytest.mark.parametrize("length", [MESSAGE_LIMIT + 1, 100_000, 200_000, 1_000_000])
def test_a_long_message_is_refused_and_never_cut(length: int) -> None:
    with pytest.raises(TooLong, match=f"{MESSAGE_LIMIT:,}"):
        clean("痛" * length)
    assert clean("痛" * MESSAGE_LIMIT) == "痛" * MESSAGE_LIMIT


@pytest.mark.parametrize(
    "text", ["👩‍⚕️医生", "𠮷野家", "é and ñ", "a\tb\nc", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "q\u0307\u0323x"]
)
def test_what_is_kept_comes_back_equal(text: str) -> None:
    import unicodedata

    assert clean(text) == unicodedata.normalize("NFC", text)
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize("text", ["\ud800", "头痛\udfff", "a\ud83dz"])
def test_a_lone_surrogate_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        clean(text)


def test_control_and_direction_characters_are_removed() -> None:
    assert clean("a\0b\x07\x9fc\ufeffd\u202ee\u2066f\u200eg") == "abcdefg"
    assert clean("一\r\n二\r三\u2028四\u2029五") == "一\n二\n三\n四\n五"
    assert clean("  头痛 \n") == "头痛"


def test_what_is_not_text_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        clean(None)  # type: ignore[arg-type]
