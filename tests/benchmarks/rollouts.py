"""How fast answers are sampled for reinforcement learning, beside transformers' own `generate`.

    python tests/benchmarks/rollouts.py [--rounds 5] [--prompts 16] [--samples 8]

Both sides sample the same number of answers to the same questions from the bundled hybrid, in turn, with the settings
of configs/nano/rl.toml and one torch thread; ours catches the trunk's states and the log-probabilities on the way,
`generate` does neither. The last line is JSON: tokens per CPU second of either side and ratio, ours over generate, the
median of the rounds' ratios.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch

from huatuo.messages import Message
from huatuo.models.trunk import load_trunk
from huatuo.prompts import encode
from huatuo.toml import read_toml
from training.cases import draw_cases
from training.rl import RlConfig
from training.rollout import Drawing, sample


def measured(run: Callable[[], int]) -> float:
    """Tokens per CPU second."""
    began = time.process_time()
    tokens = run()
    return tokens / (time.process_time() - began)


def main() -> None:
    """Runs both sides in turn and prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = read_toml(ROOT / "configs/nano/rl.toml", RlConfig)
    trunk, tokenizer = load_trunk(ROOT / config.parent, config.blocks)
    end, pad = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
    prompts = [
        encode(tokenizer, (Message("user", case.question),), config.template, max_tokens=440).ids
        for case in draw_cases(given.prompts, held_out=False, seed=1)
    ]
    how = Drawing(
        config.max_new_tokens, frozenset([end]), pad, config.temperature, rows=config.rollout_rows
    )
    wide = max(map(len, prompts))
    ids = torch.tensor([[pad] * (wide - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (wide - len(p)) + [1] * len(p) for p in prompts])

    def ours(seed: int) -> int:
        generator = torch.Generator().manual_seed(seed)
        return int(sample(trunk, prompts, given.samples, how, generator).lengths.sum())

    @torch.no_grad()
    def theirs(seed: int) -> int:
        torch.manual_seed(seed)
        said = trunk.model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, temperature=config.temperature,
            top_k=0, max_new_tokens=config.max_new_tokens, num_return_sequences=given.samples,
            eos_token_id=end, pad_token_id=pad,
        )[:, wide:]  # fmt: skip
        ended = (said == end).long().cumsum(1) - (said == end).long()  # ends before this place
        return int((ended == 0).sum())

    ours(0), theirs(0)
    rows = []
    for number in range(1, given.rounds + 1):
        row = {
            "ours": measured(lambda n=number: ours(n)),
            "generate": measured(lambda n=number: theirs(n)),
        }
        print(json.dumps({name: round(value) for name, value in row.items()}), flush=True)
        rows.append(row)
    print(json.dumps({
        "ours": round(statistics.median(row["ours"] for row in rows)),
        "generate": round(statistics.median(row["generate"] for row in rows)),
        "ratio": round(statistics.median(row["ours"] / row["generate"] for row in rows), 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
