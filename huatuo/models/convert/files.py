"""the small files beside the weights: config, tokenizer, licence; what asks for code is dropped.

config.json is written anew, JSON files lose `auto_map`, a tokenizer.model of pairs becomes a tokenizer.json, code and
everything unknown stays behind. Only names in the tables here are taken.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huatuo.errors import Mismatch
from huatuo.models.convert.source import Source, inside, read_json
from huatuo.models.convert.words import BPE, CONTROL, UNKNOWN, Words, read_words, tokenizer_json

_JSON = (
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)
_COPIED = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "ice_text.model", "vocab.json", "vocab.txt", "merges.txt",
    "chat_template.jinja", "LICENSE", "LICENSE.txt", "LICENSE.md", "MODEL_LICENSE", "NOTICE", "NOTICE.txt",
)  # fmt: skip
_CODE = (
    "auto_map",
    "custom_pipelines",
    "trust_remote_code",
    "_name_or_path",
    "transformers_version",
)
MAX_SMALL = 64 << 20
_NAMED = ("unk_token", "bos_token", "eos_token", "pad_token")


@dataclass
class Files:
    """The small files of a conversion. config: of config.json; it may still be changed."""

    config: dict[str, Any]
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pad_id: int | None = None

    def texts(self) -> dict[str, str]:
        """Every file that is written, by name."""
        tables = {"config.json": self.config, **self.tables}
        return {name: _text(without_code(table)) for name, table in tables.items()} | self.made

    def renumber(self, less: int) -> None:
        """Every id of a special token, and the vocabulary, smaller by `less` where it lies above it."""
        for table in (self.config, *self.tables.values()):
            for key, value in table.items():
                if (
                    type(value) is int
                    and value >= less
                    and (key.endswith("_token_id") or key == "vocab_size")
                ):
                    table[key] = value - less
                elif key == "num_image_tokens":
                    table[key] = 0


def without_code(value: Any) -> Any:
    """The value without the keys that ask for code, at any depth."""
    if isinstance(value, dict):
        return {key: without_code(item) for key, item in value.items() if key not in _CODE}
    if isinstance(value, list):
        return [without_code(item) for item in value]
    return value


def files_of(source: Source, config: dict[str, Any], *, adds_bos: bool = True) -> Files:
    """The small files for a model of `config`. adds_bos: where the tokenizer's config does not say it.

    Raises Mismatch (a tokenizer of more words than the model), Damaged, Untrusted.
    """
    files = Files(dict(config))
    folder = source.folder
    for name in _JSON:
        if (folder / name).exists():
            files.tables[name] = read_json(folder, name)
    for name in _COPIED:
        if (folder / name).exists() and inside(folder, name).stat().st_size <= MAX_SMALL:
            files.copies[name] = inside(folder, name)
    if (folder / "tokenizer_config.json").exists():
        files.tables["tokenizer_config.json"] = read_json(folder, "tokenizer_config.json")
    if "tokenizer.model" in files.copies and "tokenizer.json" not in files.copies:
        _translate(files, adds_bos)
    known = {*files.copies, *files.tables, "config.json", *(file.name for file in source.files)}
    files.left_out = sorted(path.name for path in folder.iterdir() if path.name not in known)
    return files


def _translate(files: Files, adds_bos: bool) -> None:
    """A tokenizer.json for a tokenizer.model of pairs, and a config that loads it without the folder's own class."""
    path = files.copies["tokenizer.model"]
    words = read_words(path)
    if words.model != BPE:
        return
    added = {
        str(k): v for k, v in files.tables.get("added_tokens.json", {}).items() if type(v) is int
    }
    size = files.config.get("vocab_size")
    highest = max([len(words.pieces) - 1, *added.values()])
    if type(size) is int and highest >= size:
        raise Mismatch(
            f"{path}: the tokenizer has {highest + 1:,} words, the model {size:,}; it is the tokenizer of another model"
        )
    config = files.tables.setdefault("tokenizer_config.json", {})
    special = _special(files, words)
    adds_bos = bool(config.get("add_bos_token", adds_bos)) and "bos_token" in special
    files.made["tokenizer.json"] = tokenizer_json(
        words, added, {*special.values()}, special["bos_token"] if adds_bos else ""
    )
    if not words.is_exact():
        files.notes.append(
            "Some pieces of tokenizer.model share a score; where their pairs overlap, tokenizer.json may split a word "
            "otherwise than SentencePiece."
        )
    kept = {"model_max_length", "chat_template", "padding_side"}
    files.tables["tokenizer_config.json"] = {
        **{key: value for key, value in config.items() if key in kept},
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": adds_bos,
        "clean_up_tokenization_spaces": False,
        **special,
    }
    for name in ("special_tokens_map.json", "added_tokens.json"):
        files.tables.pop(name, None)
    ids = {piece.text: place for place, piece in enumerate(words.pieces)} | added
    files.pad_id = ids.get(special.get("pad_token", ""))


def _special(files: Files, words: Words) -> dict[str, str]:
    """The named special tokens: as the tokenizer's files say, else as the pieces do (the first LLaMA files say '')."""
    said = {
        **files.tables.get("special_tokens_map.json", {}),
        **files.tables.get("tokenizer_config.json", {}),
    }
    found: dict[str, str] = {}
    for name in _NAMED:
        value = said.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str) and text:
            found[name] = text
    controls = [piece.text for piece in words.pieces if piece.kind == CONTROL]
    unknown = [piece.text for piece in words.pieces if piece.kind == UNKNOWN]
    for name, choice in (
        ("unk_token", unknown[:1]),
        ("bos_token", controls[:1]),
        ("eos_token", controls[1:2]),
    ):
        if choice:
            found.setdefault(name, choice[0])
    pad = files.config.get("pad_token_id")
    if (
        type(pad) is int
        and 0 <= pad < len(words.pieces)
        and words.pieces[pad].kind in (UNKNOWN, CONTROL)
    ):
        found.setdefault("pad_token", words.pieces[pad].text)
    return found


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
