"""automatic metrics of a file of answers: a table with intervals, and paired tests against another model's answers.

    python -m training.metrics ANSWERS.jsonl [--references FILE] [--against OTHER.jsonl]

Writes the same as JSON, with each file's sha256 and the whole convention (training/scores.py), whose choices are the
flags. Besides JSONL it reads the arrays of answers that HuatuoGPT-II published (training/answer_files.py).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

from huatuo.errors import ConfigError, HuatuoError
from training.answer_files import Said, align, read_answers, read_references
from training.rows import Source, write_text
from training.scores import DISTINCT, METRICS, Convention, Floats, Scores, score
from training.significance import RESAMPLES, compare, intervals

__all__ = ["METRICS", "Convention", "Scores", "main", "report", "score", "show"]


def report(
    answers: Sequence[Said],
    references: Sequence[Sequence[str]],
    convention: Convention,
    others: Sequence[Said] = (),
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores with 95 % intervals, and, with another model's answers, the differences with their tests, for JSON.

    others: answers to the same questions in the same order. Raises what `score` raises.
    """
    sides = [
        score([said.answer for said in side], references, convention)
        for side in (answers, others)
        if side
    ]
    result: dict[str, Any] = {"questions": len(answers), "convention": asdict(convention)}
    for key, side, texts in zip(("scores", "against"), sides, (answers, others), strict=False):
        bounds = intervals(side.columns, side.finish, resamples=resamples, seed=seed)
        limits = dict(zip(side.names, bounds.tolist(), strict=True))
        result[key] = {
            name: {"value": value, "interval": limits.get(name) if value is not None else None}
            for name, value in side.values.items()
        }
        result[f"empty_in_{key}"] = sum(not said.answer.strip() for said in texts)
        result[f"mean_characters_in_{key}"] = sum(len(said.answer) for said in texts) / len(texts)
    if others:
        kept = [i for i, name in enumerate(sides[0].names) if sides[0].values[name] is not None]

        def finish(sums: Floats, questions: int) -> Floats:
            return sides[0].finish(sums, questions)[..., kept]

        names = [sides[0].names[i] for i in kept]
        found = compare(
            sides[0].columns, sides[1].columns, finish, names, resamples=resamples, seed=seed
        )
        result["differences"] = {each.metric: asdict(each) for each in found}
    return result


def show(result: dict[str, Any]) -> str:
    """The report as a table for a terminal, values x 100 but Distinct, as the paper's tables print them."""
    convention = result["convention"]
    lines = [", ".join(f"{key} {value}" for key, value in convention.items())]
    differences = result.get("differences", {})
    head = f"{'':11}{'value':>8}{'95 % interval':>19}"
    lines.append(
        head
        + (
            f"{'other':>8}{'difference':>12}{'95 % interval':>19}{'p':>8}{'Holm':>8}"
            if "against" in result
            else ""
        )
    )
    for name in METRICS:
        scale, digits = (1, 4) if name in DISTINCT else (100, 2)
        cells = [_cell(result["scores"][name], scale, digits)]
        if "against" in result:
            cells.append(_number(result["against"][name]["value"], scale, digits, 8))
            cells.append(_difference(differences.get(name), scale, digits))
        lines.append(f"{name:11}" + "".join(cells))
    for key, file in (("scores", "answers"), ("against", "the other's answers")):
        if result.get(f"empty_in_{key}"):
            lines.append(f"{result[f'empty_in_{key}']} of {file} are empty; they count as 0")
    if result["scores"][METRICS[0]]["value"] is None:
        lines.append("no references: only Distinct has a value; give some with --references FILE")
    return "\n".join(lines)


def _cell(found: dict[str, Any], scale: int, digits: int) -> str:
    bounds = found["interval"]
    shown = (
        ""
        if bounds is None
        else f"{bounds[0] * scale:.{digits}f} to {bounds[1] * scale:.{digits}f}"
    )
    return _number(found["value"], scale, digits, 8) + f"{shown:>19}"


def _difference(found: dict[str, Any] | None, scale: int, digits: int) -> str:
    if found is None:
        return ""
    bounds = f"{found['low'] * scale:+.{digits}f} to {found['high'] * scale:+.{digits}f}"
    return f"{found['difference'] * scale:+12.{digits}f}{bounds:>19}{found['p']:8.4f}{found['p_holm']:8.4f}"


def _number(value: float | None, scale: int, digits: int, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value * scale:{width}.{digits}f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.metrics",
        description="BLEU, GLEU, ROUGE and Distinct of a file of answers, with intervals.",
    )
    parser.add_argument("answers", type=Path, help="JSONL {id, answer}, or a published array")
    parser.add_argument(
        "--references", type=Path, help="JSONL {id, references}, or answers to compare with"
    )
    parser.add_argument(
        "--against", type=Path, help="another model's answers to the same questions"
    )
    parser.add_argument("--out", type=Path, help="JSON; default data/metrics/<answers>.json")
    parser.add_argument("--partial", action="store_true", help="score only the ids in every file")
    parser.add_argument("--language", choices=("zh", "en"), default="zh", help="en: tokens 13a")
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    parser.add_argument("--seed", type=int, default=0)
    for field in fields(Convention):
        choices = get_args(Convention.__annotations__[field.name])
        parser.add_argument(f"--{field.name}", choices=choices, help=f"default {field.default}")
    return parser


def _measure(options: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """(the report with its files' hashes, where it was written)."""
    given = {f.name: value for f in fields(Convention) if (value := getattr(options, f.name))}
    start = Convention(tokens="13a") if options.language == "en" else Convention()
    convention = replace(start, **given)
    answers = read_answers(options.answers)
    ids, found = list(answers), {id: said.references for id, said in answers.items()}
    if options.references:
        found = read_references(options.references)
        ids = align(answers, found, options.references.name, partial=options.partial)
    others: list[Said] = []
    if options.against:
        other = read_answers(options.against)
        shown = {id: answers[id] for id in ids}
        ids = align(shown, other, options.against.name, partial=options.partial)
        others = [other[id] for id in ids]
    without = [answers[id].place for id in ids if not found[id]]
    if without and len(without) < len(ids):
        raise ConfigError(f"{without[0]}: no references, while other rows have some")
    result = report(
        [answers[id] for id in ids], [found[id] for id in ids], convention, others,
        resamples=options.resamples, seed=options.seed,
    )  # fmt: skip
    files = {name: getattr(options, name) for name in ("answers", "references", "against")}
    result["files"] = {
        name: {"name": path.name, "sha256": Source(path).sha256()}
        for name, path in files.items()
        if path
    }
    out = options.out or Path("data/metrics") / f"{options.answers.stem}.json"
    write_text(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    return result, out


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table and writes the JSON; 2 and one line on stderr for files that cannot be used."""
    try:
        result, out = _measure(_parser().parse_args(arguments))
    except (HuatuoError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(show(result))
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
