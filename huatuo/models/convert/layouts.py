"""the published layouts of whole models: which is this folder's, and what is to be written for it.

plain        a class of transformers, pickle or safetensors     baichuan-7b  LLaMA with q, k, v in one matrix
yi           LLaMA with two other names of norms                baichuan2    the same with a head of rows of length one
delta        a difference to LLaMA, added to --base             reward       LLaMA with a scalar head
chatglm      ChatGLM-6B, of the old vocabulary or the new       lora, rows, prefix: adapters, see adapters.py
Code in the folder is read as text at most, to tell look-alikes apart.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from huatuo.errors import Mismatch
from huatuo.models.convert import adapters, tables
from huatuo.models.convert.files import Files, files_of
from huatuo.models.convert.plan import Make, Plan, check_rotary, copied, fitted, thirds
from huatuo.models.convert.source import Source, floats_of

INV_FREQ = r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
_NOT_ALIBI = (
    "is Baichuan-13B: its attention adds position biases (ALiBi) that no class of transformers computes, so it cannot "
    "become a LLaMA; use HuatuoGPT-II's 7B or 34B instead"
)
_WHOLE = ("embed_tokens", "lm_head.weight", "self_attn.rotary_emb.inv_freq")
"""Parts of names of tensors that a delta holds whole. Source: HuatuoGPT's and Ziya's apply_delta.py."""
OLD_IMAGE_TOKENS = 20_000
_HEADS = ("value_head.weight", "v_head.weight", "score.weight", "reward_head.weight")


def detect(source: Source, base: Source | None) -> str:
    """The name of the folder's layout. Raises Mismatch if none fits, saying what --layout can name."""
    if source.adapter:
        return adapters.kind_of(source)
    config = source.config
    kind = str(config.get("model_type", "")).lower()
    named = " ".join(map(str, config.get("architectures") or ()))
    if kind == "baichuan" or "baichuan" in named.lower():
        return _baichuan_kind(source)
    if kind == "chatglm" or "ChatGLM" in named:
        only = all("prefix_encoder" in name for name in source.tensors)
        prefixed = config.get("pre_seq_len") and any(
            "prefix_encoder" in name for name in source.tensors
        )
        return "prefix" if prefixed or (only and source.tensors) else "chatglm"
    if "reward" in named.lower() or any(name.endswith(_HEADS[:2]) for name in source.tensors):
        return "reward"
    if base is not None:
        return "delta"
    if kind == "yi" or any(name.endswith(".ln1.weight") for name in source.tensors):
        return "yi"
    return "plain"


def plan(source: Source, base: Source | None, *, layout: str, new_vocabulary: bool) -> Plan:
    """What to write. layout: a key of LAYOUTS, '' to detect it. Raises Mismatch, Damaged, Untrusted naming the tensor."""
    name = layout or detect(source, base)
    if new_vocabulary and name != "chatglm":
        raise Mismatch(f"{source.folder}: --to-new-vocabulary is for ChatGLM-6B; this is {name}")
    if base is not None and name not in ("delta", *adapters.KINDS):
        raise Mismatch(f"{source.folder}: --base is for deltas and adapters; this is {name}")
    if name in adapters.KINDS:
        return adapters.plan(source, base, name)
    if name == "delta":
        return delta(source, base)
    return chatglm(source, new_vocabulary) if name == "chatglm" else LAYOUTS[name](source)


def plain(source: Source) -> Plan:
    """A class of transformers: every tensor as it is."""
    architecture = str((source.config.get("architectures") or [""])[0])
    table = tables.native(source.config, architecture)
    makes, same = copied(source, table)
    config = dict(source.config)
    if architecture == "T5WithLMHeadModel":
        config["architectures"] = ["T5ForConditionalGeneration"]
    if table.dropped.startswith("(model"):
        _check_llama(source, config)
        _refuse_delta(source, makes)
    return _finished("plain", makes, same, files_of(source, config))


def yi(source: Source) -> Plan:
    """Yi-34B, HuatuoGPT-II-34B: LLaMA; early files call the two norms ln1 and ln2."""
    names = {".ln1.": ".input_layernorm.", ".ln2.": ".post_attention_layernorm."}
    renamed = {}
    for name, tensor in source.tensors.items():
        renamed[re.sub(r"\.ln[12]\.", lambda found: names[found[0]], name)] = tensor
    config = _llama_config(source.config)
    done = plain(replace(source, tensors=renamed, config=config))
    done.layout = "yi"
    return done


def baichuan_7b(source: Source) -> Plan:
    """Baichuan-7B, HuatuoGPT-7B: W_pack in thirds, everything else by the same name. Bit-exact."""
    return _baichuan(source, "baichuan-7b")


def baichuan2(source: Source) -> Plan:
    """Baichuan2-7B, HuatuoGPT-II-7B: as Baichuan-7B, and the rows of the head divided by their length."""
    return _baichuan(source, "baichuan2")


def delta(source: Source, base: Source | None) -> Plan:
    """HuatuoGPT-13B, Ziya-13B: delta + base in float16, but for the embeddings and the head, which come whole."""
    if base is None:
        raise Mismatch(
            f"{source.folder}: is a delta; name the folder of LLaMA-13B (in transformers' layout) by --base"
        )
    config = _llama_config(source.config)
    mine = fitted(source, tables.llama(config))
    theirs = fitted(base, tables.llama(base.config))
    for one in (source, base):
        _check_llama(one, one.config)
    makes = []
    for name, tensor in mine.items():
        if any(part in name for part in _WHOLE):
            makes.append(Make(name, "F16", tensor.shape, tensor, how="half"))
            continue
        other = theirs.get(name)
        if other is None or other.shape != tensor.shape:
            found = "none" if other is None else str(list(other.shape))
            raise Mismatch(
                f"{base.folder}: tensor {name} of the base has shape {found}, the delta's {list(tensor.shape)}; "
                "it is the delta of another base"
            )
        makes.append(Make(name, "F16", tensor.shape, tensor, how="sum", other=other))
    for name in sorted(set(theirs) - set(mine)):
        raise Mismatch(
            f"{base.folder}: tensor {name} of the base is not in the delta; it is the delta of another base"
        )
    config["torch_dtype"] = "float16"
    done = _finished("delta", makes, [], files_of(source, config))
    done.parents = base.files
    return done


def reward(source: Source) -> Plan:
    """HuatuoGPT's reward model: LlamaModel and a scalar head without bias, as LlamaForSequenceClassification."""
    heads = [name for name in source.tensors if name.endswith(_HEADS)]
    if len(heads) != 1:
        raise Mismatch(
            f"{source.folder}: {len(heads)} scalar heads; one of {', '.join(_HEADS)} is expected"
        )
    head = source.tensors[heads[0]]
    width = tables.number(source.config, "hidden_size")
    if head.shape not in ((1, width), (width,)):
        raise Mismatch(
            f"{head.file}: tensor {heads[0]} has shape {list(head.shape)}, a scalar head [1, {width}]"
        )
    body = {
        re.sub(r"^(model\.)+", "model.", n): t for n, t in source.tensors.items() if n != heads[0]
    }
    body = {n if n.startswith("model.") else f"model.{n}": t for n, t in body.items()}
    config = _llama_config(source.config) | {"tie_word_embeddings": False}
    table = tables.llama(config)
    shapes = {name: shape for name, shape in table.shapes.items() if name != "lm_head.weight"}
    renamed = replace(source, tensors=body)
    makes, same = copied(renamed, replace(table, shapes=shapes))
    _check_llama(source, config)
    makes.append(Make("score.weight", head.dtype, (1, width), head))
    config |= {
        "architectures": ["LlamaForSequenceClassification"],
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
    }
    config["label2id"] = {"LABEL_0": 0}
    files = files_of(source, config)
    if config.get("pad_token_id") is None:
        files.config["pad_token_id"] = files.pad_id if files.pad_id is not None else 0
    return _finished("reward", makes, same, files)


def chatglm(source: Source, new_vocabulary: bool = False) -> Plan:
    """ChatGLM-6B in its own names, for huatuo/models/chatglm.py; the head must equal the embedding.

    new_vocabulary: a model of 150,528 words loses the 20,000 image tokens before its text: new id = old id - 20,000.
    """
    makes, same = copied(source, tables.chatglm(source.config))
    half = (
        tables.number(source.config, "hidden_size")
        // tables.number(source.config, "num_attention_heads")
        // 2
    )
    check_rotary(source, r"transformer\.layers\.\d+\.attention\.rotary_emb\.inv_freq", half)
    config: dict[str, Any] = {
        **source.config,
        "model_type": "chatglm",
        "architectures": ["ChatGLMForCausalLM"],
    }
    config.pop("pre_seq_len", None)
    config.pop("prefix_projection", None)
    if config.get("quantization_bit"):
        raise Mismatch(
            f"{source.folder}: config.json says quantization_bit {config['quantization_bit']}; get the whole model"
        )
    files = files_of(source, config)
    if new_vocabulary:
        makes = [
            _without_images(make) if make.name.endswith("word_embeddings.weight") else make
            for make in makes
        ]
        files.renumber(OLD_IMAGE_TOKENS)
    return _finished("chatglm", makes, same, files)


def _without_images(make: Make) -> Make:
    rows = make.shape[0] - OLD_IMAGE_TOKENS
    if rows <= 0:
        raise Mismatch(
            f"{make.of.file}: {make.name} has {make.shape[0]} rows; it is no model of the old vocabulary"
        )
    start = OLD_IMAGE_TOKENS * make.nbytes // make.shape[0]
    return replace(make, shape=(rows, make.shape[1]), start=start)


def _baichuan_kind(source: Source) -> str:
    """Which Baichuan. Raises Mismatch for the 13B and where nothing tells them apart."""
    config = source.config
    code = "".join(
        path.read_text("utf-8", errors="replace")[:200_000]
        for path in sorted(source.folder.glob("modeling*.py"))
        if path.is_file() and not path.is_symlink()
    )
    if (
        "alibi" in code.lower()
        or "alibi" in str(config).lower()
        or config.get("hidden_size") == 5120
    ):
        raise Mismatch(f"{source.folder}: {_NOT_ALIBI}")
    if "z_loss_weight" in config or config.get("vocab_size") == 125_696 or "NormHead" in code:
        return "baichuan2"
    named = "BaiChuanForCausalLM" in (config.get("architectures") or ())
    if (
        named
        or "max_position_embeddings" in config
        or any(re.fullmatch(INV_FREQ, name) for name in source.tensors)
    ):
        return "baichuan-7b"
    raise Mismatch(
        f"{source.folder}: nothing tells whether it is Baichuan-7B, Baichuan2-7B or Baichuan-13B; "
        "say --layout baichuan-7b or baichuan2"
    )


def _baichuan(source: Source, layout: str) -> Plan:
    if source.config.get("hidden_size") == 5120:
        raise Mismatch(f"{source.folder}: {_NOT_ALIBI}")
    makes, same = copied(source, tables.baichuan(source.config))
    config = _llama_config(source.config) | {"tie_word_embeddings": False}
    _check_llama(source, config)
    written: list[Make] = []
    for make in makes:
        if "W_pack" in make.name:
            q, k, v = (make.name.replace("W_pack", f"{one}_proj") for one in "qkv")
            written += thirds(make, (q, k, v))
        elif make.name == "lm_head.weight" and layout == "baichuan2":
            written.append(replace(make, how="unit"))
        else:
            written.append(make)
    return _finished(layout, written, same, files_of(source, config, adds_bos=False))


def _llama_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a LLaMA of the same sizes; what LLaMA does not know is left out."""
    kept = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "hidden_act", "initializer_range", "rms_norm_eps", "max_position_embeddings",
        "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "use_cache", "torch_dtype", "dtype",
        "rope_theta", "rope_scaling", "rope_parameters", "head_dim", "attention_bias", "mlp_bias",
    )  # fmt: skip
    length = config.get("max_position_embeddings") or config.get("model_max_length") or 4096
    made = {key: config[key] for key in kept if config.get(key) is not None}
    return made | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "max_position_embeddings": length,
    }


def _check_llama(source: Source, config: dict[str, Any]) -> None:
    """Raises Mismatch if stored rotations are others than those that transformers computes."""
    if not config.get("rope_scaling"):
        width = tables.number(config, "hidden_size") // tables.number(config, "num_attention_heads")
        base = (
            config.get("rope_theta")
            or (config.get("rope_parameters") or {}).get("rope_theta")
            or 10000.0
        )
        check_rotary(source, INV_FREQ, config.get("head_dim") or width, float(base))


def _refuse_delta(source: Source, makes: list[Make]) -> None:
    """Raises Mismatch for a LLaMA whose last norm is nearly zero: a difference between two models, which says nothing."""
    for make in makes:
        if make.name == "model.norm.weight":
            values = sorted(map(abs, floats_of(make.of)))
            if values[len(values) // 2] < 0.02:
                raise Mismatch(
                    f"{source.folder}: model.norm.weight is nearly zero, so this is a delta, not a model; "
                    "name the folder of its base by --base"
                )


def _finished(layout: str, makes: list[Make], same: Any, files: Files) -> Plan:
    return Plan(layout, makes, same, files.texts(), files.copies, files.left_out, notes=files.notes)


LAYOUTS: dict[str, Callable[[Source], Plan]] = {
    "plain": plain,
    "yi": yi,
    "baichuan-7b": baichuan_7b,
    "baichuan2": baichuan2,
    "reward": reward,
}
NAMES = (*LAYOUTS, "delta", "chatglm", *adapters.KINDS)
