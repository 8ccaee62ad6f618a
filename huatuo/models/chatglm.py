"""ChatGLM-6B for today's transformers: the original's arithmetic, with a key-value cache and left padding.

Importing it registers model type "chatglm" with AutoConfig, AutoModelForCausalLM and AutoTokenizer. Positions and mask
are made inside, from the ids of a prompt (text, [gMASK], <sop>) and later from the cache: the prompt sees itself in both
directions, what follows <sop> sees what stands before it. Source: THUDM/chatglm-6b, modeling_chatglm.py. Not the
original's: in bfloat16 the angles are float32, where it would round the positions themselves.
Letters: B sequences, T tokens, P prefix positions, K = P + all tokens so far, H hidden width, D width of a head, V
vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from huatuo.errors import ConfigError, Mismatch
from huatuo.models.chatglm_layout import (
    ANSWER,
    PLACE,
    REAL,
    Pair,
    marked,
    positions,
    turned,
    turns,
    unseen,
)
from huatuo.models.chatglm_tokenizer import ChatGLMTokenizer

OLD_VOCABULARY = 150528
"""Words before 20,000 image tokens were taken out; the special ids are 20,000 higher there."""
ALPHA = math.sqrt(2 * 28)
"""Weight of the residual. The original never hands its blocks the number of layers, so it is the same at any depth."""
_MASKED = -10000.0
_ROWS_AT_ONCE = 256
"""Query rows whose scores are held at once: a prompt of 2,048 tokens would need half a gigabyte a layer."""
_KEPT = "chatglm_layout"
"""Name under which a cache keeps the layout (B, T) of the tokens in it."""


class ChatGLMConfig(PreTrainedConfig):
    """The original's config.json. mask_token_id and gmask_token_id: by the vocabulary where the file has none.

    pre_seq_len: positions of a P-tuning prefix, None for none. old_positions: the code of March 2023, in which [MASK]
    goes before [gMASK] and <sop> after [gMASK] has a position of its own.
    """

    model_type = "chatglm"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012
    attribute_map = {  # noqa: RUF012
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
    }

    vocab_size: int = 130528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    layernorm_epsilon: float = 1e-5
    inner_hidden_size: int = 16384
    max_sequence_length: int = 2048
    position_encoding_2d: bool = True
    use_cache: bool = True
    bos_token_id: int | None = 130004
    eos_token_id: int | list[int] | None = 130005
    pad_token_id: int | None = 3
    mask_token_id: int | None = None
    gmask_token_id: int | None = None
    quantization_bit: int = 0
    pre_seq_len: int | None = None
    prefix_projection: bool = False
    old_positions: bool = False
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        shift = 20000 if self.vocab_size == OLD_VOCABULARY else 0
        if self.mask_token_id is None:
            self.mask_token_id = 130000 + shift
        if self.gmask_token_id is None:
            self.gmask_token_id = 130001 + shift
        super().__post_init__(**kwargs)


class ChatGLMAttention(nn.Module):
    """Attention whose fused matrix holds query, key and value of one head after those of the other."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: Tensor,
        turn: Pair,
        hidden: Tensor,
        past_key_values: DynamicCache | None,
        prefix: Pair | None,
    ) -> Tensor:
        """(B, T, H). hidden: bool (B, 1, T, K), True where a key is not seen; prefix: key and value (B, heads, P, D)."""
        batch, length, _ = hidden_states.shape
        mixed = self.query_key_value(hidden_states).view(batch, length, self.heads, -1)
        query, key, value = mixed.transpose(1, 2).chunk(3, -1)  # (B, heads, T, D)
        query, key = turned(query, turn), turned(key, turn)
        if prefix is not None:
            key, value = torch.cat([prefix[0], key], 2), torch.cat([prefix[1], value], 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # (B, heads, K, D)
        # Scores are made small by the layer's number and scaled back in float32, so that half never overflows.
        query = query / (math.sqrt(query.shape[-1]) * (self.layer_idx + 1))
        pieces = zip(query.split(_ROWS_AT_ONCE, 2), hidden.split(_ROWS_AT_ONCE, 2), strict=True)
        seen = torch.cat([self._seen(rows, key, value, unseen) for rows, unseen in pieces], 2)
        output: Tensor = self.dense(seen.transpose(1, 2).reshape(batch, length, -1))
        return output

    def _seen(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
        scores = (query @ key.transpose(-1, -2)).masked_fill(hidden, _MASKED)  # (B, heads, T, K)
        weights = (scores.float() * (self.layer_idx + 1)).softmax(-1).to(value.dtype)
        return weights @ value


class ChatGLMMLP(nn.Module):
    """Two linear maps with GELU between; the original calls it a GLU, but there is no gate."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, H) to (B, T, H)."""
        inner = functional.gelu(self.dense_h_to_4h(hidden_states), approximate="tanh")
        output: Tensor = self.dense_4h_to_h(inner)
        return output


class ChatGLMBlock(nn.Module):
    """A block whose residuals come from the normalised input, weighted by ALPHA."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        width, epsilon = config.hidden_size, config.layernorm_epsilon
        self.input_layernorm = nn.LayerNorm(width, eps=epsilon)
        self.attention = ChatGLMAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(width, eps=epsilon)
        self.mlp = ChatGLMMLP(config)

    def forward(
        self,
        hidden_states: Tensor,
        turn: Pair,
        hidden: Tensor,
        past_key_values: DynamicCache | None = None,
        prefix: Pair | None = None,
    ) -> Tensor:
        """(B, T, H). The other arguments are the attention's."""
        normal = self.input_layernorm(hidden_states)
        states = normal * ALPHA + self.attention(normal, turn, hidden, past_key_values, prefix)
        normal = self.post_attention_layernorm(states)
        output: Tensor = normal * ALPHA + self.mlp(normal)
        return output


class PrefixEncoder(nn.Module):
    """P-tuning v2: keys and values that stand before every prompt, the same for each, without a position."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        width, wide = config.hidden_size, config.num_layers * config.hidden_size * 2
        self.heads, self.head_width = (
            config.num_attention_heads,
            width // config.num_attention_heads,
        )
        count = config.pre_seq_len or 0
        self.embedding = nn.Embedding(count, width if config.prefix_projection else wide)
        self.trans: nn.Module = nn.Identity()
        if config.prefix_projection:
            self.trans = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, wide))
        self.dropout = nn.Dropout(0.1)

    def forward(self, batch: int, dtype: torch.dtype) -> list[Pair]:
        """For each layer (key, value), (B, heads, P, D) each."""
        flat = self.trans(self.embedding.weight).to(dtype)  # (P, layers * 2 * H)
        parts = flat.view(len(flat), -1, self.heads, self.head_width).permute(1, 2, 0, 3)
        each: Tensor = self.dropout(parts[:, None].expand(-1, batch, -1, -1, -1))
        return [(each[i], each[i + 1]) for i in range(0, len(each), 2)]


class ChatGLMPreTrainedModel(PreTrainedModel):
    """What transformers asks about the family."""

    config: ChatGLMConfig
    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    _input_embed_layer = "word_embeddings"
    _no_split_modules = ["ChatGLMBlock"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # noqa: RUF012
    _can_record_outputs = {"hidden_states": ChatGLMBlock}  # noqa: RUF012


class ChatGLMModel(ChatGLMPreTrainedModel):
    """The blocks between embeddings and head."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        if config.quantization_bit:
            raise Mismatch(
                f"config.json: quantization_bit = {config.quantization_bit}: packed weights are not read; convert the "
                'folder with whole weights and set load = "int8" or "nf4"'
            )
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(ChatGLMBlock(config, i) for i in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.prefix_encoder = PrefixEncoder(config) if config.pre_seq_len else None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """last_hidden_state (B, T, H), and the cache.

        input_ids: (B, T); the first call takes the whole prompt, later ones what follows it. attention_mask: (B, T), or
        (B, all tokens) with a cache; 0 for padding, or a layout, which the first call needs where it has no input_ids.
        Raises ConfigError if a row has no mask or no <sop>; without a cache a row may be text alone, all of it prompt.
        """
        if kwargs.get("position_ids") is not None:
            raise ValueError(
                "ChatGLM makes its positions from the ids; position_ids cannot be given"
            )
        embedded = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        batch, length, _ = embedded.shape
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        first = past_key_values is None or past_key_values.get_seq_length() == 0
        if first:
            layout = self.layout(input_ids, attention_mask, like=embedded, strict=bool(use_cache))
        else:
            layout = self._continued(past_key_values, batch, length, attention_mask)
        if past_key_values is not None:
            setattr(past_key_values, _KEPT, layout)
        places = positions(layout, self.config, prompt=first)[..., -length:]
        turn = turns(
            places, self.config.hidden_size // self.config.num_attention_heads, embedded.dtype
        )
        hidden = unseen(layout, length, self.config.pre_seq_len or 0)
        prefix: list[Pair] | None = None
        if first and self.prefix_encoder is not None:
            prefix = self.prefix_encoder(batch, embedded.dtype)
        states = embedded
        for i, layer in enumerate(self.layers):
            states = layer(states, turn, hidden, past_key_values, prefix[i] if prefix else None)
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_layernorm(states), past_key_values=past_key_values
        )

    def layout(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        *,
        like: Tensor | None = None,
        strict: bool = True,
    ) -> Tensor:
        """(B, T) int64, bits of REAL, ANSWER, PLACE and OWN: all that positions and mask depend on.

        It may be given as attention_mask, with the states of a trunk for example. like: (B, T, ...) for shape and
        device. strict: also a row without <sop> is refused. Raises ConfigError.
        """
        shape = input_ids if input_ids is not None else like
        if shape is None:
            raise ValueError("either input_ids or inputs_embeds must be given")
        if attention_mask is None:
            attention_mask = torch.ones(shape.shape[:2], dtype=torch.long, device=shape.device)
        if attention_mask.shape != shape.shape[:2]:
            raise ValueError(f"attention_mask must be {tuple(shape.shape[:2])}, 0 for padding")
        mask = attention_mask.to(shape.device).long()
        if bool((mask > REAL).any()):
            return mask
        if input_ids is not None:
            mask = marked(input_ids, mask, self.config)
        starts = (mask & ANSWER).any(-1)
        placed = (mask & PLACE).any(-1)
        lost = (starts & ~placed) | (~starts & (mask & REAL).any(-1) & strict)
        if bool(lost.any()):
            raise ConfigError(
                f"row {int(lost.long().argmax())} of the prompt has no [gMASK] or [MASK], or no <sop> "
                f"(ids {self.config.gmask_token_id}, {self.config.mask_token_id}, {self.config.bos_token_id}); set "
                'template = "chatglm" in the model\'s file'
            )
        return mask

    def _continued(
        self, cache: Any, batch: int, length: int, attention_mask: Tensor | None
    ) -> Tensor:
        """The layout of what is in the cache and of `length` tokens after it."""
        known: Tensor | None = getattr(cache, _KEPT, None)
        past = cache.get_seq_length() - (self.config.pre_seq_len or 0)
        if known is None or len(known) != batch or known.shape[1] < past:
            raise ValueError("this cache was not filled by this model with this batch")
        fresh = known.new_full((batch, length), REAL | ANSWER)
        if attention_mask is not None:
            fresh = fresh * attention_mask[:, -length:].to(fresh.device).bool()
        return torch.cat([known[:, :past], fresh], 1)


class ChatGLMForCausalLM(ChatGLMPreTrainedModel, GenerationMixin):
    """ChatGLM-6B with its vocabulary head, which is the embedding."""

    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V), or of the last logits_to_keep tokens. labels: (B, T), -100 for no loss; else as the model's.

        Raises ConfigError as ChatGLMModel.
        """
        outputs = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )


AutoConfig.register(ChatGLMConfig.model_type, ChatGLMConfig, exist_ok=True)
AutoModelForCausalLM.register(ChatGLMConfig, ChatGLMForCausalLM, exist_ok=True)
AutoTokenizer.register(ChatGLMConfig, ChatGLMTokenizer, exist_ok=True)
