"""the command: `python -m huatuo.models.convert SOURCE OUT [--layout NAME] [--base FOLDER]`.

SOURCE is a folder as it was downloaded: pickles or safetensors, with or without code of its own. OUT is written with
safetensors only, checked, and named when it is whole; after a kill the same command goes on. Nothing from SOURCE is
executed, and the process that reads it has no network.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from huatuo.errors import HuatuoError
from huatuo.models.convert.layouts import NAMES
from huatuo.models.convert.run import SHARD_BYTES, Report, convert


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when OUT is there and proved, 1 with one line that says why not."""
    parser = argparse.ArgumentParser(
        prog="python -m huatuo.models.convert", description=__doc__.partition("\n\n")[2]
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="the folder as it was downloaded"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument(
        "--layout", default="", choices=NAMES, help="which layout SOURCE has; detected if not said"
    )
    parser.add_argument(
        "--base", type=Path, help="what a delta is added to (LLaMA-13B), or what an adapter is for"
    )
    parser.add_argument(
        "--to-new-vocabulary",
        action="store_true",
        help="ChatGLM-6B of 150,528 words: leave out the 20,000 image tokens",
    )
    parser.add_argument(
        "--shard-bytes",
        type=int,
        default=SHARD_BYTES,
        help="largest file written (default %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args(argv)
    try:
        report = convert(
            given.source,
            given.out,
            layout=given.layout,
            base=given.base,
            new_vocabulary=given.to_new_vocabulary,
            shard_bytes=max(given.shard_bytes, 1),
            quiet=given.quiet,
        )
    except HuatuoError as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("convert: stopped; the same command goes on where it stopped", file=sys.stderr)
        return 1
    print(text_of(report))
    return 0


def text_of(report: Report) -> str:
    """The report in lines."""
    speed = report.bytes / max(report.seconds, 1e-9) / 1e6
    lines = [
        f"{report.out}: {report.layout}, {report.tensors} tensors, {report.bytes / 1e9:,.2f} GB in {report.seconds:,.1f} s "
        f"({speed:,.0f} MB/s), written and read back",
        f"sha256    {report.sha256}",
        f"network   cut by: {report.network}",
    ]
    if report.kept:
        lines.append(f"kept      {report.kept} of {report.shards} shards of the run before")
    if report.left_out:
        lines.append(f"left out  {', '.join(report.left_out)}")
    return "\n".join([*lines, *(f"note      {note}" for note in report.notes)])


if __name__ == "__main__":
    sys.exit(main())
