"""fused attention and activation for BLOOM: scaled_dot_product_attention with ALiBi and causal mask as one additive bias.

transformers 5.23 has only eager attention for BLOOM, which writes several (B * heads, Q, K) tensors per layer. Here the
bias is built once per forward and shared by all layers, and no architecture is copied: the attention modules of a loaded
model get a subclass whose forward alone differs. So does its activation, a dozen passes over the widest tensor where torch
has one. Letters: B sequences, Q query tokens, K key tokens, D width of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from transformers.models.bloom.modeling_bloom import BloomAttention, BloomGelu, dropout_add

_ALIGNED = 8
"""Elements to which a row of the bias is padded: CUDA's fused kernel copies, layer by layer, what is not aligned."""


class SdpaBloomAttention(BloomAttention):
    """BloomAttention through the fused kernel. Falls back to eager where attention weights are asked for."""

    def forward(
        self,
        hidden_states: Tensor,
        residual: Tensor,
        alibi: Tensor,
        attention_mask: Tensor | None,
        layer_past: Any = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """(output (B, Q, H), None). alibi: (B * heads, 1, K); attention_mask: (B or 1, 1, Q, K), float, bool or None."""
        if output_attentions or (self.pretraining_tp > 1 and self.slow_but_exact):
            eager: Any = super().forward
            mask = None if attention_mask is None else additive(attention_mask, hidden_states.dtype)
            output, weights = eager(
                hidden_states, residual, alibi, mask, layer_past, use_cache, output_attentions, **kwargs
            )  # fmt: skip
            return output, weights
        batch, length, _ = hidden_states.shape
        query, key, value = self._reshape(self.query_key_value(hidden_states))  # (B, heads, Q, D)
        if layer_past is not None:
            key, value = layer_past.update(key, value, self.layer_idx)  # (B, heads, K, D)
        mixed = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias_of(alibi, attention_mask, batch, length, query.dtype),
            dropout_p=self.attention_dropout.p if self.training else 0.0,
            scale=self.inv_norm_factor,
        )  # (B, heads, Q, D)
        output = self.dense(mixed.transpose(1, 2).reshape(batch, length, self.hidden_size))
        return dropout_add(output, residual, self.hidden_dropout, self.training), None


class FusedGelu(BloomGelu):
    """BLOOM's activation, GELU by tanh, forward and backward one kernel each."""

    def forward(self, x: Tensor) -> Tensor:
        """As x, of any shape."""
        return gelu(x, approximate="tanh")


def use_sdpa(model: nn.Module) -> bool:
    """Switches every attention and activation of a BLOOM, or of a part of one, to the fused kernels; says whether there was any.

    Weights, names, hooks and config stay as they are. Other architectures are left alone; twice is as good as once.
    """
    found = False
    for module in model.modules():
        if type(module) is BloomAttention:
            module.__class__ = SdpaBloomAttention
        elif type(module) is BloomGelu:
            module.__class__ = FusedGelu
        found = found or isinstance(module, SdpaBloomAttention)
    return found


def bias_of(
    alibi: Tensor, mask: Tensor | None, batch: int, length: int, dtype: torch.dtype
) -> Tensor:
    """ALiBi and mask as one additive bias, (B, heads, Q, K), or (B, heads, 1, K) if nothing is masked.

    Kept on the alibi tensor, which lives as long as one forward of the model: the first layer builds it, all share it.
    A mask of None means causal, with the queries at the end of the keys, as transformers means it for fused kernels.
    A row in which every key is hidden (a padding token on the left) gets no mask: its output is meaningless but
    finite, and its gradient is the gradient of that output. With the lowest number in all places, as in eager, the fused
    kernels' backward would be K times too large there, because log K is lost beside that number.
    """
    kept = getattr(alibi, "_bias", None)
    if kept is not None and kept[0] is mask and kept[1].dtype == dtype and kept[2] == length:
        bias: Tensor = kept[1]
        return bias
    keys = alibi.shape[-1]
    slopes = alibi.view(batch, -1, 1, keys).to(dtype)  # (B, heads, 1, K)
    if mask is None and length > 1:
        reach = torch.ones(length, keys, dtype=torch.bool, device=alibi.device)
        allowed = additive(reach.tril(keys - length)[None, None], dtype)
    elif mask is None:
        allowed = slopes.new_zeros(1, 1, 1, 1)
    else:
        allowed = additive(mask[..., :keys], dtype)
    rows = allowed.shape[-2]
    if rows > 1:
        lowest = torch.finfo(dtype).min
        allowed = allowed.masked_fill(allowed.amax(-1, keepdim=True) <= lowest, 0.0)
    wide = -(-keys // _ALIGNED) * _ALIGNED
    bias = slopes.new_empty(batch, slopes.shape[1], rows, wide)[..., :keys]
    torch.add(slopes, allowed, out=bias)
    alibi._bias = (mask, bias, length)  # type: ignore[attr-defined]
    return bias


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added: 0 where a bool mask is True, the lowest number where it is False; floats as they are."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
