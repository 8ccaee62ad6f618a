"""answers graded by physician-written criteria, as HealthBench does: a yes or no per criterion, points, worst of k.

    python -m training.rubric_grading configs/rubric_grading.toml --cases CASES.jsonl --answers A.jsonl [A2.jsonl …]
        [--labels LABELS.jsonl] [--out FILE] [--yes] [--in-batches]

Several answer files are several samples of one model, for the worst of k. Labels are physicians' own yes and no on the
same answers; then the grader is measured against them. Layouts: training/rubric_cases.py; scores: rubric_scores.py. A
reply that cannot be read in three tries leaves its criterion without a grade and the case without a score, never "not
met". Caps, cache, resuming and exit status are those of training.judge; --in-batches goes through the Batch API at half
the price, as training.batch does (its flags and its exit status 4 too). Without a server only what is kept can be
graded; there is no offline grader, for text matching is no reading.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from huatuo.errors import HuatuoError, NoData, Truncated
from huatuo.toml import read_toml
from training.answer_files import align, read_answers
from training.batch import STOPPED, add_batch_flags, allowed, through_batches
from training.endpoint import TRIES, Endpoint, EndpointConfig, Question, Rejected
from training.flags import add_keys
from training.in_parallel import run_all
from training.judge import confirm
from training.judge_figures import dumbbells
from training.judge_form import bare, json_of
from training.judge_report import interval, told
from training.judge_rows import write_rows
from training.plots import bars
from training.report import Page
from training.rows import write_text
from training.rubric_cases import Label, RubricCase, read_cases, read_labels
from training.rubric_scores import against_physicians, score, summary
from training.spending import REPLY_TOKENS, CapReached, Estimate

_FORM = '{"explanation": "...", "criteria_met": true|false}'
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"explanation": {"type": "string"}, "criteria_met": {"type": "boolean"}},
    "required": ["explanation", "criteria_met"],
    "additionalProperties": False,
}


class GradingConfig(EndpointConfig):
    """The grading model, what it is asked and what it may cost: configs/rubric_grading.toml."""

    language: Literal["zh", "en"] = Field(default="zh", description="of the grader's instructions")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="not sent if not given: some models refuse it"
    )
    max_calls: int = Field(default=20_000, ge=1, description="calls paid for at most, per run")
    workers: int = Field(default=4, ge=1, le=64, description="answers graded at the same time")
    confirm_above: float = Field(
        default=1.0, ge=0, description="an estimate above it, in the prices' currency, needs --yes"
    )
    batch_price: float = Field(
        default=0.5, gt=0, le=1, description="what a call in a batch costs, as a share of the price"
    )


@dataclass(frozen=True)
class Answer:
    """One answer to one case. sample: the number of its file, from 1."""

    case: RubricCase
    text: str
    sample: int


class Grader:
    """The grading model over one endpoint. Raises ConfigError for an unsafe address or a missing key."""

    def __init__(self, config: GradingConfig, cache: Path | None = None) -> None:
        self.endpoint = Endpoint(config, cache)
        self.config = config

    def question(self, answer: Answer, place: int, number: int = 0) -> Question:
        """Draw `number` of the question whether an answer meets the criterion at `place`."""
        words = _wordings(self.config.language)
        turns = (*answer.case.turns, ("assistant", answer.text))
        dialogue = "\n".join(
            words["roles"][role] + bare(self.endpoint.shown(text)) for role, text in turns
        )
        prompt = words["prompt"].format(
            dialogue=dialogue, criterion=bare(answer.case.criteria[place].text), form=_FORM
        )
        return Question(prompt, number, self.config.temperature, _SCHEMA)

    def grade(self, answer: Answer) -> dict[str, Any]:
        """The row of one answer. Raises Busy, Refused, Unavailable or CapReached; then there is no row."""
        found = [self._criterion(answer, place) for place in range(len(answer.case.criteria))]
        lost = [n for n, one in enumerate(found, 1) if one["met"] is None]
        why = f"criterion {lost[0]}: {found[lost[0] - 1]['reason']}" if lost else None
        return {
            "id": answer.case.id,
            "sample": answer.sample,
            "score": score(answer.case.criteria, [one["met"] for one in found]),
            "criteria": found,
            "error": why,
        }

    def estimate(self, answers: Sequence[Answer]) -> Estimate:
        """What grading takes; what lies on disk costs nothing."""
        return self.endpoint.estimate(self.missing(answers), REPLY_TOKENS / 4)

    def missing(self, answers: Sequence[Answer]) -> Iterator[tuple[Question, int]]:
        """The next question of every criterion without a grade, and how many tries are left; the same text once."""
        seen: set[str] = set()
        for answer in answers:
            for place in range(len(answer.case.criteria)):
                for number in range(TRIES):
                    question = self.question(answer, place, number)
                    said = self.endpoint.kept(question)
                    if said is None:
                        if question.prompt not in seen:
                            seen.add(question.prompt)
                            yield question, TRIES - number
                    elif not _is_readable(said):
                        continue
                    break

    def _criterion(self, answer: Answer, place: int) -> dict[str, Any]:
        criterion = answer.case.criteria[place]
        met: bool | None = None
        why = ""
        for number in range(TRIES):
            try:
                said = self.endpoint.answer(self.question(answer, place, number), str, tries=1)
                met, why = read(said)
                break
            except Truncated:
                why = f"{number + 1} tries, the reply broke off"
            except Rejected:
                why = "the server refused the request"
                break
            except ValueError as error:
                why = f"{number + 1} tries, the reply is not the form: {error}"
        return {"text": criterion.text, "points": criterion.points, "met": met, "reason": why}


def read(reply: str) -> tuple[bool, str]:
    """(met, explanation) of a reply, strictly. Raises ValueError."""
    row = json_of(reply)
    if not isinstance(row, dict) or set(row) != {"explanation", "criteria_met"}:
        raise ValueError("it does not hold exactly explanation and criteria_met")
    if not isinstance(row["criteria_met"], bool) or not isinstance(row["explanation"], str):
        raise ValueError("criteria_met is neither true nor false, or explanation no text")
    return row["criteria_met"], row["explanation"]


def _is_readable(said: str) -> bool:
    try:
        read(said)
    except ValueError:
        return False
    return True


@cache
def _wordings(language: str) -> dict[str, Any]:
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    words: dict[str, Any] = tomllib.loads(text)[language]
    return words


def section(page: Page, found: dict[str, Any]) -> None:
    """Figures and tables of summary(), and of the grader against physicians where there are labels."""
    page.heading("Rubric").text(
        f"{found['answers']} answers to {found['cases']} cases, {found['not_graded']} without a score because a "
        f"criterion could not be graded. Score: {told(found['score'])}. Points of the criteria that are met, divided by "
        "those above 0; means over cases, cut to 0 to 1, 95 % intervals over cases (as HealthBench)."
    )
    rows = {"all": found["score"], **found["tags"]}
    drawn = {name: value for name, one in rows.items() if (value := interval(one))}
    if drawn:
        page.figure(bars(drawn, "Score by tag"))
    if found["worst_at"]:
        page.table(
            [[f"worst of {k}", told(one)] for k, one in found["worst_at"].items()],
            ["of samples", "score"],
            "The expected lowest of k answers to the same case.",
        )
    if meta := found.get("physicians"):
        page.heading("The grader against physicians").text(
            f"{meta['labels']} yes-or-no labels of {meta['raters']} physicians on the same answers and criteria."
        )
        parts = {"all": meta["whole"], **meta["tags"]}
        page.figure(
            dumbbells(
                {
                    name: {
                        "physicians among themselves": interval(part["physicians"]),
                        "grader with physicians": interval(part["grader"]),
                    }
                    for name, part in parts.items()
                },
                "Macro F1",
                label="95 % intervals over cases",
            )
        )
        page.table(
            [
                [name, told(part["grader"]), told(part["physicians"])]
                for name, part in parts.items()
            ],
            ["part", "grader", "physicians"],
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the estimate, grades, prints the score; exit status as of training.judge."""
    parser = argparse.ArgumentParser(prog="python -m training.rubric_grading", description=__doc__)
    parser.add_argument("config", type=Path, help="TOML of the grading model")
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--answers", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", type=Path, help="physicians' own yes and no")
    parser.add_argument("--partial", action="store_true", help="grade only the cases with answers")
    parser.add_argument("--estimate", action="store_true", help="say what it would take, and stop")
    parser.add_argument("--yes", action="store_true", help="go on above confirm_above or a cap")
    parser.add_argument("--in-batches", action="store_true", help="through the Batch API")
    add_batch_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("data/judge/rubric.jsonl"))
    add_keys(parser, GradingConfig)
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except (HuatuoError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130


def _run(given: argparse.Namespace) -> int:
    overrides = {key: getattr(given, key) for key in GradingConfig.model_fields}
    said = {key: value for key, value in overrides.items() if value is not None}
    grader = Grader(read_toml(given.config, GradingConfig, said))
    cases = read_cases(given.cases)
    labels = read_labels(given.labels, cases, len(given.answers)) if given.labels else []
    answers = []
    for sample, path in enumerate(given.answers, 1):
        rows = read_answers(path)
        ids = align(rows, cases, given.cases.name, partial=given.partial)
        answers += [Answer(cases[id], rows[id].answer, sample) for id in ids]
    if given.in_batches or given.batch:
        status = _in_batches(grader, answers, given)
    else:
        status = _announced(grader, answers, given)
    return _graded(grader, cases, answers, labels, given) if status is None else status


def _announced(grader: Grader, answers: Sequence[Answer], given: argparse.Namespace) -> int | None:
    """Prints the estimate; 0 for --estimate. Raises ConfigError for a run that is too dear."""
    estimate = grader.estimate(answers)
    print(f"{len(answers)} answers: {estimate}", flush=True)
    if given.estimate:
        return 0
    confirm(grader.endpoint, grader.config.confirm_above, estimate, yes=given.yes)
    return None


def _in_batches(grader: Grader, answers: Sequence[Answer], given: argparse.Namespace) -> int | None:
    """As through_batches, which see."""
    config = grader.config

    def allow(left: list[Question]) -> bool:
        estimate = grader.estimate(answers)
        return allowed(
            grader.endpoint, left, estimate, config.batch_price, config.confirm_above, given
        )

    def missing() -> list[Question]:
        return [question for question, _ in grader.missing(answers)]

    return through_batches(grader.endpoint, missing, allow, config.batch_price, given)


def _graded(
    grader: Grader,
    cases: dict[str, RubricCase],
    answers: Sequence[Answer],
    labels: Sequence[Label],
    given: argparse.Namespace,
) -> int:
    rows_done, stopped = run_all(grader.grade, answers, grader.config.workers)
    part = given.out.with_name(given.out.name + ".partial")
    if stopped is not None:
        write_rows(part, rows_done)
        print(f"{stopped or 'interrupted'}\n{len(rows_done)} of {len(answers)} answers are graded: {part}",
              file=sys.stderr)  # fmt: skip
        if isinstance(stopped, KeyboardInterrupt):
            return 130
        return 3 if isinstance(stopped, CapReached) else 2
    _write(grader, given.out, cases, rows_done, labels)
    part.unlink(missing_ok=True)
    return 0


def _write(
    grader: Grader,
    out: Path,
    cases: dict[str, RubricCase],
    rows: list[dict[str, Any]],
    labels: Sequence[Label],
) -> None:
    grades = {(row["id"], row["sample"]): [one["met"] for one in row["criteria"]] for row in rows}
    found = summary(cases, grades)
    if found["score"] is None:
        raise NoData(f"no answer could be scored; the first error: {rows[0]['error']}")
    found["grader"] = grader.endpoint.name
    found["spent"] = grader.endpoint.bill.told()
    if labels:
        found["physicians"] = against_physicians(cases, grades, labels)
    write_rows(out, rows)
    write_text(out.with_suffix(".json"), json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    page = Page("Graded by physicians' criteria", f"Grader: {found['grader']}, a language model.")
    section(page, found)
    page.save(out.with_suffix(".html"))
    print(f"score {told(found['score'])}, {found['not_graded']} answers without one")
    print(f"written to {out}")


if __name__ == "__main__":
    raise SystemExit(main())
