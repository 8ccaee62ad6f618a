"""A passage that was selected on the page is found in the stored text, and shown where it stands."""

import json
import random
import re
from typing import Any

import pytest

from huatuo import render
from huatuo.ui import drafts, rating, spans
from reviews.errors import BadVote
from reviews.protocol import Criterion
from reviews.records import Span

STORED = (
    "您好。**注意：**先吃 10 mg 的 HuatuoGPT 药。\n1. 10 mg 每天\n2. 10 mg 每晚\n\n"
    "| 药 | 量 |\n|---|---|\n| 阿司匹林 | 10 mg |\n\n我是华佗GPT，再见 &amp; *强* 5*3*2 a_b_c `x<y`"
)
SHOWN = render.hide_names(STORED, ())


@pytest.mark.parametrize(
    ("words", "before", "found"),
    [
        ("10 mg", 0, "10 mg"),
        ("10mg", 0, "10 mg"),
        ("10 mg 每天", 0, "10 mg 每天"),
        ("10mg", 2, "10 mg"),
        ("注意：先吃", 0, "注意：**先吃"),  # over the end of a bold passage
        ("每天10mg", 0, "每天\n2. 10 mg"),  # over two items: the second's number is in between
        ("阿司匹林10mg", 0, "阿司匹林 | 10 mg"),  # over two cells
        ("名称已隐去", 0, "HuatuoGPT"),  # a hidden name counts whole
        ("是【名称已隐去】，", 0, "是华佗GPT，"),
        ("5*3*2", 0, "5*3*2"),
        ("x<y", 0, "x<y"),
        ("强", 0, "强"),
    ],
)
def test_a_passage_is_found_where_it_stands(words: str, before: int, found: str) -> None:
    start, end = spans.find(STORED, SHOWN, words, before) or (0, 0)
    assert STORED[start:end] == found


def test_the_occurrence_tells_equal_passages_apart() -> None:
    places = [spans.find(STORED, SHOWN, "10mg", before) for before in range(4)]
    assert [place and place[0] for place in places] == [
        match.start() for match in re.finditer("10 mg", STORED)
    ]
    assert spans.find(STORED, SHOWN, "10mg", 99) == places[-1]


def test_words_that_do_not_stand_there_lead_to_their_paragraph_or_to_nothing() -> None:
    start, end = spans.find(STORED, SHOWN, "先吃 10 mg 的 HuatuoGPT 药", 0) or (0, 0)
    assert STORED[start:end] == STORED.split("\n")[0]
    for words in ("完全没有的话", "", "  \n", "佗" * 5000):
        assert spans.find(STORED, SHOWN, words, 0) is None


def test_every_selection_of_random_texts_comes_back_as_what_was_selected() -> None:
    rng = random.Random(7)
    pieces = [
        "发热",
        "**多喝水**",
        "\n\n",
        "1. ",
        "2. 咳嗽",
        "*慢*",
        "。",
        "3 g",
        " ",
        "a&b",
        "\n",
        "- ",
    ]
    for _ in range(60):
        stored = "服药：" + "".join(rng.choice(pieces) for _ in range(40))
        letters = spans._letters(render.to_html(stored))
        for _ in range(5):
            start = rng.randrange(len(letters))
            words = letters[start : start + rng.randint(1, 12)]
            before = sum(
                letters.startswith(words, i) for i in range(start) if i + len(words) <= len(letters)
            )
            low, high = spans.find(stored, stored, words, before) or (0, 0)
            got = iter(re.sub(r"\s", "", stored[low:high]))
            assert all(letter in got for letter in words), (stored, words)
            span = Span("left", 1, low, high, "wrong_dose")
            page = spans.mark(stored, stored, [(0, span)], "zh", removable=False)
            bare = re.sub(r'<span class="flag-label">[^<]*</span>|</?mark[^>]*>', "", page)
            assert bare == render.to_html(stored)
            marked = re.sub(r"<[^>]*>", "", "".join(re.findall(r"<mark[^>]*>(.*?)</mark>", page)))
            assert words in re.sub(r"\s", "", marked).replace("&amp;", "&")


def test_marks_are_labelled_may_overlap_and_carry_their_number() -> None:
    first = Span("left", 1, 0, STORED.index("的"), "wrong_dose")
    second = Span("left", 1, STORED.index("先吃"), STORED.index("药。"), "dangerous_advice")
    page = spans.mark(SHOWN, STORED, [(3, first), (5, second)], "en", removable=True)
    assert re.findall(r'data-unflag="(\d)" aria-label="([^"]*)"', page) == [
        ("3", "Remove the mark: Wrong dose"),
        ("5", "Remove the mark: Dangerous advice"),
    ]
    assert page.count("<mark") == page.count("</mark>")
    assert "HuatuoGPT" not in page


class Pane:
    """As much of a duel as a change of marks reads."""

    def __init__(self, text: str) -> None:
        self.text = text


def change(asking: Any, marked: str = "[]") -> Any:
    turn = type("Turn", (), {"left": Pane(SHOWN), "right": Pane("好")})()
    seen = type("Seen", (), {"turns": (turn,)})()
    stored = {("left", 1): STORED, ("right", 1): "好"}
    return spans.changed(
        asking if isinstance(asking, str) else json.dumps(asking), marked, stored, seen
    )  # type: ignore[arg-type]


def test_a_mark_is_added_once_and_taken_back() -> None:
    wish = {"do": "mark", "side": "left", "turn": 1, "words": "每晚", "before": 0,
            "kind": "wrong_dose", "at": 1}  # fmt: skip
    (span,) = change(wish)
    assert STORED[span.start : span.end] == "每晚" and span.kind == "wrong_dose"
    held = drafts.Work(spans=(span,)).spans_text()
    assert change({**wish, "at": 2}, held) == (span,)
    other = change({**wish, "kind": "dangerous_advice"}, held)
    assert [s.kind for s in other] == ["wrong_dose", "dangerous_advice"]
    assert change({"do": "unmark", "number": 0}, held) == ()
    assert change({"do": "unmark", "number": 7}, held) == (span,)
    assert change({**wish, "words": "没有的话语在此"}, held) is None


@pytest.mark.parametrize(
    ("asking", "marked"),
    [
        ("", "[]"),
        ("{", "[]"),
        ({"do": "vote"}, "[]"),
        ({"do": "mark", "side": "left", "turn": 2, "words": "x", "kind": "wrong_dose"}, "[]"),
        ({"do": "mark", "side": "up", "turn": 1, "words": "x", "kind": "wrong_dose"}, "[]"),
        ({"do": "mark", "side": "left", "turn": 1, "words": "x", "kind": "ugly"}, "[]"),
        ({"do": "mark", "side": "left", "turn": 0, "words": "x", "kind": "wrong_dose"}, "[]"),
        ({"do": "unmark", "number": 0}, '[{"side": "left"}]'),
        ({"do": "unmark", "number": 0}, "nonsense"),
    ],
)
def test_what_the_page_would_not_send_is_refused(asking: Any, marked: str) -> None:
    with pytest.raises(BadVote):
        change(asking, marked)


def test_ratings_of_another_pair_do_not_count_and_nonsense_is_refused() -> None:
    sent = json.dumps({"ticket": "one", "ratings": {"left_x": 4}, "active_s": 3.5})
    rest = ("left", "", sent, "[]", "", "", False)
    assert rating.read("one", *rest).ratings == {"left_x": 4}
    assert rating.read("one", *rest).active_s == 3.5
    assert rating.read("two", *rest).ratings == {}
    for extra, marks, side in (
        ("[1]", "[]", ""),
        ('{"ticket": "one", "ratings": {"left_x": "much"}}', "[]", ""),
        ('{"ticket": "one", "active_s": -1}', "[]", ""),
        ("", "[{}]", ""),
        ("", "[]", "above"),
    ):
        with pytest.raises(BadVote):
            rating.read("one", "left", "", extra, marks, "", side, False)


def test_what_is_missing_is_said_and_consent_comes_before_an_answer_is_kept() -> None:
    what = rating.Asked((
        Criterion("dose", "scale", "剂量", "Dose", required=True),
        Criterion("warm", "preference", "关怀", "Warmth", required=True),
        Criterion("more", "scale", "其他", "More"),
    ))  # fmt: skip
    work = drafts.Work(choice="left", ratings={"left_dose": 3})
    assert (
        rating.lacking(work, what, "en")
        == "Still to be rated: Dose, Warmth. Please rate them, then submit."
    )
    full = drafts.Work(choice="left", ratings={"left_dose": 3, "right_dose": 1, "pref_warm": 5})
    assert rating.lacking(full, what, "zh") is None
    own = full.model_copy(update={"better": " 电话13800138000，先量血压 ", "better_side": "left"})
    assert "同意" in (rating.lacking(own, what, "zh") or "")
    assert rating.better_of(own, str.strip) is None
    agreed = own.model_copy(update={"consent": True})
    assert rating.lacking(agreed, what, "zh") is None
    kept = drafts.masked(agreed)
    assert kept.better.strip() == "电话【电话】，先量血压"
    better = rating.better_of(agreed, lambda text: drafts.masked(agreed).better.strip())
    assert better is not None and (better.side, better.consent) == ("left", True)
