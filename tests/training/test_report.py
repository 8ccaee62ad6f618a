"""The report is one file that needs no network and lets nothing in; its log survives a stop."""

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.plots import smooth, wilson
from training.report import CsvLog, Page, bars, curves, read_columns, reliability, scatter, svg

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>$x_\"'& </td></style><svg onload=x>"


def columns(steps: int = 60) -> dict[str, list[float]]:
    rng = np.random.default_rng(3)
    return {
        "step": [float(step) for step in range(1, steps + 1)],
        "reward": (rng.normal(size=steps) + np.arange(steps) / 20).tolist(),
        "kl": rng.random(steps).tolist(),
        "only_sometimes": [math.nan if step % 5 else 1.0 for step in range(steps)],
    }


def full_page(text: str) -> Page:
    rng = np.random.default_rng(5)
    share = rng.random(200)
    came = (rng.random(200) < share).astype(float)
    page = Page(text, text).heading(text).heading("Two").heading("Three").text(text, note=True)
    page.table([{text: text, "n": 1234567}, {text: None, "n": math.nan}], caption=text)
    page.table([], ["nothing"])
    page.figure(curves(columns(), {"reward": text, "only_sometimes": "x"}, text), text)
    page.figure(reliability({text: (share.tolist(), came.tolist())}, text))
    page.figure(bars({text: {"a": (0.5, 0.4, 0.6), "b": 0.7}, "c": {"a": math.nan}}, text))
    page.figure(scatter(share.tolist(), came.tolist(), text, groups=[text, "b"] * 100))
    answers = {text: text, "other": text}
    scores = {text: {text: 0.5}, "other": 1.25}
    return page.samples(
        [
            {"prompt": text, "answers": answers, "scores": scores, "note": text},
            {"prompt": [{"role": "user", "content": text}], "answers": answers},
        ]
    )


def test_whatever_is_put_in_comes_out_as_text() -> None:
    document = full_page(HOSTILE).html()
    assert document.count("<script") == 0
    assert not re.search(r"<[^>]*\son\w+\s*=", re.sub(r'"[^"]*"', '""', document))
    assert document.count("</style>") == 1
    assert "&lt;script&gt;alert(1)" in document


def test_nothing_is_fetched_from_elsewhere() -> None:
    document = full_page("头疼三天").html()
    assert not re.search(r"(?i)https?://|//\w|@import|<link|<iframe", document)
    assert set(re.findall(r'(?:src|href)="(.)', document)) <= {"#"}
    assert "default-src 'none'" in document


def test_ids_are_unique_over_all_figures() -> None:
    ids = re.findall(r'\bid="([^"]+)"', full_page("x").html())
    assert len(ids) == len(set(ids)) > 20


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert svg(curves(columns(), ["kl"])) == svg(curves(columns(), ["kl"]))


def test_chinese_stays_text_and_colours_follow_the_page() -> None:
    drawn = svg(curves(columns(), {"kl": "偏离 KL"}))
    assert "偏离 KL</text>" in drawn and "var(--series-1, #0f766e)" in drawn


@pytest.mark.parametrize(
    "drawing",
    [
        "<p>no svg</p>",
        "<svg><script>1</script></svg>",
        '<svg onload="x"></svg>',
        '<svg><use href="http://a/b#c"/></svg>',
        '<svg><rect fill="url(http://a/b)"/></svg>',
        "<svg><foreignObject></foreignObject></svg>",
        '<svg><a href="javascript:x">y</a></svg>',
        "<svg><style>@import 'x'</style></svg>",
    ],
)
def test_foreign_svg_with_more_than_marks_is_refused(drawing: str) -> None:
    with pytest.raises(ValueError, match="not a plain"):
        Page("x").figure(drawing)


def test_a_failed_save_leaves_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Page("first").save(tmp_path / "deep" / "report.html")
    old = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.report.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        Page("second").save(path)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_lone_surrogates_do_not_lose_a_report(tmp_path: Path) -> None:
    assert "?" in Page("a\ud800b").save(tmp_path / "r.html").read_text("utf-8")


def test_a_resumed_log_is_byte_for_byte_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    def row(step: int) -> dict[str, float | None]:
        return {"reward": step / 3, "kl": None if step % 2 else 1e-9 * step, "tokens": step * 7}

    whole = CsvLog(tmp_path / "whole.csv")
    for step in range(1, 9):
        whole.append(step, row(step))
    broken = CsvLog(tmp_path / "broken.csv")
    for step in range(1, 7):
        broken.append(step, row(step))
    with broken.path.open("a") as file:
        file.write("7,2.33")  # killed in the middle of a row
    resumed = CsvLog(broken.path, after=4)
    assert resumed.columns == ("reward", "kl", "tokens")
    for step in range(5, 9):
        resumed.append(step, row(step))
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    assert read_columns(whole.path)["reward"] == [step / 3 for step in range(1, 9)]


def test_a_fresh_log_forgets_the_old_run_and_resuming_nothing_starts_one(tmp_path: Path) -> None:
    CsvLog(tmp_path / "a.csv").append(1, {"x": 1.0})
    log = CsvLog(tmp_path / "a.csv", ["y", "z"])
    log.append(1, {"z": 2.0})
    assert log.path.read_text() == "step,y,z\n1,,2.0\n"
    CsvLog(tmp_path / "b.csv", after=10).append(11, {"x": math.nan})
    assert (tmp_path / "b.csv").read_text() == "step,x\n11,nan\n"
    (tmp_path / "c.csv").touch()
    CsvLog(tmp_path / "c.csv", after=3).append(4, {"x": 1})
    assert (tmp_path / "c.csv").read_text() == "step,x\n4,1\n"


def test_a_name_that_the_header_lacks_is_an_error(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "a.csv")
    log.append(1, {"x": 1.0})
    with pytest.raises(ValueError, match="no column y"):
        log.append(2, {"y": 1.0})


def test_curves_name_what_is_missing() -> None:
    with pytest.raises(ValueError, match="entropy"):
        curves(columns(), ["entropy"])


def test_a_column_without_a_number_gets_no_panel() -> None:
    figure = curves({**columns(4), "never": [math.nan] * 4}, ["reward", "never", "absent"])
    assert [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()] == ["reward"]


def test_the_running_mean_is_centred_and_skips_nan() -> None:
    assert smooth([1, 2, 3, 4, 5], 3).tolist() == [1.5, 2, 3, 4, 4.5]
    assert smooth([1, math.nan, 3], 3).tolist() == [1, 2, 3]


def test_wilson_is_wilson() -> None:
    low, high = wilson(0.5, 100)
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)
    assert wilson(0.0, 0) == (0.0, 1.0)


@pytest.mark.browser
def test_a_browser_shows_the_page_without_a_word_of_complaint(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    path = full_page(HOSTILE).save(tmp_path / "report.html")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    complaints: list[str] = []
    asked: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for scheme, paper in (("light", "rgb(251, 251, 248)"), ("dark", "rgb(20, 24, 26)")):
            page = browser.new_page(
                viewport={"width": 390, "height": 800},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.on("console", lambda message: complaints.append(message.text))
            page.on("dialog", lambda dialog: complaints.append(dialog.message))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(path.as_uri())
            shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert shown == paper
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert page.locator("figure svg").count() == 4
        browser.close()
    assert complaints == [] and set(asked) == {path.as_uri()}
