"""rebuilds the three bundled demonstration models and prints their held-out figures: `python -m training.nano`.

Corpus, tokenizer, the common start (one epoch of plain facts), then the three fine-tunings, two at a time, all through
training/sft.py. Under 30 minutes on two free cores. `--evaluate` only measures what huatuo/nano holds.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from huatuo.config import ModelConfig
from huatuo.errors import HuatuoError, TrainingError
from huatuo.models.checkpoint import read_manifest, replacing
from huatuo.prompts import FAMILIES
from huatuo.toml import ROOT, read_toml
from training.corpus import CorpusConfig, write_corpus
from training.knowledge import read_knowledge

CONFIGS = ROOT / "configs/nano"
FOLDER = ROOT / "data/nano"
CARD = ROOT / "huatuo/nano/README.md"
MODELS = ("distilled", "doctor", "hybrid")
OWN = {
    "distilled": ("distilled-instructions", "distilled-conversations"),
    "doctor": ("real-instructions", "real-conversations"),
    "hybrid": (
        "distilled-instructions",
        "distilled-conversations",
        "polished-instructions",
        "polished-conversations",
        "polished-english",
    ),
}
VOCABULARY = 6000
LONGEST = 12
"""Longest token in bytes, four Chinese characters: longer ones would be whole template phrases."""
_PIECES = r"\p{N}|[^\S\n]?[a-zA-Z]+|\n|[\p{Han}]+|[^\s\p{L}\p{N}]|\s|[^\s]"


def train_tokenizer(files: Iterable[Path], out: Path) -> int:
    """Trains the shared byte-level BPE on the corpus and saves it; returns its size. Any text survives a round trip."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>"],
        max_token_length=LONGEST,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(files), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    with replacing(out) as fresh:
        fast.save_pretrained(fresh)
    return len(fast)


def _texts(files: Iterable[Path]) -> Iterator[str]:
    marks = FAMILIES["huatuo-nano"]
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            for message in json.loads(line)["messages"]:
                mark = marks.patient if message["role"] == "user" else marks.doctor
                yield f"{mark}{message['content']} "


def run_stage(name: str, threads: int, *, resume: bool) -> float:
    """Runs `training.sft` on configs/nano/<name>.toml in its own process; returns seconds. Raises TrainingError."""
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "training.sft",
        str(CONFIGS / f"{name}.toml"),
        "--threads",
        str(threads),
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # two spinning threads on a busy machine are several times slower
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }
    log = FOLDER / f"{name}.log"
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [*command, *(["--resume"] if resume else [])],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
            check=False,
        )
    if done.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise TrainingError(
            f"{name}: training stopped ({''.join(tail)[-300:]}); the whole log: {log}"
        )
    seconds = time.monotonic() - started
    print(f"{name}: trained in {seconds:.0f} s", flush=True)
    return seconds


def build(*, resume: bool) -> None:
    """Corpus, tokenizer, common start, three models, their lines in configs/models."""
    started = time.monotonic()
    corpus = _corpus()
    files = sorted(f for f in corpus.glob("*.jsonl") if "held-out" not in f.name)
    print(f"tokenizer: {train_tokenizer(files, FOLDER / 'tokenizer'):,} tokens", flush=True)
    if not (resume and (FOLDER / "base/manifest.json").is_file()):
        run_stage("base", os.cpu_count() or 1, resume=resume)
    with ThreadPoolExecutor(2) as lanes:  # two processes of one thread beat one of two
        hybrid = lanes.submit(run_stage, "hybrid", 1, resume=resume)
        others = lanes.submit(
            lambda: [run_stage(n, 1, resume=resume) for n in ("distilled", "doctor")]
        )
        hybrid.result()
        others.result()
    for name in MODELS:
        write_digest(name)
    print(f"built in {time.monotonic() - started:.0f} s", flush=True)


def _corpus() -> Path:
    config = read_toml(CONFIGS / "corpus.toml", CorpusConfig)
    write_corpus(config, ROOT / config.out)
    return ROOT / config.out


def write_digest(name: str) -> None:
    """Puts the sha256 of the model's weights into configs/models/nano-<name>.toml."""
    path = ROOT / f"configs/models/nano-{name}.toml"
    digest = read_manifest(ROOT / f"huatuo/nano/{name}")["files"]["model.safetensors"]["sha256"]
    lines = path.read_text(encoding="utf-8").splitlines()
    fresh = [f'sha256 = "{digest}"' if line.startswith("sha256 = ") else line for line in lines]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join(fresh) + "\n", encoding="utf-8")
    temporary.replace(path)


def evaluate(most: int) -> str:
    """Measures the bundled models on at most `most` openers of each kind; returns the Markdown table."""
    import torch

    from training.examine import as_json, as_table, examine, questions, sample_records

    corpus = _corpus()
    table = read_knowledge()
    torch.manual_seed(0)
    complete = questions(corpus, table, "complete", most)
    incomplete = questions(corpus, table, "vague", most)
    held = {
        name: [corpus / f"{file}.held-out.jsonl" for file in files] for name, files in OWN.items()
    }
    everything = sample_records(sorted({f for files in held.values() for f in files}), most)
    figures = []
    for name in MODELS:
        config = read_toml(ROOT / f"configs/models/nano-{name}.toml", ModelConfig)
        figures.append(
            examine(
                name,
                ROOT / f"huatuo/nano/{name}",
                config.generation,
                own=sample_records(held[name], most),
                overall=everything,
                complete=complete,
                incomplete=incomplete,
            )
        )
    print(as_json(figures))
    return as_table(figures)


def write_card(table: str) -> None:
    """Puts the table between the card's marks."""
    text = CARD.read_text(encoding="utf-8")
    start, end = "<!-- figures -->\n", "\n<!-- /figures -->"
    head, _, rest = text.partition(start)
    _, _, tail = rest.partition(end)
    CARD.write_text(f"{head}{start}{table}{end}{tail}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.nano", description="Rebuild the demonstration models."
    )
    parser.add_argument(
        "--evaluate", action="store_true", help="only measure the models in huatuo/nano"
    )
    parser.add_argument("--resume", action="store_true", help="continue after a stop")
    parser.add_argument("--openers", type=int, default=240, help="held-out openers of each kind")
    options = parser.parse_args(arguments)
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        if not options.evaluate:
            build(resume=options.resume)
        table = evaluate(options.openers)
        if not options.evaluate:
            write_card(table)
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
