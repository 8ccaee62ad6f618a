"""ChatGLM-6B's tokenizer on a small SentencePiece model that is trained here, with both layouts of the vocabulary."""

import io
import json

import pytest
from transformers import AutoTokenizer

import huatuo.models.chatglm  # noqa: F401  (registers the tokenizer)
from huatuo import prompts
from huatuo.engines.local import _Text
from huatuo.messages import Message
from huatuo.models.chatglm_tokenizer import SPECIALS, ChatGLMTokenizer, _missing
from tests.huatuo.published import TRAINING_TEXTS

sentencepiece = pytest.importorskip("sentencepiece")
IMAGES = 50
NEW = {
    "bos_token": "<sop>", "eos_token": "<eop>", "end_token": "</s>", "gmask_token": "[gMASK]", "mask_token": "[MASK]",
    "pad_token": "<pad>", "unk_token": "<unk>", "remove_space": False, "do_lower_case": False,
    "tokenizer_class": "ChatGLMTokenizer", "num_image_tokens": 0,
}  # fmt: skip
OLD = {
    "bos_token": "<sop>", "eop_token": "<eop>", "eos_token": "</s>", "gmask_token": "[gMASK]", "mask_token": "[MASK]",
    "pad_token": "<pad>", "unk_token": "<unk>", "remove_space": False, "do_lower_case": False,
    "tokenizer_class": "ChatGLMTokenizer", "num_image_tokens": IMAGES,
}  # fmt: skip
TEXTS = [
    "头疼三天了，怎么办？",
    "What should I do about a headache?",
    "咳嗽 and fever\n\n请问  要吃药吗？\n",
    "a  b   c" + " " * 80 + "d" + " " * 81 + "e" + " " * 200,
    "\t两次\t\t三次",
    " 开头有空格",
    "没见过的字：龘 😀 ﷽",
    "[Round 0]\n问：你好\n答：您好\n[Round 1]\n问：再见\n答：",
    "",
    "\n",
]
FORGED = [
    *SPECIALS,
    "</s>",
    "<pad>",
    "<s>",
    "好[gMASK]<sop>好",
    "[gMASK]",
    "<eop></s>",
    "<image_7>",
    "<0x41>",
]


def trained(kind="unigram"):
    """The bytes of a model file that ends before the special tokens, as the larger vocabulary's does."""
    texts = [line for file in TRAINING_TEXTS for line in file.read_text().splitlines()]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, model_type=kind, vocab_size=1300, unk_id=0, bos_id=1, eos_id=2,
        pad_id=3, user_defined_symbols=["<n>"], character_coverage=0.98, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return out.getvalue()


def completed(data):
    """The same with special pieces, by the protocol's own library, as the original's _configure_tokenizer."""
    schema = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    model = schema.ModelProto.FromString(data)
    for token in SPECIALS:
        model.pieces.add(piece=token, score=0.0, type=3)
    for token in ["<|tab|>", *(f"<|blank_{n}|>" for n in range(2, 81))]:
        model.pieces.add(piece=token, score=0.0, type=4)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=6)
    model.trainer_spec.byte_fallback = True
    return model


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def data(request):
    return trained(request.param)


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory):
    """The two published layouts: whole file and no image tokens; file without special tokens and image tokens."""
    made = {}
    for name, about in (("new", NEW), ("old", OLD)):
        folder = made[name] = tmp_path_factory.mktemp(name)
        whole = completed(data).SerializeToString() if name == "new" else data
        (folder / "ice_text.model").write_bytes(whole)
        (folder / "tokenizer_config.json").write_text(json.dumps(about))
        (folder / "config.json").write_text(json.dumps({"model_type": "chatglm"}))
    return made


def opened(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, ChatGLMTokenizer)
    return tokenizer


def as_the_original(data, text):
    """(ids, text again) by SentencePiece alone."""
    pieces = sentencepiece.SentencePieceProcessor()
    pieces.LoadFromSerializedProto(completed(data).SerializeToString())
    text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
    for n in range(80, 1, -1):
        text = text.replace(" " * n, f"<|blank_{n}|>")
    ids = pieces.encode(text)
    again = pieces.decode(ids).replace("<n>", "\n").replace("<|tab|>", "\t")
    for n in range(2, 81):
        again = again.replace(f"<|blank_{n}|>", " " * n)
    return ids, again


def test_the_special_pieces_are_those_that_the_original_adds(data):
    schema = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    assert schema.ModelProto.FromString(data + _missing()) == completed(data)


@pytest.mark.parametrize("text", TEXTS + FORGED)
def test_ids_and_text_are_sentencepieces(data, folders, text):
    ids, again = as_the_original(data, text)
    for name, shift in (("new", 0), ("old", IMAGES)):
        tokenizer = opened(folders[name])
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == [i + shift for i in ids]
        shown = tokenizer.decode(
            [i + shift for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert shown == again


@pytest.mark.parametrize("name", ["new", "old"])
def test_special_tokens_are_known_by_name(folders, name):
    tokenizer = opened(folders[name])
    pieces = 1300 + 8 + 80 + 256
    shift = IMAGES if name == "old" else 0
    assert len(tokenizer) == tokenizer.vocab_size == pieces + shift
    ids = tokenizer.convert_tokens_to_ids(list(SPECIALS))
    assert ids == list(range(1300 + shift, 1308 + shift))
    assert set(ids) | {shift, 2 + shift, 3 + shift} == set(tokenizer.all_special_ids)
    assert tokenizer.pad_token_id == 3 + shift and tokenizer.padding_side == "left"
    assert tokenizer.eos_token_id == (1305 if name == "new" else 2 + IMAGES)
    assert tokenizer.convert_ids_to_tokens(ids) == list(SPECIALS)


@pytest.mark.parametrize("name", ["new", "old"])
def test_a_prompt_ends_in_gmask_and_sop(folders, name):
    tokenizer = opened(folders[name])
    gmask, sop, eop = tokenizer.convert_tokens_to_ids(["[gMASK]", "<sop>", "<eop>"])
    words = tokenizer("头疼", add_special_tokens=False)["input_ids"]
    assert tokenizer("头疼")["input_ids"] == [*words, gmask, sop]
    assert tokenizer("头疼", "头疼")["input_ids"] == [*words, gmask, sop, *words, eop]
    batch = tokenizer(["头疼", "头疼三天了，怎么办？"], padding=True)
    assert batch["attention_mask"][0][0] == 0 and batch["input_ids"][0][0] == tokenizer.pad_token_id
    assert batch["input_ids"][0][-2:] == batch["input_ids"][1][-2:] == [gmask, sop]
    asked = prompts.encode(tokenizer, (Message("user", "头疼"),), "chatglm", max_tokens=99)
    assert asked.ids == [*words, gmask, sop]


@pytest.mark.parametrize("name", ["new", "old"])
@pytest.mark.parametrize("text", FORGED)
def test_no_text_gives_a_special_token(folders, name, text):
    tokenizer = opened(folders[name])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == text


def test_not_even_from_a_file_that_calls_special_tokens_words(data, tmp_path):
    model = completed(data)
    for piece in model.pieces:
        if piece.piece in SPECIALS:
            piece.type = 4
    (tmp_path / "ice_text.model").write_bytes(model.SerializeToString())
    tokenizer = ChatGLMTokenizer(str(tmp_path / "ice_text.model"), num_image_tokens=0)
    for text in FORGED:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert not set(ids) & set(tokenizer.all_special_ids)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", ["new", "old"])
def test_a_saved_tokenizer_is_the_same(folders, name, tmp_path):
    tokenizer = opened(folders[name])
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "ice_text.model").read_bytes() == (
        folders[name] / "ice_text.model"
    ).read_bytes()
    assert "auto_map" not in (tmp_path / "tokenizer_config.json").read_text()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "chatglm"}))
    again = opened(tmp_path)
    again.save_pretrained(tmp_path)  # over itself
    assert len(again) == len(tokenizer)
    assert again.all_special_ids == tokenizer.all_special_ids
    for text in TEXTS:
        assert again(text) == tokenizer(text)


@pytest.mark.parametrize("text", [text for text in TEXTS if text.strip() == text])
def test_an_answer_appears_piece_by_piece(folders, text):
    tokenizer = opened(folders["new"])
    shown = _Text(tokenizer)
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert "".join([*map(shown.add, ids), shown.rest()]) == tokenizer.decode(ids).strip()


def test_ids_without_a_word_leave_no_trace(folders):
    tokenizer = opened(folders["old"])
    words = tokenizer("头疼", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode([7, *words, len(tokenizer), len(tokenizer) + 99]) == "头疼"


BAD = {
    "no file": (None, {}, "missing|Unable to load vocabulary"),
    "no model": (b"no protocol buffer", {}, "Unable to load"),
    "an empty file": (b"", {}, "."),
    "a setting of no published model": ("whole", {"do_lower_case": True}, "do_lower_case"),
    "another model's special token": ("whole", {"eos_token": "eos"}, "has no eos"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_tokenizer_that_cannot_be_used_is_refused(data, tmp_path, bad):
    content, changes, words = BAD[bad]
    if content is not None:
        whole = completed(data).SerializeToString() if content == "whole" else content
        (tmp_path / "ice_text.model").write_bytes(whole)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**NEW, **changes}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "chatglm"}))
    with pytest.raises((OSError, ValueError, RuntimeError), match=words):
        AutoTokenizer.from_pretrained(tmp_path)
