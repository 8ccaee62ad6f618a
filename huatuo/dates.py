"""patterns of dates, and which of them stay: the year always, a day only where nobody can be known by it.

As HIPAA's Safe Harbor has it, every part of a person's date goes but the year. A day without a year stays beside what
a doctor must count from it (末次月经3月2日, 第二针6月1日), and what is no person's: an expiry date, the first dog day.
"""

import re
from collections.abc import Callable

Date = tuple[str, Callable[[re.Match[str]], str | None]]
_ALL = "【日期】"
_D = r"(?<![\d.])"
_EN = r"(?<![A-Za-z])"
_NUMERALS = "〇零一二三四五六七八九十"
_NOT_PUBLISHED = r"(?![日号]?起?(?:[\u4e00-\u9fff]{0,6})(?:印发|发布|公布|实施|施行|出版|颁布|更新|修订|上市|批准))"
_MONTHS = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_BACK = 40
"""Characters read before a date to see what it counts."""
_COUNTED = re.compile(
    r"月经|例假|大姨妈|姨妈[来走]|经期|排卵|卵泡|同房|验孕|试纸|停经|闭经|孕囊|胎心|着床|胚胎?移植|(?<![肾肝心肺髓胞膜])移植(?:日|第|后)|预产|(?i:hcg|lmp|edc)|孕酮|疫苗|接种|加强针"
    r"|第[一二三四1234]针|狂犬|破伤风"
)
_AS_COUNTED = re.compile(
    r"[^。！!？?；;，,\n]{0,3}(?:来的?|[走净])?(?:月经|例假|大姨妈|姨妈|同房|排卵|验孕|测孕|测排|停经|打的?了?[^，,。]{0,3}(?:第[一二三四]|加强|疫苗|针)|接种|移植(?![肾肝心肺器]))"
)
_OF_GOODS = re.compile(r"(?:有效期|保质期|失效日期|过期日期|生产日期|批号)[^，,。；;\n]{0,6}$")
_OF_SEASONS = re.compile(
    r"(?:头伏|[初中末一二三]伏|入伏|数九|(?<!国)立[春夏秋冬]|[冬夏]至|[春秋]分|惊蛰|清明|谷雨|大暑|小暑|处暑|霜降|[大小]寒)[^，,。；;\n]{0,6}$"
)
_OF_PAPERS = re.compile(r"身份证|护照|居[住留]证|通行证|签证|驾|医保|社保|合同")
_SENTENCE = re.compile(r"[。！!？?；;\n]")
_RECORDED = re.compile(
    r"\s?(?:[上下]午|早|晚|凌晨|中午|夜)?(?:[我他她]?(?:入院|出院|住院|来院|就诊|转[院科入]|手术|出生|生(?!化)|办|[在到去因]|再次|死亡|去世|逝世|病逝|剖|引产|急诊|送|晕|昏|收[治入]))"
)
_BORN = re.compile(r"(?:生于|出生[于在]?|生日[是为:：]?)\s?$")


def _before(match: re.Match[str]) -> str:
    """What stands before a date in its sentence, 40 characters at most."""
    return _SENTENCE.split(match.string[max(0, match.start() - _BACK) : match.start()])[-1]


def _is_recorded(match: re.Match[str]) -> bool:
    """Whether somebody was born, came, was operated on or died then."""
    after = _RECORDED.match(match.string, match.end()) is not None
    return (
        after or _BORN.search(match.string[max(0, match.start() - 8) : match.start()]) is not None
    )


def _is_of_a_thing(match: re.Match[str]) -> bool:
    """Whether it is the day of goods: 有效期至2024年2月."""
    before = _before(match)
    return (
        _OF_GOODS.search(before) is not None
        and not _OF_PAPERS.search(before)
        and not _is_recorded(match)
    )


def _is_counted(match: re.Match[str]) -> bool:
    """Whether a day without a year is one that a doctor counts from, or the calendar's, and nobody's own."""
    if _is_recorded(match):
        return False
    before = _before(match)
    return (
        _AS_COUNTED.match(match.string, match.end()) is not None
        or _COUNTED.search(before) is not None
        or _OF_SEASONS.search(before) is not None
    )


def _always(_: re.Match[str]) -> str:
    return _ALL


def _unless_counted(match: re.Match[str]) -> str | None:
    return None if _is_of_a_thing(match) or _is_counted(match) else _ALL


def _year_only(match: re.Match[str]) -> str | None:
    year, month, day = match["y"], match["m"], match["d"]
    if not 1900 <= int(year) <= 2099 or not 1 <= int(month) <= 12:
        return None
    if day is not None and not 1 <= int(day) <= 31:
        return None
    return None if _is_of_a_thing(match) else f"{year}年{_ALL}"


def _english_year_only(match: re.Match[str]) -> str:
    return f"{_ALL} {match['y']}" if match["y"] else _ALL


def _lunar_year_only(match: re.Match[str]) -> str:
    return f"{match['y']}年{_ALL}"


DATES: tuple[Date, ...] = (
    (
        _D
        + r"(?P<y>(?:19|20)\d\d)(?:\s?年\s?(?P<m>\d{1,2})\s?月(?:\s?(?P<d>\d{1,2}+)\s?[日号]?+)?+)"
        + _NOT_PUBLISHED,
        _year_only,
    ),
    (
        _D + r"(?P<y>(?:19|20)\d\d)(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})(?![\d/-]|\.\d)",
        _year_only,
    ),
    (
        r"(?:生于|出生|生日|日期|时间)\D{0,4}?(?P<it>(?P<y>(?:19|20)\d\d)(?P<m>0\d|1[0-2])(?P<d>[0-3]\d))(?!\d)",
        _year_only,
    ),
    (
        _D
        + r"(?P<y>(?:19|20)\d\d)(?P<m>0\d|1[0-2])(?P<d>[0-3]\d)(?=入院|出院|手术|就诊|复查|确诊|出生)",
        _year_only,
    ),
    (r"(?<!\d)\d\d年\s?(?:1[0-2]|0?[1-9])月(?:3[01]|[12]\d|0?[1-9])[日号]", _always),
    (
        rf"(?:[{_NUMERALS}]{{2,4}}年)?(?<![{_NUMERALS}])[{_NUMERALS}]{{1,2}}月[{_NUMERALS}]{{1,3}}[日号]",
        _unless_counted,
    ),
    (
        _D
        + rf"(?P<y>(?:19|20)\d\d)年[农阴]?历?(?:正|腊|冬|闰?[{_NUMERALS}]{{1,2}})月(?:初[{_NUMERALS}]|[廿{_NUMERALS}]{{1,3}})日?",
        _lunar_year_only,
    ),
    (
        rf"(?<!\d)\d\d年[农阴]?历?(?:正|腊|冬|闰?[{_NUMERALS}]{{1,2}})月(?:初[{_NUMERALS}]|[廿{_NUMERALS}]{{1,3}})日?",
        _always,
    ),
    (
        rf"(?:[农阴]历|[一二三四五六七八九〇零]{{2,4}}年)\s?(?:正|腊|冬|[{_NUMERALS}]{{1,2}})月(?:初[{_NUMERALS}]|[廿{_NUMERALS}]{{1,3}})日?",
        _unless_counted,
    ),
    (
        r"(?<![\d.])(?<!\d年)(?<!每年)(?<!每年的)(?:1[0-2]|0?[1-9])月(?:3[01]|[12]\d|0?[1-9])[日号](?!线|是?(?:世界|国际|全国|联合国|中国))",
        _unless_counted,
    ),
    (
        rf"(?i){_EN}{_MONTHS}\.? \d{{1,2}}(?:st|nd|rd|th)?(?![\d.])(?:,? (?P<y>(?:19|20)\d\d))?(?!\d)(?! ?(?:mg|ml|mm|%))",
        _english_year_only,
    ),
    (
        rf"(?i)(?<!\d)\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTHS}(?![a-z])(?:,? (?P<y>(?:19|20)\d\d))?",
        _english_year_only,
    ),
    (
        r"(?<![\d./-])(?:1[0-2]|0?[1-9])([/-])(?:3[01]|[12]\d|0?[1-9])\1(?P<y>(?:19|20)\d\d)(?![\d/-])",
        _english_year_only,
    ),
    (
        r"出生年月日?[是为:：\s]{0,3}(?P<it>(?:19|20)\d\d[.\-/年]?(?:1[0-2]|0?[1-9])(?:[.\-/月](?:3[01]|[12]\d|0?[1-9]))?)(?!\d)",
        _always,
    ),
    (
        r"(?:于|自)(?P<it>(?:1[0-2]|0?[1-9])[.](?:3[01]|[12]\d|0?[1-9]))(?=入院|住院|手术|出院|就诊|来[院诊]|行|急诊|在|因|突)",
        _always,
    ),
    (
        r"(?:(?:19|20)\d\d年|[去前今明]年)(?:国庆|春节|元旦|中秋|端午|清明|五一|除夕|元宵|圣诞|大年[初三][一二三四五十])节?",
        _always,
    ),
)

AFTER_AGES: tuple[Date, ...] = (
    (
        rf"民国[{_NUMERALS}\d]{{1,3}}年|[{_NUMERALS}]{{2,4}}年(?:[{_NUMERALS}]{{1,2}}月)?(?:[{_NUMERALS}]{{1,3}}[日号])?(?=出?生)"
        rf"|(?<![{_NUMERALS}\d])(?:正|腊|冬|[{_NUMERALS}]{{1,2}})月(?:初[{_NUMERALS}]|廿[{_NUMERALS}])",
        _unless_counted,
    ),
    (
        r"(?:日期|生日|出生|生于)[是为:：\s]{0,4}(?P<it>(?:(?:19|20)?\d\d[./-])?\d{1,2}[./-]\d{1,2}|(?:19|20)\d\d[./-]\d{1,2})(?![\d.]|\s?[小分天秒周个kg斤克])",
        _unless_counted,
    ),
)
