"""what a judge may cost and did: tokens counted before the first call, caps while it runs, the bill of its replies.

Tokens are counted by tiktoken where it is installed and knows the model; else 1.3 per Chinese, Japanese or Korean
character and 0.3 per other one are assumed, which is on the high side of GPT-4's and Qwen's tokenizers. While a run
goes on, what counts is the `usage` that the server reports; a reply without it counts as assumed (Purse.guessed).
A Purse is of one run and holds the caps; a Bill is of one result, whichever runs paid for its replies.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from huatuo.errors import ConfigError

REPLY_TOKENS = 400
"""Assumed length of a reply whose limit is not set, or is wider than this, for an estimate."""
_FIRST_WIDE = "\u2e7f"
"""Characters after this one are Chinese, Japanese or Korean."""


class CapReached(ConfigError):
    """A cap on calls, tokens or money was reached; what was judged until then is kept."""


@dataclass(frozen=True)
class Limits:
    """Caps of one run, 0 for none, and prices per million tokens, 0 for none told."""

    max_calls: int
    max_total_tokens: int = 0
    max_cost: float = 0.0
    price_in: float = 0.0
    price_out: float = 0.0

    @property
    def is_priced(self) -> bool:
        """Whether a price is told."""
        return bool(self.price_in or self.price_out)

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """In the currency of the prices."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


@dataclass(frozen=True)
class Estimate:
    """Before a run. calls: still to be made if every try succeeds; at_most: if all are needed every time.

    tokens_in, tokens_out: for `calls`, roughly; cost in the currency of the prices, None where none is given.
    """

    calls: int
    at_most: int
    tokens_in: int
    tokens_out: int
    cost: float | None

    def __str__(self) -> str:
        cost = "no prices given" if self.cost is None else f"about {self.cost:.2f}"
        return (
            f"{self.calls} calls, {self.at_most} at most; about {self.tokens_in:,} tokens sent and "
            f"{self.tokens_out:,} received; cost: {cost}"
        )


def sum_of(estimates: Sequence[Estimate]) -> Estimate:
    """All of them together; a cost only if each has one. Raises ValueError for none."""
    if not estimates:
        raise ValueError("no estimates")
    costs = [each.cost for each in estimates if each.cost is not None]
    calls, at_most, sent, received = (
        sum(getattr(each, key) for each in estimates)
        for key in ("calls", "at_most", "tokens_in", "tokens_out")
    )
    return Estimate(calls, at_most, sent, received, sum(costs) if len(costs) == len(estimates) else None)  # fmt: skip


def count_tokens(text: str, model: str = "") -> float:
    """Tokens of a text, by tiktoken for a model it knows, else assumed (see the module)."""
    encoding = _encoding(model)
    if encoding is not None:
        return float(len(encoding.encode(text, disallowed_special=())))
    return sum(1.3 if char > _FIRST_WIDE else 0.3 for char in text)


@cache
def _encoding(model: str) -> Any:
    try:
        import tiktoken

        return tiktoken.encoding_for_model(model) if model else None
    except (
        ImportError,
        KeyError,
        OSError,
        ValueError,
    ):  # not installed, unknown, or not to be loaded
        return None


class Purse:
    """What one run has spent, for several threads at once. guessed: replies whose usage the server did not tell."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.calls = self.guessed = 0
        self.tokens_in = self.tokens_out = 0.0
        self._lock = threading.Lock()
        self._open = [0.0, 0.0]  # tokens of calls under way, in and out

    @property
    def cost(self) -> float:
        """So far, in the currency of the prices."""
        return self.limits.cost(self.tokens_in, self.tokens_out)

    def reserve(self, tokens_in: float, tokens_out: float) -> None:
        """Before a call: counts it. Raises CapReached if a reply of that length could pass a cap."""
        limits = self.limits
        with self._lock:
            sent = self.tokens_in + self._open[0] + tokens_in
            received = self.tokens_out + self._open[1] + tokens_out
            if self.calls >= limits.max_calls:
                raise _reached("max_calls", f"the {self.calls:,} calls allowed are used up")
            if limits.max_total_tokens and sent + received > limits.max_total_tokens:
                used = self.tokens_in + self.tokens_out
                raise _reached(
                    "max_total_tokens",
                    f"{used:,.0f} of {limits.max_total_tokens:,} tokens are used and the next call may pass the rest",
                )
            if limits.max_cost and limits.cost(sent, received) > limits.max_cost:
                raise _reached(
                    "max_cost",
                    f"{self.cost:.4f} of {limits.max_cost:.4f} is spent and the next call may pass the rest",
                )
            self.calls += 1
            self._open[0] += tokens_in
            self._open[1] += tokens_out

    def settle(
        self, reserved: tuple[float, float], used: tuple[float, float] | None, guess: bool = False
    ) -> None:
        """After a call. used: what the server told; None with guess counts the reservation, without counts nothing."""
        with self._lock:
            self._open = [now - held for now, held in zip(self._open, reserved, strict=True)]
            if used is None and not guess:
                return
            self.guessed += used is None
            sent, received = reserved if used is None else used
            self.tokens_in += sent
            self.tokens_out += received

    def __str__(self) -> str:
        cost = f", {self.cost:.4f} spent" if self.limits.is_priced else ""
        return f"this run: {self.calls:,} calls{cost}"


@dataclass(frozen=True)
class Paid:
    """One reply. guessed: whether the server told no usage; share: of the price, below 1 for one of a batch."""

    tokens_in: float
    tokens_out: float
    guessed: bool = False
    share: float = 1.0


class Bill:
    """What the replies that a result rests on cost; the same after any stop, since each counts once by its key."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._paid: dict[str, Paid] = {}

    def add(self, key: str, paid: Paid) -> None:
        """One reply; the same key again counts as one."""
        self._paid[key] = paid

    def told(self) -> dict[str, Any]:
        """For reports; cost in the currency of the prices, None where none is given."""
        rows = self._paid.values()
        costs = [self._limits.cost(r.tokens_in, r.tokens_out) * r.share for r in rows]
        return {
            "replies": len(rows),
            "in_batches": sum(row.share < 1 for row in rows),
            "tokens_in": round(math.fsum(row.tokens_in for row in rows)),
            "tokens_out": round(math.fsum(row.tokens_out for row in rows)),
            "replies_without_usage": sum(row.guessed for row in rows),
            "cost": round(math.fsum(costs), 6) if self._limits.is_priced else None,
        }


def _reached(key: str, why: str) -> CapReached:
    return CapReached(f"{key}: {why}; what was judged is kept, raise it to go on")
