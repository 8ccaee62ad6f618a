"""One reinforcement-learning update: ours on a shared trunk beside TRL's GRPOTrainer on the whole model.

    python tests/benchmarks/rl_update.py [--rounds 5] [--device cuda --shape bloomz-7b1 --tokens 512]

Same model, rollouts, rewards, frozen layers (the last two blocks and the final norm learn), loss (GRPO with a KL term
to a reference), AdamW and clipping on every side, in turn, one thread. Sides:

    trl         TRL as it comes: gradient checkpointing on, a second model as the reference
    trl_kept    the same with gradient checkpointing off, so that activations are kept
    ours        one forward of the trunk, whose states then serve the reference and every epoch
    captured    the trunk's states were captured while the completions were generated

Timed is the update phase alone: from the moment finished completions are handed over (token ids; rewards lie in a table)
to the end of the last optimizer step. In it: reference and old log-probabilities, advantages, all epochs of forward,
backward, clipping and optimizer. Not in it: loading, building the trainer or the branches, generation, log files. The
side `captured` pays nothing for its states here; what capturing adds to generation is printed apart. One difference is
not ours to remove: without Triton, TRL scores the prompts' tokens as well; the FLOPs without that are printed too.

Seconds are those of the process's CPU (of the clock on a GPU), ratios are medians of the rounds' ratios, FLOPs come from
torch's FlopCounterMode. Memory is measured in a process per side, at four epochs: the highest resident size during the
update phase above the resident size after the imports (allocated bytes on a GPU). The parameters afterwards are compared
with `plain`, the whole model with full logits and autograd, on completions and prompts of unequal length. The last line
is JSON.
"""

import argparse
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file, save_file
from sides.grpo import GROUP, ROLLOUTS, SIDES, Meter, Task, plain, resident, trunk_of
from transformers import BloomConfig, BloomForCausalLM

from training.rollout import Drawing, Rollouts, sample

SHAPES = {  # blocks, hidden, heads, vocabulary: both heads are worth 5.1 blocks, 2hV against 24h^2
    "small": (30, 256, 8, 15_680),
    "bloomz-7b1": (30, 4096, 32, 250_880),
}
TOKENIZER = ROOT / "huatuo/nano/doctor"


def make_model(shape: str, folder: Path, device: str) -> None:
    """Random weights of a shape, with any tokenizer beside them: no text is read or written."""
    blocks, hidden, heads, vocabulary = SHAPES[shape]
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        n_layer=blocks,
        n_head=heads,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.device(device):
        model = BloomForCausalLM(config)
    model.to(torch.bfloat16 if device == "cuda" else torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)


def make_task(
    folder: Path, device: str, rows: int, tokens: int, *, even: bool
) -> tuple[Task, float]:
    """(a batch that the model itself generated, its trunk states caught on the way; seconds that took).

    even: every prompt and completion has `tokens` tokens; otherwise both vary.
    """
    generator = torch.Generator(device).manual_seed(1)
    vocabulary = BloomConfig.from_pretrained(folder).vocab_size
    lengths = [tokens if even else max(4, tokens - 9 * n) for n in range(rows // GROUP)]
    prompts = [
        torch.randint(2, vocabulary, (length,), generator=generator, device=device).tolist()
        for length in lengths
    ]
    # Random weights do not end of themselves: an uneven batch ends at one word in thirty.
    ends = frozenset({-1} if even else range(2, vocabulary, 30))
    rewards = torch.rand(rows, generator=torch.Generator().manual_seed(2))
    trunk = trunk_of(folder, device)
    meter = Meter(device)
    meter.start()
    rollouts = sample(trunk, prompts, GROUP, Drawing(tokens, ends, pad=0, rows=rows), generator)
    meter.stop()
    return Task(folder, rollouts, rewards, device), meter.seconds


def store(task: Task, file: Path) -> None:
    """The batch on disk, for the processes that measure memory."""
    tensors = {name: getattr(task.rollouts, name).contiguous() for name in ROLLOUTS}
    save_file({**tensors, "rewards": task.rewards}, file)


def stored(folder: Path, file: Path, device: str) -> Task:
    """The batch of `store`."""
    tensors = load_file(file, device=device)
    rewards = tensors.pop("rewards").cpu()
    return Task(folder, Rollouts(**tensors), rewards, device)


def memory_of(side: str, task: Task, file: Path) -> tuple[int, int]:
    """(peak, resident size after the imports) in bytes, of one side alone in a process, at four epochs."""
    done = subprocess.run(
        [
            *(sys.executable, __file__, "--alone", side, "--folder", str(task.folder)),
            *("--batch", str(file), "--device", task.device),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    peak, base = json.loads(done.stdout.strip().splitlines()[-1])
    return peak, base


def alone(side: str, folder: Path, file: Path, device: str) -> None:
    """The process of memory_of."""
    base = torch.cuda.memory_allocated() if device == "cuda" else resident("VmRSS")
    meter = Meter(device)
    SIDES[side](stored(folder, file, device), 4, meter)
    print(json.dumps([meter.peak, base]))


def differences(task: Task, sides: tuple[str, ...]) -> dict[str, float]:
    """Largest difference between each side's parameters and `plain`'s, over one and four epochs."""
    worst = dict.fromkeys(sides, 0.0)
    for epochs in (1, 4):
        wanted = plain(task, epochs, Meter(task.device))
        for side in sides:
            got = SIDES[side](task, epochs, Meter(task.device))
            assert got.keys() == wanted.keys()
            gap = max(float((got[name] - wanted[name]).abs().max()) for name in wanted)
            worst[side] = max(worst[side], gap)
    return worst


def prompt_flops(task: Task, epochs: int) -> int:
    """What TRL's head spends on the prompts' tokens without Triton: reference, old, and three products an epoch."""
    if task.device == "cuda":
        return 0
    config = BloomConfig.from_pretrained(task.folder)
    spare = int((~task.rollouts.answer[:, 1:]).sum())
    passes = 1 + (epochs > 1) + 3 * epochs
    return 2 * config.hidden_size * config.vocab_size * spare * passes


def measure(
    task: Task, rounds: int
) -> tuple[dict[tuple[str, int], list[float]], dict[tuple[str, int], int]]:
    """(seconds of every round, FLOPs) by side and epochs. Each round begins with another side."""
    runs = [(side, epochs) for epochs in (1, 4) for side in SIDES]
    seconds: dict[tuple[str, int], list[float]] = {run: [] for run in runs}
    flops: dict[tuple[str, int], int] = {}
    for side, epochs in runs:  # also warms every side up
        meter = Meter(task.device, flops=True)
        SIDES[side](task, epochs, meter)
        flops[side, epochs] = meter.flops
    for number in range(rounds):
        for place in range(len(runs)):
            side, epochs = runs[(place + number) % len(runs)]
            meter = Meter(task.device)
            SIDES[side](task, epochs, meter)
            seconds[side, epochs].append(meter.seconds)
        last = {f"{side} {epochs}": round(seconds[side, epochs][-1], 2) for side, epochs in runs}
        print(f"round {number + 1}: {last}", flush=True)
    return seconds, flops


def run(options: argparse.Namespace, folder: Path) -> dict[str, float | None]:
    """All of it; the figures of the last line."""
    device = options.device
    make_model(options.shape, folder, device)
    gaps: dict[str, float] = {}
    if (
        options.shape == "small"
    ):  # `plain` holds all logits several times, which a 7B does not allow
        uneven, _ = make_task(folder, device, options.rows, options.tokens, even=False)
        gaps = differences(uneven, ("ours", "captured", "trl"))
        print("largest parameter difference from the plain full model:", gaps)
    task, generation = make_task(folder, device, options.rows, options.tokens, even=True)
    seconds, flops = measure(task, options.rounds)
    batch = folder.parent / "batch.safetensors"  # a model folder holds nothing else
    store(task, batch)
    held = {side: memory_of(side, task, batch) for side in SIDES}

    def ratio(side: str, other: str, epochs: int) -> float:
        pairs = zip(seconds[side, epochs], seconds[other, epochs], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 2)

    print("side       epochs  seconds  GFLOP  FLOPs / ours  peak MB  above imports MB")
    for side, epochs in seconds:
        peak, base = held[side]
        memory = f"{peak / 1e6:8.0f} {(peak - base) / 1e6:12.0f}" if epochs == 4 else ""
        print(
            f"{side:10} {epochs:6} {statistics.median(seconds[side, epochs]):8.2f}"
            f" {flops[side, epochs] / 1e9:7.0f} {flops[side, epochs] / flops['ours', epochs]:8.2f}      {memory}"
        )
    for epochs in (1, 4):
        less = flops["trl", epochs] - prompt_flops(task, epochs)
        print(
            f"TRL's FLOPs without the prompts' head, {epochs} epochs: {less / flops['ours', epochs]:.2f} of ours"
        )
    step = generation + statistics.median(seconds["captured", 1])
    tokens = int(task.attended.sum())
    print(
        f"generation with capture {generation:.2f} s, {100 * generation / step:.0f} % of a step with one epoch; "
        f"{tokens / statistics.median(seconds['captured', 1]):.0f} tokens/s in the update, {tokens / step:.0f} in the step"
    )
    above = {side: peak - base for side, (peak, base) in held.items()}
    return {
        "mu1": ratio("trl", "ours", 1),
        "mu4": ratio("trl", "ours", 4),
        "mu1_without_checkpointing": ratio("trl_kept", "ours", 1),
        "mu4_without_checkpointing": ratio("trl_kept", "ours", 4),
        "mu4_captured": ratio("trl", "captured", 4),
        "memory_ratio": round(above["ours"] / above["trl"], 3),
        "max_parameter_difference": max(gaps["ours"], gaps["captured"]) if gaps else None,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shape", choices=list(SHAPES), default="small")
    parser.add_argument("--rows", type=int, default=8, help="completions in the batch")
    parser.add_argument("--tokens", type=int, default=64, help="of each prompt and each completion")
    for hidden in ("--alone", "--folder", "--batch"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if options.alone:
        alone(options.alone, Path(options.folder), Path(options.batch), options.device)
    else:
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps(run(options, Path(place) / "model")))
