"""lets two or more models answer a list of questions, as a study for the review page: `python -m training.study`.

    python -m training.study QUESTIONS.json --models nano-hybrid nano-doctor --out data/pairs.jsonl
    python -m reviews.importer data/pairs.jsonl --study NAME

QUESTIONS.json: a list of {id, query, label?, department?, language?}, such as KUAKE-QIC_100.json. Each question
gets one pair, the pairs of models in turn. Any model of configs/models may answer, local or remote. An answer that
did not end by itself is never used: its question is left out and counted. Answers are kept beside the output as
they come, so a run that was stopped goes on where it stood; an answer to another question, or by other weights, settings
or seed, is made anew. The kept file goes once no question is left out.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from huatuo.config import (
    ROOT,
    AppConfig,
    Generation,
    ModelConfig,
    Protocol,
    read_models,
    read_protocol,
    read_toml,
    settings_of,
)
from huatuo.engines.base import Finish
from huatuo.engines.pool import Pool
from huatuo.errors import ConfigError, EngineError, HuatuoError, NoData
from huatuo.messages import Message

AT_ONCE = 2
"""Answers being written at the same time."""


def read_questions(path: Path) -> list[dict[str, str]]:
    """The questions of a file, texts only. Raises NoData naming file and item."""
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NoData(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(items, list) or not items:
        raise NoData(f"{path}: holds no list of questions")
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict) or not str(item.get("query", "")).strip():
            raise NoData(f"{path}: item {number} has no `query`")
    return [{key: str(value) for key, value in item.items()} for item in items]


def plan(
    questions: Sequence[Mapping[str, str]], models: Sequence[str], seed: int
) -> list[tuple[int, str, str]]:
    """(question's place, first model, second model): each pair of models equally often, in a seeded order."""
    rng = random.Random(seed)
    pairs = list(itertools.combinations(models, 2))
    rng.shuffle(pairs)
    chosen = [(i, *pairs[i % len(pairs)]) for i in range(len(questions))]
    return [(i, b, a) if rng.random() < 0.5 else (i, a, b) for i, a, b in chosen]


async def answer(
    pool: Pool, model: str, question: str, seed: int, settings: Generation | None = None
) -> str:
    """The model's whole answer, by these settings or its own. Raises EngineError when it did not end by itself."""
    text = ""
    async for item in pool.stream(model, (Message("user", question),), seed, settings):
        if isinstance(item, Finish):
            if item.reason != "stop":
                raise EngineError(f"the answer ended by {item.reason}")
        elif not item.thinking:
            text += item.text
    return text.strip()


async def collect(
    pool: Pool,
    wanted: Sequence[tuple[str, str, str]],
    kept: Path,
    seed: int,
    settings: Mapping[str, object],
    generation: Generation | None = None,
) -> dict[tuple[str, str], str]:
    """(model, question id) -> answer of everything wanted as (model, id, text); failures are told and left out.

    settings: of each model, what an answer hangs on beside the question and the seed.
    """
    marks = {item[:2]: _mark(seed, item, settings[item[0]]) for item in wanted}
    found = _read_kept(kept)
    done = {place: found[mark] for place, mark in marks.items() if mark in found}
    todo = [item for item in wanted if item[:2] not in done]
    bar = tqdm(total=len(wanted), initial=len(wanted) - len(todo), unit="answer")
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(model: str, key: str, text: str) -> None:
        digest = hashlib.sha256(f"{seed}:{model}:{key}".encode()).digest()
        async with gate:
            try:
                draw = int.from_bytes(digest[:4], "big") >> 1
                said = await answer(pool, model, text, draw, generation)
            except EngineError as error:
                tqdm.write(f"{model}, question {key}: left out, {error}")
                return
            finally:
                bar.update()
        done[model, key] = said
        with kept.open("a", encoding="utf-8") as stream:
            row = [model, key, marks[model, key], said]
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    await asyncio.gather(*(one(*item) for item in todo))
    bar.close()
    return done


def _mark(seed: int, item: tuple[str, str, str], settings: object) -> str:
    """What an answer is an answer to: seed, model, id and text of the question, settings."""
    told = json.dumps([seed, *item, settings], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _read_kept(kept: Path) -> dict[str, str]:
    """Mark -> answer, of the whole lines; a line that a kill tore is cut off.

    Raises NoData naming file and line for damage before the end.
    """
    if not kept.exists():
        return {}
    whole = kept.read_bytes()
    if not whole.endswith(b"\n"):  # else the next answer would be glued to the torn one
        os.truncate(kept, whole.rfind(b"\n") + 1)
    found = {}
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            _, _, mark, said = json.loads(line)
        except ValueError:
            raise NoData(f"{kept}, line {number}: not a kept answer; remove the line") from None
        found[mark] = said
    return found


async def write_study(
    questions: Sequence[Mapping[str, str]],
    models: Mapping[str, ModelConfig],
    out: Path,
    seed: int,
    protocol: Protocol | None = None,
) -> tuple[int, int]:
    """Writes the pairs; returns (pairs written, questions left out). Raises HuatuoError.

    protocol: the settings that every model answers with; without one, each its own.
    """
    chosen = plan(questions, list(models), seed)
    wanted = [
        (model, questions[i].get("id", str(i)), questions[i]["query"])
        for i, *both in chosen
        for model in both
    ]
    deadlines = read_toml(ROOT / "configs/app.toml", AppConfig).deadlines
    pool = Pool(models, ROOT, deadlines)
    pool.start()
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = out.with_suffix(f".{protocol.name}.answers.jsonl" if protocol else ".answers.jsonl")
    settings = {name: settings_of(config, protocol) for name, config in models.items()}
    generation = protocol.generation if protocol else None
    try:
        said = await collect(pool, wanted, kept, seed, settings, generation)
    finally:
        await pool.close()
    rows = [
        {**row, "settings_a": settings[a], "settings_b": settings[b]}
        for i, a, b in chosen
        if (row := _row(questions[i], str(i), a, b, said)) is not None
    ]
    temporary = out.with_suffix(".tmp")
    temporary.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    temporary.replace(out)
    if len(rows) == len(chosen):
        kept.unlink(missing_ok=True)
    return len(rows), len(chosen) - len(rows)


def _row(
    question: Mapping[str, str], place: str, a: str, b: str, said: Mapping[tuple[str, str], str]
) -> dict[str, Any] | None:
    key = question.get("id", place)
    if (a, key) not in said or (b, key) not in said:
        return None
    return {
        "id": key,
        "question": question["query"],
        "answer_a": said[a, key],
        "answer_b": said[b, key],
        "model_a": a,
        "model_b": b,
        "department": question.get("department", ""),
        "intent": question.get("label", ""),
        "language": question.get("language", "zh"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.study", description="Let models answer questions for a review."
    )
    parser.add_argument("questions", type=Path)
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", default="", metavar="NAME", help="of configs/protocols")
    options = parser.parse_args(arguments)
    try:
        known, _ = read_models(ROOT / "configs/models")
        for name in options.models:
            if name not in known:
                raise ConfigError(f"--models: no file in configs/models names {name}")
        if len(set(options.models)) < 2:
            raise ConfigError("--models: a comparison needs two different models")
        models = {name: known[name] for name in dict.fromkeys(options.models)}
        questions = read_questions(options.questions)
        protocol = read_protocol(options.protocol, ROOT / "configs/protocols")
        written, left_out = asyncio.run(
            write_study(questions, models, options.out, options.seed, protocol)
        )
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    more = "; the same command asks again for them" if left_out else ""
    print(f"{options.out}: {written} pairs, {left_out} questions left out{more}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
