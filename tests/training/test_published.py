"""The published numbers are whole, say what they belong to, and equal the project's facts where those are at hand."""

import re

import pytest

from huatuo.errors import ConfigError
from huatuo.toml import ROOT
from training.benchmarks import BENCHMARKS
from training.published import FILE, beside, read_published
from training.scores import METRICS

FACTS = ROOT.parent / "shared/facts/systems.md"


def test_every_table_names_its_source_convention_and_models() -> None:
    tables = read_published()
    assert len({table.id for table in tables}) == len(tables)
    for table in tables:
        assert table.source and table.convention and table.note and table.rows, table.id
        for row in table.rows:
            assert row.benchmark in {*BENCHMARKS, "med-dialog"}, row
            assert row.model
        if table.kind == "metrics":
            assert table.columns == METRICS and table.scale == 100
        if table.kind == "wins":
            assert all(97 <= sum(row.values) <= 101 for row in table.rows), table.id


@pytest.mark.skipif(not FACTS.exists(), reason="needs ../shared/facts")
def test_the_numbers_are_those_of_the_facts() -> None:
    text = FACTS.read_text("utf-8").split("## 1.7")[1].split("# 2. Systems")[0]
    known = {
        float(f"0{n}" if n[0] == "." else n) for n in re.findall(r"(?<![\d.])\d*\.\d+|\d+", text)
    }
    metrics = [table for table in read_published() if table.kind in ("metrics", "ratio")]
    values = {value for table in metrics for row in table.rows for value in row.values}
    assert values <= known, values - known
    huatuo = next(row for row in beside("cmedqa2")[0]["rows"] if "13B" in row["model"])
    assert huatuo["values"][:4] == (27.39, 14.38, 8.06, 4.55)


def test_only_the_rows_of_a_set_stand_beside_it() -> None:
    assert {row["benchmark"] for table in beside("webmedqa") for row in table["rows"]} == {"webmedqa"}  # fmt: skip
    assert beside("huatuogpt-sft") == []


def test_a_row_without_a_value_per_column_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    text = FILE.read_text("utf-8").replace("[0.28, 0.5, 1, 1]", "[0.28, 0.5, 1]")
    path = tmp_path / "p.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match="3 values, 4 columns"):
        read_published(path)
