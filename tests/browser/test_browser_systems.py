"""Two converted systems are compared in a browser, voted on and exported; the models page says what is ready.

The systems are tiny and random, in the published files of HuatuoGPT-7B (Baichuan) and ChatGLM-6B.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.huatuo.systems import build

pytestmark = [pytest.mark.browser]
ROOT = Path(__file__).resolve().parents[2]
NAMES = {"huatuogpt-7b": "华佗GPT-7B", "chatglm-6b": "ChatGLM-6B"}
TEMPLATES = {"huatuogpt-7b": "huatuo", "chatglm-6b": "chatglm"}
FILE = """name = "{name}"
title_zh = "{title}"
title_en = "{name}"
engine = "local"
licence = "research licence"
study_use = "research"
source = "hub/{name}"
path = "{path}"
template = "{template}"
dtype = "float32"
get = "hf download hub/{name}"

[generation]
temperature = 1.0
top_p = 1.0
max_new_tokens = 200
context_tokens = 900
"""
AWAY = """name = "away"
title_zh = "未下载的模型"
title_en = "Not fetched"
engine = "local"
study_use = "no"
path = "data/nowhere-at-all"
get = \"\"\"
hf download hub/away
python -m huatuo.models.convert a b\"\"\"
"""
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def two_systems(folder: Path, _: int) -> None:
    folder.mkdir()
    for name, title in NAMES.items():
        path = build(name, folder.parent / name)["path"].relative_to(ROOT)
        text = FILE.format(name=name, title=title, path=path.as_posix(), template=TEMPLATES[name])
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    (folder / "away.toml").write_text(AWAY, encoding="utf-8")


@pytest.fixture(scope="module")
def app(serve: Callable[..., Any]) -> Iterator[Any]:
    with serve(two_systems, "chatglm-6b") as app:
        yield app


def test_two_systems_are_compared_blind_voted_on_and_exported(app: Any, signed_in: Any) -> None:
    tab = signed_in()
    tab.ask("我头痛三天了，怎么办？")
    duel = tab.page.locator("#duel .duel")
    expect(duel).to_have_attribute("data-state", re.compile("votable|broken"))
    tab.quiet()
    for _ in range(8):  # random words may end at once; a physician then asks both again
        if duel.get_attribute("data-state") == "broken":
            tab.run(lambda: tab.page.click("#retry"))
    tab.state("votable")
    tab.page.locator("#choice label").first.click()
    tab.page.click("#submit-vote")
    tab.state("voted")
    shown = [tab.page.locator(f".pane.{side} h2 .name").inner_text() for side in ("left", "right")]
    assert sorted(shown) == sorted(NAMES.values())
    command = [
        sys.executable,
        "-m",
        "reviews.export",
        "--data",
        str(app.data),
        "--out",
        str(app.data / "out"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [
        json.loads(line)
        for file in (app.data / "out").rglob("*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    assert any(set(NAMES) <= set(json.dumps(line, ensure_ascii=False).split('"')) for line in lines)


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_a_researcher_sees_what_is_ready_and_asks_a_test_question(
    app: Any, signed_in: Any, size: str
) -> None:
    tab = signed_in("researcher", **(PHONE if size == "phone" else {}))
    tab.open("/zh/models/")
    cards = tab.page.locator("#systems .system")
    expect(cards).to_have_count(3)
    for title in NAMES.values():
        card = cards.filter(has_text=title)
        expect(card.locator(".state")).to_have_text("可用")
        expect(card.locator(".use.caution")).to_have_text("仅限研究，不可商用")
        expect(card).to_contain_text("约需内存")
    away = cards.filter(has_text="未下载的模型")
    expect(away.locator(".state")).to_have_text("缺权重")
    expect(away.locator(".use")).to_have_text("不可用于医院研究")
    away.locator("summary").click()
    expect(away.locator("pre")).to_contain_text("python -m huatuo.models.convert a b")
    width = tab.page.evaluate("document.documentElement.scrollWidth")
    assert width <= tab.page.viewport_size["width"]
    trial = tab.page.locator("#trial")
    for _ in range(8):  # here too
        if "每秒约" not in trial.inner_text():
            tab.run(lambda: tab.page.click("#try"))
    expect(trial).to_contain_text("每秒约")


def test_a_physician_sees_no_models_page(signed_in: Any) -> None:
    tab = signed_in()
    expect(tab.page.locator("#frame nav a")).to_have_count(4)
    assert tab.page.request.get(f"{tab.app.url}/zh/models/").status == 403
