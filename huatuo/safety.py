"""red-flag triage in Chinese and English: adds a notice, never edits the model's words.

The flags, their phrases and their notices are data: huatuo/safety.toml. It reads words, not meaning, and
errs to showing: a quoted, past or hypothetical emergency is flagged too. A negated sign is not
("没有胸痛", "不发烧", "无胸痛、呼吸困难", "no chest pain"): the negation stands right before the sign or
before a list that holds it, in the same clause. Not read: pinyin, typos, signs told over several
messages, languages other than Chinese (simplified, or traditional by a table) and English.
"""

import functools
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WINDOW = 60
"""Characters within which the parts of one sign must stand."""
_DATA = Path(__file__).with_name("safety.toml")

_TRADITIONAL = (
    "悶發燒熱懷婦嬰兒寶滿個歲說話這樣頭腦臉頸體溫過蝦藥農誤殺輕撐結遺書殘樓邊側無動腳壓後嚨緊腫紅氣脣蟄暈驚癲癇瘋風應車禍傷燙電觸魚嗆糖島識認劇絞"
    "斷陰顆鈕鹼鹽濺淚閃視見強姦貓開創離機鐵絲釘嚴輸針劑癱倒聽覺聲減產兩雙隻條張長點鐘時間陣現剛請問醫麼辦還沒爺媽週孫腸瀉乾脫門陷窩檢測驗廁潔滴"
    "總難續嘔噁膽黃疸術後單歷實證蕁麻團齡夢獨慮鬱憂傳記錄員區廣東萬與為內臟臨鬆軟擔須須彎礙爛蘋酮們鏡虛冷濕溼寫繩樹報憋諮詢"
)
_SIMPLIFIED = (
    "闷发烧热怀妇婴儿宝满个岁说话这样头脑脸颈体温过虾药农误杀轻撑结遗书残楼边侧无动脚压后咙紧肿红气唇蛰晕惊癫痫疯风应车祸伤烫电触鱼呛糖岛识认剧绞"
    "断阴颗纽碱盐溅泪闪视见强奸猫开创离机铁丝钉严输针剂瘫倒听觉声减产两双只条张长点钟时间阵现刚请问医么办还没爷妈周孙肠泻干脱门陷窝检测验厕洁滴"
    "总难续呕恶胆黄疸术后单历实证荨麻团龄梦独虑郁忧传记录员区广东万与为内脏临松软担须须弯碍烂苹酮们镜虚冷湿湿写绳树报憋咨询"
)
_TABLE = str.maketrans(_TRADITIONAL, _SIMPLIFIED)

# A negation, and what may stand between it and the sign: a verb, an adverb, the items of a list.
_NEGATION = re.compile(
    r"(?:没有|并无|并没有|从未|从不|否认|未见|不伴|不是|没|无|不|未)"
    r"(?:再|出现|感到|感觉|觉得|发生|伴有?|有|明显的?|什么|任何|过|想要?|要|会)*"
    r"(?:[^，。；！？,.;!?\n]{1,10}(?:、|和|或|及|以及|也没有)|头[晕痛疼]?|恶心|呕吐?|发[热烧]|咳嗽|胸[痛闷]|腹[痛泻]|出血|抽搐|昏迷|气短|心慌"
    r"|呼吸困难|疼痛)*$"
)
_ENGLISH_NEGATION = re.compile(
    r"\b(?:no|not|without|denies|deny|never|don'?t have|do not have|doesn'?t have|isn'?t|wasn'?t)"
    r"(?: (?:any|a|an|having|had|feeling|been|signs? of|history of|thoughts? of))*"
    r"(?: [a-z' ]{1,30}(?:,| or| and| nor))* $"
)


@dataclass(frozen=True)
class Flag:
    """One kind of emergency that a text may speak of; its words: `notice(key, language)`."""

    key: str


@dataclass(frozen=True)
class _Group:
    words: tuple[str, ...]
    pattern: re.Pattern[str] | None
    absent: bool


@dataclass(frozen=True)
class _Entry:
    key: str
    notices: dict[str, str]
    rules: tuple[tuple[_Group, ...], ...]


def triage(text: str, language: str = "zh") -> tuple[Flag, ...]:
    """The flags of a text, most urgent first; < 5 ms for an ordinary message. Never raises for a str.

    Both languages are always read; `language` is the page's and changes nothing.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_TABLE).lower()
    plain = plain.replace("\u2019", "'").replace(",", "，")
    return tuple(
        Flag(entry.key) for entry in _entries() if any(_holds(plain, rule) for rule in entry.rules)
    )


def notice(key: str, language: str = "zh") -> str:
    """The notice of a flag in 'zh' or 'en'. Raises KeyError for an unknown flag."""
    return _by_key()[key].notices["zh" if language == "zh" else "en"]


def keys() -> tuple[str, ...]:
    """Every flag, most urgent first."""
    return tuple(entry.key for entry in _entries())


def _holds(text: str, rule: tuple[_Group, ...]) -> bool:
    first, *others = rule
    for start, end in _found(text, first):
        near = text[max(0, start - WINDOW) : end + WINDOW]
        if all(group.absent != any(True for _ in _found(near, group)) for group in others):
            return True
    return False


def _found(text: str, group: _Group) -> Iterator[tuple[int, int]]:
    """Where the group stands in the text without a negation before it."""
    for word in group.words:
        start = text.find(word)
        while start >= 0:
            if group.absent or not _is_negated(text, start):
                yield start, start + len(word)
            start = text.find(word, start + 1)
    if group.pattern is not None:
        for match in group.pattern.finditer(text):
            if group.absent or not _is_negated(text, match.start()):
                yield match.span()


def _is_negated(text: str, start: int) -> bool:
    clause = re.split(r"[，。；！？;!?\n]", text[max(0, start - 40) : start])[-1]
    if _NEGATION.search(clause):
        return True
    return _ENGLISH_NEGATION.search(text[max(0, start - 60) : start].replace("，", ",")) is not None


@functools.cache
def _entries() -> tuple[_Entry, ...]:
    data = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    words: dict[str, str] = data["words"]
    return tuple(
        _Entry(
            flag["key"],
            {"zh": flag["zh"], "en": flag["en"]},
            tuple(tuple(_group(group, words) for group in rule) for rule in flag["rules"]),
        )
        for flag in data["flag"]
    )


@functools.cache
def _by_key() -> dict[str, _Entry]:
    return {entry.key: entry for entry in _entries()}


def _group(text: str, words: dict[str, str]) -> _Group:
    for name, value in words.items():
        text = text.replace("{" + name + "}", value)
    plain: list[str] = []
    patterns: list[str] = []
    for part in _alternatives(text.removeprefix("!")):
        (patterns if re.search(r"[\\\[\](){}.?*+^$]", part) else plain).append(part)
    return _Group(
        tuple(plain), re.compile("|".join(patterns)) if patterns else None, text.startswith("!")
    )


def _alternatives(text: str) -> list[str]:
    """The parts of a pattern between its outer bars."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if character == "|" and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]
