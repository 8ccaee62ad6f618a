"""the public medical test sets as they are published: their files, licence and sha256, and one loader each.

    python -m training.benchmarks                             what can be read, from which files, under which licence
    python -m training.benchmarks cmedqa2 FOLDER --out F      reads the files and writes JSONL for training.metrics

Files are streamed; a damaged line raises BadData with file and line. Nothing is downloaded: whoever uses a set accepts
its licence first. What could be verified of each layout, and what not, stands in its `verified`.
"""

import argparse
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huatuo.errors import ConfigError, HuatuoError, NoData
from training import benchmark_layouts as layouts
from training.benchmark_layouts import Item
from training.data import BadData
from training.rows import Source

__all__ = ["BENCHMARKS", "Benchmark", "Item", "main"]

Kind = Literal["generation", "intent", "choice", "conversation"]


@dataclass(frozen=True)
class Benchmark:
    """One published set. splits: split to file names within its folder; a name may lie in a zip file of its stem."""

    title: str
    kind: Kind
    splits: Mapping[str, tuple[str, ...]]
    read: Callable[[Sequence[Source]], Iterator[Item]]
    licence: str
    home: str
    verified: str

    def sources(self, folder: Path, split: str) -> list[Source]:
        """The split's files. Raises ConfigError for an unknown split, BadData when a file is not there."""
        if split not in self.splits:
            raise ConfigError(f"split {split}: {self.title} has {', '.join(self.splits)}")
        return [_find(folder, name) for name in self.splits[split]]

    def items(self, folder: Path, split: str = "test") -> Iterator[Item]:
        """The split's items in order, every id once. Raises BadData with file and line."""
        seen: dict[str, str] = {}
        for item in self.read(self.sources(folder, split)):
            if item.id in seen:
                raise BadData(f"{item.place}: id {item.id} again; first at {seen[item.id]}")
            seen[item.id] = item.place
            yield item


def _find(folder: Path, name: str) -> Source:
    """The file, wherever it lies below the folder by its published path, or in a zip file: FOLDER/question.zip."""
    path = folder / name
    for candidate in (path, folder / path.name):
        if candidate.is_file():
            return Source(candidate)
    for part in {Path(name).stem, Path(name).stem.removeprefix("medQA.")}:
        archive = folder / f"{part}.zip"
        if archive.is_file():
            try:
                with zipfile.ZipFile(archive) as opened:
                    inside = [n for n in opened.namelist() if n.rsplit("/", 1)[-1] == path.name]
            except (OSError, zipfile.BadZipFile):
                raise BadData(f"{archive.name}: no sound zip file; load it again") from None
            if inside:
                return Source(archive, inside[0])
    raise BadData(f"{folder.name}/{name}: not there, nor in {Path(name).stem}.zip")


_HUB = "huggingface.co/datasets/FreedomIntelligence"
_KNOWN = "names, columns and counts checked against the published files (facts of this project)"
BENCHMARKS: Mapping[str, Benchmark] = {
    "cmedqa2": Benchmark(
        "cMedQA2", "generation",
        {s: ("question.csv", "answer.csv", f"{s}_candidates.txt") for s in ("test", "dev")},
        layouts.read_cmedqa2,
        "README: non-commercial research only; the LICENSE file says GPL-3.0. They conflict: ask the authors",
        "github.com/zhangsheng93/cMedQA2", _KNOWN + "; that question.csv quotes as CSV does is not",
    ),
    "webmedqa": Benchmark(
        "webMedQA", "generation",
        {s: (f"medQA.{s}.txt",) for s in ("test", "valid", "train")},
        layouts.read_webmedqa, "Apache-2.0", "github.com/hejunqing/webMedQA", _KNOWN,
    ),
    "huatuo26m": Benchmark(
        "Huatuo-26M test set", "generation", {"test": ("test_datasets.jsonl",)}, layouts.read_huatuo26m,
        "Apache-2.0", f"{_HUB}/huatuo26M-testdatasets",
        _KNOWN + "; how deep `questions` nests is not, so any depth is read",
    ),
    "kuake-qic": Benchmark(
        "KUAKE-QIC (CBLUE)", "intent",
        {s: (f"KUAKE-QIC/KUAKE-QIC_{s}.json",) for s in ("test", "dev", "train")}
        | {"100": ("KUAKE-QIC_100.json",)},
        layouts.read_qic,
        "CBLUE: by application at Tianchi, its terms hold; the 100 questions in HuatuoGPT's eval/: Apache-2.0",
        "github.com/CBLUEbenchmark/CBLUE", _KNOWN + "; the 100 are read in the tests",
    ),
    "huatuogpt-sft": Benchmark(
        "HuatuoGPT-sft-data-v1", "conversation", {"train": ("HuatuoGPT_sft_data_v1.jsonl",)},
        layouts.read_sft, "Apache-2.0", f"{_HUB}/HuatuoGPT-sft-data-v1", _KNOWN,
    ),
    "cmb": Benchmark(
        "CMB-Exam", "choice",
        {
            "test": ("CMB-Exam/CMB-test/CMB-test-choice-question-merge.json", "CMB-test-choice-answer.json"),
            "val": ("CMB-Exam/CMB-val/CMB-val-merge.json",),
            "train": ("CMB-Exam/CMB-train/CMB-train-merge.json",),
        },
        layouts.read_cmb, "Apache-2.0", "github.com/FreedomIntelligence/CMB",
        "keys of an item from the README, the answer file itself, file names from the README; the train file's name "
        "from third parties; the question file not seen",
    ),
    "cmb-clin": Benchmark(
        "CMB-Clin", "conversation", {"test": ("CMB-Clin/CMB-Clin-qa.json",)}, layouts.read_cmb_clin,
        "Apache-2.0", "github.com/FreedomIntelligence/CMB", "keys of an item and the name from the README",
    ),
    "cmexam": Benchmark(
        "CMExam", "choice",
        {"test": ("test_with_annotations.csv",), "val": ("val.csv",), "train": ("train.csv",)},
        layouts.read_cmexam, "Apache-2.0 (as mirrors state it)", "github.com/williamliujl/CMExam",
        "the four columns and the form of the options from the authors' script, which passes over rows without an "
        "answer; file names and annotation columns from third parties; the files not seen",
    ),
    "medqa-zh": Benchmark(
        "MedQA, mainland China", "choice",
        {s: (f"questions/Mainland/{s}.jsonl",) for s in ("test", "dev", "train")}
        | {f"{s}-4": (f"questions/Mainland/4_options/{s}.jsonl",) for s in ("test", "dev", "train")},
        layouts.read_medqa, "MIT (the repository's LICENSE)", "github.com/jind11/MedQA",
        "JSONL and the folders from the README; keys from third parties; the files not seen",
    ),
}  # fmt: skip


def listing() -> str:
    """All sets with their files, licence, home and what was verified, for a terminal."""
    shown = []
    for name, benchmark in BENCHMARKS.items():
        shown.append(f"{name}  {benchmark.title}, {benchmark.kind}; {benchmark.home}")
        shown.append(f"    licence: {benchmark.licence}")
        for split, files in benchmark.splits.items():
            shown.append(f"    {split}: {', '.join(files)}")
        shown.append(f"    verified: {benchmark.verified}")
    return "\n".join(shown)


def write(benchmark: Benchmark, folder: Path, split: str, out: Path | None) -> str:
    """Reads a whole split, writes it as JSONL if `out` is given (whole or not at all), and says what was read.

    Raises BadData with file and line, NoData for an empty split, ConfigError for an unknown split.
    """
    told = [f"{benchmark.title}, {split}; licence: {benchmark.licence}"]
    for source in benchmark.sources(folder, split):
        told.append(f"{source.sha256()}  {source.name}")
    count, references, notes = 0, 0, Counter[str]()
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp") if out else Path(os.devnull)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for item in benchmark.items(folder, split):
                count, references = count + 1, references + len(item.references)
                notes[item.note] += bool(item.note)
                if out:
                    file.write(item.as_json() + "\n")
        if not count:
            raise NoData(f"{benchmark.title}, {split}: no items")
        if out:
            temporary.replace(out)
    finally:
        if out:
            temporary.unlink(missing_ok=True)
    told.append(f"{count:,} items, {references:,} references")
    told += [f"{times:,} with: {note}" for note, times in notes.items() if note]
    return "\n".join(told + ([f"written to {out}"] if out else []))


def main(arguments: Sequence[str] | None = None) -> int:
    """Lists the sets, or reads one; 2 and one line on stderr for files that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmarks", description="Public medical test sets."
    )
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="without it: the list")
    parser.add_argument("folder", nargs="?", type=Path, help="where its files lie")
    parser.add_argument("--split", help="default: the first one listed")
    parser.add_argument("--out", type=Path, help="JSONL of the items")
    options = parser.parse_args(arguments)
    if options.name is None:
        print(listing())
        return 0
    benchmark = BENCHMARKS[options.name]
    try:
        if options.folder is None:
            raise ConfigError(f"{options.name}: name the folder that holds its files")
        split = options.split or next(iter(benchmark.splits))
        print(write(benchmark, options.folder, split, options.out))
    except (HuatuoError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
