"""log-probabilities over a large vocabulary in chunks, with the gradient formed in the forward pass.

log p(y) depends on the hidden state h through W h, and its gradient is (W[y] - p^T W) / temperature. Formed while p is
at hand, it makes the backward pass a scaling of rows: two matrix products in all, where autograd over logits needs four
with a trained head and three with a frozen one that recomputes. Exact for any loss that is a function of the sampled
tokens' log-probabilities (PPO, RLOO, GRPO, DPO, KL estimates from samples). The head is frozen and has no bias.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Largest float32 table of logits held at once: 67 rows of BLOOM's 250,880 words."""
CPU_CHUNK_BYTES = 16 * 2**20
"""The same on a CPU, whose cache it should not flood, unless that makes fewer rows than the other allows and 64."""


def token_log_probs(
    hidden: Tensor, vocabulary: Tensor, tokens: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(log-probabilities, entropies), both (N,) float32, of `tokens` under softmax(hidden W^T / temperature).

    hidden: (N, H), may require a gradient. vocabulary: (V, H), frozen. tokens: (N,) ids.
    The log-probabilities carry a gradient to `hidden`, the entropies none. Source: facts of the design, section 5.2;
    the forward-gradient trick is that of Liger's fused linear cross entropy (arXiv 2410.10989).
    """
    log_probs, entropies = _TokenLogProb.apply(hidden, vocabulary, tokens, temperature)
    return log_probs, entropies


class _TokenLogProb(torch.autograd.Function):
    """See token_log_probs."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, vocabulary: Tensor, tokens: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        n, wide = hidden.shape[0], vocabulary.shape[0]
        needs_gradient = ctx.needs_input_grad[0]
        log_probs = hidden.new_empty(n, dtype=torch.float32)
        entropies = hidden.new_empty(n, dtype=torch.float32)
        gradient = torch.empty_like(hidden) if needs_gradient else None  # (N, H)
        rows = max(1, CHUNK_BYTES // (4 * wide))
        if hidden.device.type == "cpu":
            rows = min(rows, max(64, CPU_CHUNK_BYTES // (4 * wide)))
        for start in range(0, n, rows):
            part = slice(start, min(start + rows, n))
            chunk = (hidden[part] / temperature).to(vocabulary.dtype)  # (C, H)
            logits = (chunk @ vocabulary.T).float()  # (C, V)
            total = logits.logsumexp(-1)  # (C,)
            log_probs[part] = logits.gather(1, tokens[part, None]).squeeze(1) - total
            probabilities = logits.softmax(-1)
            # entropy = logsumexp - sum p*logit; as a product, without a table of the p*logit
            entropies[part] = total - torch.bmm(probabilities[:, None], logits[:, :, None]).view(-1)
            if gradient is not None:
                product = probabilities.to(vocabulary.dtype) @ vocabulary  # (C, H)
                likely = vocabulary[tokens[part]] - product
                gradient[part] = (likely / temperature).to(hidden.dtype)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(entropies)
        return log_probs, entropies

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0][:, None].to(gradient.dtype), None, None, None
