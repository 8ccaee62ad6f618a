"""words of the review page."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "review.title": {"zh": "评审", "en": "Review"},
    "review.study": {"zh": "研究", "en": "Study"},
    "review.minutes": {"zh": "约 {minutes} 分钟", "en": "about {minutes} min left"},
    "review.progress": {"zh": "已评 {done} / {total}", "en": "{done} of {total} rated"},
    "review.skipped": {"zh": "跳过 {skipped}", "en": "{skipped} skipped"},
    "review.case": {"zh": "病例", "en": "Case"},
    "review.empty": {
        "zh": "还没有要评审的题目。",
        "en": "There is nothing to review yet.",
    },
    "review.empty_more": {
        "zh": "管理员可以这样导入两份回答：python -m reviews.importer 甲.json 乙.json --study 名称",
        "en": "An administrator imports two answer files with: python -m reviews.importer A.json B.json --study NAME",
    },
    "review.done": {
        "zh": "这项研究您已全部评完，谢谢。",
        "en": "You have rated everything in this study. Thank you.",
    },
    "review.done_more": {
        "zh": "可以按“撤销”回看最后一题，或换一项研究。",
        "en": "Use Undo to look at the last item again, or choose another study.",
    },
    "review.closed": {
        "zh": "这项研究已经结束，谢谢。",
        "en": "This study has closed. Thank you.",
    },
    "review.closed_more": {
        "zh": "您的投票都已保存；“我的评审”页可以看到您与其他医生的一致程度。",
        "en": "Your votes are kept; “My work” shows your agreement with the others.",
    },
    "error.NotInvited": {
        "zh": "这项研究没有邀请您的账户，请换一项研究或联系研究者。",
        "en": "Your account is not invited to this study; choose another or ask the researcher.",
    },
    "review.revising": {
        "zh": "正在修改已提交的一题，原来的选择是“{choice}”。",
        "en": "You are revising a submitted item; your earlier choice was “{choice}”.",
    },
    "review.nothing_to_undo": {"zh": "没有可以撤销的题目。", "en": "There is nothing to undo."},
}
