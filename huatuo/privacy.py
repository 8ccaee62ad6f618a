"""finds and masks identifiers in Chinese and English text before it is stored or sent.

Each find is replaced by a typed placeholder such as 【电话】. Found: mobile and landline numbers, ID and
bank card numbers (with their check digits), passports, plates, e-mail, URL and IP addresses, QQ and
WeChat after their word, hospital record numbers after theirs, dates (the year stays), ages over 89,
codes behind a word of numbering, names with and without a cue, addresses, named hospitals, firms and schools. Not all is found (an unusual name in the
middle of a sentence, a place that only its neighbours know): this lessens what is stored and sent, it
does not make it anonymous.

`\\b` is no boundary between 汉字 and digits, so every rule looks around itself. Full-width digits are
read as plain ones; text outside the finds is left as it was.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from huatuo import bare_names, codes, dates, foreign_names, institutions, names, numbers
from huatuo.check_digits import is_card_number, is_id_number, is_like_id_number
from huatuo.plain_copy import plain_copy

Replace = Callable[[re.Match[str]], str | None]

KINDS: dict[str, tuple[str, str]] = {
    "phone": ("电话", "phone number"),
    "id_card": ("身份证号", "ID card number"),
    "passport": ("护照号", "passport number"),
    "bank_card": ("银行卡号", "bank card number"),
    "plate": ("车牌号", "licence plate"),
    "email": ("邮箱", "e-mail address"),
    "url": ("网址", "web address"),
    "ip": ("IP地址", "IP address"),
    "account": ("账号", "account"),
    "record": ("病历号", "record number"),
    "date": ("日期", "date"),
    "age": ("高龄", "age over 89"),
    "name": ("姓名", "name"),
    "address": ("地址", "address"),
    "bed": ("床号", "hospital bed"),
    "license": ("证件号", "licence number"),
    "device": ("设备号", "device number"),
    "workplace": ("单位", "workplace or school"),
}
"""Every kind with its Chinese and English name; the placeholder is the Chinese one in 【】."""

_PLACEHOLDERS = frozenset(zh for zh, _ in KINDS.values())
_HIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_PASSES, _PASSES_OF_LONG, _LONG = 6, 2, 4_000
"""What was found is a mark beside which another rule or name may show; more than three passes are rare. A text of
more than _LONG characters gets two, so that no text takes seconds."""
_TOKEN = r"[A-Za-z0-9][A-Za-z0-9_.\-]{3,31}"
_SAYS = numbers.SAYS


@dataclass(frozen=True)
class Masked:
    """A text without the identifiers that were found. found: (kind, how many), in the order of KINDS."""

    text: str
    found: tuple[tuple[str, int], ...]


def mask(text: str) -> Masked:
    """The text with placeholders; masking it again changes nothing (up to 4,000 characters). Never raises; 1-3 ms for a question.

    Every step reads a copy with plain digits, letters and punctuation, of equal length. Characters that show nothing
    (copied from web pages, or put in to split a number) are read over; a text in which something is found loses them.
    """
    counts: Counter[str] = Counter()
    given = text
    text = shown = _HIDDEN.sub("", given)
    plain = plain_copy(text)
    for _ in range(_PASSES if len(text) <= _LONG else _PASSES_OF_LONG):
        before = text
        if places := institutions.find(plain):
            counts["workplace"] += len(places)
            text = _spliced(text, [(start, stop, "【单位】") for start, stop in places])
            plain = plain_copy(text)
        for kind, pattern, replace in RULES:
            if finds := _finds(plain, pattern, replace):
                counts[kind] += len(finds)
                text = _spliced(text, finds)
                plain = plain_copy(text)
        if places := institutions.before_addresses(plain):
            counts["address"] += sum("【地址】" not in text[start:stop] for start, stop in places)
            text = _spliced(text, [(start, stop, "【地址】") for start, stop in places])
            plain = plain_copy(text)
        if found_names := bare_names.find(plain, _PLACEHOLDERS):
            counts["name"] += len(found_names)
            text = _spliced(text, [(start, stop, "【姓名】") for start, stop in found_names])
            plain = plain_copy(text)
        if text == before:
            break
    found = tuple((kind, counts[kind]) for kind in KINDS if counts[kind])
    return Masked(given if text == shown else text, found)


def kind_name(kind: str, language: Literal["zh", "en"] | str = "zh") -> str:
    """The name of a kind for people, such as 电话 or 'phone number'."""
    zh, en = KINDS.get(kind, (kind, kind))
    return zh if language == "zh" else en


def _finds(plain: str, pattern: re.Pattern[str], replace: Replace) -> list[tuple[int, int, str]]:
    """What one rule finds: (start, stop, what stands there instead), in order and apart."""
    finds: list[tuple[int, int, str]] = []
    for match in pattern.finditer(plain):
        new = replace(match)
        start, stop = match.span("it") if "it" in pattern.groupindex else match.span()
        if new is not None and (not finds or start >= finds[-1][1]):
            finds.append((start, stop, new))
    return finds


def _spliced(text: str, finds: list[tuple[int, int, str]]) -> str:
    pieces: list[str] = []
    end = 0
    for start, stop, new in finds:
        pieces += [text[end:start], new]
        end = stop
    return "".join([*pieces, text[end:]])


def _always(kind: str) -> Replace:
    return lambda _: f"【{KINDS[kind][0]}】"


def _if(kind: str, holds: Callable[[str], bool]) -> Replace:
    return lambda match: f"【{KINDS[kind][0]}】" if holds(match[0]) else None


def _is_ip(text: str) -> bool:
    return all(part.isdecimal() and int(part) < 256 for part in text.split("."))


def _unless_a_word(match: re.Match[str]) -> str | None:
    word = match["it"]
    known = bare_names.is_common(word) or (len(word) > 2 and bare_names.is_common(word[:2]))
    if word[0] in "和应水平" and bare_names.is_common(word[1:]):
        known = known or word[0] == "和" or not bare_names.is_given(word[1:])
    return None if known else "【姓名】"


def _old(match: re.Match[str]) -> str | None:
    return "90+" if int(match["it"]) > 89 else None


def _over(_: re.Match[str]) -> str:
    return "90+"


def _spaced_id(match: re.Match[str]) -> str | None:
    digits = match[0].replace(" ", "").replace("-", "")
    return "【身份证号】" if is_id_number(digits) else None


def _eleven(match: re.Match[str]) -> str | None:
    """A mobile number in odd groups; not a list of two-digit measures, which has more gaps."""
    gaps = len(re.findall(r"[ -]", match[0]))
    return "【电话】" if gaps <= 5 and "/" not in match[0] else None


_D = r"(?<![\d.])"
_E = r"(?!\d|\.\d)"
_ONE_AGE = r"(?<![\d.≥>])(?<!\d[~～-])(?<!大于)(?<!超过)"
_EN = r"(?<![A-Za-z])"
_DASH = r"[ .~_/\u00b7\u2010-\u2015\u2212-]"


def _rule(
    kind: str, pattern: str, replace: Replace | None = None
) -> tuple[str, re.Pattern[str], Replace]:
    return kind, re.compile(pattern), replace or _always(kind)


# Order matters: what is longest and surest comes first, and a placeholder is never read again.
RULES: tuple[tuple[str, re.Pattern[str], Replace], ...] = (
    _rule("url", r"(?i)(?<![a-z0-9])(?:https?|ftp)://[^\s\u3000-\u9fff,;!()<>\"'\uff00-\uffef]+"),
    _rule(
        "email",
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}\s?(?:@|[(\[]at[)\]])\s?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    ),
    _rule(
        "url",
        r"(?i)(?<![a-z0-9.@-])(?:www\.[a-z0-9-]+(?:\.[a-z0-9-]+)+|[a-z0-9-]{2,}\.(?:com|cn|net|org)(?:\.cn)?)"
        r"(?![a-z])(?:/[^\s\u3000-\u9fff,;!()]*)?",
    ),
    *(_rule("license", pattern) for pattern in numbers.LICENSES),
    *(_rule("device", pattern) for pattern in numbers.DEVICES),
    _rule("id_card", _D + r"\d{17}[\dXx](?![\dA-Za-z])", _if("id_card", is_id_number)),
    _rule(
        "id_card",
        _D + r"\d{17}[\dXx](?![\dA-Za-z]|号?的?(?:标本|样本|批|试剂|条码))",
        _if("id_card", is_like_id_number),
    ),
    _rule("id_card", _D + r"\d{3,6}[*×]{6,12}[\dXx]{2,4}(?![\dA-Za-z])"),
    _rule("phone", _D + r"1[3-9]\d[*×]{3,5}\d{3,4}(?!\d)"),
    _rule("id_card", _D + r"\d(?:[ -]?\d){16}[ -]?[\dXx](?![\dA-Za-z])", _spaced_id),
    _rule("id_card", r"(?:身份证|证件)" + _SAYS + r"(?P<it>\d{14,17}[\dXx])"),
    _rule(
        "id_card",
        r"身份证[^\d。；;\n]{0,15}(?<![A-Za-z])(?P<it>\d{6}(?:[ -]?\d){0,11}(?:[ -]?[\dXx]| ?\(\d\))?)(?!\d)",
    ),
    _rule(
        "id_card",
        r"身份证[^\d。；;\n]{0,8}(?:后|尾|末|前)[^\d。；;\n]{0,5}(?P<it>\d{4,6}[Xx]?)(?!\d)",
    ),
    _rule("id_card", _D + r"\d{6}([ -])\d{8}\1\d{3}[\dXx](?![\dA-Za-z])"),
    _rule("id_card", _D + r"\d{15}" + _E, _if("id_card", is_id_number)),
    _rule("passport", r"(?:护照|passport|通行证)" + _SAYS + r"(?P<it>[A-Za-z]{1,2}\d{7,8})(?!\d)"),
    _rule(
        "passport",
        r"(?:台胞证|回乡证|居留证|居留许可|永居证?|永久居留证|台湾?居民证|旅行证)"
        + _SAYS
        + r"(?P<it>[A-Za-z]{0,3}\d{7,15})(?![\dA-Za-z])",
    ),
    _rule(
        "passport",
        r"(?:军官|士官|士兵|警官|文职)证"
        + _SAYS
        + r"(?P<it>[\u4e00-\u9fff]{0,2}字?第?\d{5,10}号?)",
    ),
    *(_rule("passport", pattern) for pattern in numbers.PERMITS),
    _rule("passport", r"(?<![A-Za-z0-9])(?:[EeGg]\d{8}|E[A-Z]\d{7})(?![A-Za-z0-9])"),
    _rule(
        "record",
        rf"(?:住院|门诊|病历|病案|医保|就诊卡?|诊疗卡?|病床|检查|标本|样本|社保|登记|档案|挂号|床|病理|超声|放射|影像|体检|检验|透析|急诊|留观|新?农合|医疗证|健康卡|健康档案|腕带|报告单?|申请单?|影像检查|流水|条码|条形码|处方|结算|收据|订单|快递单?|运单|参保|保险|心电图?|内镜|胃镜|肠镜|CT|MRI?|DR|B超|(?<![A-Za-z])ID|预约|随访|切片|蜡块)(?:首页|流水|病历)?(?:卡|单|本|证)?(?:号码|编号|号|条码|条形码|码|(?<=ID))[\s是为:：#]{{0,8}}+(?!NCT\d|ChiCTR)(?P<it>(?=[A-Za-z_.-]{{0,12}}\d)(?:\d{{3,5}}(?: \d{{3,5}}){{1,4}}(?: \d{{1,2}})?(?![\d/.:-])|{_TOKEN}|\d{{2,20}}))",
    ),
    _rule(
        "record",
        r"(?:医保卡|就诊卡|诊疗卡|社保卡|慢病卡|健康卡|一卡通|会员卡|运单|(?:取药|取件|取号|核销|验证|签到|预约)码)[\s是为:：#]{0,8}+(?P<it>[A-Za-z]{0,3}\d{4,20}(?: \d{1,5}){0,4})(?!\d)",
    ),
    _rule(
        "record",
        rf"(?i){_EN}(?:MRN|medical record|record|patient id|chart|admission|insurance|policy)(?: no\.?| number| #| id)?\s*(?:is|[:#])\s*(?P<it>(?=[a-z0-9-]*\d){_TOKEN})",
    ),
    _rule("record", rf"(?i){_EN}MRN ?#? ?(?P<it>\d{{5,12}})(?!\d)"),
    *(_rule("account", pattern) for pattern in numbers.ACCOUNTS),
    *(_rule(kind, pattern) for kind, pattern in codes.CODES),
    _rule("phone", _D + r"1([ -])[3-9](?:\1\d){9}" + _E),
    _rule(
        "phone",
        r"(?<![零〇一二三四五六七八九幺])[一幺][三四五六七八九][零〇一二三四五六七八九幺]{9}",
    ),
    _rule(
        "phone",
        _D
        + r"(?:(?:\+|00)?86[- ]?)?1[3-9]\d(?:\d{8}|"
        + _DASH
        + r"{0,3}\d{4}"
        + _DASH
        + r"{0,3}\d{4}|[- ]\d{8})"
        + _E,
    ),
    _rule(
        "phone",
        r"(?<![\d.-])\(?0(?:10|2\d|[3-9]\d{2})\)?"
        + _DASH
        + r"{0,3}[2-9]\d{2,3}"
        + _DASH
        + r"?\d{4}(?:(?:转|-|ext)\d{1,6})?"
        + _E,
    ),
    _rule("phone", r"(?<![\d.-])(?:400|800)[- ]?\d{3}[- ]?\d{4}(?![A-Za-z])" + _E),
    _rule(
        "phone",
        r"(?:电话|手机|座机|联系方式|传真|(?i:phone|mobile|tel|fax|call me at))"
        + _SAYS
        + r"(?P<it>\+?\d[\d -]{5,18}\d)"
        + _E,
    ),
    _rule("phone", r"(?<![\d.+-])\+\d{1,3}[ -]?\(?\d{1,4}\)?(?:[ -]?\d{2,4}){2,4}" + _E),
    _rule("phone", r"(?<![\d.-])\(?[2-9]\d{2}\)?[ -]\d{3}-\d{4}(?![\dA-Za-z-])"),
    _rule("id_card", _D + r"\d{3}-\d{2}-\d{4}(?![\d-])"),
    _rule("phone", r"(?:手机|电话)[^\d。；;\n]{0,8}(?P<it>1[3-9]\d{5,9})" + _E),
    _rule("phone", r"(?:尾号|后四位|末四位)[^\d。；;\n]{0,3}(?P<it>\d{3}[\dXx])" + _E),
    _rule(
        "phone",
        r"(?:[打拨转]|致电|回电|联系)\s?(?P<it>[2-9]\d{2,3}[ -]?\d{4})(?![\d.次片粒个%]|\s?(?:单位|万|IU|U|iu|转(?!\s?\d)|[mM][gGlL]|毫))",
    ),
    _rule("phone", _D + r"(?:\(?\+?86\)?[- ]?)?1[- ]?[3-9](?:[- ]?\d){9}" + _E, _eleven),
    _rule("bank_card", _D + r"\d(?:[ -]?\d){14,18}" + _E, _if("bank_card", is_card_number)),
    _rule("bank_card", r"(?:银行卡|信用卡|卡号)" + _SAYS + r"(?P<it>\d(?:[ -]?\d){11,18})" + _E),
    *(_rule("bank_card", pattern) for pattern in numbers.CARDS),
    _rule(
        "record",
        r"(?<![批型货文式版期款注册])(?:[卡单编册本户账病样案]|流水|报告|受理|记录)(?:号码|编号|号)[\s是为:：#]{0,6}+(?!rs\d)(?P<it>[A-Za-z]{0,4}-?\d{6,20})(?![\dA-Za-z])",
    ),
    *(_rule("record", pattern) for pattern in numbers.RECORDS),
    *(_rule("phone", pattern) for pattern in numbers.EXTENSIONS),
    _rule("ip", _D + r"\d{1,3}(?:\.\d{1,3}){3}" + _E, _if("ip", _is_ip)),
    _rule("ip", r"(?i)(?<![0-9a-f:])(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(?![0-9a-f:])"),
    _rule(
        "plate",
        r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Za-hj-np-z] ?[·. -]?(?=[A-Za-z]{0,4}\d)(?:[A-HJ-NP-Za-hj-np-z0-9]{4,5}[A-HJ-NP-Za-hj-np-z0-9挂学警港澳急领使试](?![A-Za-z0-9])|(?:[A-HJ-NP-Z0-9] ?){5,6}(?![A-Za-z0-9]))",
    ),
    *(_rule("date", pattern, replace) for pattern, replace in dates.DATES),
    _rule("age", _ONE_AGE + r"(?P<it>9\d|1[0-2]\d)\s?(?:周岁|岁)(?!及?以|的?范围)", _old),
    _rule("age", r"年龄\s*(?:是|为|[:：])?\s*(?P<it>9\d|1[0-2]\d)(?![\d.%+~～-]|及?以)", _old),
    _rule(
        "age",
        r"(?:九十[一二三四五六七八九]?|一百[零一二]?十?[一二三四五六七八九]?)(?=\s?岁(?!及?以))",
        _over,
    ),
    _rule(
        "age",
        r"九十有[一二三四五六七八九]|(?:年[过近逾]|已)?九旬(?!以上)|(?:高龄|年届|享年)九十[一二三四五六七八九]?",
        _over,
    ),
    _rule(
        "age",
        r"(?:今年|虚岁|周岁|高龄|享年|都|已经?|快)\s?(?P<it>9\d|1[01]\d)(?=了|[,，。、；;]|$)",
        _old,
    ),
    _rule(
        "age",
        r"(?<![压率分斤糖百度快下到])(?P<it>九十[一二三四五六七八九])(?=了(?:[,，。、;；!！]|$))",
        _over,
    ),
    _rule("age", _ONE_AGE + r"(?P<it>9\d|1[0-2]\d) ?(?:yo|y/o|YO)(?![A-Za-z])", _old),
    _rule("age", r"(?i)(?<![\d.])(?P<it>9\d|1[0-2]\d)[ -](?:years?|yrs?)[ -]old", _old),
    _rule("age", rf"(?i){_EN}(?:aged?|age is|age:)\s?(?P<it>9\d|1[0-2]\d)(?![\d%+-])", _old),
    *(_rule("date", pattern, replace) for pattern, replace in dates.AFTER_AGES),
    _rule("address", r"邮[编政][编码]{0,2}[是为:：\s]{0,4}(?P<it>\d{6})(?!\d)"),
    *(_rule("bed", pattern) for pattern in names.BEDS),
    *(_rule("address", pattern) for pattern in names.ADDRESSES),
    *(_rule("workplace", pattern) for pattern in names.WORKPLACES),
    *(_rule("account", pattern) for pattern in numbers.HANDLES),
    *(_rule("name", pattern) for pattern in (*foreign_names.NAMES, *names.NAMES)),
    *(_rule("name", pattern) for pattern in (*names.SURE, *foreign_names.BESIDE)),
    *(_rule("name", pattern, _unless_a_word) for pattern in names.UNLESS_A_WORD),
)
