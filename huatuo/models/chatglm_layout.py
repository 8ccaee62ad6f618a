"""where ChatGLM's tokens stand and which of them see which, from the ids of a prompt.

A layout is (B, T) int64 of bits, one number a token: all that positions and mask depend on. Source: THUDM/chatglm-6b,
modeling_chatglm.py, get_masks and get_position_ids. Letters: B sequences, T tokens, A kinds of position (2, or 1 for
position_encoding_2d false), D width of a head, K keys: prefix and all tokens.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

REAL, ANSWER, PLACE, OWN = 1, 2, 4, 8
"""Bits of a layout: a token and no padding; from <sop> on; the mask that is answered; keeps a position of its own."""

Pair = tuple[Tensor, Tensor]
"""Two tensors that go together: cosines and sines (B, A, T, D / A), or a prefix's key and value (B, heads, P, D)."""


def marked(input_ids: Tensor, mask: Tensor, config: Any) -> Tensor:
    """The layout of ids (B, T) that begin with the prompt; mask: (B, T) int64, 0 for padding."""
    real = mask.bool()
    answer = ((input_ids == config.bos_token_id) & real).cumsum(-1) > 0
    gmask = (input_ids == config.gmask_token_id) & real
    smask = (input_ids == config.mask_token_id) & real
    chosen, other = (smask, gmask) if config.old_positions else (gmask, smask)
    asked = torch.where(chosen.any(-1, keepdim=True), chosen, other)
    place = asked & (asked.cumsum(-1) == 1)
    layout = REAL * mask + ANSWER * (answer & real) + PLACE * place
    if config.old_positions:
        begins = answer & (answer.cumsum(-1) == 1)
        layout = layout + OWN * (begins & ~smask.any(-1, keepdim=True))
    return layout


def positions(layout: Tensor, config: Any, *, prompt: bool) -> Tensor:
    """(B, A, T) int64: where a token stands in its prompt, and how far it is from <sop>; 0 for padding.

    What is answered keeps the mask's place. layout: (B, T). prompt: the first call of the model; with one kind of
    position only, the original gives later tokens the mask's place, but those of a first call their own.
    """
    real, answer = (layout & REAL).bool(), (layout & ANSWER).bool()
    index = (real.cumsum(-1) - 1).clamp(min=0)
    place = (index * (layout & PLACE).bool()).sum(-1, keepdim=True)
    if not config.position_encoding_2d:
        return (index if prompt else place.expand_as(index))[:, None]
    moved = answer & ~(layout & OWN).bool()
    first = torch.where(moved, place, index) * real
    return torch.stack([first, answer.cumsum(-1) * answer], 1)


def turns(places: Tensor, width: int, dtype: torch.dtype) -> Pair:
    """Cosines and sines (B, A, T, width / A) for positions (B, A, T).

    The frequencies are rounded to half, as the original's; with a model in half the angles are half too, else float32.
    """
    size = width // places.shape[1]
    steps = torch.arange(0, size, 2, device=places.device).float() / size
    exact = torch.float16 if dtype == torch.float16 else torch.float32
    frequencies = (1.0 / 10000**steps).half().to(exact)
    angles = places[..., None].to(exact) * frequencies  # (B, A, T, size / 2)
    angles = torch.cat([angles, angles], -1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def turned(states: Tensor, turn: Pair) -> Tensor:
    """Queries or keys (B, heads, T, D), each of their A parts turned by its own position."""
    parts = []
    for i, part in enumerate(states.chunk(turn[0].shape[1], -1)):
        cosine, sine = turn[0][:, i, None], turn[1][:, i, None]  # (B, 1, T, D / A)
        left, right = part.chunk(2, -1)
        parts.append(part * cosine + torch.cat([-right, left], -1) * sine)
    return torch.cat(parts, -1)


def unseen(layout: Tensor, length: int, prefix: int) -> Tensor:
    """(B, 1, length, K) bool: which keys the last `length` tokens do not see: padding, and what is answered later."""
    place = torch.arange(layout.shape[1], device=layout.device)
    later = place > place[-length:, None]  # (length, all)
    answer, padding = (layout & ANSWER).bool(), (layout & REAL) == 0
    hidden = padding[:, None, None] | (answer[:, None, None] & later)
    return functional.pad(hidden, (prefix, 0), value=False)
