"""how figures are put into words: names, shares, intervals and reasons in one language."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from huatuo.ui.text import Language, say
from reviews.intervals import Estimate
from reviews.stated import Stated


@dataclass(frozen=True)
class Teller:
    """titles: what a contestant is called in this language; one that is not there keeps its name."""

    titles: Mapping[str, str]
    language: Language

    def say(self, key: str, **values: object) -> str:
        """The string of that key. Raises KeyError for a key without a string."""
        return say(key, self.language, **values)

    def name(self, contestant: str) -> str:
        """A contestant's title."""
        return self.titles.get(contestant) or contestant

    def pair(self, first: str, second: str) -> str:
        """Two contestants against each other."""
        return self.say("report.pair", a=self.name(first), b=self.name(second))

    def rater(self, number: int) -> str:
        """A rater's pseudonym."""
        return self.say("report.rater", n=number)

    def why(self, reason: str) -> str:
        """Why there is no figure."""
        return self.say(f"report.why.{reason}")

    def percent(self, share: float | None) -> str:
        """A share in per cent, finer near 0 and 100; the sign stays on the number's line."""
        if share is None:
            return "—"
        edge = min(share, 1 - share)
        digits = 0 if edge >= 0.01 or edge <= 0 else 1 if edge >= 0.001 else 2
        return f"{100 * share:.{digits}f}\u00a0%"

    def signed(self, value: float | None) -> str:
        """A score with its sign."""
        if value is None:
            return "—"
        return "0" if abs(value) < 0.005 else f"{value:+.2f}".replace("-", "\u2212")

    def plain(self, value: float | None) -> str:
        """A measure with two decimals."""
        return "—" if value is None else f"{value:.2f}".replace("-", "\u2212")

    def p(self, value: float) -> str:
        """A p-value as journals print it."""
        return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")

    def p_equals(self, value: float) -> str:
        """The same as an equation."""
        told = self.p(value)
        return f"p {told}" if told.startswith("<") else f"p = {told}"

    def range(self, low: str, high: str) -> str:
        """From one end of an interval to the other."""
        return self.say("report.range", low=low, high=high)

    def share(self, stated: Stated) -> str:
        """A share with its interval, or the reason why there is none."""
        return self._told(stated, self.percent)

    def measure(self, stated: Stated) -> str:
        """A measure such as alpha with its interval, or the reason why there is none."""
        return self._told(stated, self.plain)

    def score(self, stated: Stated | Estimate) -> str:
        """A difference in log-odds with its interval, or the reason why there is none."""
        if isinstance(stated, Estimate):
            stated = Stated(stated.value, stated.low, stated.high, 0)
        return self._told(stated, self.signed)

    def brief(self, stated: Stated | Estimate, write: Callable[[float | None], str]) -> str:
        """A figure for the margin of a drawing: no words about its interval."""
        if stated.value is None:
            why = stated.why if isinstance(stated, Stated) else ""
            return self.say("report.undefined", why=self.why(why or "no_votes"))
        if stated.low is None or stated.high is None:
            return write(stated.value)
        ends = self.range(write(stated.low), write(stated.high))
        return self.say("report.in_figure", value=write(stated.value), range=ends)

    def list(self, parts: Sequence[str]) -> str:
        """Several things in one sentence."""
        return self.say("report.comma").join(parts)

    def _told(self, stated: Stated, write: Callable[[float | None], str]) -> str:
        if stated.value is None:
            return self.say("report.undefined", why=self.why(stated.why or "no_votes"))
        if stated.low is None or stated.high is None:
            return self.say("report.without_interval", value=write(stated.value))
        ends = self.range(write(stated.low), write(stated.high))
        return self.say("report.with_interval", value=write(stated.value), range=ends)
