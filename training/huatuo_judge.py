"""the judge of HuatuoGPT's authors, as they published it: both orders, 10/5/0 summed, three tries, the last label.

    python -m training.huatuo_judge JUDGE.toml A.json B.json [--names A B] [--multi] [--estimate] [--out FILE]
        [--in-batches]

training.evaluate and training.judge_physicians read what it writes. Replies are kept: the same command goes on after a
stop. --in-batches goes through the Batch API, as training.batch does, with its flags. Exit status: 0 done; 2 an error;
4 batches are under way (--no-wait); 130 interrupted.
Prompts and protocol: FreedomIntelligence/HuatuoGPT-II, evaluation/eval_huatuo_inst.py and eval_huatuo_conv.py. No
temperature and no length limit are sent, as there. Two things differ: identifiers are masked when texts leave the
country, and an order that gets no label in three tries makes the case `no verdict`, counted but never scored.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from huatuo.errors import ConfigError, HuatuoError, Truncated
from huatuo.toml import read_toml
from reviews.stats import wilson
from training.answer_files import Said, align, read_answers
from training.batch import STOPPED, add_batch_flags, refuse_beyond_caps, through_batches
from training.data import BadData
from training.endpoint import TRIES, Endpoint, EndpointConfig, Question
from training.judge import BENCHMARK
from training.rows import write_text
from training.spending import Estimate

_REQUIREMENTS = (
    "Requirements: The response should be to the point and adress the problem of user. The description of symptoms "
    "should be comprehensive and accurate, and the provided diagnosis should be the most reasonable inference based on "
    "all relevant factors and possibilities. The treatment recommendations should be effective and reliable, taking "
    "into account the severity or stages of the illness. The prescriptions should be effective and reliable, "
    "considering indications, contraindications, and dosages.\n"
)
_ASSISTANTS = "[Assistant 1]\n{}\n[End of Assistant 1]\n\n[Assistant 2]\n{}\n[End of Assistant 2]\n\n[System]\n"
_LABELS = (
    " You should tell me whether Assistant 1 is `better than`, `worse than`, or `equal to` Assistant 2.\n"
    "Please first compare their responses and analyze which one is more in line with the given requirements.\n"
    "In the last line, please output a single line containing only a single label selecting from `Assistant 1 is "
    "better than Assistant 2`, `Assistant 1 is worse than Assistant 2`, and `Assistant 1 is equal to Assistant 2`."
)
SINGLE = (
    "[Question]\n{}\n[End of Question]\n\n"
    + _ASSISTANTS
    + "We would like to request your feedback on the two AI "
    "assistants in response to the user question displayed above.\n"
    + _REQUIREMENTS
    + "Please compare the "
    "performance of their responses." + _LABELS
)
MULTI = (
    _ASSISTANTS
    + "We would like to request your feedback on two multi-turn conversations between the AI assistant "
    "and the user displayed above.\n"
    + _REQUIREMENTS
    + "Please compare the performance of the AI assistant in each "
    "conversation." + _LABELS
)

Label = Literal["better", "worse", "equal"]
POINTS: dict[Label, tuple[int, int]] = {"better": (10, 0), "worse": (0, 10), "equal": (5, 5)}
"""What the first and the second answer shown get."""
_TURNED: dict[Label, Label] = {"better": "worse", "worse": "better", "equal": "equal"}
_SAYS = r"Assistant {} is (`?)([bB]etter than|[wW]orse than|[eE]qual to)\1 Assistant {}"
_FIRST, _SECOND = (re.compile(_SAYS.format(*pair)) for pair in ((1, 2), (2, 1)))


class HuatuoJudgeConfig(EndpointConfig):
    """The judging model and what it costs."""

    max_tokens: int = Field(
        default=0, ge=0, description="longest reply, in tokens; 0 sends no limit"
    )
    batch_price: float = Field(
        default=0.5, gt=0, le=1, description="what a call in a batch costs, as a share of the price"
    )


@dataclass(frozen=True)
class Order:
    """One order of two answers. label: of the answer shown first, None when three tries gave none; tries: used.

    on_last_line: whether the label stood on the reply's last line, as the prompt asks.
    """

    label: Label | None
    tries: int
    on_last_line: bool = False


@dataclass(frozen=True)
class Ruling:
    """What both orders say of model a against model b. lengths: characters of both answers."""

    id: str
    intent: str
    department: str
    orders: tuple[Order, Order]
    lengths: tuple[int, int]

    @property
    def group(self) -> str:
        """What the case is counted under."""
        return self.intent or self.department

    @property
    def scores(self) -> tuple[int, int] | None:
        """(a's points, b's points) of both orders together, 0 to 20; None without a label in both."""
        there, back = (order.label for order in self.orders)
        if there is None or back is None:
            return None
        return POINTS[there][0] + POINTS[back][1], POINTS[there][1] + POINTS[back][0]

    @property
    def outcome(self) -> Literal["win", "tie", "loss", "no verdict"]:
        """Of model a: the higher sum wins."""
        if self.scores is None:
            return "no verdict"
        a, b = self.scores
        return "win" if a > b else "loss" if a < b else "tie"

    @property
    def flipped(self) -> bool:
        """Whether the two orders name different winners."""
        there, back = (order.label for order in self.orders)
        return there is not None and there == back and there != "equal"


def label_of(reply: str) -> Label | None:
    """The published reading of a reply: the last "Assistant 1 is … Assistant 2", else the last reversed sentence,
    turned round, else "are equal in" for a tie, else None.

    Source: parse_classification_cot of HuatuoGPT-II's evaluation.
    """
    found = _FIRST.findall(reply)
    if found:
        return _label(found[-1][1])
    found = _SECOND.findall(reply)
    if found:
        return _TURNED[_label(found[-1][1])]
    return "equal" if "are equal in" in reply else None


def _label(words: str) -> Label:
    labels: dict[str, Label] = {"b": "better", "w": "worse", "e": "equal"}
    return labels[words[0].lower()]


def render(turns: Iterable[tuple[str, str]]) -> str:
    """A consultation as the multi-turn prompt shows it."""
    return "".join(f"User: {said}\nAI assistant: {answer}\n\n" for said, answer in turns).strip()


class HuatuoJudge:
    """The judge over one endpoint; replies are kept on disk, so a run that broke off goes on where it stopped.

    Raises ConfigError for an unsafe address or a missing key.
    """

    def __init__(self, config: HuatuoJudgeConfig, cache: Path | None = None) -> None:
        self.endpoint = Endpoint(config, cache)
        self.config = config

    def prompts(self, a: Said, b: Said, multi: bool = False) -> tuple[str, str]:
        """The prompts of both orders. Raises BadData without a question, or without turns where `multi`."""
        show = self.endpoint.shown
        if multi:
            for said in (a, b):
                if not said.turns:
                    raise BadData(f"{said.place}: no consultation; [[patient, doctor], …] expected")
            one, two = (show(render(said.turns)) for said in (a, b))
            return MULTI.format(one, two), MULTI.format(two, one)
        question = a.question or b.question
        if not question or b.question not in ("", question):
            told = "not the question that the other file has" if question else "no question"
            raise BadData(f"{b.place}: {told}; the judge needs the same one for both answers")
        question, one, two = show(question), show(a.answer), show(b.answer)
        return SINGLE.format(question, one, two), SINGLE.format(question, two, one)

    def judge(self, a: Said, b: Said, multi: bool = False) -> Ruling:
        """Both orders' rulings. Raises Busy, Refused or Unavailable, and ConfigError when max_calls is used up."""
        there, back = self._draws(a, b, multi)
        return Ruling(
            a.id,
            a.intent or b.intent,
            a.department or b.department,
            (self._order(there), self._order(back)),
            (len(a.answer), len(b.answer)),
        )

    def _draws(self, a: Said, b: Said, multi: bool) -> tuple[list[Question], list[Question]]:
        """All tries of both orders."""
        there, back = self.prompts(a, b, multi)
        again = TRIES if there == back else 0  # the same text twice is asked twice
        return (
            [Question(there, number) for number in range(TRIES)],
            [Question(back, again + number) for number in range(TRIES)],
        )

    def _order(self, draws: Sequence[Question]) -> Order:
        for number, question in enumerate(draws):
            try:
                said = self.endpoint.answer(question, str, tries=1)
            except Truncated:
                continue
            label = label_of(said)
            if label is not None:
                lines = said.strip().splitlines()
                return Order(label, number + 1, label_of(lines[-1]) == label)
        return Order(None, TRIES)

    def estimate(self, pairs: Sequence[tuple[Said, Said]], multi: bool = False) -> Estimate:
        """What judging the pairs will take; replies that are kept already cost nothing."""
        return self.endpoint.estimate(self.missing(pairs, multi))

    def missing(
        self, pairs: Sequence[tuple[Said, Said]], multi: bool = False
    ) -> Iterator[tuple[Question, int]]:
        """The next question of every order that has no label yet, and how many tries are left. Raises BadData."""
        for a, b in pairs:
            for draws in self._draws(a, b, multi):
                for number, question in enumerate(draws):
                    said = self.endpoint.kept(question)
                    if said is None:
                        yield question, TRIES - number
                    elif label_of(said) is None:
                        continue
                    break

    def check(self, estimate: Estimate) -> None:
        """Raises ConfigError for a run that max_calls or max_cost would stop on its way."""
        config = self.config
        if estimate.calls > config.max_calls:
            raise ConfigError(
                f"max_calls: {estimate.calls:,} calls are needed and {config.max_calls:,} allowed"
            )
        if config.max_cost and estimate.cost is not None and estimate.cost > config.max_cost:
            raise ConfigError(
                f"max_cost: about {estimate.cost:.2f} expected and {config.max_cost:.2f} allowed"
            )


def summarise(rulings: Sequence[Ruling]) -> dict[str, Any]:
    """Wins, ties and losses of model a, shares of the judged with 95 % Wilson intervals, also by group.

    position_flips: orders that name different winners. first_shown: share of the labels other than equal that favour
    the answer shown first, 0.5 for a fair judge. length_correlation: Pearson's, of points and length, both a minus b.
    """
    result = _counted(rulings)
    labels = [order.label for ruling in rulings for order in ruling.orders]
    decided = labels.count("better") + labels.count("worse")
    result["position_flips"] = sum(ruling.flipped for ruling in rulings)
    result["first_shown"] = labels.count("better") / decided if decided else None
    result["labels_not_on_last_line"] = sum(
        order.label is not None and not order.on_last_line for r in rulings for order in r.orders
    )
    points = [(r.scores[0] - r.scores[1], r.lengths[0] - r.lengths[1]) for r in rulings if r.scores]
    spread = np.array(points, np.float64).reshape(-1, 2)
    varied = len(spread) > 2 and bool(np.all(spread.std(0) > 0))
    result["length_correlation"] = float(np.corrcoef(spread.T)[0, 1]) if varied else None
    groups = sorted({ruling.group for ruling in rulings} - {""})
    result["by_group"] = {g: _counted([r for r in rulings if r.group == g]) for g in groups}
    return result


def _counted(rulings: Sequence[Ruling]) -> dict[str, Any]:
    outcomes = [ruling.outcome for ruling in rulings]
    judged = len(outcomes) - outcomes.count("no verdict")
    counted: dict[str, Any] = {"cases": len(outcomes), "no verdict": outcomes.count("no verdict")}
    for outcome in ("win", "tie", "loss"):
        count = outcomes.count(outcome)  # type: ignore[arg-type]
        counted[outcome] = count
        counted[f"{outcome}_rate"] = count / judged if judged else None
        counted[f"{outcome}_interval"] = list(wilson(count, judged)) if judged else None
    return counted


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the estimate, judges, prints the summary and writes it; 2 and one line on stderr for an error."""
    parser = argparse.ArgumentParser(prog="python -m training.huatuo_judge", description=__doc__)
    parser.add_argument("config", type=Path, help="TOML of the judging model")
    parser.add_argument("a", type=Path, help="answers of one model")
    parser.add_argument("b", type=Path, help="answers of the other")
    parser.add_argument(
        "--names", nargs=2, metavar=("A", "B"), help="of the models; else the files'"
    )
    parser.add_argument("--multi", action="store_true", help="consultations, not single answers")
    parser.add_argument("--estimate", action="store_true", help="say what it would take, and stop")
    parser.add_argument("--partial", action="store_true", help="judge only the ids in both files")
    parser.add_argument("--benchmark", default="", help=BENCHMARK)
    parser.add_argument("--out", type=Path, default=Path("data/huatuo-judge.json"))
    parser.add_argument("--in-batches", action="store_true", help="through the Batch API")
    add_batch_flags(parser)
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (HuatuoError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    options.names = options.names or (options.a.stem, options.b.stem)
    if options.names[0] == options.names[1]:
        raise ConfigError(
            f"both models are called {options.names[0]}; tell them apart with --names"
        )
    judge = HuatuoJudge(read_toml(options.config, HuatuoJudgeConfig))
    ours, theirs = read_answers(options.a), read_answers(options.b)
    ids = align(ours, theirs, options.b.name, partial=options.partial)
    pairs = [(ours[id], theirs[id]) for id in ids]
    if options.in_batches or options.batch:
        status = _in_batches(judge, pairs, options)
        if status is not None:
            return status
    else:
        estimate = judge.estimate(pairs, options.multi)
        print(f"{len(pairs)} cases: {estimate}", flush=True)
        if options.estimate:
            return 0
        judge.check(estimate)
    rulings = [judge.judge(a, b, options.multi) for a, b in pairs]
    names = {"model_a": options.names[0], "model_b": options.names[1]}
    names |= {"benchmark": options.benchmark} if options.benchmark else {}
    result = {"judge": judge.endpoint.name, **names, **judge.endpoint.bill.told()}
    result |= summarise(rulings)
    result["rulings"] = [
        asdict(r) | {"group": r.group, "outcome": r.outcome, "scores": r.scores} for r in rulings
    ]
    write_text(options.out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    told = {key: result[key] for key in ("win", "tie", "loss", "no verdict", "position_flips")}
    print(", ".join(f"{key} {value}" for key, value in told.items()))
    print(f"{judge.endpoint.purse}\nwritten to {options.out}")
    return 0


def _in_batches(
    judge: HuatuoJudge, pairs: Sequence[tuple[Said, Said]], options: argparse.Namespace
) -> int | None:
    """As through_batches, which see."""
    share = judge.config.batch_price

    def allow(left: list[Question]) -> bool:
        found = judge.estimate(pairs, options.multi)
        found = replace(found, cost=None if found.cost is None else found.cost * share)
        print(f"{len(pairs)} cases in batches: {found}", flush=True)
        if left and not options.estimate:
            judge.check(found)
            refuse_beyond_caps(judge.endpoint, left, share)
        return not options.estimate

    def missing() -> list[Question]:
        return [question for question, _ in judge.missing(pairs, options.multi)]

    return through_batches(judge.endpoint, missing, allow, share, options)


if __name__ == "__main__":
    raise SystemExit(main())
