"""hospitals, schools and workplaces called by their own name, such as 无锡市第二人民医院, found with the dictionary's places.

What is general (县人民医院, 三甲医院, 服装厂) names nobody and stays. From a word such as 医院 it is read backwards:
general parts (第二, 人民, 附属), then places and proper names of jieba's dictionary. Only what holds one of
these is a find.
"""

import re
from collections.abc import Iterator

from huatuo.bare_names import Proper, is_common, proper_words
from huatuo.names import PROVINCE

_HOSPITAL = r"医院|卫生院|卫生服务(?:中心|站)|卫生室|保健院|妇幼保健|防治[院所]|急救中心|体检中心|血液中心|疾控中心|诊所|门诊部|附[一二三]?院|(?<=[大医])[一二三四五六]院(?!内|感|子)|(?<=[市省])[一二三四五六]?院(?!内|感|子|长)"
_SCHOOL = r"大学(?!生|城|期间)|[附高初][中小]|学院|中学(?!生)|小学(?!生)|幼儿园|学校|技校|职高|中专|党校|托儿所"
_WORK = r"(?:股份|责任|有限){0,3}公司|供电局|税务局|公安局|教育局|检察院|法院|派出所|银行(?!卡|账|流水|转)|支行|分行|营业部|分公司|支队|街道办|居委会|村委会|福利院|养老院|敬老院|煤矿|钢厂|机场|(?:码头|港区|油田|炼化|石化|电厂|船厂|项目部|中转场|分拨中心|转运中心|物流中心)(?!有限|股份|集团|公司|分公司|责任)|工厂|厂区|(?:工业|产业|科技|物流)园(?!区|[东西南北]区|[\u4e00-\u9fff]{1,6}[路街道]|[A-Za-z]?\d)|生产基地|制造基地|基地|[一二三四五六七八九十\d]{1,2}号仓|仓库|厂房|车间|(?<=[\u4e00-\u9fff]{2})厂(?![家商长房区里址牌])"
_SUFFIX = re.compile(rf"(?P<hospital>{_HOSPITAL})|(?P<school>{_SCHOOL})|(?P<work>{_WORK})")
_STUDIED = re.compile(
    r"的?(?:[\u4e00-\u9fff]{0,8})(?:研究(?!生|所|院)|学者|团队|科学家|发表|指出|生产(?!线|部|车)|研发|出品|推出|[主编]编|出版|报道|附属|医院)"
)
_REST = re.compile(
    r"(?:[东西南北新老总分]院区?|[\u4e00-\u9fff]{2,4}(?:院区|校区|分[院校部店局行公司]{1,2}|支行|派出所|[大支中]队|车间|厂房|项目部|仓库?)|(?:[\u4e00-\u9fff]{0,4}?[一二三四五六七八九十\dA-Za-z]{1,3}(?:号|分)?(?:厂区|厂房|车间|[分老新]厂|[库仓]))|院)"
)
_CLASS = re.compile(
    r"(?:职高|高中|初中|小学|中专|大专|本科|幼儿)?[部]?(?:[\u4e00-\u9fff]{2,6}(?:系|专业|学院|班))?(?:[一二三四五六七八九高初大小中][一二三四五六\d]?(?:年级)?[(（]?[一二三四五六七八九十\d]{1,2}[)）]?班|\d{2,4}级[一二三四五六七八九十\d]{1,2}班|[一二三四五六七八九十\d]{1,2}班|[一二三四五六]年级(?:[一二三四五六七八九十\d]{1,2}班)?|[高初大][一二三四](?!年)|\d{1,4}[级班])"
)
"""What stands behind a school: 高二(3)班."""
_ASKED = re.compile(r"[^。！!；;\n]{0,12}(?:排名|怎么样|好吗|好不好|有名|权威|哪个好|靠谱|排第)")
_PART = re.compile(
    r"(?:第?[一二三四五六七八九十]{1,3}[局处]?|\d{1,3}|人民|医学科学院|中科院|中国|银行|储蓄|中心|中医药?|中|纪念|中西医(?:结合)?|妇幼|保健|妇产科?|儿童|肿瘤|口腔|眼科|骨科|胸科|脑科"
    r"|皮肤病?|眼?视光|正骨|骨伤|肝胆|心脏|血液病?|男科|生殖|整形|美容|精神(?:卫生|病)?|传染病|职业病|结核病|心血管病?|附属|大学|医科|医学院?|药科|市立|总|省|市|县|区|镇|乡|村|立|社区|街道"
    r"|军区|部队|武警|解放军|空军|海军|陆军|火箭军|综合|专科|康复|老年|协和|友谊|红十字会?|红会|实验|外国语|职业|技术|师范|理工"
    r"|科技|工业|农业|林业|财经|政法|民族|交通|邮电|电子|外语|体育|艺术|音乐|美术|工商|工程|高级|机关|分[院校]|[东西南北新老]院?区?"
    r"|供电|电网|国网|南网|自来水|燃气|公交|地铁|物业|建设|建筑|机械|纺织|食品|汽车|物流|贸易|信息|网络|铁路|航空|石油|化工|钢铁|煤[矿炭]?|电力|特殊教育|特教|聋[哑人]{1,2}|盲[聋哑人]{1,2}|启[智聪明]|完全|九年一贯制?|双语|寄宿制?|私立|国际|高等|专科|中等|艺校|体校|卫校|护理|警官|工业|新?能源|轮胎|水泥|服装|电器|光电|重工|制造|造船|啤酒|酒业|酒"
    r"|人寿|保险|农商|农业|建设|工商|招商|国家|集团)$"
)
_SHORT = re.compile(
    r"(?<=[在去到从回是往])(?:协和|华西|湘雅|瑞金|仁济|西京|唐都|阜外|安贞|积水潭|天坛|宣武|同仁|齐鲁|邵逸夫|中山|同济|北医|省立|市立|[市省][一二三四五六]院|[市省]第[一二三四五六])(?=[^\u4e00-\u9fff]|$|看|做|住|查|挂|开|复|确诊|手术|治|抢救|的?[\u4e00-\u9fff]{0,3}科)"
)
_FAR = re.compile(
    rf"(?:{PROVINCE})省?(?P<city>[\u4e00-\u9fff]{{2,4}}?)市?(?P<county>[\u4e00-\u9fff]{{2,3}}?)(?=人|来的|农村|老家|[,，。；;、\s]|$)"
)
_NAMING = ("医学科学院", "中科院", "解放军", "武警", "空军", "海军", "火箭军")
"""Parts that are as good as a name: 武警总医院. So is a number: 301医院."""
_NO_WORD = r"(?![哪这那各某些几多大小好家个种所别其他她我你的了在去找看有没是最能要会吗呢和与或到从转医])[\u4e00-\u9fff]"
_MAYBE = re.compile(f"(?:{_NO_WORD})+")
_COUNTY = re.compile(
    rf"(?:^|[^\u4e00-\u9fff]|[在于从去到是送转至找往])((?:{_NO_WORD}){{2}})[区县镇乡市旗]$"
)
_LONGEST = 24
"""Characters read before a word such as 医院: what stands further away is no part of the name."""
_AT_WORK = re.compile(
    r"在(?=[\u4e00-\u9fffA-Za-z]{2,7}(?:上[夜白早中晚]?班|工作|打工|实习|任职|就职|跑[车业单]|开[车船]|送[餐外快]|摆摊|[做当](?!了|过|的)))"
)
_ENDS_WORK = re.compile(r"上[夜白早中晚]?班|工作|打工|实习|任职|就职|[跑开送摆做当]")


def find(text: str) -> list[tuple[int, int]]:
    """The spans of named hospitals, schools and workplaces in a text, in order and apart."""
    spans: list[tuple[int, int]] = []
    for start, stop in sorted(
        [
            *_with_a_suffix(text),
            *_where_somebody_works(text),
            *(match.span() for match in _SHORT.finditer(text)),
        ]
    ):
        if not spans or start >= spans[-1][1]:
            spans.append((start, stop))
    return spans


def before_addresses(text: str) -> list[tuple[int, int]]:
    """The spans of places that stand right before an address that was found: 深圳龙岗【地址】."""
    spans = [*_far_from(text)]
    if "【地址】" not in text:
        return spans
    for match in re.finditer("【地址】", text):
        start, proper = match.start(), proper_words()
        least = max(spans[-1][1] if spans else 0, start - _LONGEST)
        while start > least and (size := _place(text, least, start, proper, proper.names)):
            start -= size
        if start < match.start():
            spans.append((start, match.end()))
    return sorted(spans)


def _far_from(text: str) -> Iterator[tuple[int, int]]:
    """A province, a city and a county in a row: 河南信阳固始人."""
    for match in _FAR.finditer(text):
        if match["city"] in proper_words().cities and not is_common(match["county"]):
            yield match.span()


def _with_a_suffix(text: str) -> Iterator[tuple[int, int]]:
    free = 0
    proper: Proper | None = None
    for match in _SUFFIX.finditer(text):
        proper = proper or proper_words()
        if match.lastgroup != "hospital" and _STUDIED.match(text, match.end()):
            continue
        if _ASKED.match(text, match.end()):
            continue
        least = max(free, match.start() - _LONGEST)
        start = _start(text, least, match.start(), proper)
        if start is not None and not (match.lastgroup == "work" and _is_vague(text, start, proper)):
            end = _REST.match(text, match.end())
            free = end.end() if end else match.end()
            if match.lastgroup == "school" and (room := _CLASS.match(text, free)):
                free = room.end()
            yield start, free


def _is_vague(text: str, start: int, proper: Proper) -> bool:
    """Whether a firm's name is no place and nobody is said to be there: 联通公司."""
    placed = any(text[start : start + size] in proper.places for size in (2, 3, 4, 5))
    placed = placed or any(text[at : at + 2] in proper.cities for at in range(start + 2, start + 5))
    return not placed and text[start - 1 : start] not in tuple("在于从进到是 ")


def _start(text: str, least: int, at: int, proper: Proper) -> int | None:
    """Where the name before a word such as 医院 begins; None where only general words stand there."""
    named: int | None = None
    while at > least:
        if size := _place(text, least, at, proper):
            named = at - size
        elif part := _PART.search(text, max(least, at - 6), at):
            size = len(part[0])
            if size == 1 and is_common(text[at - 2 : at]):
                break
            if part[0] in _NAMING or part[0].isdecimal() or (named is not None and size > 1):
                named = at - size
            elif named is not None:
                break
        else:
            size = _name(text, least, at, proper) or (
                0 if named is not None else _unknown(text, least, at, proper)
            )
            named = at - size if size else named
        if not size:
            break
        at -= size
    return named


def _place(
    text: str, least: int, at: int, proper: Proper, more: frozenset[str] = frozenset()
) -> int:
    """How many characters before a place a known place takes, with its 市 or 区; 0 where none stands there."""
    for tail in (at, at - 1) if text[at - 1] in "省市区县镇乡州盟旗" else (at,):
        for size in (5, 4, 3, 2):
            word = text[tail - size : tail] if tail - size >= least else ""
            if tail < at and is_common(text[at - 2 : at]):
                continue  # 大城市: no city of 大城
            if word and (word in proper.places or word in more):
                return at - tail + size
    county = None if more else _COUNTY.search(text, max(least, at - 4), at)
    return 3 if county and not is_common(text[at - 2 : at]) and not is_common(county[1]) else 0


def _name(text: str, least: int, at: int, proper: Proper) -> int:
    """The same for a proper name such as 湘雅 or 邵逸夫."""
    for size in (5, 4, 3, 2):
        if at - size >= least and text[at - size : at] in proper.names:
            return size
    return 0


def _unknown(text: str, least: int, at: int, proper: Proper) -> int:
    """The same for what follows a known place, 武汉市[金银潭], as far as it is no common word."""
    for size in (2, 3):
        if (
            at - size > least
            and _MAYBE.fullmatch(text, at - size, at)
            and not is_common(text[at - size : at])
            and _place(text, least, at - size, proper)
        ):
            return size
    return 0


def _where_somebody_works(text: str) -> Iterator[tuple[int, int]]:
    """在华为上班: a proper name that is no place between 在 and what is done there."""
    for match in _AT_WORK.finditer(text):
        end = _ENDS_WORK.search(text, match.end() + 2)
        word = text[match.end() : end.start()] if end else ""
        known = proper_words()
        if word in known.names or (
            word[:2] in known.cities and (word[2:] in known.names or not is_common(word[2:]))
        ):
            yield match.end(), end.start() if end else len(text)
