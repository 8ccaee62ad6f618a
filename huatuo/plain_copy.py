"""a copy of a text with plain characters, of equal length: full-width digits and marks as ASCII, 醫 as 医."""

import unicodedata
from functools import lru_cache

# Traditional characters that names, kin, titles and cues are written with, and their simplified ones in the same order.
_TRADITIONAL = (
    "陳張劉黃趙吳孫馬羅鄭謝許韓鄧馮蕭葉蘇呂盧鍾譚陸範賈鄒閻龍賀顧龔萬錢嚴湯賴龐顏溫蘆魯畢聶莊藍鮑歐陽諸費紀項單蔣喬寧關齊麥鄺樑勞倫衛連簡饒時儲蔔駱繆鄔應車鞏闞儀麗華"
    "國偉強軍靜傑紅蘭鳳雲蓮榮愛鶯瓊貞貴義興瑩慶寶銀鋒鐵鋼鎮銘鈞鐘鴻鵬飛騰駿韻頌順頤願風養飄題額類顯緯維綺綠紹紋純結給經綜絲級約終組細織績總繼續纖練縣線編緊緩羣聖聰聲"
    "職聯聽學實寫對導將專尋層屬嶺島師帳帶幫廣庫廠廳彎後從復徑恆悅惡懷懇憂戰戶擔據擇損換擴擾攝敗數斷無書會條楊東業極構槍樂樓標樣樹橋機檢權歡歲歷歸殘殺氣決沒況淚淺測濟"
    "灣濕滿漢潔澤燈燒熱營爺爾牆狀獨獎獻現瑪環產畫異當療發皺盜監盤眾礦確碼禮禎種稱積穩窮競筆節築簽糧聞脈腦腳腫臉臨舉艙艱藥處號蟲衝術裏補裝製複見規視親覺觀訂計訊記診證"
    "評詞試詩話該詳認語誠誤說説課調談請論諮諾謙講識譯議護讀變讓讚豐貝負財貨販責買賓賣質購贈賢趕跡踐軟較載輕輝輸轉辦農遠適選遲遷還邊鄉醫釋釣鈣鉀鈉銷錄錯鍵鏡長門閃閉開"
    "間閨閱隊階陰際險隨雖雙雜離難電霧靈頁頂須預頓領頭頸頻顆顫飯飲餓館驗驚體髮鬆鬱魚鮮鳥鹽齡齒龜過這進運達遺們個傷傳債價優兒兩內冊凍劃劑動務勝區協參嗎嘔嚇囑園圍圖團報"
    "場壓壞壯壽夠夢婦媽嬰宮寬寢審屆雞點臺係為於與嬌嫻蘊詠誼頎潤滬澔煒熾瑋璿穎鈺錦錚鎧鑒閔顥驊驥鷹鸞"
)
_SIMPLIFIED = (
    "陈张刘黄赵吴孙马罗郑谢许韩邓冯萧叶苏吕卢钟谭陆范贾邹阎龙贺顾龚万钱严汤赖庞颜温芦鲁毕聂庄蓝鲍欧阳诸费纪项单蒋乔宁关齐麦邝梁劳伦卫连简饶时储卜骆缪邬应车巩阚仪丽华"
    "国伟强军静杰红兰凤云莲荣爱莺琼贞贵义兴莹庆宝银锋铁钢镇铭钧钟鸿鹏飞腾骏韵颂顺颐愿风养飘题额类显纬维绮绿绍纹纯结给经综丝级约终组细织绩总继续纤练县线编紧缓群圣聪声"
    "职联听学实写对导将专寻层属岭岛师帐带帮广库厂厅弯后从复径恒悦恶怀恳忧战户担据择损换扩扰摄败数断无书会条杨东业极构枪乐楼标样树桥机检权欢岁历归残杀气决没况泪浅测济"
    "湾湿满汉洁泽灯烧热营爷尔墙状独奖献现玛环产画异当疗发皱盗监盘众矿确码礼祯种称积稳穷竞笔节筑签粮闻脉脑脚肿脸临举舱艰药处号虫冲术里补装制复见规视亲觉观订计讯记诊证"
    "评词试诗话该详认语诚误说说课调谈请论咨诺谦讲识译议护读变让赞丰贝负财货贩责买宾卖质购赠贤赶迹践软较载轻辉输转办农远适选迟迁还边乡医释钓钙钾钠销录错键镜长门闪闭开"
    "间闺阅队阶阴际险随虽双杂离难电雾灵页顶须预顿领头颈频颗颤饭饮饿馆验惊体发松郁鱼鲜鸟盐龄齿龟过这进运达遗们个伤传债价优儿两内册冻划剂动务胜区协参吗呕吓嘱园围图团报"
    "场压坏壮寿够梦妇妈婴宫宽寝审届鸡点台系为于与娇娴蕴咏谊颀润沪浩炜炽玮璇颖钰锦铮铠鉴闵颢骅骥鹰鸾"
)
_SIMPLER = dict(zip(_TRADITIONAL, _SIMPLIFIED, strict=True))


def plain_copy(text: str) -> str:
    """The text with compatibility characters as their plain ones, where that is one: position by position the same."""
    return text if text.isascii() else "".join(map(_plain, text))


@lru_cache(maxsize=1 << 16)
def _plain(character: str) -> str:
    if character < "\u2000":
        return character
    if character in _SIMPLER:
        return _SIMPLER[character]
    plain = unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 else character
