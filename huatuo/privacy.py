"""finds and masks identifiers in Chinese and English text before it is stored or sent.

Each find is replaced by a typed placeholder such as 【电话】. Found: mobile and landline numbers, ID and
bank card numbers (with their check digits), passports, plates, e-mail, URL and IP addresses, QQ and
WeChat after their word, hospital record numbers after theirs, dates (the year stays), ages over 89,
names after a cue (姓名、我叫、My name is …) and street addresses. Not found: a name without a cue, a
place without a street; so this lessens what is stored and sent, it does not make it anonymous.

`\\b` is no boundary between 汉字 and digits, so every rule looks around itself. Full-width digits are
read as plain ones; text outside the finds is left as it was.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
}
"""Every kind with its Chinese and English name; the placeholder is the Chinese one in 【】."""

SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢"
    "姚沈钟姜崔谭陆范汪廖石金韦贾夏付方邹熊白孟秦邱侯江尹薛闫段雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔向常"
    "汤康易乔赖文庞樊殷施洪翟安颜倪牛温芦季俞章鲁葛伍申尤毕聂柴焦柳邢岳齐沿梅莘庄辛管祝左涂谷祁时舒耿牟卜"
    "詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍霍翁隋甘景薄单包司柏宁柯阮桂闵解强柴华车冉房边辜吉饶刁瞿"
    "戚丘古米池滕晋苑邬臧畅宫来嵺苟全褚廉简娄盖符奚木穆党燕郎邸冀谈姬屠连郜晏栾郁商蒙计喻揭窦迟宇敖糜鄢冷卓"
)
_DOUBLE = "欧阳|上官|司马|诸葛|东方|皇甫|尉迟|公孙|慕容|司徒|令狐|夏侯|端木|轩辕|长孙|宇文"
# After a surname, these begin ordinary words ("我是高血压", "患者于昨天") rather than a given name.
_NO_NAME = (
    "高血|高烧|高热|高龄|高危|高度|高中|高三|高二|高一|高考|白血|白带|白天|白癜|白内|白细|金黄|黄疸|黄体|黄痰|石女|石膏"
    "|方便|方面|江湖|安全|安静|安宫|温度|常年|常常|常见|常规|常有|时常|时候|时间|时不|时有|左侧|左手|左脚|左眼|左腿|左耳"
    "|左下|左上|左肾|左胸|左肩|左膝|左乳|向来|万分|全身|全部|全天|全麻|全科|全职|成年|成人|成都|解放|解决|单身|单纯|单位"
    "|单侧|查出|查了|查体|查血|查到|来自|来月|来看|来问|来院|关节|关于|包皮|包块|车祸|车间|强直|强迫|连续|连着|冷热|冷汗"
    "|计划|计算|简单|迟到|商人|商场|古代|米饭|甘油|景区|宁波|管理|应该|因为|于昨|于今|于前|于上|于本|于是|于近|于入|于当"
    "|于年|于日|于晨|于下|于晚|于凌|曾经|曾有|曾在|曾因|曾患|曾于|何时|何种|何必|任何|任务|许多|和睦|胡言|胡说|马上|龙胆"
    "|程序|顾客|郁闷|严重|安排|党员|牛皮|牛奶|林场|梅毒|周围|周身|周六|周日|周一|周二|周三|周四|周五|叶酸|华人|房颤|房东"
    "|边缘|吉林|河南|易怒|易感|易胖|易过|易出|易疲|文员|文化|童年|康复|项目|曲张|游泳|阳性|阳痿|阴性|卫生|盛夏|寒战|谈恋"
    "|史前|武汉|江苏|江西|广东|段时|宫颈|宫外|宫寒|谢谢|祝好|陶瓷|苏州|钱不|毛囊|毛发|齐鲁|温州|石家|秦皇|汪汪|洪水"
    "|高[原管大兴位压频能分]|金属|司[机法]|符合|常[打失出感觉吃喝熬加用伴发流自头口服饮吸久]|时[好轻重断发]|易[惊醒紧疲激饿困累倦流发呕]"
    "|曾[流住手骨做服接诊行用吃出发怀摔被去]|于[早当傍夜外门急医去该]|于家[中里]|单[独亲边眼手]|连[日夜天]|查[无未不过房找]|安[睡抚好慰]"
    "|谈[吐话]|全[无程清都家]|向[左右我前后上下]|关[心注]|焦[虑躁急]|冷[静清过]|温[顺和热]|景况|乔迁|燕麦|古板|杨梅|颜[面色]|康健|解[手便释]|辛苦|包茎"
)
# Never in a given name, and the end of many illnesses ("患者高脂血症") or of what somebody did.
_NOT_GIVEN = (
    "病症炎癌瘤痛疼肿胀痒疹疮痰咳喘晕昏吐泻便尿血糖压酸醇脂钾钙钠肝肾肺脾胃肠骨腰膝腿脚肘踝髋颈胸腹疱溃疡咽喉鼻眼耳牙舌唇皮肤肌孕胎乳"
    "癣瘫痿痹疸痔疝疟痢痘痣疤痂疲菌毒药酶虑躁睡眠醒鼾坏院诊术产点茎反撇偏急手苦抚说斑额面背囊了着过的得很不没也都就还被把吗呢吧么我你她他"
)
_AFTER_NAME = r"(?=[^\u4e00-\u9fff]|$|今年|现年|男|女|来自|住|电话|手机|身份|患|因|于|的|是|有|得|，|年龄|岁|我|想|最近|这|在|医生|头[痛疼晕昏]|腹|胸|咳|发[烧热]|昨|前)"
_GIVEN = rf"(?![{_NOT_GIVEN}])[\u4e00-\u9fff·]"
_NAME = rf"(?:(?:{_DOUBLE})(?:{_GIVEN}){{1,2}}?|(?!{_NO_NAME})[{SURNAMES}](?:{_GIVEN}){{1,3}}?)"
_PROVINCE = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南"
    "|陕西|甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_TOKEN = r"[A-Za-z0-9][A-Za-z0-9_.\-]{3,31}"
_SAYS = r"\s*(?:号码|号|是|为|[:：]|\s|ID|id|#|No\.?|number|加我|联系|→|-)*\s*"


@dataclass(frozen=True)
class Masked:
    """A text without the identifiers that were found. found: (kind, how many), in the order of KINDS."""

    text: str
    found: tuple[tuple[str, int], ...]


def mask(text: str) -> Masked:
    """The text with placeholders; masking it again changes nothing. Never raises; about 1 ms for a question."""
    counts: Counter[str] = Counter()
    for kind, pattern, replace in _RULES:
        text = _apply(text, kind, pattern, replace, counts)
    return Masked(text, tuple((kind, counts[kind]) for kind in KINDS if counts[kind]))


def kind_name(kind: str, language: Literal["zh", "en"] | str = "zh") -> str:
    """The name of a kind for people, such as 电话 or 'phone number'."""
    zh, en = KINDS.get(kind, (kind, kind))
    return zh if language == "zh" else en


def _apply(
    text: str, kind: str, pattern: re.Pattern[str], replace: Replace, counts: Counter[str]
) -> str:
    """One rule over a text. It reads a copy with plain digits, letters and punctuation, of equal length."""
    plain = "".join(map(_plain, text))
    pieces: list[str] = []
    end = 0
    for match in pattern.finditer(plain):
        new = replace(match)
        start, stop = match.span("it") if "it" in pattern.groupindex else match.span()
        if new is None or start < end:
            continue
        pieces += [text[end:start], new]
        end = stop
        counts[kind] += 1
    return "".join([*pieces, text[end:]]) if pieces else text


def _plain(character: str) -> str:
    """A full-width or other compatibility character as its plain one, if that is a single one."""
    if character < "\u2000":
        return character
    plain = unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 else character


def _always(kind: str) -> Replace:
    return lambda _: f"【{KINDS[kind][0]}】"


def _if(kind: str, holds: Callable[[str], bool]) -> Replace:
    return lambda match: f"【{KINDS[kind][0]}】" if holds(match[0]) else None


def is_id_number(digits: str) -> bool:
    """Whether this is a Chinese ID number: 18 characters with a true ISO 7064 mod 11-2 check, or the old 15."""
    digits = digits.upper()
    born = digits[6:14] if len(digits) == 18 else "19" + digits[6:12]
    if not (
        1900 <= int(born[:4]) <= 2099 and 1 <= int(born[4:6]) <= 12 and 1 <= int(born[6:]) <= 31
    ):
        return False
    if not 11 <= int(digits[:2]) <= 91:
        return False
    if len(digits) == 15:
        return True
    weighted = sum(int(digit) * (2 ** (17 - i) % 11) for i, digit in enumerate(digits[:17]))
    return "10X98765432"[weighted % 11] == digits[17]


def is_card_number(text: str) -> bool:
    """Whether 15 to 19 digits, maybe in groups, pass Luhn's check and begin like a bank card."""
    digits = [int(c) for c in text if c.isdecimal()]
    if not 15 <= len(digits) <= 19 or digits[0] not in (3, 4, 5, 6, 9):
        return False
    doubled = [d * 2 - 9 * (d > 4) for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_ip(text: str) -> bool:
    return all(part.isdecimal() and int(part) < 256 for part in text.split("."))


def _year_only(match: re.Match[str]) -> str | None:
    year, month, day = match["y"], match["m"], match["d"]
    if not 1900 <= int(year) <= 2099 or not 1 <= int(month) <= 12:
        return None
    if day is not None and not 1 <= int(day) <= 31:
        return None
    return f"{year}年【日期】"


def _english_year_only(match: re.Match[str]) -> str:
    return f"【日期】 {match['y']}" if match["y"] else "【日期】"


def _old(match: re.Match[str]) -> str | None:
    return "90+" if int(match["it"]) > 89 else None


def _over(_: re.Match[str]) -> str:
    return "90+"


_NUMERALS = "〇零一二三四五六七八九十"
_D = r"(?<![\d.])"
_E = r"(?!\d|\.\d)"
_ONE_AGE = r"(?<![\d.≥>])(?<!\d[~～-])(?<!大于)(?<!超过)"
_MONTHS = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_EN = r"(?<![A-Za-z])"


def _rule(
    kind: str, pattern: str, replace: Replace | None = None
) -> tuple[str, re.Pattern[str], Replace]:
    return kind, re.compile(pattern), replace or _always(kind)


_INSIDE = "肠尿吸化耳阴食气胆鼻产精泪心手家夜肺腔这那哪嘴眼肚胃村城水屋房"  # 尿道3组, 肺里2号结节

# Order matters: what is longest and surest comes first, and a placeholder is never read again.
_RULES: tuple[tuple[str, re.Pattern[str], Replace], ...] = (
    _rule("url", r"(?i)(?<![a-z0-9])(?:https?|ftp)://[^\s\u3000-\u9fff,;!()<>\"'\uff00-\uffef]+"),
    _rule(
        "email",
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}\s?@\s?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    ),
    _rule(
        "url",
        r"(?i)(?<![a-z0-9.@-])(?:www\.[a-z0-9-]+(?:\.[a-z0-9-]+)+|[a-z0-9-]{2,}\.(?:com|cn|net|org)(?:\.cn)?)"
        r"(?![a-z])(?:/[^\s\u3000-\u9fff,;!()]*)?",
    ),
    _rule("id_card", _D + r"\d{17}[\dXx](?![\dA-Za-z])", _if("id_card", is_id_number)),
    _rule("id_card", r"(?:身份证|证件)" + _SAYS + r"(?P<it>\d{14,17}[\dXx])"),
    _rule("id_card", _D + r"\d{6}([ -])\d{8}\1\d{3}[\dXx](?![\dA-Za-z])"),
    _rule("id_card", _D + r"\d{15}" + _E, _if("id_card", is_id_number)),
    _rule("passport", r"(?:护照|passport|通行证)" + _SAYS + r"(?P<it>[A-Za-z]{1,2}\d{7,8})(?!\d)"),
    _rule("passport", r"(?<![A-Za-z0-9])(?:[EeGg]\d{8}|E[A-Z]\d{7})(?![A-Za-z0-9])"),
    _rule(
        "record",
        rf"(?:住院|门诊|病历|病案|医保|就诊卡?|诊疗卡?|病床|检查|标本|社保|登记|档案|挂号|床)(?:卡|单)?(?:号码|编号|号)\s*(?:是|为|[:：#])*\s*(?P<it>{_TOKEN}|\d{{2,20}})",
    ),
    _rule(
        "record",
        r"(?:医保卡|就诊卡|诊疗卡|社保卡)\s*(?:是|为|[:：#])*\s*(?P<it>[A-Za-z]?\d{6,20})",
    ),
    _rule(
        "record",
        rf"(?i){_EN}(?:MRN|medical record|record|patient id|chart|admission|insurance|policy)(?: no\.?| number| #| id)?\s*(?:is|[:#])\s*(?P<it>(?=[a-z0-9-]*\d){_TOKEN})",
    ),
    _rule("record", rf"(?i){_EN}MRN ?#? ?(?P<it>\d{{5,12}})(?!\d)"),
    _rule("account", r"(?i)(?<![a-z])(?:QQ群?|企鹅|扣扣)" + _SAYS + r"(?P<it>[1-9]\d{4,11})(?!\d)"),
    _rule(
        "account",
        r"(?i)(?:微信|威信|薇信|(?<![a-z])(?:wechat|weixin|wx|vx)(?![a-z])|抖音|微博|whatsapp|telegram)"
        + _SAYS
        + r"(?P<it>[a-zA-Z0-9][a-zA-Z0-9_-]{4,19})(?![a-zA-Z0-9_-])",
    ),
    _rule("account", r"加\s?[vV]信?[:：\s]+(?P<it>[A-Za-z](?=[A-Za-z_-]*\d)[\w-]{4,19})(?![\w-])"),
    _rule("account", r"(?:支付宝|银行账?号|账号|帐号|账户)" + _SAYS + r"(?P<it>\d[\d -]{7,24}\d)"),
    _rule("phone", _D + r"1([ -])[3-9](?:\1\d){9}" + _E),
    _rule(
        "phone",
        r"(?<![零〇一二三四五六七八九幺])[一幺][三四五六七八九][零〇一二三四五六七八九幺]{9}",
    ),
    _rule(
        "phone", _D + r"(?:(?:\+|00)?86[- ]?)?1[3-9]\d(?:\d{8}|[- .]\d{4}[- .]\d{4}|[- ]\d{8})" + _E
    ),
    _rule(
        "phone",
        r"(?<![\d.-])\(?0(?:10|2\d|[3-9]\d{2})\)?[- ]?[2-9]\d{6,7}(?:(?:转|-|ext)\d{1,6})?" + _E,
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
    _rule("bank_card", _D + r"\d(?:[ -]?\d){14,18}" + _E, _if("bank_card", is_card_number)),
    _rule("bank_card", r"(?:银行卡|信用卡|卡号)" + _SAYS + r"(?P<it>\d(?:[ -]?\d){11,18})" + _E),
    _rule("ip", _D + r"\d{1,3}(?:\.\d{1,3}){3}" + _E, _if("ip", _is_ip)),
    _rule("ip", r"(?i)(?<![0-9a-f:])(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(?![0-9a-f:])"),
    _rule(
        "plate",
        r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Za-hj-np-z][·. ]?[A-HJ-NP-Z0-9]{4,5}[A-HJ-NP-Z0-9挂学警港澳](?![A-Za-z0-9])",
    ),
    _rule(
        "date",
        _D + r"(?P<y>(?:19|20)\d\d)(?:年\s?(?P<m>\d{1,2})月(?:\s?(?P<d>\d{1,2})[日号]?)?)",
        _year_only,
    ),
    _rule(
        "date",
        _D + r"(?P<y>(?:19|20)\d\d)(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})(?![\d/-]|\.\d)",
        _year_only,
    ),
    _rule(
        "date",
        r"(?:生于|出生|生日|日期|时间)\D{0,4}?(?P<it>(?P<y>(?:19|20)\d\d)(?P<m>0\d|1[0-2])(?P<d>[0-3]\d))(?!\d)",
        _year_only,
    ),
    _rule(
        "date",
        _D
        + r"(?P<y>(?:19|20)\d\d)(?P<m>0\d|1[0-2])(?P<d>[0-3]\d)(?=入院|出院|手术|就诊|复查|确诊|出生)",
        _year_only,
    ),
    _rule("date", r"(?<!\d)\d\d年\s?(?:1[0-2]|0?[1-9])月(?:3[01]|[12]\d|0?[1-9])[日号]"),
    _rule(
        "date",
        rf"(?:[{_NUMERALS}]{{2,4}}年)?(?<![{_NUMERALS}])[{_NUMERALS}]{{1,2}}月[{_NUMERALS}]{{1,3}}[日号]",
    ),
    _rule("date", r"(?<![\d年.])(?:1[0-2]|0?[1-9])月(?:3[01]|[12]\d|0?[1-9])[日号](?!线)"),
    _rule(
        "date",
        rf"(?i){_EN}{_MONTHS}\.? \d{{1,2}}(?:st|nd|rd|th)?(?![\d.])(?:,? (?P<y>(?:19|20)\d\d))?(?!\d)(?! ?(?:mg|ml|mm|%))",
        _english_year_only,
    ),
    _rule(
        "date",
        rf"(?i)(?<!\d)\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTHS}(?![a-z])(?:,? (?P<y>(?:19|20)\d\d))?",
        _english_year_only,
    ),
    _rule(
        "date",
        r"(?<![\d./-])(?:1[0-2]|0?[1-9])([/-])(?:3[01]|[12]\d|0?[1-9])\1(?P<y>(?:19|20)\d\d)(?![\d/-])",
        _english_year_only,
    ),
    _rule("age", _ONE_AGE + r"(?P<it>9\d|1[0-2]\d)\s?(?:周岁|岁)(?!及?以|的?范围)", _old),
    _rule("age", r"年龄\s*(?:是|为|[:：])?\s*(?P<it>9\d|1[0-2]\d)(?![\d.%+~～-]|及?以)", _old),
    _rule(
        "age",
        r"(?:九十[一二三四五六七八九]?|一百[零一二]?十?[一二三四五六七八九]?)(?=岁(?!及?以))",
        _over,
    ),
    _rule("age", _ONE_AGE + r"(?P<it>9\d|1[0-2]\d) ?(?:yo|y/o|YO)(?![A-Za-z])", _old),
    _rule("age", r"(?i)(?<![\d.])(?P<it>9\d|1[0-2]\d)[ -](?:years?|yrs?)[ -]old", _old),
    _rule("age", rf"(?i){_EN}(?:aged?|age is|age:)\s?(?P<it>9\d|1[0-2]\d)(?![\d%+-])", _old),
    _rule(
        "address",
        rf"(?:(?:{_PROVINCE})(?:省|市|自治区|壮族自治区|维吾尔自治区|回族自治区|特别行政区)?)?(?:[\u4e00-\u9fff]{{2,7}}?[市州盟])?(?:[\u4e00-\u9fff]{{1,7}}?[区县旗市])?(?:[\u4e00-\u9fff]{{1,8}}?(?:镇|乡|街道))?[\u4e00-\u9fffA-Za-z0-9]{{1,10}}?(?:(?<![通])路|街|大道|巷|弄|胡同|村|(?<![{_INSIDE}])[里道])(?:[\u4e00-\u9fff]{{0,4}}?)\d{{1,5}}(?:号|弄|组)(?!线)(?:院|楼)?[\u4e00-\u9fff]{{0,8}}?(?:\d{{1,4}}[号栋幢座楼室单元层-]{{1,2}}){{0,4}}(?:\d{{1,5}}室?)?",
    ),
    _rule(
        "address",
        r"[\u4e00-\u9fff]{2,8}(?:小区|花园|公寓|家园|新村|苑|大厦|宿舍)[A-Za-z0-9一二三四五六七八九十]{1,4}(?:号楼|栋|幢|座|号|单元)(?:[A-Za-z0-9一二三四五六七八九十]{1,4}(?:单元|室|楼|号|层|-)?){0,3}",
    ),
    _rule(
        "address",
        rf"(?:{_PROVINCE})(?:省|市)?[\u4e00-\u9fff]{{1,6}}[市区县州][\u4e00-\u9fff]{{1,8}}(?:区|县|镇|乡|街道|村)(?:[\u4e00-\u9fff]{{1,6}}村)?(?:\d{{1,3}}[组号队])?",
    ),
    _rule(
        "address",
        r"(?:住址|地址|家住|我住在?|现住)(?:是|[:：])?\s*(?P<it>[\u4e00-\u9fffA-Za-z0-9·-]{2,30}?(?:区|县|镇|乡|村|路|街|号|室|栋|楼|小区|花园)(?:[\u4e00-\u9fffA-Za-z0-9-]{0,20}(?:号|室|栋|楼|单元|组|小区|花园))?)",
    ),
    _rule(
        "address",
        r"(?i)(?<![\d.])\d{1,5} (?:[A-Z][a-z]+ ){1,3}(?:street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd)(?![a-z])\.?(?:,? (?:apt|unit|room) ?\w+)?",
    ),
    _rule(
        "name",
        rf"(?:姓名|患者姓名|联系人|签名)\s*(?:是|为|叫|[:：])?\s*(?P<it>{_NAME}|[\u4e00-\u9fff]{{2,4}}(?=[\s,，。;；]|$))(?:{_AFTER_NAME})",
    ),
    _rule(
        "name",
        rf"(?:我(?:的)?名字(?:是|叫)?|名叫|我叫|本人叫|他叫|她叫|(?:孩子|宝宝|儿子|女儿|老公|老婆|妈妈|爸爸|母亲|父亲)叫|叫做)\s*(?P<it>{_NAME}|[\u4e00-\u9fff]{{1,6}}·[\u4e00-\u9fff]{{1,6}}?|[\u4e00-\u9fff]{{2,3}}(?=[\s,，。;；]|$))(?:{_AFTER_NAME})",
    ),
    _rule(
        "name",
        rf"(?:我是|本人|患者|病人|患儿|家属)(?:[:：]|\s)?(?P<it>{_NAME})(?=[\s,，。;；、:：]|$|今年|现年|[男女](?:[,，\s]|性)|\d"
        r"|因|主诉|自述|既往|入院|来院|就诊|来诊|头[痛疼晕]|的[妈爸爷奶父母儿女丈妻姐妹哥弟孙])",
    ),
    _rule(
        "name",
        rf"(?:妈妈|爸爸|母亲|父亲|爷爷|奶奶|外公|外婆|儿子|女儿|老公|老婆|丈夫|妻子|孩子|宝宝)(?P<it>{_NAME})(?=今年|现年|[,，]?\s?\d{{1,3}}岁)",
    ),
    _rule("name", rf"(?:^|[\n。；;])\s*(?P<it>{_NAME})(?=[,，、\s]\s*[男女](?:[,，、\s]|性))"),
    _rule(
        "name",
        r"(?:(?i:my name is|i am called|patient name:?|(?<!drug )(?<!brand )(?<!medicine )(?<!generic )name:|this is (?:mr|mrs|ms|dr)\.?)|(?:Mr|Mrs|Ms)\.) ?(?P<it>[A-Z][a-z]+(?:[ -][A-Z][a-z]+){0,2})",
    ),
    _rule(
        "name",
        rf"{_EN}(?:I am|I'm|Patient:?) (?P<it>(?![A-Z][a-z]+ing )[A-Z][a-z]+ [A-Z][a-z]+)"
        r"(?=[,;.]|$| and | from | has | is | complain| present)",
    ),
)
