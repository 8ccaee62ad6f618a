"""ChatGLM-6B's tokenizer: SentencePiece's ice_text.model, in the vocabularies of 130,528 and of 150,528 words.

In the larger one 20,000 image tokens stand first, so a piece's id is 20,000 higher. Line breaks, tabs and runs of 2 to 80
spaces are pieces of their own. The file of the larger vocabulary ends before the special tokens, which the original adds
when it loads; so does this. Source: THUDM/chatglm-6b, tokenization_chatglm.py.
"""

import struct
from pathlib import Path
from shutil import copyfile
from typing import Any

from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedTokenizer

SPECIALS = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
"""In the order of their ids."""
NAMED = {
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "[MASK]",
    "bos_token": "<sop>",
    "eos_token": "<eop>",
}
"""transformers' names for some of them; a folder's tokenizer_config.json may say otherwise."""
NAMED_HERE = {"gmask_token": "[gMASK]", "end_token": "</s>"}
"""Names that transformers does not have."""
LONGEST_BLANK = 80
_TAB = "<|tab|>"
_LINE = "<n>"
_CONTROL, _DEFINED, _BYTE = 3, 4, 6
"""SentencePiece's kinds of piece: never found in text, always found whole, one byte of a character that it lacks."""


class ChatGLMTokenizer(PreTrainedTokenizer):
    """Text to ids and back. No text gives a special token; add_special_tokens puts [gMASK] and <sop> at the end.

    vocab_file: ice_text.model. num_image_tokens: ids below the first piece, 20,000 as in the original where
    tokenizer_config.json does not say. Raises OSError or RuntimeError for a file that cannot be read, ValueError for one
    that lacks a special token, or for settings of the original that no published model uses.
    """

    vocab_files_names = {"vocab_file": "ice_text.model"}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"

    def __init__(
        self, vocab_file: str | None = None, num_image_tokens: int = 20000, **kwargs: Any
    ) -> None:
        if vocab_file is None:
            raise OSError("ice_text.model: missing; the folder is not a whole tokenizer")
        for key in ("do_lower_case", "remove_space"):
            if kwargs.get(key):
                raise ValueError(
                    f"tokenizer_config.json: {key} is not supported; no published ChatGLM sets it"
                )
        self.vocab_file, self.num_image_tokens = vocab_file, num_image_tokens
        self.pieces = _processor(Path(vocab_file))
        further = kwargs.pop("model_specific_special_tokens", None) or {}
        kwargs |= {"split_special_tokens": True, "extra_special_tokens": list(SPECIALS)}
        kwargs["model_specific_special_tokens"] = {**NAMED_HERE, **further}
        super().__init__(num_image_tokens=num_image_tokens, **{**NAMED, **kwargs})
        for token in self.all_special_tokens:
            if self.pieces.id_to_piece(self.pieces.piece_to_id(token)) != token:
                raise ValueError(f"{vocab_file}: has no {token}; it is another model's tokenizer")

    @property
    def vocab_size(self) -> int:
        """Image tokens and pieces."""
        return self.num_image_tokens + int(self.pieces.get_piece_size())

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id."""
        return {self._convert_id_to_token(i): i for i in range(self.vocab_size)}

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text; special tokens and padding leave no trace."""
        said = [token for token in tokens if token and not token.startswith("<image_")]
        text: str = self.pieces.decode_pieces(said)
        text = text.replace(_LINE, "\n").replace(_TAB, "\t")
        for length in range(2, LONGEST_BLANK + 1):
            text = text.replace(_blank(length), " " * length)
        return text

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Copies ice_text.model, as it was, into the folder."""
        name = self.vocab_files_names["vocab_file"]
        target = Path(save_directory) / (f"{filename_prefix}-{name}" if filename_prefix else name)
        if target.resolve() != Path(self.vocab_file).resolve():
            copyfile(self.vocab_file, target)
        return (str(target),)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """The prompt with [gMASK] and <sop>, and a given answer with <eop>."""
        ids = [*token_ids_0, self._id_of("[gMASK]"), self._id_of("<sop>")]
        return ids if token_ids_1 is None else [*ids, *token_ids_1, self._id_of("<eop>")]

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        text = text.replace("\n", _LINE).replace("\t", _TAB)
        for length in range(LONGEST_BLANK, 1, -1):
            text = text.replace(" " * length, _blank(length))
        special = {*self.all_special_tokens} - {self.unk_token}
        tokens: list[str] = []
        for token in self.pieces.encode_as_pieces(text):
            # SentencePiece finds no control piece in text; a file that calls them words is not trusted either.
            tokens += self._spelt(token) if token in special else [token]
        return tokens

    def _spelt(self, word: str) -> list[str]:
        """The word by single characters, or their bytes."""
        unknown = self.pieces.unk_id()
        return [
            piece
            for char in word
            for piece in (
                [char]
                if self.pieces.piece_to_id(char) != unknown
                else [f"<0x{byte:02X}>" for byte in char.encode()]
            )
        ]

    def _id_of(self, token: str) -> int:
        return self.num_image_tokens + int(self.pieces.piece_to_id(token))

    def _convert_token_to_id(self, token: str) -> int:
        if token.startswith("<image_") and token[7:-1].isdigit():
            return int(token[7:-1])
        return self._id_of(token)

    def _convert_id_to_token(self, index: int) -> str:
        if index < self.num_image_tokens:
            return f"<image_{index}>"
        if index >= self.vocab_size:  # a row of the model's embedding that stands for no word
            return ""
        return str(self.pieces.id_to_piece(index - self.num_image_tokens))


def _blank(length: int) -> str:
    return f"<|blank_{length}|>"


def _processor(file: Path) -> Any:
    """The model in the file, with the special pieces at its end. Raises OSError, RuntimeError."""
    data = file.read_bytes()
    pieces = SentencePieceProcessor()
    pieces.LoadFromSerializedProto(data)
    if pieces.piece_to_id(SPECIALS[0]) == pieces.unk_id():
        pieces = SentencePieceProcessor()
        pieces.LoadFromSerializedProto(data + _missing())
    return pieces


def _missing() -> bytes:
    """What a file without special pieces lacks: protocol buffers that are joined add up, so it stands behind the rest."""
    added = [(token, _CONTROL) for token in SPECIALS] + [(_TAB, _DEFINED)]
    added += [(_blank(length), _DEFINED) for length in range(2, LONGEST_BLANK + 1)]
    added += [(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    fallback = _field(35, 0, b"\x01")  # trainer_spec.byte_fallback = true
    return b"".join(_field(1, 2, _piece(*one)) for one in added) + _field(2, 2, fallback)


def _piece(text: str, kind: int) -> bytes:
    """A SentencePiece message: piece = 1, score = 2, type = 3."""
    score = _field(2, 5, struct.pack("<f", 0.0))
    return _field(1, 2, text.encode()) + score + _field(3, 0, bytes([kind]))


def _field(number: int, wire: int, value: bytes) -> bytes:
    """A field of a protocol buffer; wire 2 says its length, which is below 128 for all that is written here."""
    key = number << 3 | wire
    head = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
    return head + (bytes([len(value)]) if wire == 2 else b"") + value
