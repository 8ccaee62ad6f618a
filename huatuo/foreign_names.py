"""patterns of names in Latin letters, written by sound, Japanese, Tibetan, Mongolian, Uyghur, Kazakh and Yi, and given names of today.

The lists stand in foreign_names.toml. What is no word is a name wherever it stands; what may be a word or a place is one
only behind a cue (患者、同学、我叫), at the start before what a person does, or beside a name that was found.
"""

import tomllib
from pathlib import Path

from huatuo.names import MINORITY, ROLE

_LISTS: dict[str, str] = tomllib.loads(
    Path(__file__).with_name("foreign_names.toml").read_text(encoding="utf-8")
)


def _one_of(*names: str, least: int = 1, most: int = 99) -> str:
    """The words of some lists as one pattern, the longest first."""
    words = {word for name in names for word in _LISTS[name].split() if least <= len(word) <= most}
    return f"(?:{'|'.join(sorted(words, key=lambda word: (-len(word), word)))})"


_TIBETAN, _MONGOLIAN, _UYGHUR, _YI = map(_one_of, ("tibetan", "mongolian", "uyghur", "yi"))
_ENGLISH, _PINYIN = _one_of("english"), _one_of("pinyin")
_WHOLE = _one_of("whole", least=3)
_WORDY = f"(?:{_one_of('whole', 'also_words')}|{_TIBETAN})"
_SOUNDS, _DOT = _LISTS["sounds"], "[·•・‧∙]"
_FAMILY, _FAMILY_TOO = _one_of("japanese"), _one_of("japanese", "japanese_too")
_JAPANESE = f"[{_LISTS['japanese_given']}]{{1,3}}"
_HAN = "[\u4e00-\u9fff]"
_EDGE = f"(?:^|(?<={_HAN[:1]}^{_HAN[1:]}))"
_EN = r"(?<![A-Za-z\u00c0-\u00ff])"

_CUE = (
    rf"(?:{ROLE}|(?:男|女)?友|同桌|闺蜜|发小|老乡|工友|舍友|队友|房东|房客|租客|客[户人]|邻居|同屋|邻床|隔壁床?|大[妈爷叔]|保姆|[菲女]佣|月嫂|外教|导师|老师|老板|领导|上司|教练|留学生|研究生|船员"
    r"|司机|姐夫|妹夫|嫂子|弟媳|儿媳|女婿|老两口|队长|班长|店员|游客|旅客|外宾|陪[同护][者人]?|翻译|名字|真名|姓名|我叫|我是|名叫|叫做?|家属|[汉藏维蒙哈彝]族)"
)
_SAYS = r"(?:的?名字)?[是叫为:：(（“\"\s]{0,2}"
_NO_LATIN, _LISTED = _one_of("no_latin"), _one_of("english", "pinyin", "latin")
_WORD = rf"(?!(?:Dr|Mr|Mrs|Ms|Prof|Miss|{_NO_LATIN})(?![a-z]))(?:O['’]|D['’]|Mc|Mac)?[A-Z\u00c0-\u00de][a-z\u00df-\u00ff'’]{{1,14}}(?:-[A-Z\u00c0-\u00de]?[a-z\u00df-\u00ff]{{1,12}})?"
_WORDS = rf"{_WORD}(?: (?:{_WORD}|[A-Z]\.|van|von|de|der|da|del|bin|al|el|la)){{1,3}}"
_CAPITALS = r"(?=[A-Z]*[AEIOUY])[A-Z]{2,15}(?:[ ,/] ?(?!DNA|RNA|ICU|MRI|PCR|DIC)(?=[A-Z]*[AEIOUY])[A-Z]{2,15}){1,3}"
_HERBS = [herb.split("_") for herb in _LISTS["herbs"].split()]
_NO_HERB = rf"(?!(?:{'|'.join(rf'{a} {b}|(?<={a} ){b}' for a, b in _HERBS)})(?![a-z]))"
_SYLLABLES = r"(?:(?:[bpmfdtnlgkhjqxrzcsyw]|[zcs]h)?(?:[iuv]?(?:ang|eng|ong|ing|an|en|in|un|ai|ei|ao|ou)|ia|ie|ua|uo|ui|iu|iao|[aeiouv])){1,3}"
_PAIR = rf"{_NO_HERB}(?!(?:[A-Z][a-z]+ )?{_NO_LATIN}(?![a-z]))(?!(?:Long|Park|Sun|Song|Fan|Pan) (?!{_LISTED}(?![a-z]))(?i:(?!{_SYLLABLES}(?![a-z]))))(?!(?!{_LISTED} |(?i:{_SYLLABLES}) )[A-Z][a-z]+ (?:Long|Park|Sun|Song|Fan|Pan)(?![a-z]))"
_LISTED_WORDS = rf"(?=(?:[A-Z][\w'’.-]* ){{0,3}}{_LISTED}(?![\w'’-])){_WORDS}"
_SPELT = rf"(?i:(?=[A-Z ]+(?![a-z])){_PINYIN},?(?: {_SYLLABLES}){{1,2}}|(?:Kim|Lee|Park|Choi|Nguyen|Wong|Chan|Lim)(?: [a-z]{{2,8}}){{1,2}})"
_END = (
    r"(?![A-Za-z\u00c0-\u00ff\d])(?!\s?(?:评分|分[级期型类度层]|指数|综合|征|病(?![了情])|量表|[级期型类氏线角法]|阳性|阴性|[IVX\d]|[+-]|试验|细胞|反射|瘤|抗体|手术|术|骨折|test|syndrome|score))"
    r"(?<!Covid)(?<!Omicron)(?<!Delta)(?<!App)(?<!Pad)(?<!Phone)"
)
_DOES = r"(?=[今昨前去][天日晚早夜年]|最近|又|也|这|从|刚|发|咳|拉|吐|打|吃|喝|睡|说|的|一|有|是|在|晚|半夜|头|肚|身|体|想|要|把|被|因|于|怀孕|孕|住|做|[,，]\s?(?:[男女](?![\u4e00-\u9fff])|\d{1,3}\s?岁|[\u4e00-\u9fff]{1,4}族)|[!！~])"
_NO_PLACE = r"(?!德勒|拉日|寺|县|市|镇|乡|山|河|湖|旗|盟|路|街|牌|节|语|草原|沟|雪山|机场|[\u4e00-\u9fff]{0,2}(?:医院|公司|大厦|小区))"

NAMES: tuple[str, ...] = (
    rf"{_EN}(?=[A-Z]){_PAIR}(?P<it>(?!Mr|Mrs|Ms|Dr|Dear|Prof|Miss|The|My|Hi|Hello|Patient|Name|Mother|Father|Nurse|Doctor|Sir)[A-Z][a-z]{{1,9}} {_PINYIN}(?: [A-Z][a-z]{{1,10}})?|{_PINYIN},? [A-Z][a-z]{{1,10}}(?: [A-Z][a-z]{{1,8}})?)(?![A-Za-z])(?! (?:Tang|San|Wan|Pian))",
    rf"{_EN}{_ENGLISH}(?=\s?[\u4e00-\u9fff，,])(?!\s?(?:综合|氏|征|病|细胞|评分|分|试验|法|线|瘤))",
    r"(?:患者|病人|姓名|家属)[:：]?\s?(?P<it>[A-Z]{2,} [A-Z]{2,})(?![A-Za-z])",
    rf"{_CUE}{_SAYS}(?:(?:Dr|Mr|Mrs|Ms|Prof)\.? ?)?(?P<it>{_WORDS}){_END}",
    rf"(?:英文名|外文名|拼音|(?:护照|签证|机票|证件|登机牌)[本页]?(?:上|姓名|名字)?(?:的?(?:姓名|名字|拼音|英文名|全名))?)(?:写|印|拼|登记)?的?[是为成叫:：\s“\"]{{0,3}}(?P<it>{_WORDS}|{_CAPITALS}|{_WORD}){_END}(?!\s?(?:接种|疫苗))",
    rf"(?:[男女]朋友|[男女]友|老[公婆板]|儿子|女儿|同[事学桌]|朋友|[室舍网]友|孩子|宝宝|先生|太太|外教|导师|房东|闺蜜|领导|我叫|名叫|患者(?=[A-Z]['’])){_SAYS}(?!(?<=我叫)[A-Z][a-z]+\s?(?:[去送接]|来(?!自)))(?P<it>(?=[^,，]{{3}}){_WORD}){_END}",
    rf"(?:[国籍裔]|[国裔籍州洲]人)[,，]\s?(?:名?叫)?(?P<it>{_WORDS}){_END}(?=[,，。(（的])",
    rf"{_EN}(?<![\u4e00-\u9fff])(?P<it>{_LISTED_WORDS}|{_SPELT}|{_LISTED})(?=[,，]\s?(?:[男女](?![\u4e00-\u9fff])|\d{{1,3}}\s?岁))",
    r"(?<![\u4e00-\u9fff]·)[^\W\da-zA-Z_我叫是患者病人为姓名家属]{1,6}·[\u4e00-\u9fff]{2,5}?(?=[^\u4e00-\u9fff]|$|今年|因|于|自述|主诉|的|是|来|在|说|住|大叔|大[爷妈姐哥])",
    rf"(?P<it>[{_SOUNDS}]{{1,8}}(?:{_DOT}(?:彼得|[{_SOUNDS}]){{1,8}}){{1,3}})",
    rf"{_CUE}{_SAYS}(?P<it>{_FAMILY_TOO}{_JAPANESE})",
    rf"(?<![\u4e00-\u9fff])(?P<it>{_FAMILY}{_JAPANESE})",
    rf"(?<![\u4e00-\u9fff])(?P<it>{_FAMILY_TOO}(?![\u4e00-\u9fff]{{0,3}}[病症炎征痣眼院药甲])[\u4e00-\u9fff]{{1,3}}?)(?=先生|女士|小姐|太太|[,，、。\s]|$)",
    rf"{_FAMILY}(?=先生|女士|小姐|太太|桑|医生|教授|老师)",
    rf"{_EDGE}(?P<it>[{_SOUNDS}]{{3,7}})(?=先生|女士|小姐|太太|医生|大夫|教授|博士|老师|同学)",
    rf"{_EDGE}(?P<it>(?:阮|黎)氏[\u4e00-\u9fff]{{1,3}}?)(?=先生|女士|小姐|太太|[,，、。\s]|$)",
    r"[阿热帕玛祖茹迪努布佐麦米海][\u4e00-\u9fff]{0,2}古丽|古丽[娜米扎努巴][尔热拉提]|(?:买买提|艾买提|吐尔逊|玉素甫|阿卜杜)(?:[\u4e00-\u9fff]{1,2}(?=[，,。]))?",
    rf"[{_SOUNDS}]{{2,4}}(?:别克|古丽|古力)(?!斯坦|族|语|人)",
    rf"{_TIBETAN}{{2,3}}{_NO_PLACE}",
    rf"{_MONGOLIAN}{{2,3}}嘎?",
    rf"{_UYGHUR}{{2,3}}",
    rf"{_WHOLE}江?{_NO_PLACE}",
    rf"{_CUE}{_SAYS}(?P<it>{_WORDY}){_NO_PLACE}",
    rf"{_EDGE}(?P<it>{_WORDY})(?!德勒){_DOES}",
    rf"(?:{_CUE}{_SAYS}|{_EDGE})(?P<it>{_YI}{{2,3}}木?)",
    rf"(?:{_CUE}{_SAYS}|{_EDGE})(?P<it>{_one_of('given')})(?!医院|公司|路|小区|花园|大厦|药|胶囊|颗粒|片|丸|牌|幼儿园|诊所|店|生物|医药|中学|小学)",
    rf"(?:小孩|孩子|[宝娃]宝?|儿子|女儿|闺女|孙[子女]|外孙女?|弟弟|妹妹|小朋友|我们?家|双胞胎)(?P<it>小?{_one_of('pets')})(?=[一二两三四五六七八九十半\d]{{1,3}}(?:岁|个?月|周)|[今昨前][天晚早夜]|最近|发烧|发热|高烧|咳|拉|吐|又|老是|总|从|摔|睡|[,，]?\s?(?:[一二两三四五六七八九十\d]{{1,2}}(?:岁|个月)))",
    rf"{_EN}(?P<it>{_WORDS}|{_WORD})(?=先生|女士|小姐|太太)",
    rf"{_EN}(?P<it>{_LISTED_WORDS}|{_LISTED})(?=同学|老师|小朋友|大叔|阿姨)",
    rf"(?:藏族|维吾尔族|蒙古族|哈萨克族|彝族|傣族)(?:患者|病人|男性|女性|同胞)?(?P<it>{MINORITY}|[\u4e00-\u9fff]{{3,5}})(?=[,，])",
    rf"{_EN}(?P<it>{_ENGLISH} [A-Z][a-z]{{1,11}})(?![A-Za-z])(?! (?:test|sign|syndrome|disease))",
    rf"(?:^|(?<=[^\u4e00-\u9fff]))(?P<it>(?![一-龥]{{0,6}}[病症炎癌])[{_SOUNDS}]{{3,8}})(?=[,，]\s?(?:[男女](?![\u4e00-\u9fff])|\d{{1,3}}\s?岁))",
)

BESIDE: tuple[str, ...] = (
    rf"(?<=【姓名】)\s?[(（](?P<it>{_WORDS}|{_CAPITALS}|{_WORD})[)）]",
    rf"{_EN}(?P<it>{_WORDS}|{_CAPITALS}|{_WORD})(?=\s?[(（](?:中文名[:：]?\s?)?【姓名】[)）])",
)
"""In brackets beside a name that was found, or before it."""
