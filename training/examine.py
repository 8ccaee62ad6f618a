"""held-out figures of a small model: perplexity, names the condition or department, asks back, asks what fits.

All are plain counts, not medical quality. A question is text that holds `？` or `?`; an answer names the
condition or department if their text occurs in it.
"""

import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from huatuo.config import Generation
from huatuo.messages import Message
from huatuo.prompts import encode
from training.data import Record, read_conversations, tokenise
from training.knowledge import Condition


@dataclass(frozen=True)
class Question:
    """A held-out opener. names: texts of which one must occur in a good answer: the condition or department of a
    complete opener, the table's questions about an incomplete one."""

    text: str
    names: tuple[str, ...]
    language: str


@dataclass(frozen=True)
class Figures:
    """What `python -m training.nano` prints. Shares in [0, 1]; perplexity per token of the doctor's turns."""

    model: str
    parameters: int
    own_perplexity: float
    overall_perplexity: float
    names_on_complete: float
    asks_on_complete: float
    asks_on_incomplete: float
    fits_on_incomplete: float
    complete_openers: int
    incomplete_openers: int
    finished: float


def asks_back(answer: str) -> bool:
    """Whether the answer puts a question to the patient."""
    return "？" in answer or "?" in answer


def names_one(answer: str, names: Iterable[str]) -> bool:
    """Whether one of the names occurs in the answer, case ignored."""
    low = answer.lower()
    return any(name.lower() in low for name in names)


def questions(
    folder: Path, table: Sequence[Condition], opener: str, most: int, seed: int = 0
) -> list[Question]:
    """Held-out openers of a kind ("complete", "vague") whose text occurs nowhere in the training files."""
    of = {c.name: (c.name, c.name_en, c.department, c.department_en) for c in table}
    seen, found = _trained_openers(folder), {}
    for file in sorted(folder.glob("*.held-out.jsonl")):
        if file.name.startswith("textbook"):
            continue
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            text = row["messages"][0]["content"]
            if row["opener"] == opener and text not in seen:
                names = of[row["condition"]] if opener == "complete" else tuple(row["asks"])
                found[text] = Question(text, names, row["language"])
    chosen = sorted(found.values(), key=lambda q: q.text)
    random.Random(seed).shuffle(chosen)
    return chosen[:most]


def _trained_openers(folder: Path) -> set[str]:
    texts = set()
    for file in folder.glob("*.jsonl"):
        if "held-out" not in file.name:
            for line in file.read_text(encoding="utf-8").splitlines():
                texts.add(json.loads(line)["messages"][0]["content"])
    return texts


def load(folder: Path) -> tuple[Any, Any]:
    """(model in float32, tokenizer) of a checkpoint folder; float32 because old CPUs crawl in bf16."""
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.padding_side = "left"
    return model, tokenizer


@torch.inference_mode()
def answers(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    settings: Generation,
    *,
    batch: int = 24,
    seed: int = 0,
) -> list[tuple[str, bool]]:
    """(answer, finished) to each single question, in order; finished: ended by itself within the token limit."""
    torch.manual_seed(seed)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: dict[int, tuple[str, bool]] = {}
    for start in range(0, len(order), batch):
        group = order[start : start + batch]
        prompts = [
            encode(
                tokenizer,
                (Message("user", texts[i]),),
                "huatuo-nano",
                max_tokens=settings.context_tokens,
            ).ids
            for i in group
        ]
        padded = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        draw = {
            "do_sample": True,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": 0,
        }
        output = model.generate(
            **{key: padded[key] for key in ("input_ids", "attention_mask")},
            max_new_tokens=settings.max_new_tokens,
            repetition_penalty=settings.repetition_penalty,
            **(draw if settings.temperature > 0 else {"do_sample": False}),
        )[:, padded["input_ids"].shape[1] :]  # (B, T new)
        for i, ids in zip(group, output, strict=True):
            finished = bool((ids == tokenizer.eos_token_id).any())
            found[i] = (tokenizer.decode(ids, skip_special_tokens=True).strip(), finished)
    return [found[i] for i in range(len(texts))]


@torch.inference_mode()
def perplexity(model: Any, tokenizer: Any, records: Sequence[Record], family: str) -> float:
    """exp of the mean loss per token of the doctor's turns."""
    total, count = 0.0, 0
    for row in tokenise(records, tokenizer, family, max_tokens=384):
        ids = torch.tensor([row["input_ids"]])  # (1, T)
        labels = torch.tensor(row["labels"][1:])  # (T-1,)
        logits = model(input_ids=ids).logits[0, :-1].float()  # (T-1, V)
        keep = labels != -100
        loss = torch.nn.functional.cross_entropy(logits[keep], labels[keep], reduction="sum")
        total, count = total + float(loss), count + int(keep.sum())
    return math.exp(total / max(count, 1))


def sample_records(files: Sequence[Path], most: int, seed: int = 0) -> list[Record]:
    """Up to `most` conversations of the files together, evenly mixed and always the same."""
    records = [record for file in files for record in read_conversations(file)]
    random.Random(seed).shuffle(records)
    return records[:most]


def examine(
    name: str,
    folder: Path,
    settings: Generation,
    *,
    own: Sequence[Record],
    overall: Sequence[Record],
    complete: Sequence[Question],
    incomplete: Sequence[Question],
) -> Figures:
    """All figures of one model, under the generation settings the app uses."""
    model, tokenizer = load(folder)
    told = answers(model, tokenizer, [q.text for q in complete], settings)
    vague = answers(model, tokenizer, [q.text for q in incomplete], settings)
    named = [names_one(text, q.names) for (text, _), q in zip(told, complete, strict=True)]
    return Figures(
        model=name,
        parameters=int(model.num_parameters()),
        own_perplexity=round(perplexity(model, tokenizer, own, "huatuo-nano"), 3),
        overall_perplexity=round(perplexity(model, tokenizer, overall, "huatuo-nano"), 3),
        names_on_complete=_share(named),
        asks_on_complete=_share([asks_back(text) for text, _ in told]),
        asks_on_incomplete=_share([asks_back(text) for text, _ in vague]),
        fits_on_incomplete=_share(
            [names_one(text, q.names) for (text, _), q in zip(vague, incomplete, strict=True)]
        ),
        complete_openers=len(complete),
        incomplete_openers=len(incomplete),
        finished=_share([done for _, done in [*told, *vague]]),
    )


def _share(hits: Sequence[bool]) -> float:
    return round(sum(hits) / max(len(hits), 1), 3)


def as_table(figures: Sequence[Figures]) -> str:
    """The figures as a Markdown table."""
    rows = [
        "| model | parameters | perplexity, own style | perplexity, all styles | names condition or department "
        "(complete openers) | asks back (complete) | asks back (incomplete) | asks what fits (incomplete) | ended by itself |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for f in figures:
        rows.append(
            f"| {f.model} | {f.parameters / 1e6:.2f} M | {f.own_perplexity:.2f} | {f.overall_perplexity:.2f} | "
            f"{f.names_on_complete:.1%} of {f.complete_openers} | {f.asks_on_complete:.1%} | "
            f"{f.asks_on_incomplete:.1%} of {f.incomplete_openers} | {f.fits_on_incomplete:.1%} | {f.finished:.1%} |"
        )
    return "\n".join(rows)


def as_json(figures: Sequence[Figures]) -> str:
    """The figures as one line of JSON."""
    return json.dumps([asdict(f) for f in figures], ensure_ascii=False)
