"""names and shapes of the tensors that a config asks for, one table per architecture.

The tables need no torch, so that a conversion starts at once; what has no table is asked of transformers itself, on
the meta device. A test compares each table with what transformers builds.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from huatuo.errors import Mismatch

Config = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Table:
    """What a checkpoint must hold. ties: name -> the tensor it must equal, then left out. dropped: may stand there."""

    shapes: Shapes
    ties: dict[str, str] = field(default_factory=dict)
    dropped: str = r"(?!)"
    """Pattern of names without use: buffers that every library computes anew."""
    prefix: str = ""
    """What the model's own files may leave out at the start of a name."""

    def own_name(self, name: str) -> str:
        """The name in the table, also for a file that leaves the prefix out."""
        full = self.prefix + name
        known = name in self.shapes or name in self.ties or re.fullmatch(self.dropped, name)
        return full if not known and (full in self.shapes or full in self.ties) else name


def number(config: Config, *keys: str) -> int:
    """The first of the keys that the config has. Raises Mismatch naming the first."""
    for key in keys:
        value = config.get(key)
        if type(value) is int and 0 < value < 1 << 32:
            return value
    raise Mismatch(f"config.json: {keys[0]} is missing or no count; download config.json again")


def llama(config: Config) -> Table:
    """LLaMA, Yi, Mistral; with biases on q, k and v Qwen2. Source: transformers' modeling_llama, modeling_qwen2."""
    width, layers = number(config, "hidden_size"), number(config, "num_hidden_layers")
    heads = number(config, "num_attention_heads")
    head = config.get("head_dim") or width // heads
    qwen = config.get("model_type") == "qwen2"
    key = head * (config.get("num_key_value_heads") or heads)
    rows = {"q_proj": head * heads, "k_proj": key, "v_proj": key, "o_proj": width}
    shapes: Shapes = {"model.embed_tokens.weight": (number(config, "vocab_size"), width)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name, count in rows.items():
            shapes[f"{at}self_attn.{name}.weight"] = (
                count,
                width if name != "o_proj" else head * heads,
            )
            if config.get("attention_bias") or (qwen and name != "o_proj"):
                shapes[f"{at}self_attn.{name}.bias"] = (count,)
        shapes |= _gated(
            at, width, number(config, "intermediate_size"), bool(config.get("mlp_bias"))
        )
    shapes["model.norm.weight"] = (width,)
    shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
    tied = (
        {"lm_head.weight": "model.embed_tokens.weight"} if config.get("tie_word_embeddings") else {}
    )
    return Table(
        {name: shape for name, shape in shapes.items() if name not in tied},
        tied,
        r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq|model\.rotary_emb\.inv_freq",
        "model.",
    )


def baichuan(config: Config) -> Table:
    """Baichuan-7B: LLaMA with q, k and v in one matrix W_pack. Source: baichuan-inc/Baichuan-7B."""
    table = llama({**config, "num_key_value_heads": None, "tie_word_embeddings": False})
    shapes: Shapes = {}
    for name, (*shape,) in table.shapes.items():
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            name, shape = name.replace("q_proj", "W_pack"), [3 * shape[0], shape[1]]
        shapes[name] = tuple(shape)
    return Table(shapes, {}, table.dropped, table.prefix)


def bloom(config: Config) -> Table:
    """BLOOM and BLOOMZ. Source: transformers' modeling_bloom."""
    width = number(config, "hidden_size", "n_embed")
    layers = number(config, "n_layer", "num_hidden_layers")
    words = (number(config, "vocab_size"), width)
    shapes: Shapes = {"word_embeddings.weight": words} | _norm("word_embeddings_layernorm", width)
    for layer in range(layers):
        at = f"h.{layer}."
        shapes |= _norm(f"{at}input_layernorm", width)
        shapes |= _linear(f"{at}self_attention.query_key_value", 3 * width, width)
        shapes |= _linear(f"{at}self_attention.dense", width, width)
        shapes |= _norm(f"{at}post_attention_layernorm", width)
        shapes |= _linear(f"{at}mlp.dense_h_to_4h", 4 * width, width)
        shapes |= _linear(f"{at}mlp.dense_4h_to_h", width, 4 * width)
    shapes |= _norm("ln_f", width)
    shapes = {f"transformer.{name}": shape for name, shape in shapes.items()}
    tied = config.get("tie_word_embeddings", True)
    ties = {"lm_head.weight": "transformer.word_embeddings.weight"} if tied else {}
    return Table(shapes | ({} if tied else {"lm_head.weight": words}), ties, prefix="transformer.")


def t5(config: Config) -> Table:
    """T5 and mT5: encoder and decoder over shared embeddings. Source: transformers' modeling_t5."""
    width, inner = number(config, "d_model"), number(config, "d_kv") * number(config, "num_heads")
    depth = {
        "encoder": number(config, "num_layers"),
        "decoder": number(config, "num_decoder_layers", "num_layers"),
    }
    words = (number(config, "vocab_size"), width)
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    buckets = (config.get("relative_attention_num_buckets", 32), number(config, "num_heads"))
    shapes: Shapes = {"shared.weight": words}
    for stack, layers in depth.items():
        for layer in range(layers):
            at = f"{stack}.block.{layer}.layer."
            kinds = (
                ["SelfAttention"] if stack == "encoder" else ["SelfAttention", "EncDecAttention"]
            )
            for place, kind in enumerate(kinds):
                shapes |= {f"{at}{place}.{kind}.{one}.weight": (inner, width) for one in "qkv"}
                shapes[f"{at}{place}.{kind}.o.weight"] = (width, inner)
                shapes[f"{at}{place}.layer_norm.weight"] = (width,)
            if layer == 0:
                shapes[f"{at}0.SelfAttention.relative_attention_bias.weight"] = buckets
            last = f"{at}{len(kinds)}."
            for name in ("wi_0", "wi_1") if gated else ("wi",):
                shapes[f"{last}DenseReluDense.{name}.weight"] = (number(config, "d_ff"), width)
            shapes[f"{last}DenseReluDense.wo.weight"] = (width, number(config, "d_ff"))
            shapes[f"{last}layer_norm.weight"] = (width,)
        shapes[f"{stack}.final_layer_norm.weight"] = (width,)
    ties = {f"{stack}.embed_tokens.weight": "shared.weight" for stack in depth}
    if config.get("tie_word_embeddings", True):
        ties["lm_head.weight"] = "shared.weight"
    else:
        shapes["lm_head.weight"] = words
    return Table(
        shapes,
        ties,
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
    )


def chatglm(config: Config) -> Table:
    """ChatGLM-6B in its own names. Source: the modeling_chatglm.py of its hub repository."""
    width, inner = number(config, "hidden_size"), number(config, "inner_hidden_size")
    shapes: Shapes = {"transformer.word_embeddings.weight": (number(config, "vocab_size"), width)}
    for layer in range(number(config, "num_layers")):
        at = f"transformer.layers.{layer}."
        shapes |= _norm(f"{at}input_layernorm", width)
        shapes |= _linear(f"{at}attention.query_key_value", 3 * width, width)
        shapes |= _linear(f"{at}attention.dense", width, width)
        shapes |= _norm(f"{at}post_attention_layernorm", width)
        shapes |= _linear(f"{at}mlp.dense_h_to_4h", inner, width)
        shapes |= _linear(f"{at}mlp.dense_4h_to_h", width, inner)
    shapes |= _norm("transformer.final_layernorm", width)
    dropped = r"transformer\.layers\.\d+\.attention\.rotary_emb\.inv_freq"
    return Table(shapes, {"lm_head.weight": "transformer.word_embeddings.weight"}, dropped)


TABLES: dict[str, Callable[[Config], Table]] = {
    "LlamaForCausalLM": llama,
    "MistralForCausalLM": llama,
    "Qwen2ForCausalLM": llama,
    "BloomForCausalLM": bloom,
    "T5ForConditionalGeneration": t5,
    "MT5ForConditionalGeneration": t5,
    "T5WithLMHeadModel": t5,
}


def native(config: Config, architecture: str) -> Table:
    """The table of a class of transformers. Raises Mismatch if there is no such class, or the config does not fit it."""
    if architecture in TABLES:
        return TABLES[architecture](config)
    import torch
    import transformers

    kind: Any = getattr(transformers, architecture, None)
    if kind is None or not re.fullmatch(
        r"\w+(For(CausalLM|ConditionalGeneration|SequenceClassification)|LMHeadModel)", architecture
    ):
        raise Mismatch(
            f"config.json: architectures names {architecture}, which neither transformers nor this converter knows; "
            "--layout names one by hand"
        )
    try:
        with torch.device("meta"):
            model = kind(
                kind.config_class(**{k: v for k, v in config.items() if k != "architectures"})
            )
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise Mismatch(f"config.json: does not fit {architecture} ({str(error)[:200]})") from None
    kept = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    by_tensor: dict[int, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        first = by_tensor.setdefault(id(tensor), name)
        if first != name:
            ties[name] = first
    shapes = {name: shape for name, shape in kept.items() if name not in ties}
    buffers = r".*\brotary_emb\.inv_freq|.*\battn\.(masked_)?bias"
    return Table(shapes, ties, buffers, f"{model.base_model_prefix}.")


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _gated(at: str, width: int, inner: int, bias: bool) -> Shapes:
    """The gated feed-forward block and the two norms of a LLaMA layer."""
    sizes = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
    shapes: Shapes = {f"{at}mlp.{name}.weight": shape for name, shape in sizes.items()}
    if bias:
        shapes |= {f"{at}mlp.{name}.bias": (shape[0],) for name, shape in sizes.items()}
    return shapes | {
        f"{at}{name}.weight": (width,) for name in ("input_layernorm", "post_attention_layernorm")
    }
