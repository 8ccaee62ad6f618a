"""what the parent itself says of an answer: how likely it finds it, and how near the answer's states lie to the question's.

A few numbers beside the pooled state, which a linear head cannot form by itself: they tell an answer that fits the
question from one that would fit another. Computed by the parent's own top blocks on the trunk's states.
Letters: B sequences, T tokens, H hidden width, V vocabulary, E numbers of EVIDENCE.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from training.logprob import token_log_probs

_BELOW = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
_QUANTILES = (0.0, 0.05, 0.1, 0.2)
EVIDENCE = (
    "mean_log_probability",
    *(f"share_below_e_minus_{below:g}" for below in _BELOW),
    *(f"log_probability_quantile_{quantile:g}" for quantile in _QUANTILES),
    "mean_entropy",
    "mean_surprise",
    "answer_to_nearest_of_question",
    "answer_to_question",
    "question_to_nearest_of_answer",
)
"""By name: mean, shares and quantiles of the answer's token log-probabilities; mean entropy where they were drawn; mean
log-probability plus entropy; and mean cosines of final states, of each token to its nearest on the other side or to all."""


def evidence_of(
    hidden: Tensor,
    vocabulary: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    answer_mask: Tensor,
) -> Tensor:
    """(B, E) float32, by EVIDENCE; 0 for an answer without tokens.

    hidden: (B, T, H) final states of the parent. vocabulary: (V, H). input_ids, attention_mask, answer_mask: (B, T).
    """
    answer = answer_mask.bool()
    judged = answer[:, 1:]  # a token is predicted from the state before it
    found = hidden.new_zeros((2, *judged.shape), dtype=torch.float32)
    found[0][judged], found[1][judged] = token_log_probs(
        hidden[:, :-1][judged], vocabulary, input_ids[:, 1:][judged]
    )
    likely = _of_likelihood(found[0], found[1], judged)
    near = _of_nearness(hidden, attention_mask.bool() & ~answer, answer)
    return torch.cat([likely, near], 1).nan_to_num_(0.0)


def _of_likelihood(log_probs: Tensor, entropies: Tensor, judged: Tensor) -> Tensor:
    """(B, 13) from (B, T - 1) each, 0 or False outside the answer."""
    number = judged.sum(1).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (values.float() * judged).sum(1) / number

    marks = torch.tensor(_QUANTILES, device=log_probs.device)
    quantiles = log_probs.masked_fill(~judged, float("nan")).nanquantile(marks, dim=1)  # (4, B)
    parts = [mean(log_probs), *(mean(log_probs < -below) for below in _BELOW), *quantiles]
    return torch.stack([*parts, mean(entropies), mean(log_probs + entropies)], 1)


def _of_nearness(hidden: Tensor, asked: Tensor, answer: Tensor) -> Tensor:
    """(B, 3) mean cosines; asked, answer: (B, T), of which tokens."""
    unit = normalize(hidden.float(), dim=-1)
    cosines = unit @ unit.transpose(1, 2)  # (B, T of answer, T of question)
    both = answer[:, :, None] & asked[:, None, :]
    lowest = cosines.masked_fill(~both, -1.0)
    answers, questions = answer.sum(1).clamp(min=1), asked.sum(1).clamp(min=1)
    return (
        torch.stack(
            [
                (lowest.amax(2) * answer).sum(1) / answers,
                (cosines * both).sum((1, 2)) / (answers * questions),
                (lowest.amax(1) * asked).sum(1) / questions,
            ],
            1,
        )
        * (answer.any(1) & asked.any(1))[:, None]
    )
