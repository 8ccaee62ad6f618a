"""a stronger judge than the authors': both orders, per criterion, safety veto, strict JSON, capped, kept on disk.

    python -m training.judge configs/judge.toml --answers A.jsonl B.jsonl [--names A B] [--out FILE] [--yes]

Each pair is shown in both orders. The verdict is the orders' sum as in the authors' protocol (a win and a tie is a win,
two opposite wins a tie); criteria are summed likewise. Safety veto: a winner that either order flagged with a serious
fault loses to an answer without one, and nobody wins if both are flagged. A reply that cannot be read in three tries
makes an error row, never a verdict. Writes the rows, and beside them the summary (.json) and a report (.html). Replies
are kept as they come: after a kill the same command asks only what is missing. Exit status: 0 done; 2 an error; 3 a cap
was reached (what was judged stands in FILE.partial); 130 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from huatuo.errors import ConfigError, HuatuoError, NoData, Truncated
from huatuo.toml import Texts, read_toml
from training import judge_form
from training.answer_files import Said, align, read_answers
from training.data import BadData
from training.endpoint import TRIES, Endpoint, EndpointConfig, Question, Rejected
from training.flags import add_keys
from training.in_parallel import run_all
from training.judge_form import Reading
from training.judge_report import write_report
from training.judge_rows import row, write_rows
from training.judge_summary import summary
from training.rows import write_text
from training.spending import CapReached, Estimate

__all__ = ["Judge", "JudgeConfig", "Pair", "read_pairs", "run", "summary"]


BENCHMARK = "its name in an evaluation of several benchmarks, whose ids may be the same"


class JudgeConfig(EndpointConfig):
    """The judging model, what it is asked and what it may cost: configs/judge.toml."""

    language: Literal["zh", "en"] = Field(default="zh", description="of the judge's instructions")
    criteria: Texts = Field(
        default=judge_form.all_criteria(), min_length=1, description="keys of reviews/protocol.py"
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="not sent if not given: some models refuse it"
    )
    max_tokens: int = Field(default=1200, ge=16, description="longest reply, in tokens")
    workers: int = Field(default=4, ge=1, le=64, description="cases judged at the same time")
    confirm_above: float = Field(
        default=1.0, ge=0, description="an estimate above it, in the prices' currency, needs --yes"
    )
    batch_price: float = Field(
        default=0.5, gt=0, le=1, description="what a call in a batch costs, as a share of the price"
    )


@dataclass(frozen=True)
class Pair:
    """Two models' answers to one case."""

    a: Said
    b: Said

    @property
    def department(self) -> str:
        """The case's, as either file says."""
        return self.a.department or self.b.department

    @property
    def intent(self) -> str:
        """The case's, as either file says."""
        return self.a.intent or self.b.intent


class Judge:
    """One judging model. Raises ConfigError for a criterion nobody knows, an unsafe address or a missing key."""

    def __init__(
        self, config: JudgeConfig, names: tuple[str, str], cache: Path | None = None
    ) -> None:
        unknown = [key for key in config.criteria if key not in judge_form.all_criteria()]
        if unknown or len(set(config.criteria)) < len(config.criteria):
            told = f"{unknown[0]} is not known" if unknown else "one stands there twice"
            raise ConfigError(f"criteria: {told}; there are {', '.join(judge_form.all_criteria())}")
        if names[0] == names[1]:
            raise ConfigError(f"both models are called {names[0]}; tell them apart with --names")
        self.endpoint = Endpoint(config, cache)
        self.config = config
        self.names = names
        self._schema = judge_form.schema(config.criteria)

    def questions(self, pair: Pair, number: int = 0) -> tuple[Question, Question]:
        """Draw `number` (0 to 2) of both orders. Raises BadData where the files do not fit together."""
        language, show = self.config.language, self.endpoint.shown
        a, b = pair.a, pair.b
        if bool(a.turns) != bool(b.turns):
            raise BadData(f"{b.place}: a consultation against a single answer cannot be judged")
        question = None
        if a.turns:
            texts = [judge_form.dialogue(language, said.turns) for said in (a, b)]
        else:
            texts = [a.answer, b.answer]
            question = show(_question(pair))
        one, two = (show(text) for text in texts)
        there, back = (
            judge_form.prompt(language, self.config.criteria, shown, question)
            for shown in ((one, two), (two, one))
        )
        again = TRIES if there == back else 0  # the same text twice is asked twice
        return self._draw(there, number), self._draw(back, again + number)

    def judge(self, pair: Pair) -> dict[str, Any]:
        """The row of one pair. Raises Busy, Refused, Unavailable or CapReached; then there is no row."""
        found, problems = [], []
        for order in (0, 1):
            reading, why = self._order(pair, order)
            found.append(reading)
            problems += [f"order {order + 1}: {why}"] if why else []
        facts = {
            "department": pair.department,
            "intent": pair.intent,
            "lengths": {"a": len(pair.a.answer), "b": len(pair.b.answer)},
            "judge": self.endpoint.name,
        }
        problem = "; ".join(problems) or None
        return row(pair.a.id, self.names, found, self.config.criteria, problem) | facts

    def estimate(self, pairs: Sequence[Pair]) -> Estimate:
        """What judging the pairs will take; what lies on disk costs nothing. Raises BadData."""
        return self.endpoint.estimate(self.missing(pairs))

    def missing(self, pairs: Sequence[Pair]) -> Iterator[tuple[Question, int]]:
        """The next question of every order that has no reading yet, and how many tries are left. Raises BadData."""
        for pair in pairs:
            for order in (0, 1):
                for number in range(TRIES):
                    question = self.questions(pair, number)[order]
                    said = self.endpoint.kept(question)
                    if said is None:
                        yield question, TRIES - number
                        break
                    if self._is_readable(said):
                        break

    def _is_readable(self, said: str) -> bool:
        try:
            judge_form.read(said, self.config.criteria)
        except ValueError:
            return False
        return True

    def _draw(self, prompt: str, number: int) -> Question:
        return Question(prompt, number, self.config.temperature, self._schema)

    def _order(self, pair: Pair, order: int) -> tuple[Reading | None, str]:
        """What one order says, or why it says nothing."""
        why = ""
        for number in range(TRIES):
            question = self.questions(pair, number)[order]
            try:
                said = self.endpoint.answer(question, str, tries=1)
                return judge_form.read(said, self.config.criteria), ""
            except Truncated:
                why = "the reply broke off"
            except Rejected:
                return None, "the server refused the request; too long, or a setting it lacks"
            except ValueError as error:
                why = f"the reply is not the form: {error}"
        return None, f"{TRIES} tries, {why}"


def _question(pair: Pair) -> str:
    a, b = pair.a, pair.b
    question = a.question or b.question
    if not question or b.question not in ("", question):
        told = "not the question that the other file has" if question else "no question"
        raise BadData(f"{b.place}: {told}; the judge needs the same one for both answers")
    return question


def run(judge: Judge, pairs: Sequence[Pair]) -> tuple[list[dict[str, Any]], BaseException | None]:
    """(rows of all pairs that were judged, in order; what stopped the run early, or None)."""
    return run_all(judge.judge, pairs, judge.config.workers)


def read_pairs(a: Path, b: Path, *, partial: bool = False) -> list[Pair]:
    """Pairs of two answer files, in the first one's order. Raises BadData, NoData."""
    ours, theirs = read_answers(a), read_answers(b)
    return [Pair(ours[id], theirs[id]) for id in align(ours, theirs, b.name, partial=partial)]


def options(prog: str, about: str | None) -> argparse.ArgumentParser:
    """The command line that judging at once and in batches share; every key of the config is a flag too."""
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description=about)
    parser.add_argument("config", type=Path, help="TOML of the judging model")
    parser.add_argument("--answers", type=Path, nargs=2, required=True, metavar=("A", "B"))
    parser.add_argument(
        "--names", nargs=2, metavar=("A", "B"), help="of the models; else the files'"
    )
    parser.add_argument("--partial", action="store_true", help="judge only the ids in both files")
    parser.add_argument("--benchmark", default="", help=BENCHMARK)
    parser.add_argument("--estimate", action="store_true", help="say what it would take, and stop")
    parser.add_argument("--yes", action="store_true", help="go on above confirm_above or a cap")
    parser.add_argument("--out", type=Path, default=Path("data/judge/verdicts.jsonl"))
    parser.add_argument("--no-report", action="store_true", help="rows and figures, no page")
    add_keys(parser, JudgeConfig)
    return parser


def prepare(given: argparse.Namespace) -> tuple[Judge, list[Pair]]:
    """The judge and the pairs that a command line names. Raises HuatuoError subclasses."""
    overrides = {key: getattr(given, key) for key in JudgeConfig.model_fields}
    said = {key: value for key, value in overrides.items() if value is not None}
    config = read_toml(given.config, JudgeConfig, said)
    a, b = given.answers
    names = tuple(given.names or (a.stem, b.stem))
    return Judge(config, (names[0], names[1])), read_pairs(a, b, partial=given.partial)


def confirm(endpoint: Endpoint, above: float, estimate: Estimate, *, yes: bool) -> None:
    """Raises ConfigError for a run that is dearer than `above` (confirm_above) or than a cap, unless --yes was said."""
    limits, why = endpoint.purse.limits, ""
    tokens = estimate.tokens_in + estimate.tokens_out
    if estimate.cost is not None and estimate.cost > above:
        why = f"about {estimate.cost:.2f} is more than confirm_above, {above:.2f}"
    if estimate.cost is not None and 0 < limits.max_cost < estimate.cost:
        why = (
            f"max_cost, {limits.max_cost:.2f}, will stop it on its way (about {estimate.cost:.2f})"
        )
    if 0 < limits.max_total_tokens < tokens:
        why = f"max_total_tokens, {limits.max_total_tokens:,}, will stop it on its way"
    if estimate.calls > limits.max_calls:
        why = (
            f"max_calls, {limits.max_calls:,}, will stop it on its way ({estimate.calls:,} needed)"
        )
    if why and not yes:
        raise ConfigError(f"nothing was asked: {why}; say --yes to go on all the same")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the estimate, judges, prints the summary; for the exit status see the module."""
    given = options("training.judge", __doc__).parse_args(arguments)
    try:
        judge, pairs = prepare(given)
        estimate = judge.estimate(pairs)
        print(f"{len(pairs)} cases: {estimate}", flush=True)
        if given.estimate:
            return 0
        confirm(judge.endpoint, judge.config.confirm_above, estimate, yes=given.yes)
        rows, stopped = run(judge, pairs)
        return finish(judge, rows, stopped, given, len(pairs))
    except (HuatuoError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def finish(
    judge: Judge,
    rows: list[dict[str, Any]],
    stopped: BaseException | None,
    given: argparse.Namespace,
    asked: int,
) -> int:
    """Writes what run() gave, whole or as FILE.partial; returns the exit status. Raises NoData if nothing is judged."""
    out: Path = given.out
    rows = [{**one, "benchmark": given.benchmark} for one in rows] if given.benchmark else rows
    part = out.with_name(out.name + ".partial")
    if stopped is not None:
        write_rows(part, rows)
        told = "interrupted" if isinstance(stopped, KeyboardInterrupt) else str(stopped)
        print(f"{told}\n{len(rows)} of {asked} cases are judged: {part}", file=sys.stderr)
        if isinstance(stopped, KeyboardInterrupt):
            return 130
        return 3 if isinstance(stopped, CapReached) else 2
    if all(one["winner"] is None for one in rows):
        write_rows(part, rows)
        raise NoData(f"no case could be judged; the first error: {rows[0]['error']} (see {part})")
    found = summary(rows) | {"spent": judge.endpoint.bill.told()}
    write_rows(out, rows)
    part.unlink(missing_ok=True)
    write_text(out.with_suffix(".json"), json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    if not given.no_report:
        write_report(out.with_suffix(".html"), rows, found)
    counts = ", ".join(f"{key} {found[key]}" for key in ("win", "tie", "loss", "errors"))
    print(f"{judge.names[0]} against {judge.names[1]}: {counts}, flips {found['flips']['count']}")
    print(f"{judge.endpoint.purse}\nwritten to {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
