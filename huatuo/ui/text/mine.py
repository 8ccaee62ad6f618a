"""words of a rater's own page and of the adjudication page."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "page.mine": {"zh": "我的评审", "en": "My work"},
    "mine.title": {"zh": "我的评审", "en": "My work"},
    "mine.empty": {"zh": "您还没有投过票。", "en": "You have not voted yet."},
    "mine.about": {
        "zh": "只有您自己能看到这一页。",
        "en": "Only you see this page.",
    },
    "mine.live": {"zh": "对比页", "en": "Compare page"},
    "mine.votes": {"zh": "投票", "en": "Votes"},
    "mine.of": {"zh": "{done} / {total}", "en": "{done} of {total}"},
    "mine.pace": {"zh": "每题用时（中位数）", "en": "Time per item (median)"},
    "mine.seconds": {"zh": "{seconds} 秒", "en": "{seconds} s"},
    "mine.verdicts": {"zh": "裁定", "en": "Verdicts"},
    "mine.revised": {"zh": "改过", "en": "Revised"},
    "mine.flags": {"zh": "危险标记", "en": "Danger marks"},
    "mine.better": {"zh": "自己的回答", "en": "Own answers"},
    "mine.agreement": {"zh": "与其他医生一致", "en": "Agreement with the others"},
    "mine.not_closed": {
        "zh": "研究结束后显示一致程度，以免影响您的判断。",
        "en": "Agreement is shown when the study has closed, so that it does not sway you.",
    },
    "mine.nobody_else": {
        "zh": "没有其他医生评过相同的题目。",
        "en": "Nobody else rated the same items.",
    },
    "mine.share": {
        "zh": "{share} %（95 % 区间 {low}–{high} %，共同题目 {n}）",
        "en": "{share} % (95 % interval {low}–{high} %; shared items: {n})",
    },
    "mine.kappa": {"zh": "扣除偶然后 κ = {kappa}", "en": "beyond chance: κ = {kappa}"},
    "mine.list": {"zh": "逐条查看", "en": "One by one"},
    "mine.newest": {"zh": "只列出最近 {n} 条。", "en": "Only the newest {n} are listed."},
    "mine.when": {"zh": "时间", "en": "When"},
    "mine.case": {"zh": "题目", "en": "Item"},
    "mine.choice": {"zh": "选择", "en": "Choice"},
    "mine.time": {"zh": "用时", "en": "Time"},
    "page.adjudicate": {"zh": "裁定", "en": "Adjudicate"},
    "adjudicate.empty": {
        "zh": "现在没有需要裁定的题目。",
        "en": "There is nothing to adjudicate now.",
    },
    "adjudicate.empty_more": {
        "zh": "两位以上医生意见相反的题目会出现在这里。",
        "en": "Items on which two or more physicians contradict each other appear here.",
    },
    "adjudicate.votes": {"zh": "已有的不同意见", "en": "The opinions so far"},
    "adjudicate.rater": {"zh": "医生 {number}", "en": "Physician {number}"},
    "adjudicate.no_reason": {"zh": "没有写理由", "en": "no reason given"},
    "adjudicate.about": {
        "zh": "姓名不显示；您的裁定代替这些意见计入结果，原来的投票保留。",
        "en": "Names are hidden; your verdict counts in their place, and the votes themselves stay.",
    },
    "adjudicate.submit": {"zh": "裁定，下一题", "en": "Decide and next"},
}
