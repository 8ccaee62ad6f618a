"""Every system of the paper, tiny and random, in its published files, converted; it says something and ends by itself.

Random weights never end an answer, so the end token gets a fixed share of every draw: one channel of the last hidden
state is the same for every token, and only the end token's row of the head listens to it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from huatuo.models.convert.run import convert
from tests.huatuo.published import (
    BAICHUAN,
    CHATGLM,
    LORA,
    as_baichuan,
    random_chatglm,
    random_llama,
    random_lora,
    train_words,
    write_folder,
)
from tests.huatuo.test_chatglm_tokenizer import NEW, completed, trained
from tests.huatuo.test_families import LLAMA, QWEN, tiny_tokenizer

SHARE = 0.06
"""Of the end token among all words, at each draw."""
WORDS = 1600
Made = dict[str, Path]
"""path, and adapter where there is one: the converted folders."""


def build(name: str, folder: Path) -> Made:
    """Writes the system's files as they are published and converts them; the keys of its model file."""
    source = folder / "source"
    source.mkdir(parents=True)
    return BUILDERS[name](source, folder)


def _converted(source: Path, folder: Path, **how: Any) -> Path:
    convert(source, folder, quiet=True, **how)
    return folder


def _logit(others: float) -> float:
    """The end token's logit for its share, given the logarithm of the sum over the others."""
    return others + float(torch.logit(torch.tensor(SHARE)))


@torch.no_grad()
def _with_an_end(model: Any, eos: int, begins: tuple[int, int] | None = None) -> Any:
    """A model with RMSNorm and a head of its own; see the module's docstring.

    begins: (last word of a prompt, the word that then comes for sure); else the best of all beams is the end at once.
    """
    model.get_input_embeddings().weight[:, 0] = 3.0
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", ".o.weight", "wo.weight")):
            weight[0] = 0
    head = model.lm_head.weight
    head[:, 0] = 0
    ids = torch.arange(5, 45)[None]
    how = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    states = model(input_ids=ids, output_hidden_states=True, **how)
    last = (states.decoder_hidden_states if how else states.hidden_states)[-1]
    constant = float(last[0, :, 0].mean())
    head[eos] *= 0.5 / head[eos].norm()
    head[eos, 0] = _logit(float(states.logits.logsumexp(-1).mean())) / constant
    if begins is not None:
        last_word, first_word = begins
        model.get_input_embeddings().weight[last_word, 0] = -3.0
        head[first_word, 0] = -15 / constant
    return model


def _with_an_end_by_bias(tensors: dict[str, Any], words: str, norm: str, eos: int) -> None:
    """The same where the last norm has a bias and the head is the embedding."""
    table = tensors[words]
    table[:, 0] = 0
    tensors[f"{norm}.weight"][0], tensors[f"{norm}.bias"][0] = 0, 1
    spread = float(table.float().std()) * 8  # of a logit, for a state of 64 channels
    table[eos] = 0
    table[eos, 0] = _logit(float(torch.tensor(float(len(table))).log()) + spread**2 / 2)


def _llama_words(folder: Path, kind: str = "LlamaTokenizer") -> None:
    train_words(folder / "tokenizer.model", size=WORDS)
    said = {"tokenizer_class": kind, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


def _llama(
    seed: int = 1, words: int = WORDS, eos: int = 2, begins: tuple[int, int] | None = None
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    model, _, config = random_llama(seed, vocab_size=words, max_position_embeddings=1024)
    _with_an_end(model, eos, begins)
    return model, {n: t.clone() for n, t in model.state_dict().items()}, config


def _baichuan(source: Path, folder: Path, second: bool = False) -> Made:
    model, tensors, _ = _llama()
    if second:  # its head's rows are taken at length 1
        model.lm_head.weight.data[:, 1:] *= 6
        head = tensors["lm_head.weight"]
        head[:] = torch.nn.functional.normalize(head, dim=1)
        tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.2
        tensors["model.norm.weight"][0] *= 4
    config = {**BAICHUAN, "vocab_size": WORDS, "max_position_embeddings": 1024}
    if second:
        config |= {"architectures": ["BaichuanForCausalLM"], "tokenizer_class": "BaichuanTokenizer"}
        config |= {"model_max_length": 1024, "z_loss_weight": 0, "max_position_embeddings": None}
    write_folder(source, as_baichuan(tensors), config)
    (source / "modeling_baichuan.py").write_text("raise SystemExit('this was executed')")
    train_words(source / "tokenizer.model", size=WORDS)
    token = {"__type": "AddedToken", "lstrip": False, "normalized": True}
    said = {
        "add_bos_token": False, "add_eos_token": False, "tokenizer_class": config["tokenizer_class"],
        "auto_map": {"AutoTokenizer": ["tokenization_baichuan.X", None]}, "pad_token": None,
        **{key: {**token, "content": text} for key, text in (("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"))},
    }  # fmt: skip
    (source / "tokenizer_config.json").write_text(json.dumps(said))
    return {"path": _converted(source, folder / "model")}


def _delta(source: Path, folder: Path) -> Made:
    """Target minus LLaMA-13B, with a longer vocabulary, in half precision."""
    _, target, config = _llama(7)
    _, base, base_config = random_llama(8, vocab_size=WORDS - 20)
    target, base = ({n: t.half() for n, t in one.items()} for one in (target, base))
    whole = ("embed_tokens", "lm_head")
    delta = {n: t if any(w in n for w in whole) else t - base[n] for n, t in target.items()}
    place = folder / "delta"
    write_folder(place, delta, {**config, "torch_dtype": "float16"})
    write_folder(source, base, base_config)
    _llama_words(place)
    return {"path": _converted(place, folder / "model", base=source, layout="delta")}


def _yi(source: Path, folder: Path) -> Made:
    _, tensors, config = _llama(6)
    early = {
        n.replace("input_layernorm", "ln1").replace("post_attention_layernorm", "ln2"): t
        for n, t in tensors.items()
    }
    said = {
        **config,
        "model_type": "Yi",
        "architectures": ["YiForCausalLM"],
        "auto_map": {"AutoModel": "x.Y"},
    }
    write_folder(source, early, said)
    _llama_words(source)
    return {"path": _converted(source, folder / "model")}


def _native(model: Any, source: Path, folder: Path, tokenizer: Any, **said: Any) -> Made:
    config = {**json.loads(model.config.to_json_string()), "architectures": [type(model).__name__]}
    config |= said
    write_folder(source, model.state_dict(), config)
    tokenizer.save_pretrained(source)
    return {"path": _converted(source, folder / "model")}


def _chatting(end: str, template: str) -> Any:
    tokenizer = tiny_tokenizer(template)
    tokenizer.eos_token = end
    return tokenizer


def _o1_llama(source: Path, folder: Path) -> Made:
    tokenizer = _chatting("<|eot_id|>", LLAMA)
    model, _, _ = _llama(3, words=len(tokenizer), eos=tokenizer.eos_token_id)
    model.config.eos_token_id = tokenizer.eos_token_id
    return _native(model, source, folder, tokenizer)


def _o1_qwen(source: Path, folder: Path) -> Made:
    tokenizer = _chatting("<|im_end|>", QWEN)
    torch.manual_seed(4)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = _with_an_end(Qwen2ForCausalLM(config).eval(), tokenizer.eos_token_id)
    return _native(model, source, folder, tokenizer)


def _bloom(source: Path, folder: Path) -> Made:
    tokenizer = tiny_tokenizer(None)
    torch.manual_seed(5)
    config = BloomConfig(
        vocab_size=len(tokenizer), hidden_size=64, n_layer=2, n_head=4, bos_token_id=1,
        eos_token_id=2, pad_token_id=3, initializer_range=0.15,
    )  # fmt: skip
    model = BloomForCausalLM(config).eval()
    with torch.no_grad():
        _with_an_end_by_bias(
            dict(model.named_parameters()),
            "transformer.word_embeddings.weight",
            "transformer.ln_f",
            2,
        )
    return _native(model, source, folder, tokenizer)


def _t5(source: Path, folder: Path) -> Made:
    tokenizer = tiny_tokenizer(None)
    torch.manual_seed(6)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=96, num_layers=2, num_decoder_layers=2,
        num_heads=4, decoder_start_token_id=3, eos_token_id=2, pad_token_id=3,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    model.lm_head.weight = torch.nn.Parameter(
        torch.randn(len(tokenizer), 64) * 0.1
    )  # not the embedding
    said = {"tie_word_embeddings": False}  # as T5 1.1 and mT5 are published
    return _native(_with_an_end(model, 2), source, folder, tokenizer, **said)


def _chatglm(source: Path, folder: Path) -> Made:
    pieces = completed(trained())
    names = [piece.piece for piece in pieces.pieces]
    ids = {
        "mask_token_id": names.index("[MASK]"), "gmask_token_id": names.index("[gMASK]"),
        "bos_token_id": names.index("<sop>"), "eos_token_id": names.index("<eop>"), "pad_token_id": 3,
    }  # fmt: skip
    size = len(names) + 8
    tensors = random_chatglm(vocab=size)
    _with_an_end_by_bias(
        tensors,
        "transformer.word_embeddings.weight",
        "transformer.final_layernorm",
        ids["eos_token_id"],
    )
    tensors["lm_head.weight"] = tensors["transformer.word_embeddings.weight"].clone()
    write_folder(
        source,
        tensors,
        {**CHATGLM, **ids, "vocab_size": size, "max_sequence_length": 1024},
        shards=3,
    )
    (source / "modeling_chatglm.py").write_text("raise SystemExit('this was executed')")
    (source / "ice_text.model").write_bytes(pieces.SerializeToString())
    (source / "tokenizer_config.json").write_text(json.dumps(NEW))
    return {"path": _converted(source, folder / "model")}


def _adapted(
    base: Callable[[Path, Path], Made], tensors: dict[str, Any], config: dict[str, Any]
) -> Any:
    def make(source: Path, folder: Path) -> Made:
        made = base(source, folder)
        adapter = folder / "adapter-source"
        write_folder(
            adapter,
            tensors,
            {**LORA, **config},
            shards=1,
            name="adapter_config.json",
            stem="adapter_model",
        )
        return {**made, "adapter": _converted(adapter, folder / "adapter", base=source)}

    return make


def _plain_llama(source: Path, folder: Path) -> Made:
    _llama_words(source, "LLaMATokenizer")
    words = sentencepiece.SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    _, tensors, config = _llama(
        9, begins=(words.encode("### 回答:\n")[-1], words.piece_to_id("好"))
    )
    write_folder(source, tensors, config)
    return {"path": _converted(source, folder / "model")}


def _bloom_lora() -> dict[str, Any]:
    torch.manual_seed(8)
    at = "base_model.model.transformer.h.{}.self_attention.query_key_value.lora_{}.weight"
    a = {at.format(layer, "A"): torch.randn(8, 64) * 0.1 for layer in range(2)}
    return a | {at.format(layer, "B"): torch.randn(192, 8) * 0.1 for layer in range(2)}


def _rows() -> dict[str, Any]:
    torch.manual_seed(2)
    at = "base_model.model.transformer.layers.{}.attention.query_key_value.lora_{}.weight"
    a = {at.format(layer, "A"): torch.randn(16, 64) * 0.1 for layer in range(2)}
    return a | {at.format(layer, "B"): torch.randn(128, 8, 1) * 0.1 for layer in range(2)}


def _with_prefix(source: Path, folder: Path) -> Made:
    made = _chatglm(source, folder)
    config = json.loads((source / "config.json").read_text())
    torch.manual_seed(9)
    prefix = {"transformer.prefix_encoder.embedding.weight": torch.randn(5, 2 * 2 * 64)}
    place = folder / "adapter-source"
    write_folder(place, prefix, {**config, "pre_seq_len": 5, "prefix_projection": False}, shards=1)
    return {**made, "adapter": _converted(place, folder / "adapter", layout="prefix")}


_ROWS_CONFIG = {
    "enable_lora": [True, False, True],
    "fan_in_fan_out": True,
    "target_modules": ["query_key_value"],
}
BUILDERS: dict[str, Callable[[Path, Path], Made]] = {
    "huatuogpt-7b": _baichuan,
    "huatuogpt-13b": _delta,
    "ziya-13b": _delta,
    "huatuogpt2-7b": lambda source, folder: _baichuan(source, folder, second=True),
    "huatuogpt2-34b": _yi,
    "huatuogpt-o1-8b": _o1_llama,
    "huatuogpt-o1-7b": _o1_qwen,
    "bloomz-7b1-mt": _bloom,
    "bentsao": _adapted(_plain_llama, random_lora(), {}),
    "bentsao-alpaca": _adapted(_plain_llama, random_lora(seed=5), {}),
    "bentsao-literature": _adapted(_plain_llama, random_lora(seed=4), {}),
    "bentsao-bloom": _adapted(_bloom, _bloom_lora(), {"target_modules": ["query_key_value"]}),
    "chatglm-6b": _chatglm,
    "doctorglm-lora": _adapted(_chatglm, _rows(), _ROWS_CONFIG),
    "doctorglm": _with_prefix,
    "t5": _t5,
}
"""By the name of its file in configs/models."""
