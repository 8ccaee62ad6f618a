"""model text to inert Markdown.

Inert by construction: raw HTML, links, images and autolinks are never parsed, so their text stays text,
and the only elements that can come out are p, ol, ul, li, strong, em, code, pre, h4, table and its
parts, blockquote, hr and br; the only attribute is `start` of ol. Nothing can be fetched or clicked.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Delimiter
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

LONGEST = 60_000
"""Longer texts are shown plain; a model that says more than this is broken."""
HIDDEN = "【名称已隐去】"

_OFF = ["link", "image", "autolink", "html_inline", "html_block", "reference", "code", "lheading"]
_MODELS = (
    r"huatuo[- ]?gpt(?:[- ]?(?:ii|o1|2|\d+b|nano))*|华[佗陀][- ]?gpt|华[佗陀](?:医疗)?(?:大模型|助手|医生)|chat[- ]?gpt"
    r"(?:[- ]?\d(?:\.\d)?)?|gpt[- ]?[2-9](?:\.\d)?o?(?:[- ]?(?:turbo|mini|nano))*(?![\d.]|\s*u/l)|open[- ]?ai|文心一言|文心大模型"
    r"|ernie[- ]?bot|通义千问|通义(?:大模型)?|tongyi|qwen[\d.]*(?:-\w+)*|bloomz?(?:-\d+b\d?)?(?:-mt)?|百川(?:智能|大模型|模型)"
    r"|baichuan[\d-]*|chatglm[\d-]*|doctorglm|glm-\d|智谱(?:ai|清言)?|deepseek(?:-\w+)?|深度求索|claude|anthropic|gemini|llama"
    r"[\d-]*|mistral|kimi|月之暗面|豆包|讯飞星火|星火(?:认知)?大模型|腾讯混元|混元大模型|bentsao|本草(?:大)?模型|ziya-?\w*|姜子牙"
    r"|shenzhen (?:research institute of )?big data|深圳市大数据研究院|香港中文大学（深圳）|由(?:百度|阿里(?:云|巴巴)?|字节跳动"
    r"|腾讯|华为|科大讯飞)(?:公司)?(?:开发|研发|训练|创建)"
)
_SELF = (
    r"(?<=我是)(?:由)?[^，。！？；\n]{0,24}?(?:大?型?语言模型|大模型|聊天机器人|人工智能(?:助手|模型)?|(?<![A-Za-z])AI(?:医生|助手|模型|大?型?语言模型)?)"
    r"|(?<=作为)(?:一[个名款位])?(?:由)?[^，。！？；\n]{0,20}?(?:大?型?语言模型|大模型|聊天机器人|人工智能(?:助手|模型)?|(?<![A-Za-z])AI(?:医生|助手|模型|大?型?语言模型)?)"
    r"|(?<=i am )an? [a-z -]{0,30}(?:language model|ai assistant|chatbot)(?: (?:trained|developed|made) by \w+)?"
    r"|(?<=as )an? (?:ai|large)[a-z -]{0,20}(?:language model|assistant)"
)


class _InertRenderer(RendererHTML):
    """Renders tokens without any attribute but an integer `start`."""

    def renderToken(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        token = tokens[idx]
        start = token.attrs.get("start")
        token.attrs = {"start": start} if isinstance(start, int) else {}
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h4"
        return super().renderToken(tokens, idx, options, env)

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A code block without its language."""
        return f"<pre><code>{html.escape(tokens[idx].content)}</code></pre>\n"

    def code_inline(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Code inside a line."""
        return f"<code>{html.escape(tokens[idx].content)}</code>"


def _emphasis(state: StateInline, silent: bool) -> bool:
    """CommonMark's * and _, but beside a 汉字 or its punctuation only white space decides.

    By the letter of CommonMark `**注意：**多喝水` is not bold, because a colon stands before the mark.
    """
    start = state.pos
    marker = state.src[start]
    if silent or marker not in "_*":
        return False
    run = state.scanDelims(start, marker == "*")
    before = state.src[start - 1] if start else " "
    after = state.src[start + run.length] if start + run.length < state.posMax else " "
    can_open, can_close = run.can_open, run.can_close
    if marker == "*" and (_is_wide(before) or _is_wide(after)):
        can_open, can_close = not after.isspace(), not before.isspace()
    if (
        marker == "*"
        and run.length == 1
        and (before + after).isascii()
        and (before + after).isalnum()
    ):
        can_open = can_close = False  # 5*3*2 cm is a size, not an emphasis
    for _ in range(run.length):
        state.push("text", "", 0).content = marker
        state.delimiters.append(
            Delimiter(
                marker=ord(marker),
                length=run.length,
                token=len(state.tokens) - 1,
                end=-1,
                open=can_open,
                close=can_close,
            )
        )
    state.pos += run.length
    return True


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_InertRenderer)
    parser.enable("table").disable(_OFF)
    parser.inline.ruler.at("emphasis", _emphasis)
    return parser


_MARKDOWN = _parser()


# Models end a list by a line break only; Markdown would read the next line as part of the last item.
_LIST_END = re.compile(
    r"(?m)^( {0,3}(?:\d{1,3}[.)]|[-*+]) .*)\n(?=\S)(?! {0,3}(?:\d{1,3}[.)]|[-*+]) )"
)


def to_html(text: str) -> str:
    """The text as inert HTML; a single newline is a <br>, a heading an h4. Never raises for a str."""
    if len(text) > LONGEST:
        return f"<p>{plain(text)}</p>"
    return str(_MARKDOWN.render(_LIST_END.sub(r"\1\n\n", text))).strip()


def plain(text: str) -> str:
    """The text escaped, for element content and quoted attributes; newlines as <br>."""
    return re.sub(r"\r\n?|\n", "<br>", html.escape(text))


def hide_names(text: str, names: Iterable[str]) -> str:
    """The text with model names and self-identifications as 【名称已隐去】, so that blind stays blind.

    names: further names (titles, ids) to hide beside the well-known ones. Latin case does not matter;
    a Latin name hides only as a whole word. GPT as a liver enzyme stays.
    """
    own = "|".join(
        re.escape(name)
        for name in sorted({n.strip() for n in names}, key=len, reverse=True)
        if len(name) > 1
    )
    pattern = rf"(?<![a-z0-9])(?:{own + '|' if own else ''}{_MODELS})(?![a-z])"
    text = re.sub(f"(?i)(?:{_SELF})", HIDDEN, text)
    text = re.sub(f"(?i){pattern}", HIDDEN, text)
    return re.sub(rf"(?:{HIDDEN}\s*){{2,}}", HIDDEN, text)
