"""Training data: two line formats, errors that name file and line, loss where it belongs."""

import json

import pytest

from huatuo.errors import NoData
from huatuo.toml import ROOT
from training.data import BadData, read_conversations, tokenise

GOOD = {
    "messages": [{"role": "user", "content": "头疼"}, {"role": "assistant", "content": "多久了？"}]
}


def file_of(tmp_path, *lines):
    file = tmp_path / "some.jsonl"
    file.write_text(
        "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8"
    )
    return file


def test_both_formats_give_the_same_conversation(tmp_path):
    file = file_of(tmp_path, GOOD | {"case_id": "c1"}, {"data": ["问：头疼", "答：多久了？"]})
    ours, published = read_conversations(file)
    assert ours.conversation == published.conversation
    assert ours.facts == {"case_id": "c1"}
    assert published.place == "some.jsonl:2"


@pytest.mark.parametrize(
    "line, says",
    [
        ("{", "not JSON"),
        ("[1]", "a JSON object is expected"),
        ({"text": "x"}, "neither the key messages nor the key data"),
        ({"json_dialogue": "[]"}, "json_dialogue is not read"),
        ({"data": []}, "data is not a list with turns"),
        ({"data": ["头疼", "答：x"]}, "turn 1: does not begin with 问"),
        ({"data": ["问：头疼"]}, "no answer"),
        ({"data": ["问：a", "答：b", "问：c"]}, "the last turn is the user's"),
        ({"data": ["问：a", "答： "]}, "turn 2: the message is empty"),
        ({"messages": [{"role": "doctor", "content": "x"}]}, "turn 1: role is not"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "turn 1 is assistant's"),
        ({"messages": [{"role": "user", "content": 3}]}, "turn 1: the content is not text"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, line, says):
    with pytest.raises(BadData, match=says) as caught:
        list(read_conversations(file_of(tmp_path, GOOD, "", line)))
    assert str(caught.value).startswith("some.jsonl:3: ")


def test_bytes_that_are_no_text_are_named_too(tmp_path):
    file = tmp_path / "some.jsonl"
    file.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    with pytest.raises(BadData, match=r"some.jsonl:\d: not UTF-8"):
        list(read_conversations(file))


def test_an_empty_or_missing_file_is_an_error(tmp_path):
    with pytest.raises(NoData):
        list(read_conversations(file_of(tmp_path)))
    with pytest.raises(BadData, match="cannot be read"):
        list(read_conversations(tmp_path / "none.jsonl"))


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ROOT / "huatuo/nano/hybrid", local_files_only=True)


def test_only_the_doctors_turns_carry_loss(tmp_path, tokenizer):
    (row,) = tokenise(
        read_conversations(file_of(tmp_path, GOOD)), tokenizer, "huatuo-nano", max_tokens=64
    )
    supervised = [i for i in row["labels"] if i != -100]
    assert tokenizer.decode(supervised) == "<HuatuoGPT>：多久了？ </s>"
    everything = tokenise(
        read_conversations(file_of(tmp_path, GOOD)),
        tokenizer,
        "huatuo-nano",
        max_tokens=64,
        supervise="all",
    )
    assert everything[0]["labels"] == row["input_ids"]


def test_a_conversation_that_cannot_fit_is_named_or_counted(tmp_path, tokenizer, capsys):
    file = file_of(tmp_path, {"data": ["问：" + "疼" * 300, "答：好"]}, GOOD)
    with pytest.raises(BadData, match=r"some\.jsonl:1: the first exchange does not fit"):
        tokenise(read_conversations(file), tokenizer, "huatuo-nano", max_tokens=64)
    rows = tokenise(
        read_conversations(file), tokenizer, "huatuo-nano", max_tokens=64, skip_long=True
    )
    assert len(rows) == 1
    assert "1 conversations left out" in capsys.readouterr().out


def test_the_bundled_tokenizer_returns_any_text(tokenizer):
    for text in [
        "头疼三天了。",
        "I have a fever",
        "𠮷野家 😀 ∑ \t x",
        "龘䶮",
        "a  b\n\n1. c",
        "１２３％",
    ]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert not set(tokenizer("</s><pad>", split_special_tokens=True)["input_ids"]) & {0, 1}
