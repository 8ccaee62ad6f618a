"""red-flag triage in Chinese and English: adds a notice, never edits the model's words.

The flags, their phrases and their notices are data: huatuo/safety.toml. It reads words, not meaning, and
errs to showing: a quoted, recent or hypothetical emergency is flagged too. A negated sign is not
("没有胸痛", "不发烧", "无胸痛、呼吸困难", "no chest pain"): the negation stands right before the sign or
before a list that holds it, in the same clause. Nor is one asked about as a topic ("一氧化碳中毒的原理")
or years old ("小时候得过癫痫"), unless its flag says `always`. Frequent typos are mended from a table. Not
read: pinyin, other typos, signs told over several messages, languages other than Chinese (simplified,
or traditional by a table) and English.
"""

import bisect
import functools
import re
import tomllib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WINDOW = 60
"""Characters within which the parts of one sign must stand."""
_DATA = Path(__file__).with_name("safety.toml")

_TRADITIONAL = (
    "悶發燒熱懷婦嬰兒寶滿個歲說話這樣頭腦臉頸體溫過蝦藥農誤殺輕撐結遺書殘樓邊側無動腳壓後嚨緊腫"
    "紅氣脣蟄暈驚癲癇瘋風應車禍傷燙電觸魚嗆糖島識認劇絞斷陰顆鈕鹼鹽濺淚閃視見強姦貓開創離機鐵絲"
    "釘嚴輸針劑癱倒聽覺聲減產兩雙隻條張長點鐘時間陣現剛請問醫麼辦還沒爺媽週孫腸瀉乾脫門陷窩檢測"
    "驗廁潔滴總難續嘔噁膽黃疸術後單歷實證蕁麻團齡夢獨慮鬱憂傳記錄員區廣東萬與為內臟臨鬆軟擔須須"
    "彎礙爛蘋酮們鏡虛冷濕溼寫繩樹報憋諮詢飛異維備給從來對會處診護顏數餵餓飯飲鬧齒髮顫膚顱繃縫擊"
    "壞墜鋸嚇愛學國貼買賣馬蠍蟲褲膿膠潰瘍瘡療癢盡搶換擠曬橋毀決沖況淨漲滾灑爐牆狀瞼竄節糞紗紙細"
    "終經綁緩縮繼纏義聞莖蓋蘇號補親訴試該調謝講讓豬趕輪運遲鄰醬鉛錯關閉陽隨險隱雞霧靜預額願養騎"
    "髒麵裡裏夠妳兇喪喚導將屍層幫幹幾彈態惱憶戰撥敗敵極槍樂櫃歡涼漿潑煙煩牽當盤眾睏穩帶並亂佈併"
    "侖倆倉倫傢債儘兌凈凍別剋剝劃勁厭厲參唸啞喫嗎嗚嘩噴噹嚥囌圓圖埰堅塊塗墊壺壽夥夾奧宮寀寵尋屜"
    "崙幣庫弔彆復徵惡慘慾憑懞懲戀戲戶捱掛採搖摳摺摻撈撓擾攢攪昇暢暫朮棄棗業榦槓檯櫻歸殭殼氫洩渙"
    "渾湧湯準溝滅滌滲滷澀澆濛瀕瀝灘烏煉爾獃獎獻環甦疊痠癤癥皺盃監盪睜矇碼祕種積筆箇糰紐紮絕綠綵"
    "綿線緻繞纍纔罰罵羅翫脈脹膩臍臺舉華菸葉葯蒼蔘蕩衕衚衛衝製複褻覈規觀計訓註誌語誰諾謎譁變貝負"
    "貧貸費質贅蹤軋軌軍輩轉迴連進遊遠醣釋釦鈍鉀鉅銀銨錢錳錶鍊鍋鍛鍼鍾鎖鏇鏽閨闆闇闌陞霑靈韆響頂"
    "順頓頻顛類顯颱飽餘餬饅騷驅驟鬍鮮鯊鳴鵪鶉鹵黴鼕齣齦著麽衹瞓揼係喺佢嚮曏禮稱網誘釀錘鎚餿"
    "睪痙癮癟懸滯裝襪訊詞論謊賠賴較載輛辭選鄉鑽閒雖雜領頰題飼駕駛鬥鳥齊龍捲掙攝擋攔斃摀揹呑嚐嘗墮奪"
    "嬸孿屆巖幟廢廟徹慣慶懶擁擇擬擺擴曉毆潛澇濃燈營牀獄瑪癒皚盜瞭硃磚窮籃糧級納紛純紋絡統綱緒練縣績"
    "織羨習聖聯聰職肅脅腎臥艱薑藍蘿虧蠟襲訂討許詐評詩詳課議讀豐財責貴資賊賭購趙跡踫蹟躍轟鄭醜釣鋪鋼"
    "錦鍵鏈閱闖陸階際雲韓頁項顧餅館騙麗黨竅氈姪"
)
_SIMPLIFIED = (
    "闷发烧热怀妇婴儿宝满个岁说话这样头脑脸颈体温过虾药农误杀轻撑结遗书残楼边侧无动脚压后咙紧肿"
    "红气唇蛰晕惊癫痫疯风应车祸伤烫电触鱼呛糖岛识认剧绞断阴颗纽碱盐溅泪闪视见强奸猫开创离机铁丝"
    "钉严输针剂瘫倒听觉声减产两双只条张长点钟时间阵现刚请问医么办还没爷妈周孙肠泻干脱门陷窝检测"
    "验厕洁滴总难续呕恶胆黄疸术后单历实证荨麻团龄梦独虑郁忧传记录员区广东万与为内脏临松软担须须"
    "弯碍烂苹酮们镜虚冷湿湿写绳树报憋咨询飞异维备给从来对会处诊护颜数喂饿饭饮闹齿发颤肤颅绷缝击"
    "坏坠锯吓爱学国贴买卖马蝎虫裤脓胶溃疡疮疗痒尽抢换挤晒桥毁决冲况净涨滚洒炉墙状睑窜节粪纱纸细"
    "终经绑缓缩继缠义闻茎盖苏号补亲诉试该调谢讲让猪赶轮运迟邻酱铅错关闭阳随险隐鸡雾静预额愿养骑"
    "脏面里里够你凶丧唤导将尸层帮干几弹态恼忆战拨败敌极枪乐柜欢凉浆泼烟烦牵当盘众困稳带并乱布并"
    "仑俩仓伦家债尽兑净冻别克剥划劲厌厉参念哑吃吗呜哗喷当咽苏圆图采坚块涂垫壶寿伙夹奥宫采宠寻屉"
    "仑币库吊别复征恶惨欲凭蒙惩恋戏户挨挂采摇抠折掺捞挠扰攒搅升畅暂术弃枣业干杠台樱归僵壳氢泄涣"
    "浑涌汤准沟灭涤渗卤涩浇蒙濒沥滩乌炼尔呆奖献环苏叠酸疖症皱杯监荡睁蒙码秘种积笔个团纽扎绝绿彩"
    "绵线致绕累才罚骂罗玩脉胀腻脐台举华烟叶药苍参荡同胡卫冲制复亵核规观计训注志语谁诺谜哗变贝负"
    "贫贷费质赘踪轧轨军辈转回连进游远糖释扣钝钾巨银铵钱锰表炼锅锻针钟锁旋锈闺板暗阑升沾灵千响顶"
    "顺顿频颠类显台饱余糊馒骚驱骤胡鲜鲨鸣鹌鹑卤霉冬出龈着么只睡砸是在他向向礼称网诱酿锤锤馊"
    "睾痉瘾瘪悬滞装袜讯词论谎赔赖较载辆辞选乡钻闲虽杂领颊题饲驾驶斗鸟齐龙卷挣摄挡拦毙捂背吞尝尝堕夺"
    "婶孪届岩帜废庙彻惯庆懒拥择拟摆扩晓殴潜涝浓灯营床狱玛愈皑盗了朱砖穷篮粮级纳纷纯纹络统纲绪练县绩"
    "织羡习圣联聪职肃胁肾卧艰姜蓝萝亏蜡袭订讨许诈评诗详课议读丰财责贵资贼赌购赵迹碰迹跃轰郑丑钓铺钢"
    "锦键链阅闯陆阶际云韩页项顾饼馆骗丽党窍毡侄"
)
_TABLE = str.maketrans(_TRADITIONAL, _SIMPLIFIED)

# A negation, and what may stand between it and the sign: a verb, an adverb, the items of a list.
_NEGATION = re.compile(
    r"(?<![有是会能要])(?:没有|并无|并没有|从未|从不|否认|未见|不伴|不是|没|无|不|未)"
    r"(?:再|出现|[出流见咳呕吐便](?=$)|感到|感觉|觉得|发生|伴有?|有|明显的?|什么|任何|过|想|要|会)*+"
    r"(?:[^，。；！？,.;!?\n、和或及]{1,10}(?:[、和或及]|也没有)|头[晕痛疼]?|恶心|呕吐?|发[热烧]|咳嗽|胸[痛闷]|腹[痛泻]|出血|抽搐|昏迷|气短|心慌"
    r"|呼吸困难|疼痛)*+$"
)
_ENGLISH_NEGATION = re.compile(
    r"\b(?:no|not|without|denies|deny|never|don'?t have|do not have|doesn'?t have|isn'?t|wasn'?t)"
    r"(?: (?:any|a|an|having|had|feeling|been|signs? of|history of|thoughts? of))*+"
    r"(?: [a-z' ]{1,30}(?:,| or| and| nor))*+ $"
)

_CLAUSE = re.compile(r"[，。；！？,.;!?\n]| and | but | now ")
# What follows, or stands before, a sign that is only the topic of a question.
_TOPIC_AFTER = re.compile(
    r"(?:[病症]|手术|切除|以?后|时|引起|导致|患者|病人)*的?(?:常见|主要|日常|家庭|发病|[高好多]发)?"
    r"(?:有哪些|有什么(?:危害|症状|表现|后果|区别|前兆)|(?:主要|早期|常见|典型)?(?:症状|表现|前兆)(?:是|有|包括)"
    r"|危害|原理|机[制理]|年龄|人群|季节|传播|途径|病因|潜伏期|原因(?:有|包括)|护理(?:知识|要点|方法|常识)|(?:急救|抢救|处理)?(?:流程|步骤)|诊断标准|定义|概念|分[类型期级]|和[^，。]{1,10}区别|的?区别|怎么区[分别]"
    r"|(?:应该?|要|该|[^，。]{1,4})?(?:怎么|如何|怎样)?预防|会[^，。]{0,3}(?:遗传|传染)|遗传吗|传染吗|以?后会[^，。]{1,10}吗|疫苗"
    r"|(?:出院后|康复|后遗症|恢复期|术后|手术后|切除后|平时|日常)[^，。]{0,4}(?:怎么|如何|吃|饮食|注意|锻炼|护理|能|可以|多久)|发病率|死亡率|存活率|的?(?:科普|知识|定义|文章|论文))"
)
_TOPIC_BEFORE = re.compile(
    r"(?:(?:预防|避免|防止|什么[是叫]|怎么?防|科普[^，。]{0,3}|区[分别])[^，。；！？\n]{0,6}"
    r"|(?:prevent|preventing|avoid|risk factors (?:for|of)|causes? of|symptoms of|signs of|what (?:is|are|causes)"
    r"|how (?:does|do|is|are)|difference between|learn about)(?: [a-z]+){0,3} )$"
)
_TOPIC_AFTER_ENGLISH = re.compile(r"(?: \w+){0,2} (?:happen|prevention|statistics|vaccine)")
_YEARS_AGO = re.compile(
    r"(?:小时候|年轻时候?|童年|(?<!\d)(?:[1-9]|[1-9]\d|[一两二三四五六七八九几多]|[一二三四五六七八九]?十[几多一二三四五六七八九]?)年多?[之以]?前"
    r"|多年[之以]?前)(?!.*(?:开始|一直|又|就[有是]|至今|到现在|以来))"
    r"|\bas a (?:child|kid|baby|teen)|years ago|when i was (?:a |little|young|small|\d)|\bin (?:19|20)\d\d\b"
)
_OF = re.compile(
    r"(?<=[疼痛肿喘憋烧晕吐拉咳流难])的(?=很|厉|不行|要命|受不|不敢|直|没|站|睡|打滚|死|像|快|不停|不得|动不)"
)
_GAP = re.compile(r"(?<=[\u4e00-\u9fff])[ \t]+(?=[\u4e00-\u9fff])")

# A sign that a pattern spans but that its own words deny: "胸口不疼", "脖子不硬".
_INNER_NEGATION = re.compile(
    r"(?<![止忍停受])(?:不|没有?)(?:怎么|太|再|是很|出|流)?[疼痛硬吐晕麻肿喘烧闷抽血]$"
)


@dataclass(frozen=True)
class Flag:
    """One kind of emergency that a text may speak of; its words: `notice(key, language)`."""

    key: str


@dataclass(frozen=True, eq=False)
class _Group:
    words: tuple[str, ...]
    pattern: re.Pattern[str] | None
    lists: "tuple[_Group, ...]"
    absent: bool
    starts: frozenset[str] | None
    """The characters a place of the group can start with; None if they cannot be told."""


@dataclass(frozen=True)
class _Entry:
    key: str
    notices: dict[str, str]
    rules: tuple[tuple[_Group, ...], ...]
    always: bool


def triage(text: str, language: str = "zh") -> tuple[Flag, ...]:
    """The flags of a text, most urgent first; some 2 ms for 200 characters, 30 ms for 2,000. Never raises for a str.

    Both languages are always read; `language` is the page's and changes nothing.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_TABLE).lower()
    plain = plain.replace("\u2019", "'").replace(",", "，")
    plain = _OF.sub("得", _GAP.sub("", plain))
    for wrong, right in _typos():
        plain = plain.replace(wrong, right)
    reading = _Reading(plain)
    return tuple(
        Flag(entry.key)
        for entry in _entries()
        if any(reading.holds(rule, entry.always) for rule in entry.rules)
    )


def notice(key: str, language: str = "zh") -> str:
    """The notice of a flag in 'zh' or 'en'. Raises KeyError for an unknown flag."""
    return _by_key()[key].notices["zh" if language == "zh" else "en"]


def keys() -> tuple[str, ...]:
    """Every flag, most urgent first."""
    return tuple(entry.key for entry in _entries())


_NOWHERE: tuple[list[tuple[int, int]], list[int]] = ([], [])


class _Reading:
    """One text; each group of words is sought in it once, however many rules ask for it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spanned: dict[_Group, list[tuple[int, int]]] = {}
        self._kept: dict[tuple[_Group, bool], tuple[list[tuple[int, int]], list[int]]] = {}
        self._counted: dict[tuple[int, int, bool], bool] = {}
        self._characters = frozenset(text)

    def holds(self, rule: tuple[_Group, ...], always: bool) -> bool:
        for group in rule:
            if not group.absent and group.starts and group.starts.isdisjoint(self._characters):
                return False
        places = self._places(rule[0], always)[0]
        return bool(places) and any(
            all(group.absent != self._is_near(group, always, start, end) for group in rule[1:])
            for start, end in places
        )

    def _is_near(self, group: _Group, always: bool, start: int, end: int) -> bool:
        starts = self._places(group, always)[1]
        at = bisect.bisect_left(starts, start - WINDOW)
        return at < len(starts) and starts[at] < end + WINDOW

    def _places(self, group: _Group, always: bool) -> tuple[list[tuple[int, int]], list[int]]:
        """Where the group stands, and where each place starts; in order."""
        spans = self._spans(group)
        if not spans:
            return _NOWHERE
        kept = self._kept.get((group, always))
        if kept is None:
            places = sorted(
                place for place in spans if group.absent or self._counts(*place, always)
            )
            kept = self._kept[group, always] = (places, [start for start, _ in places])
        return kept

    def _spans(self, group: _Group) -> list[tuple[int, int]]:
        spans = self._spanned.get(group)
        if spans is None:
            spans = self._spanned[group] = _places(self._text, group)
            for words in group.lists:
                spans += self._spans(words)
        return spans

    def _counts(self, start: int, end: int, always: bool) -> bool:
        """Neither negated nor (unless `always`) a topic or years old."""
        key = (start, end, always)
        if key not in self._counted:
            self._counted[key] = not (
                _INNER_NEGATION.search(self._text, start, end)
                or _is_negated(self._text, start)
                or (not always and _is_topic_or_old(self._text, start, end))
            )
        return self._counted[key]


def _places(text: str, group: _Group) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []
    for word in group.words:
        start = text.find(word)
        while start >= 0:
            places.append((start, start + len(word)))
            start = text.find(word, start + 1)
    if group.pattern is not None:
        places += [match.span() for match in group.pattern.finditer(text)]
    return places


def _is_negated(text: str, start: int) -> bool:
    clause = re.split(r"[，。；！？;!?\n]", text[max(0, start - 40) : start])[-1]
    if _NEGATION.search(clause):
        return True
    return _ENGLISH_NEGATION.search(text[max(0, start - 60) : start].replace("，", ",")) is not None


def _is_topic_or_old(text: str, start: int, end: int) -> bool:
    before = _CLAUSE.split(text[max(0, start - 40) : start])[-1]
    after = _CLAUSE.split(text[end : end + 40])[0]
    return bool(
        _TOPIC_AFTER.match(after)
        or _TOPIC_AFTER_ENGLISH.match(after)
        or _TOPIC_BEFORE.search(before)
        or _YEARS_AGO.search(before + text[start:end] + after)
    )


@functools.cache
def _typos() -> tuple[tuple[str, str], ...]:
    data = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    return tuple(data["typos"].items())


@functools.cache
def _entries() -> tuple[_Entry, ...]:
    data = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    words: dict[str, str] = data["words"]

    @functools.cache
    def shared(text: str) -> _Group:
        return _group(text, words, shared)

    return tuple(
        _Entry(
            flag["key"],
            {"zh": flag["zh"], "en": flag["en"]},
            tuple(tuple(shared(group) for group in rule) for rule in flag["rules"]),
            flag.get("always", False),
        )
        for flag in data["flag"]
    )


@functools.cache
def _by_key() -> dict[str, _Entry]:
    return {entry.key: entry for entry in _entries()}


def _group(text: str, words: dict[str, str], shared: Callable[[str], _Group]) -> _Group:
    plain: list[str] = []
    patterns: list[str] = []
    lists: list[_Group] = []
    for part in _alternatives(text.removeprefix("!")):
        if part.startswith("{") and part[1:-1] in words:
            lists.append(shared(words[part[1:-1]]))
            continue
        for name, value in words.items():
            part = part.replace("{" + name + "}", f"(?:{value})")
        (patterns if re.search(r"[\\\[\](){}.?*+^$]", part) else plain).append(part)
    return _Group(
        tuple(plain),
        re.compile("|".join(patterns)) if patterns else None,
        tuple(lists),
        text.startswith("!"),
        _union([group.starts for group in lists] + [_starts(part) for part in plain + patterns]),
    )


def _starts(pattern: str) -> frozenset[str] | None:
    """The characters a match can start with, by the plain parts of the syntax; None for the others."""
    if pattern.startswith(("(?<!", "(?<=", "(?!")):
        return _starts(pattern[_closing(pattern) + 1 :])
    if pattern.startswith("\\b"):
        return _starts(pattern[2:])
    end = 0
    if pattern.startswith("(?:"):
        end = _closing(pattern)
        found = _union([_starts(part) for part in _alternatives(pattern[3:end])])
    elif pattern.startswith("["):
        end = pattern.index("]")
        found = None if re.search(r"^\^|-|\\", pattern[1:end]) else frozenset(pattern[1:end])
    else:
        found = None if pattern[:1] in ("", *r"\.^$(") else frozenset(pattern[0])
    rest = pattern[end + 1 :]
    if rest.startswith(("?", "*")):
        return _union([found, _starts(rest[1:])])
    return None if rest.startswith("{") else found


def _union(parts: list[frozenset[str] | None]) -> frozenset[str] | None:
    known = [part for part in parts if part is not None]
    return frozenset().union(*known) if len(known) == len(parts) else None


def _closing(pattern: str) -> int:
    """Where the bracket that opens the pattern closes."""
    depth = 0
    for position, character in enumerate(pattern):
        depth += (character == "(") - (character == ")")
        if not depth:
            return position
    raise ValueError(pattern)


def _alternatives(text: str) -> list[str]:
    """The parts of a pattern between its outer bars."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if character == "|" and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]
