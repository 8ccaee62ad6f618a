"""AI feedback: a model answers training cases several times, a judge compares its answers: `python -m training.ai_feedback`.

    python -m training.ai_feedback configs/nano/ai_feedback.toml

As in the paper, answers of the fine-tuned model itself are compared, so that the reward model knows what reinforcement
learning will meet. The judge is a language model over the OpenAI protocol, or, where the cases come from the knowledge
table, the offline rubric (a yardstick of the toy world only). Writes the JSONL that training/pairs.py reads, with the
judge's name on every row. Goes on where it stopped with --resume: chunk by chunk of cases, the same rows as in one go.
"""

import hashlib
import itertools
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from tqdm import tqdm

from huatuo.errors import HuatuoError, NoData
from huatuo.messages import Message
from huatuo.models.branch import parent_digest
from huatuo.models.checkpoint import sha256_of
from huatuo.models.trunk import Trunk, load_trunk
from huatuo.prompts import encode
from huatuo.toml import ROOT, InsidePath, Settings, Texts, read_toml
from training.cases import Case, read_cases
from training.feedback import Comparison, Judge, LlmJudge, LlmJudgeConfig, judge_pairs
from training.flags import parse
from training.rollout import Drawing, sample
from training.rubric import NOTE, RubricJudge

CHUNK = 16
"""Cases answered and judged before they are written down."""


class FeedbackConfig(Settings):
    """One run: configs/nano/ai_feedback.toml."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$", description="the model's, in the rows")
    parent: InsidePath = Field(description="checkpoint folder of the model that answers")
    template: str = "huatuo"
    cases: Texts = Field(min_length=1, description="case files (JSONL), training side")
    out: InsidePath = Field(description="the JSONL file of judged pairs")
    samples: int = Field(default=4, ge=2, le=16, description="answers to each case")
    pairs: int = Field(default=4, ge=1, description="most pairs judged of one case")
    temperature: float = Field(default=1.0, gt=0, le=2, description="as RL will draw")
    max_new_tokens: int = Field(default=512, ge=8)
    context_tokens: int = Field(default=1024, ge=64)
    judge: LlmJudgeConfig | None = Field(
        default=None, description="a language model as judge; without it the offline rubric"
    )
    device: str = Field(default="cpu", pattern="^(cpu|cuda)$")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: torch's choice")
    seed: int = 42


def make(config: FeedbackConfig, *, resume: bool = False) -> int:
    """Writes the file of judged pairs; returns their number. Raises HuatuoError subclasses."""
    if config.threads:
        torch.set_num_threads(config.threads)
    cases = [case for name in config.cases for case in read_cases(ROOT / name)]
    if not cases:
        raise NoData("cases: the case files are empty")
    out = ROOT / config.out
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.unfinished")
    key = _key(config)
    done = _chunks_done(unfinished, key) if resume else 0
    if not done:
        unfinished.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
    trunk, tokenizer = load_trunk(ROOT / config.parent, 1, "float32", config.device)
    judge: Judge = LlmJudge(config.judge) if config.judge else RubricJudge()
    if judge.name == RubricJudge.name:
        print(NOTE["en"], file=sys.stderr)
    chunks = [cases[at : at + CHUNK] for at in range(0, len(cases), CHUNK)]
    with tqdm(total=len(cases), initial=done * CHUNK, desc="AI feedback", unit="case") as bar:
        for number in range(done, len(chunks)):
            compared = list(_pairs(config, chunks[number], trunk, tokenizer, number))
            rows = [*judge_pairs(judge, compared)]
            # One write for a whole chunk, its number in the last line: half a chunk is never counted.
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            with unfinished.open("a", encoding="utf-8") as file:
                file.write(text + json.dumps({"chunk": number}) + "\n")
            bar.update(len(chunks[number]))
    lines = unfinished.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if '"winner"' in line]
    if not kept:
        raise NoData("the model gave the same answer to every case each time; raise temperature")
    unfinished.write_text("".join(kept), encoding="utf-8")
    unfinished.replace(out)
    return len(kept)


def _key(config: FeedbackConfig) -> str:
    """What the rows depend on."""
    about = config.model_dump(mode="json", exclude={"out", "device", "threads"})
    files = [sha256_of(ROOT / name) for name in config.cases]
    text = json.dumps([about, files, parent_digest(ROOT / config.parent)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _chunks_done(file: Path, key: str) -> int:
    """How many chunks of the same run are written down; what follows the last whole one is cut off."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        if json.loads(lines[0]) != {"key": key}:
            return 0
    except (OSError, ValueError, IndexError):
        return 0
    ends = [
        at for at, line in enumerate(lines) if line.startswith('{"chunk": ') and line[-1] == "\n"
    ]
    if ends:
        file.write_text("".join(lines[: ends[-1] + 1]), encoding="utf-8")
    return len(ends)


def _pairs(
    config: FeedbackConfig, cases: Sequence[Case], trunk: Trunk, tokenizer: Any, number: int
) -> Iterator[Comparison]:
    """Up to `pairs` comparisons of each case's different, finished answers, in an order drawn by seed and chunk."""
    room = config.context_tokens - config.max_new_tokens
    prompts = [
        encode(tokenizer, (Message("user", c.question),), config.template, max_tokens=room).ids
        for c in cases
    ]
    how = Drawing(
        config.max_new_tokens,
        frozenset([int(tokenizer.eos_token_id)]),
        int(tokenizer.pad_token_id),
        config.temperature,
    )
    digest = hashlib.sha256(f"{config.seed}/{number}".encode()).digest()
    generator = torch.Generator(trunk.device).manual_seed(int.from_bytes(digest[:7], "big"))
    drawn = sample(trunk, prompts, config.samples, how, generator)
    texts = [
        tokenizer.decode(ids[answer], skip_special_tokens=True).strip() if finished else ""
        for ids, answer, finished in zip(drawn.ids, drawn.answer, drawn.finished, strict=True)
    ]
    for place, case in enumerate(cases):
        own = texts[place * config.samples : (place + 1) * config.samples]
        different = [text for text in dict.fromkeys(own) if text]
        rng = random.Random(f"{config.seed}/{case.id}")
        both = list(itertools.combinations(different, 2))
        for one, other in rng.sample(both, min(config.pairs, len(both))):
            a, b = (one, other) if rng.random() < 0.5 else (other, one)
            yield Comparison(case, a, b, config.name, config.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 done, 2 a clear error, 130 stopped."""
    path, resume, overrides = parse(
        "training.ai_feedback", "A judge compares a model's own answers.", FeedbackConfig, arguments
    )
    try:
        config = read_toml(path, FeedbackConfig, overrides)
        print(json.dumps({"pairs": make(config, resume=resume), "out": str(config.out)}))
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; go on with --resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
