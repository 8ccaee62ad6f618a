"""How fast a bundled model answers, alone and two at once, beside transformers' own `generate`.

    python tests/benchmarks/answers.py [--rounds 5]

Both sides answer the same questions in turn, with the same weights, settings and one torch thread per answer. The
last line is JSON: first_s and chars150_s (medians, seconds from the question to the first piece and to 150
characters), pair_chars150_s (both of two at once), and ratio = tokens per second, ours over generate with a
TextIteratorStreamer, the median of the rounds' ratios.
"""

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from transformers import TextIteratorStreamer

from huatuo import prompts
from huatuo.config import ModelConfig, read_toml
from huatuo.engines.base import Chunk
from huatuo.engines.local import LocalEngine
from huatuo.messages import Message

QUESTIONS = (
    "我头疼三天了，一侧跳着疼，恶心想吐，怕光怕吵，该怎么办？",
    "最近两周总是胃疼反酸，吃完饭更明显，夜里也会疼醒，需要做什么检查？",
    "膝盖疼半年，上下楼更厉害，早上有点僵，活动后好一些，吃什么药？",
)


async def ours(engine: LocalEngine, question: str, seed: int) -> dict[str, float]:
    """Times of one streamed answer: first piece, 150 characters (or the end), all; and its tokens."""
    started, text, first, at_150 = time.perf_counter(), "", 0.0, 0.0
    async for item in engine.stream((Message("user", question),), seed=seed):
        if isinstance(item, Chunk) and item.text:
            first = first or time.perf_counter() - started
            text += item.text
            if len(text) >= 150 and not at_150:
                at_150 = time.perf_counter() - started
    whole = time.perf_counter() - started
    tokens = len(engine.tokenizer(text, add_special_tokens=False)["input_ids"])
    # A shorter answer is scaled up, so that a terse model does not look fast.
    at_150 = at_150 or whole * 150 / max(len(text), 1)
    return {"first": first, "at_150": at_150, "rate": tokens / whole}


def theirs(engine: LocalEngine, config: ModelConfig, question: str, seed: int) -> float:
    """Tokens per second of `generate` with a streamer in a thread, the usual way."""
    settings = config.generation
    ids = prompts.encode(
        engine.tokenizer, (Message("user", question),), config.template, max_tokens=512
    ).ids
    streamer: Any = TextIteratorStreamer(
        engine.tokenizer, skip_prompt=True, skip_special_tokens=True
    )
    torch.manual_seed(seed)
    tensor = torch.tensor([ids])
    job = threading.Thread(
        target=engine.model.generate,
        kwargs={
            "input_ids": tensor,
            "attention_mask": torch.ones_like(tensor),
            "streamer": streamer,
            "do_sample": settings.temperature > 0,
            **({"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
               if settings.temperature > 0 else {}),
            "repetition_penalty": settings.repetition_penalty,
            "max_new_tokens": settings.max_new_tokens,
        },
    )  # fmt: skip
    started = time.perf_counter()
    job.start()
    text = "".join(streamer)
    job.join()
    whole = time.perf_counter() - started
    return len(engine.tokenizer(text, add_special_tokens=False)["input_ids"]) / whole


async def run(rounds: int) -> dict[str, float]:
    """All rounds; medians."""
    torch.set_num_threads(1)
    configs = [
        read_toml(ROOT / f"configs/models/nano-{name}.toml", ModelConfig)
        for name in ("hybrid", "distilled")
    ]
    engines = [LocalEngine(config, ROOT) for config in configs]
    await ours(engines[0], QUESTIONS[0], 0)  # warm up
    single, pairs, ratios = [], [], []
    for number in range(rounds):
        question = QUESTIONS[number % len(QUESTIONS)]
        one = await ours(engines[0], question, number)
        ratios.append(one["rate"] / theirs(engines[0], configs[0], question, number))
        both = await asyncio.gather(*(ours(engine, question, number) for engine in engines))
        single.append(one)
        pairs.append(max(side["at_150"] for side in both))
        print(f"round {number + 1}: {one}, both {pairs[-1]:.2f} s, ratio {ratios[-1]:.2f}")
    for engine in engines:
        await engine.close()
    return {
        "first_s": round(statistics.median(one["first"] for one in single), 3),
        "chars150_s": round(statistics.median(one["at_150"] for one in single), 2),
        "pair_chars150_s": round(statistics.median(pairs), 2),
        "tokens_per_s": round(statistics.median(one["rate"] for one in single), 1),
        "ratio": round(statistics.median(ratios), 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    print(json.dumps(asyncio.run(run(parser.parse_args().rounds))))
