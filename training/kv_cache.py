"""a key-value cache with room for a whole answer, written in place.

transformers' DynamicCache copies all keys and values of every layer for each new token. In batches of short answers from
small models that copying, and not arithmetic, is what generation waits for.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """A layer's keys and values (B, heads, T, D) as views of buffers with `room` tokens. Grows if that was too little."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends (B, heads, t, D) each; returns all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._move(key_states, value_states, begin, max(end, self.room))
        assert self._buffers is not None
        keys, values = self._buffers
        keys[..., begin:end, :] = key_states
        values[..., begin:end, :] = value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def _move(self, keys: Tensor, values: Tensor, begin: int, room: int) -> None:
        """New buffers of `room` tokens, with the `begin` tokens that are held."""
        new = (
            keys.new_empty(*keys.shape[:-2], room, keys.shape[-1]),
            values.new_empty(*values.shape[:-2], room, values.shape[-1]),
        )
        if begin and self.keys is not None and self.values is not None:
            new[0][..., :begin, :] = self.keys
            new[1][..., :begin, :] = self.values
        self._buffers = new

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times."""
        super().batch_repeat_interleave(repeats)
        self._buffers = None

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows."""
        super().batch_select_indices(indices)
        self._buffers = None


def roomy_cache(config: Any, room: int) -> DynamicCache:
    """A cache for a model of this config with room for `room` tokens; layers of another kind than full attention stay."""
    cache = DynamicCache(config=config)
    cache.layers = [
        RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
