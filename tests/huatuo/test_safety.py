"""Red-flag triage: the phrase lists, negation, both scripts, and notices that are always there."""

import json
from pathlib import Path

import pytest

from huatuo import safety
from huatuo.safety import Flag, keys, notice, triage
from tests.patience import cpu_seconds

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def lines(name: str) -> list[str]:
    text = (DATA / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def found(text: str) -> list[str]:
    return [flag.key for flag in triage(text)]


def test_red_flags_are_found() -> None:
    rows = [line.split("\t") for line in lines("red_flags.txt")]
    assert len(rows) >= 200
    missed = [row for row in rows if row[0] not in found(row[1])]
    assert len(missed) <= 0.02 * len(rows), missed
    assert {key for key, _ in rows} == set(keys())


def test_ordinary_questions_raise_no_alarm() -> None:
    texts = lines("benign.txt")
    assert len(texts) >= 200
    alarms = [(text, found(text)) for text in texts if found(text)]
    assert len(alarms) <= 0.05 * len(texts), alarms


@pytest.mark.parametrize(
    ("name", "key", "most"), [("KUAKE-QIC_100", "query", 5), ("Med-dialog_100", "medical_case", 10)]
)
def test_real_questions_raise_few_alarms(name: str, key: str, most: int) -> None:
    file = SHARED / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"{file.name} is not here; benign.txt stands in for it")
    items = json.loads(file.read_text(encoding="utf-8"))
    alarms = [item[key][:80] for item in items if triage(item[key])]
    assert len(alarms) <= most, alarms


@pytest.mark.parametrize(
    "text",
    [
        "没有胸痛",
        "无胸痛、呼吸困难",
        "没有胸痛、大汗和呼吸困难",
        "不发烧",
        "没有昏迷，也没有抽搐",
        "没有自杀的想法",
        "没有头晕呕吐，头撞了一下",
        "no chest pain or shortness of breath",
        "he denies chest pain and fainting",
        "孩子没有抽搐",
        "无明显胸痛",
    ],
)
def test_a_negated_sign_is_not_a_flag(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("没有咳嗽，但是胸痛出冷汗", "chest_pain"),
        ("没有呼吸了", "unconscious"),
        ("不能呼吸", "breathing"),
        ("一天没有胎动了，怀孕30周", "pregnancy"),
        ("他说“我不想活了”", "suicide"),
        ("去年胸痛过一次，出冷汗", "chest_pain"),
        ("没有发烧。后来突然昏迷", "unconscious"),
        ("无缘无故胸痛，一身冷汗", "chest_pain"),
        ("不是没有胸痛，冒冷汗，胸痛得厉害", "chest_pain"),
    ],
)
def test_doubt_errs_to_showing(text: str, key: str) -> None:
    assert key in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "一氧化碳中毒的原理",
        "食物中毒怎么预防",
        "脑膜炎会传染吗",
        "小时候得过癫痫，能考驾照吗",
        "十年前得过心梗，现在没什么不舒服",
        "I had a seizure as a child",
        "胸口不疼，就是反酸",
        "发烧38.5，脖子不硬",
    ],
)
def test_a_topic_an_old_sign_and_a_denied_sign_are_not_flags(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("十年前得过心梗，今天又胸痛，出冷汗", "chest_pain"),
        ("五年前自杀过", "suicide"),
        ("五年前开始抽搐，一直没停", "unconscious"),
        ("有没有什么无痛苦的离开方式", "suicide"),
        ("是不是昏迷了", "unconscious"),
        ("孩子抽畜了，口土白沫", "unconscious"),
        ("老 婆 怀 运 三个月，流了很多血", "pregnancy"),
        ("我媽媽嘴歪了，沒力氣，講話不清楚", "stroke"),
        ("高血压二十年，突然嘴歪，说话不清", "stroke"),
    ],
)
def test_slips_questions_and_a_past_illness_hide_nothing(text: str, key: str) -> None:
    assert key in found(text)


def test_traditional_and_full_width_text_is_read() -> None:
    assert "chest_pain" in found("胸悶胸痛，冒冷汗，喘不過氣")
    assert "suicide" in found("我想輕生")
    assert "poisoning" in found("孩子誤喝了農藥")
    assert "diabetic" in found("糖尿病，血糖３５，一直吐")
    assert "suicide" in found("I DON’T WANT TO LIVE")
    assert len(safety._TRADITIONAL) == len(safety._SIMPLIFIED)
    assert not any(key.isascii() for key in safety._TRADITIONAL)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("胸痛大汗", "chest_pain"),
        ("自杀意念", "suicide"),
        ("孕妇用药", "pregnancy_medicine"),
        ("婴儿高热", "infant_fever"),
        ("过敏性休克", "anaphylaxis"),
    ],
)
def test_the_named_examples_are_flagged(text: str, key: str) -> None:
    assert key in found(text)


def test_every_flag_has_a_notice_that_says_what_to_do() -> None:
    for key in keys():
        for language in ("zh", "en"):
            words = notice(key, language)
            assert 20 <= len(words) <= 400
            assert words != key
    for key in set(keys()) - {"pregnancy_medicine", "infant_fever", "testicle", "eye"}:
        assert "120" in notice(key, "zh") and "120" in notice(key, "en")
    assert "12356" in notice("suicide", "zh") and "12356" in notice("suicide", "en")
    with pytest.raises(KeyError):
        notice("nothing")


def test_the_most_urgent_comes_first_and_the_language_changes_nothing() -> None:
    text = "孩子被狗咬伤出血，突然昏迷"
    assert triage(text) == triage(text, "en") == (Flag("unconscious"), Flag("bite"))


def test_triage_is_quick() -> None:
    texts = [line.split("\t")[-1] for line in lines("red_flags.txt")]
    triage("warm up")
    enough = 0.005 * len(texts)
    assert cpu_seconds(lambda: [triage(text) for text in texts], enough) < enough
    long = "我最近头痛，胸口有点不舒服，怀孕三个月，吃了药，血压高，" * 60
    assert cpu_seconds(lambda: triage(long), 0.5) < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "不" + "、" * 300 + "x胸痛",
        "没有" + "和、" * 200 + "x胸痛",
        "no" + " a or" * 200 + " 1 pain",
        "吃" * 2000,
    ],
)
def test_no_text_is_slow(text: str) -> None:
    triage("warm up")
    assert cpu_seconds(lambda: triage(text), 0.5) < 0.5


@pytest.mark.parametrize(
    ("pattern", "starts"),
    [
        ("胸痛", "胸"),
        ("[左右]手?麻", "左右"),
        ("没?有血", "没有"),
        ("(?:胸|心口)[^，]{0,3}痛", "胸心"),
        ("(?<!不)(?:很)?痛", "很痛"),
        (r"\barm", "a"),
    ],
)
def test_where_a_pattern_can_start(pattern: str, starts: str) -> None:
    assert safety._starts(pattern) == frozenset(starts)


@pytest.mark.parametrize("pattern", [r"\d痛", "[^，]痛", "[0-9]度", ".痛", "痛{0,2}"])
def test_a_start_that_cannot_be_told(pattern: str) -> None:
    assert safety._starts(pattern) is None
