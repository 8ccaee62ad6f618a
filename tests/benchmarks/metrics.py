"""All metrics of 10,000 answers in one pass, beside the libraries one after the other on the same tokens.

    python tests/benchmarks/metrics.py [--pairs 10000] [--characters 200] [--tokens characters] [--references 1]

Each answer is its reference with phrases moved, dropped and replaced, so that every n-gram order has matches. Ours:
BLEU-1..4, GLEU, ROUGE-1/2/L, Distinct-1/2 from the texts, tokenising included. Theirs, tokenising included too: nltk
corpus_bleu (all four in one call) and corpus_gleu, sacrebleu corpus BLEU-4, rouge-score 1/2/L, and Distinct in plain
Python. Last line JSON: ratio (their CPU seconds over ours), cpu_s (ours, median of three), theirs_cpu_s,
max_difference over all metrics, bootstrap_cpu_s (2,000 resamples of all metrics).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nltk.translate.bleu_score import corpus_bleu
from nltk.translate.gleu_score import corpus_gleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from training.overlap import tokeniser
from training.scores import Convention, score
from training.significance import intervals

LIMIT_S = 12.0
PHRASES = re.findall(
    r"\S+",
    "您好 根据 您的 描述 考虑 上呼吸道感染 高血压 糖尿病 胃炎 的 可能 建议 到 医院 内科 就诊 检查 血常规 心电图 平时 注意 休息 多喝水 清淡饮食 避免 劳累 如果 症状 加重 请 "
    "及时 去 急诊 用药 需要 在 医生 指导 下 进行 不要 自行 停药 或者 加量 同时 监测 血压 血糖 变化 一般 三天 到 一周 可以 缓解 ， 。 、 ：",
)


def draw(pairs: int, characters: int, references: int) -> tuple[list[str], list[list[str]]]:
    """Answers and their references, always the same."""
    rng = random.Random(7)
    extra = [chr(0x4E00 + rng.randrange(6000)) for _ in range(2000)]

    def text() -> list[str]:
        words: list[str] = []
        while sum(map(len, words)) < characters:
            words.append(rng.choice(PHRASES) if rng.random() < 0.7 else rng.choice(extra))
        return words

    def changed(words: Sequence[str]) -> str:
        kept = [word if rng.random() < 0.7 else rng.choice(PHRASES) for word in words]
        at = rng.randrange(len(kept))
        return "".join(kept[at:] + kept[:at])[:characters]

    truth = [text() for _ in range(pairs)]
    answers = [changed(words) for words in truth]
    return answers, [
        ["".join(words)[:characters], *(changed(words) for _ in range(references - 1))]
        for words in truth
    ]


class Split:
    """A tokenizer as rouge-score wants it."""

    def __init__(self, split: Callable[[str], list[str]]) -> None:
        self.tokenize = split


def libraries(
    answers: list[str], references: list[list[str]], split: Callable[[str], list[str]]
) -> tuple[dict[str, float], dict[str, float]]:
    """(metrics, CPU seconds of each library)."""
    values: dict[str, float] = {}
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        found = work()
        spent[name] = time.process_time() - began
        print(f"{name}: {spent[name]:.1f} s of CPU")
        return found

    said = timed("tokens of the answers", lambda: [split(text) for text in answers])
    truth = timed(
        "tokens of the references", lambda: [[split(t) for t in texts] for texts in references]
    )
    weights = [tuple(1 / n for _ in range(n)) for n in range(1, 5)]
    found = timed("nltk BLEU", lambda: corpus_bleu(truth, said, weights))
    values |= {f"bleu-{n}": value for n, value in enumerate(found, 1)}
    values["gleu"] = timed("nltk GLEU", lambda: corpus_gleu(truth, said))
    streams = [[" ".join(texts[i]) for texts in truth] for i in range(len(truth[0]))]
    lines = [" ".join(tokens) for tokens in said]
    sacre = BLEU(tokenize="none", smooth_method="none", force=True)
    found = timed("sacrebleu BLEU-4", lambda: sacre.corpus_score(lines, streams).score / 100)
    values["bleu-4 of sacrebleu"] = found
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Split(split))
    each = timed(
        "rouge-score 1, 2, L",
        lambda: [scorer.score_multi(r, a) for a, r in zip(answers, references, strict=True)],
    )
    for ours, theirs in (("rouge-1", "rouge1"), ("rouge-2", "rouge2"), ("rouge-l", "rougeL")):
        values[ours] = statistics.fmean(found[theirs].fmeasure for found in each)
    for n in (1, 2):
        values[f"distinct-{n}"] = timed(
            f"Distinct-{n}", lambda n=n: statistics.fmean(distinct(tokens, n) for tokens in said)
        )
    return values, spent


def distinct(tokens: Sequence[str], n: int) -> float:
    """Different n-grams over all, of one answer."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / max(len(grams), 1)


def main() -> int:
    """Ours three times, then the libraries once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--characters", type=int, default=200)
    parser.add_argument("--tokens", choices=("characters", "jieba"), default="characters")
    parser.add_argument("--references", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    answers, references = draw(given.pairs, given.characters, given.references)
    convention = Convention(tokens=given.tokens)
    began = time.process_time()
    split = tokeniser(given.tokens)
    print(f"tokeniser: {time.process_time() - began:.2f} s of CPU to load")
    spent = []
    for number in range(3):
        began = time.process_time()
        ours = score(answers, references, convention)
        spent.append(time.process_time() - began)
        print(f"ours, all ten metrics, run {number + 1}: {spent[-1]:.2f} s of CPU")
    began = time.process_time()
    intervals(ours.columns, ours.finish)
    bootstrap = time.process_time() - began
    theirs, costs = libraries(answers, references, split)
    worst = 0.0
    for name, value in theirs.items():
        mine = ours.values[name.split(" ")[0]] or 0.0
        worst = max(worst, abs(mine - value))
        print(f"{name:22}{mine:.12f}  {value:.12f}  {abs(mine - value):.1e}")
    total, cpu = sum(costs.values()), statistics.median(spent)
    result = {
        "ratio": round(total / cpu, 1), "cpu_s": round(cpu, 2), "theirs_cpu_s": round(total, 1),
        "max_difference": worst, "bootstrap_cpu_s": round(bootstrap, 2), "pairs": given.pairs,
        "characters": given.characters, "references": given.references, "tokens": given.tokens,
    }  # fmt: skip
    print(json.dumps(result))
    return 0 if worst <= 1e-9 and cpu <= LIMIT_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
