"""the command line of a stage: a TOML file, every key of it as a flag, and --resume."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from huatuo.toml import Settings


def parse(
    module: str, about: str, model: type[Settings], arguments: Sequence[str] | None
) -> tuple[Path, bool, dict[str, str]]:
    """(config file, resume, overrides by key) from the command line; --help is made from the fields' descriptions."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("config", type=Path, help="TOML file")
    parser.add_argument("--resume", action="store_true", help="go on from the state saved last")
    add_keys(parser, model)
    options = vars(parser.parse_args(arguments))
    config, resume = options.pop("config"), options.pop("resume")
    return config, resume, {key: value for key, value in options.items() if value is not None}


def add_keys(parser: argparse.ArgumentParser, model: type[Settings]) -> None:
    """Every key of a configuration as a flag, None where it is not given; for commands with options of their own."""
    for key, field in model.model_fields.items():
        help_text = (field.description or "").replace("%", "%%")
        parser.add_argument("--" + key.replace("_", "-"), help=help_text, default=None)
