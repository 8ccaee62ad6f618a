"""What a model says, as its own demo shows it: the same however the text is cut into pieces."""

import random
import re

import pytest

from huatuo.errors import ConfigError
from huatuo.prompts import FAMILIES
from huatuo.replies import reader_of

CASES = [
    # family, what the model says, the answer, its thoughts
    ("huatuo", " 您好。多喝水。 \n", "您好。多喝水。", ""),
    ("huatuo", "多喝水。 <病人>：谢谢 <HuatuoGPT>：不客气", "多喝水。", ""),
    ("huatuo", "体温<38度，<病", "体温<38度，<病", ""),
    ("huatuo-demo", "多喝水。</s>", "多喝水。", ""),
    ("huatuo2", "多喝水。\n<问>：还有呢", "多喝水。", ""),
    ("ziya", "多喝水。\n<human>:还有呢\n<bot>:没有", "多喝水。", ""),
    ("bloomz", "Drink water.", "Drink water.", ""),
    ("t5", "多喝水", "多喝水", ""),
    ("bentsao-med", "多喝水。</s>", "多喝水。", ""),
    ("bentsao-med", "多喝水.\n### 回答:\n少喝水", "多喝水.", ""),
    ("bentsao-med", "### 检查\n- 血常规", "### 检查\n- 血常规", ""),
    ("bentsao-bloom", "多喝水。\n### 回答：\n少喝水</s>", "多喝水。", ""),
    ("bentsao-literature", "多喝水。 <user>: 还有呢", "多喝水。", ""),
    ("chatglm", "  你好,我是医生!  ", "你好，我是医生！", ""),
    ("chatglm", "训练到[[训练时间]],之后", "训练到2023年，之后", ""),
    ("chatglm", "[[训练时间", "[[训练时间", ""),
    ("chatglm", "a,b, c; 血压:140/90? 正常;好", "a,b, c; 血压：140/90? 正常；好", ""),
    ("chatglm", "中,,,国 ,x?国:", "中，,，国 ,x？国：", ""),
    ("chatglm", "3:2,中", "3:2，中", ""),
    ("chatglm", "多喝水。\n[Round 2]\n问：谢谢\n答：", "多喝水。", ""),
    ("chatglm", "分两步：\n问：吃什么\n答：粥", "分两步：\n问：吃什么\n答：粥", ""),
    ("chatglm-med", "多喝水,休息\n问题：还有呢", "多喝水，休息", ""),
    ("chat", "## Thinking\n\n他发烧了。\n\n## Final Response\n\n多喝水。\n", "多喝水。", "他发烧了。"),
    ("chat", "## Thinking\n\n他说 <|im_end|> 吗\n## Final Response\n水<|im_end|>x", "水", "他说 <|im_end|> 吗"),
    ("chat", "\n## Thinking\n## Final Response\n水\n## Final Response\n汤", "水\n## Final Response\n汤", ""),
    ("chat", "## Thinking\n\n他发烧 ## Fin", "", "他发烧 ## Fin"),
    ("chat", "## 建议\n\n多喝水。", "## 建议\n\n多喝水。", ""),
    ("chat", "## Think", "## Think", ""),
    ("chat", "", "", ""),
]  # fmt: skip


def read(family: str, pieces: list[str]) -> tuple[str, str, bool, str]:
    """(answer, thoughts, whether it ended by itself, problem)"""
    reader = reader_of(family)
    chunks = [chunk for piece in pieces for chunk in reader.add(piece)] + reader.rest()
    assert all(chunk.text for chunk in chunks)
    said = ["".join(c.text for c in chunks if c.thinking is kind) for kind in (False, True)]
    return said[0], said[1], reader.ended, reader.problem


@pytest.mark.parametrize(("family", "text", "answer", "thoughts"), CASES)
def test_the_answer_is_what_the_familys_demo_shows(family, text, answer, thoughts) -> None:
    assert read(family, [text])[:2] == (answer, thoughts)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_any_split_of_a_text_reads_the_same(family: str) -> None:
    draw = random.Random(3)
    parts = [text for _, text, _, _ in CASES] + [
        "\n", " ", ",", "。", "[[训练时间]]", "[Round ", "## Final Response", "<", "##", "中", "a", "?",
    ]  # fmt: skip
    texts = [text for name, text, _, _ in CASES if name == family]
    texts += ["".join(draw.sample(parts, 4)) for _ in range(60)]
    for text in texts:
        whole = read(family, [text])
        assert read(family, list(text)) == whole, text
        for _ in range(8):
            cuts = sorted(draw.choices(range(len(text) + 1), k=draw.randint(1, 8)))
            pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            assert read(family, pieces) == whole, pieces


def test_chatglms_punctuation_is_that_of_its_own_code_mark_by_mark() -> None:
    draw = random.Random(9)
    for _ in range(500):
        text = "".join(draw.choices("中国ab3,!:;?， \n年", k=draw.randint(1, 12)))
        expected = text.strip()
        for half, wide in zip(",!:;?", "，！：；？", strict=True):
            expected = re.sub(rf"([\u4e00-\u9fff])[{half}]", rf"\1{wide}", expected)
            expected = re.sub(rf"[{half}]([\u4e00-\u9fff])", rf"{wide}\1", expected)
        assert read("chatglm", list(text))[0] == expected


def test_an_answer_streams_while_it_is_said() -> None:
    reader = reader_of("chatglm")
    shown = []
    for char in "你好,请问哪里不舒服?我在听。":
        shown.append("".join(chunk.text for chunk in reader.add(char)))
    assert "".join(shown) == "你好，请问哪里不舒服？我在听。"
    assert shown[:4] == ["你", "好", "", "，请"]


def test_thoughts_stream_too_and_are_told_apart() -> None:
    reader = reader_of("chat")
    first = reader.add("## Thinking\n\n他发烧了，先问")
    assert [(c.text, c.thinking) for c in first] == [("他发烧了，先问", True)]
    rest = reader.add("体温。\n\n## Final Response\n\n体温多少")
    assert [(c.text, c.thinking) for c in rest] == [("体温。", True), ("体温多少", False)]
    assert reader.rest() == [] and reader.problem == ""


def test_thoughts_without_an_answer_are_a_problem() -> None:
    assert "without a final response" in read("chat", ["## Thinking\n\n", "他发烧了"])[3]
    assert "without a final response" not in read("chat", ["多喝水。"])[3]


def test_the_patients_mark_ends_the_answer_and_nothing_comes_after_it() -> None:
    reader = reader_of("huatuo")
    assert [c.text for c in reader.add("多喝水。 <病")] == ["多喝水。"]
    assert not reader.ended
    assert reader.add("人>：我") == [] and reader.ended
    assert reader.add("没有发烧") == [] and reader.rest() == []


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="huatuo-nano"):
        reader_of("llama")
