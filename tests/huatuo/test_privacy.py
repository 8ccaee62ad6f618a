"""Masking: what must go, what must stay, and that masking twice changes nothing."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from huatuo.check_digits import is_card_number, is_id_number
from huatuo.privacy import KINDS, kind_name, mask
from tests.patience import cpu_seconds

ROOT = Path(__file__).resolve().parents[2]

GONE = [
    ("手机13800138000请回电", "手机【电话】请回电"),
    ("手机１３８００１３８０００请回电", "手机【电话】请回电"),
    ("打我电话+86 138 0013 8000", "打我电话【电话】"),
    ("请打138-0013-8000找我", "请打【电话】找我"),
    ("座机010-62345678转123", "座机【电话】"),
    ("热线400-123-4567", "热线【电话】"),
    ("身份证11010519491231002X谢谢", "身份证【身份证号】谢谢"),
    ("11010519491231002x", "【身份证号】"),
    ("我的号是110105491231002呢", "我的号是【身份证号】呢"),
    ("护照号E12345678", "护照号【护照号】"),
    ("微信号：abc_12345", "微信号：【账号】"),
    ("加我微信zhangsan88聊", "加我微信【账号】聊"),
    ("vx: doctor_lee1", "vx: 【账号】"),
    ("QQ：123456789", "QQ：【账号】"),
    ("住院号：ZY0012345", "住院号：【病历号】"),
    ("门诊号 20230012，复查", "门诊号 【病历号】，复查"),
    ("病历号为M-2023-99", "病历号为【病历号】"),
    ("医保卡号123456789", "医保卡号【病历号】"),
    ("邮箱zhang.san@163.com谢谢", "邮箱【邮箱】谢谢"),
    ("报告在https://a.example.org/r?id=1，请看", "报告在【网址】，请看"),
    ("见www.hospital.cn/abc", "见【网址】"),
    ("卡号6222021234567890128", "卡号【银行卡号】"),
    ("转到4111 1111 1111 1111吧", "转到【银行卡号】吧"),
    ("车牌京A12345", "车牌【车牌号】"),
    ("沪AD12345停在门口", "【车牌号】停在门口"),
    ("来自192.168.1.20", "来自【IP地址】"),
    ("2023年5月6日手术", "2023年【日期】手术"),
    ("2023-05-06手术", "2023年【日期】手术"),
    ("2023/5/6 复查", "2023年【日期】 复查"),
    ("5月6日开始发烧", "【日期】开始发烧"),
    ("我爷爷92岁", "我爷爷90+岁"),
    ("a 95-year-old man", "a 90+-year-old man"),
    ("我叫王小明，今年30岁", "我叫【姓名】，今年30岁"),
    ("患者李强，男，45岁", "患者【姓名】，男，45岁"),
    ("姓名：欧阳修 性别：男", "姓名：【姓名】 性别：男"),
    ("我是张伟，头痛三天", "我是【姓名】，头痛三天"),
    ("My name is John Smith and I have a cough", "My name is 【姓名】 and I have a cough"),
    ("call me at 555-123-4567", "call me at 【电话】"),
    ("MRN: 00123456", "MRN: 【病历号】"),
    ("SSN 123-45-6789", "SSN 【身份证号】"),
    ("I live at 12 Oak Street", "I live at 【地址】"),
    ("born May 6, 1980", "born 【日期】 1980"),
    ("北京市海淀区中关村南大街5号", "【地址】"),
    ("家住上海市浦东新区张江镇", "家住【地址】"),
    ("我的号是1 3 8 0 0 1 3 8 0 0 0", "我的号是【电话】"),
    ("手机一三八零零一三八零零零", "手机【电话】"),
    ("138.0013.8000", "【电话】"),
    ("110105-19491231-002X", "【身份证号】"),
    ("加v：zs19881", "加v：【账号】"),
    ("MRN 12345678", "MRN 【病历号】"),
    ("患者王小明因胸痛入院", "患者【姓名】因胸痛入院"),
    ("病人张三丰头晕三天", "病人【姓名】头晕三天"),
    ("我叫李雷头痛三天", "我叫【姓名】头痛三天"),
    ("我叫阿依古丽·买买提，头痛", "我叫【姓名】，头痛"),
    ("我是李雷的妈妈", "我是【姓名】的妈妈"),
    ("我妈妈王秀英今年70岁", "我妈妈【姓名】今年70岁"),
    ("李四，女，32岁", "【姓名】，女，32岁"),
    ("I am John Smith and I cough", "I am 【姓名】 and I cough"),
    ("23年5月6日复查", "【日期】复查"),
    ("二〇二三年五月六日复查", "【日期】复查"),
    ("20230506入院", "2023年【日期】入院"),
    ("05-06-2023", "【日期】 2023"),
    ("年龄：92", "年龄：90+"),
    ("奶奶九十二岁", "奶奶90+岁"),
    ("95yo male", "90+yo male"),
    ("a man aged 95", "a man aged 90+"),
    ("张建国昨晚胸闷，怎么办？", "【姓名】昨晚胸闷，怎么办？"),
    ("陪同家属李秀兰诉其夜间咳嗽", "陪同家属【姓名】诉其夜间咳嗽"),
    ("王阿姨又咳嗽了", "【姓名】阿姨又咳嗽了"),
    ("谢谢刘主任", "谢谢【姓名】主任"),
    ("患者：欧阳雪峰，性别男", "患者：【姓名】，性别男"),
    ("候诊：马建国、孙桂兰、石磊", "候诊：【姓名】、【姓名】、【姓名】"),
    ("小张，你的报告没有大问题", "【姓名】，你的报告没有大问题"),
    ("【张建国】昨晚胸闷", "【【姓名】】昨晚胸闷"),
    ("我儿子子轩在家发烧", "我儿子【姓名】在家发烧"),
    ("患者扎西次仁自述头痛", "患者【姓名】自述头痛"),
    ("姓 名：许 静 科室：呼吸科", "姓 名：【姓名】 科室：呼吸科"),
    ("我男朋友 Kevin Chen 过敏", "我男朋友 【姓名】 过敏"),
    ("我在长安汽车渝北工厂上班", "我在【单位】上班"),
    ("工作单位：中铁十二局第三项目部", "工作单位：【单位】"),
    ("家在大王店镇李家庄村，腰疼", "家在【地址】，腰疼"),
    ("身份证110105194912310021号", "身份证【身份证号】号"),
    ("110105********1234", "【身份证号】"),
    ("138****8000", "【电话】"),
    ("外孙长了水痘，育英小学要求隔离", "外孙长了水痘，【单位】要求隔离"),
    ("民国三十一年生人", "【日期】生人"),
    ("邮编：510630", "邮编：【地址】"),
    ("在无锡市第二人民医院做肠镜", "在【单位】做肠镜"),
    ("武汉市金银潭医院出院", "【单位】出院"),
    ("301医院的专家", "【单位】的专家"),
    ("我在华为上班", "我在【单位】上班"),
    ("HKID A123456(7)", "HKID 【护照号】"),
    ("护照C01X00T47，发热", "护照【护照号】，发热"),
    ("工资卡6222 0212 0800 1234 567退费", "工资卡【银行卡号】退费"),
    ("分机8036", "分机【电话】"),
    ("微博@深海的鱼 说", "微博@【账号】 说"),
    ("网名静水流深，", "网名【账号】，"),
    ("陳美儀，女，40岁", "【姓名】，女，40岁"),
    ("我同学叫宁致远，抽搐", "我同学叫【姓名】，抽搐"),
    ("河南信阳固始人，务工", "【地址】人，务工"),
    ("住和平里七区12号楼4门302，快来", "住【地址】，快来"),
    ("于10.15住院", "于【日期】住院"),
]

STAYS = (
    """
血压140/90 | 血压160/100，心率88 | 300mg tid | 阿司匹林100mg每日一次 | ICD J18.9 | 2型糖尿病 | 6901234567892
我是高血压患者 | 我是糖尿病，吃二甲双胍 | 我是孕妇 | 我是女的，28岁 | 患者高烧三天 | 患者于昨天入院 | 本人女，30岁 | 我是过敏体质
患者白细胞偏高 | 患者左侧胸痛 | 我是乙肝携带者 | 我是上班族 | 我叫救护车了 | 本人身高170体重65 | 病人安静时也痛 | 患者严重失眠
血糖6.8 | 空腹血糖7.2，餐后11.3 | 血压：135/85mmHg | 心率72次/分 | 体温38.5℃ | 白细胞12.5×10^9/L | HbA1c 7.5% | 肌酐88umol/L
3.5*2.1cm结节 | 结节大小约12mm×8mm | 孕12+3周 | 妊娠38周 | 第3腰椎 | L4-L5 | T5 N1 M0 | C13呼气试验 | CA199 35.2
吃了3天，每天2次 | 每次2片，一日3次 | 2023年确诊 | 1998年手术 | 今年45岁 | 孩子3岁半 | 89岁老人 | 90mg/天 | 95%的人
维生素B12 | 辅酶Q10 | 新冠XBB | H1N1 | HPV16阳性 | HLA-B27 | PD-1 | 5-HT | 25-羟维生素D 18ng/ml | 第12对脑神经
国药准字H20013042 | 批号20230506 | 0.9%氯化钠250ml | 5%葡萄糖500ml | 10%氯化钾10ml | 1.5g bid | 40mg qn | 0.25g*24片
医院在市中心 | 去了三甲医院 | 我家在农村 | 北京的医院好吗 | 上海哪家医院看骨科好 | 我在广东，湿气重 | 这条路走不通 | 路上摔了 | 走路100米就痛
六神丸 | 华佗再造丸 | 白加黑 | 三九胃泰 | 云南白药 | 王老吉能降火吗 | 李斯特菌 | 张力性气胸 | 马尾综合征 | 高原反应 | 石膏固定
2-3天 | 5-7次 | 10-15分钟 | 3/4的量 | 1/2片 | 5.6-7.8 | 120/80 | 24小时动态 | 7x24 | 3:1 | 12:30吃药 | 早上8点
长了水痘，学校要求隔离 | 在化工厂上班 | 在一家私人公司工作 | 在农村小学教书 | 去了县人民医院就诊 | 住在农村
林下参炖汤 | 雷珠单抗 | 比伐芦定 | 左室射血分数45% | 家属来电说明天出院 | 怀孕37周破水了 | 医生让停用尤卓尔 | 主任周几坐诊 | 于医生建议下停药
患者高脂血症，头晕 | 患者焦虑，失眠 | 患者左髋骨折，卧床 | 患者黄斑变性，视力下降 | 患者常失眠，多梦 | 患者曾手术，恢复好
患者易惊醒，怕热 | 患者于家中，晕倒 | 患者单独就诊，自述头痛 | 患者全程清醒，无抽搐 | 患者金属过敏，皮疹 | 患者高钾血症，心电图异常
我是司机，腰痛 | 我是左撇子，手腕痛 | 我是单亲妈妈，睡不好 | 对于大多数患者来说，要紧的是休息 | 病人冷静，对答切题 | 病人解手困难，腹胀
高血压，男，60岁 | 白带多，女，30岁 | 爸爸高血压60岁 | 孩子高烧39度，2岁 | 患者常因劳累发作 | 奶奶全身浮肿，80岁
90岁及以上老人 | 60-95岁 | ≥90岁 | 年龄90-95 | 400-800-1200mg | 腹腔里2号病灶 | 肺里3号结节 | 神经通路2号 | 尿道3号 | 耳道3号
一月二次，每次三日 | 加VC泡腾片 | 加V 500mg | 周一三五 | 批号20230506，5盒 | drug name: Aspirin | I'm Taking Metformin | QTc 440-460
去大城市医院 | 当地县医院 | 武汉去不了医院 | 北京协和医院排名第几 | 麻醉医生会评估 | 麻烦医生看下 | 每年11月14日是糖尿病日 | 签字：家属已签 | 低头族，颈部僵硬
辉瑞公司生产的疫苗 | 哈佛大学研究说 | 单位是mmol/L | 蛋蛋突然剧痛 | 高丽参上火 | 宝宝便便绿色 | 方解：麻黄发汗
may help | march fracture | I take 2 tablets | blood pressure 140/90 | 500 mg twice a day | aged 45 | vitamin D 1000 IU | 10 years ago | stage 3
""".strip()
    .replace("\n", " | ")
    .split(" | ")
)


@pytest.mark.parametrize(("text", "masked"), GONE)
def test_an_identifier_becomes_a_typed_placeholder(text: str, masked: str) -> None:
    result = mask(text)
    assert result.text == masked
    assert result.found and all(kind in KINDS and n > 0 for kind, n in result.found)
    assert mask(result.text).text == result.text


@pytest.mark.parametrize("text", STAYS)
def test_medicine_is_left_alone(text: str) -> None:
    assert mask(text).text == text
    assert mask(text).found == ()


def test_two_hundred_made_up_findings_are_left_alone() -> None:
    rng = random.Random(5)
    drugs = ["阿莫西林", "氨氯地平", "二甲双胍", "布洛芬", "左甲状腺素", "阿托伐他汀"]
    for _ in range(200):
        text = rng.choice(
            [
                f"血压{rng.randint(90, 220)}/{rng.randint(50, 130)}，吃{rng.choice(drugs)}{rng.choice([5, 10, 250, 500])}mg",
                f"{rng.choice(drugs)}{rng.randint(1, 3)}片，每日{rng.randint(1, 4)}次，共{rng.randint(3, 30)}天",
                f"白细胞{rng.uniform(2, 20):.2f}，血红蛋白{rng.randint(60, 170)}g/L，血小板{rng.randint(20, 500)}",
                f"右肺结节{rng.randint(2, 30)}mm×{rng.randint(2, 30)}mm，第{rng.randint(1, 12)}肋",
                f"{rng.randint(1, 89)}岁，身高{rng.randint(60, 190)}cm，体重{rng.randint(5, 120)}kg",
                f"孕{rng.randint(5, 41)}周+{rng.randint(0, 6)}天，胎心{rng.randint(100, 170)}次/分",
                f"TSH {rng.uniform(0, 20):.3f}，FT4 {rng.uniform(5, 30):.2f}，复查{rng.randint(1, 12)}个月",
            ]
        )
        assert mask(text).text == text


def test_several_kinds_are_counted_in_a_fixed_order() -> None:
    result = mask("我叫王小明，电话13800138000或13900139000，2023年5月6日手术")
    assert result.found == (("phone", 2), ("date", 1), ("name", 1))
    assert mask("头痛怎么办").found == ()
    assert kind_name("phone") == "电话" and kind_name("phone", "en") == "phone number"


@pytest.mark.parametrize("hidden", list("\u200b\u00ad\u202c\u2060\ufeff\ufe0f\x00\x1f\u200d"))
def test_characters_that_show_nothing_hide_no_identifier(hidden: str) -> None:
    assert mask(f"电话138{hidden}1234{hidden}5678").text == "电话【电话】"
    assert mask(f"我叫王{hidden}小明").text == "我叫【姓名】"
    left = f"血压{hidden}140/90，👨\u200d👩\u200d👧都好"
    assert mask(left).text == left and mask(left).found == ()


@pytest.mark.parametrize(
    "text", ["请张三先量血压", "张三先去化验", "请王小明先量血压", "叫张三也去查", "请张三再来一次", "让王芳就在家休息"]
)  # fmt: skip
def test_an_adverb_after_a_name_is_no_part_of_it(text: str) -> None:
    masked = mask(text).text
    assert "【姓名】" in masked and masked[-3:] == text[-3:]
    assert any(f"【姓名】{adverb}" in masked for adverb in "先也再就"), masked


def test_check_digits_are_checked() -> None:
    assert is_id_number("11010519491231002X") and not is_id_number("110105194912310021")
    assert is_card_number("4111111111111111") and not is_card_number("4111111111111112")
    assert mask("110105194912310021号标本").text.startswith("110105")


def test_many_threads_may_be_the_first_to_mask() -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from huatuo.privacy import mask\n"
        "print(set(Pool(8).map(lambda _: mask('张建国昨晚胸闷').text, range(32))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "{'【姓名】昨晚胸闷'}", done.stderr


def test_importing_reads_no_dictionary() -> None:
    code = "import huatuo.privacy, sys; print('jieba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_ten_thousand_characters_take_well_under_a_second() -> None:
    text = ("张建国昨晚胸闷，吃了两片阿司匹林，今早血压160/100，他的女儿李秀兰说要住院。" * 300)[
        :10_000
    ]
    mask(text)
    assert cpu_seconds(lambda: mask(text), 2) < 2


def test_hostile_text_does_not_hang() -> None:
    for text in (
        "路" * 2000,
        "北京市" * 600,
        "1" * 2000,
        "我叫" * 1000,
        "a." * 1000,
        "1-" * 1000,
        "小区" * 1000,
        "一区" * 1000,
        "@" * 2000,
        "患者王" * 600,
        "妈妈王" * 600,
        "\n王" * 900,
        "一月" * 1000,
        "1 " * 1000,
        "加v " * 600,
        "王·" * 900,
        "张建国" * 900,
        "儿子张" * 900,
        "国" * 3000,
        "区区市" * 900,
        "医院" * 1000,
        "北京第一人民医院" * 250,
        "第一人民" * 500 + "医院",
        "在华为" * 600,
        "@国" * 1000,
        "【地址】1" * 400,
        "号123456" * 250,
        "河南信阳" * 500,
    ):
        # 0.5 on a busy machine; a pattern that hangs takes minutes
        assert cpu_seconds(lambda text=text: mask(text), 2) < 2, text[:4]


@pytest.mark.parametrize(
    "text",
    [
        "过期妊娠于2023年6月9日行剖宫产",
        "药物失效后2023年5月6日再次入院",
        "清明节出生于1990年4月5日",
        "夏至2023年6月21日生",
        "中伏2023-07-21出生",
        "冬至2021-12-21住院",
        "批号AB12，2023年5月6日入院",
        "吃了过期药2023年5月6日送急诊",
        "过期妊娠6月9日剖宫产",
        "因停经50天于5月6日入院",
        "患者停经6周3月2日死亡",
        "疫苗接种后5月6日去世",
        "生于6月1日的宝宝接种疫苗",
        "8月8日移植肾脏",
        "肾移植后3月20日因感染入院",
        "三针化疗后3月20日住院",
        "接种疫苗后3月20日入院",
    ],
)
def test_a_day_on_which_somebody_came_was_born_or_died_goes(text: str) -> None:
    masked = mask(text).text
    assert "【日期】" in masked and "月" not in masked and "-" not in masked


@pytest.mark.parametrize(
    "text",
    [
        "末次月经3月2日，现在孕几周",
        "头伏是7月11日开始",
        "批号2203117，有效期至2024年2月",
        "6月1日打的第二针疫苗",
        "冻胚移植后6月3日验孕",
        "例假是3月7号来的",
    ],
)
def test_a_day_that_a_doctor_counts_from_stays(text: str) -> None:
    assert mask(text).text == text


@pytest.mark.parametrize("text", ["王某头晕", "陈某的妻子陪同", "被告李某把人打伤", "王某某头晕"])
def test_a_surname_before_mou_goes(text: str) -> None:
    assert "【姓名】" in mask(text).text
