"""words of two answers side by side, on the compare and the review page."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "duel.left": {"zh": "左", "en": "Left"},
    "duel.right": {"zh": "右", "en": "Right"},
    "duel.question": {"zh": "问题", "en": "Question"},
    "duel.pane_label": {"zh": "{side}边的回答", "en": "{side} answer"},
    "duel.tabs": {"zh": "选择要看的回答", "en": "Choose which answer to read"},
    "duel.choice": {"zh": "哪一边更好？", "en": "Which is better?"},
    "duel.vote_left": {"zh": "左边更好", "en": "Left is better"},
    "duel.vote_right": {"zh": "右边更好", "en": "Right is better"},
    "duel.vote_tie": {"zh": "相当", "en": "Equally good"},
    "duel.vote_both_bad": {"zh": "都不可用", "en": "Both unusable"},
    "duel.reason": {"zh": "理由（可选）", "en": "Reason (optional)"},
    "duel.reason_placeholder": {
        "zh": "例如：左边漏问了过敏史",
        "en": "For example: the left one did not ask about allergies",
    },
    "duel.submit": {"zh": "提交投票", "en": "Submit vote"},
    "duel.submit_next": {"zh": "提交，下一题", "en": "Submit and next"},
    "duel.next": {"zh": "下一对", "en": "Next pair"},
    "duel.skip": {"zh": "跳过", "en": "Skip"},
    "duel.undo": {"zh": "撤销", "en": "Undo"},
    "duel.report": {"zh": "报告问题", "en": "Report a problem"},
    "duel.choose_first": {
        "zh": "请先选择：左、右、相当或都不可用。",
        "en": "Choose first: left, right, equal or both unusable.",
    },
    "duel.recorded": {"zh": "已记录。", "en": "Recorded."},
    "duel.revised": {
        "zh": "已改为新的选择，原来的保留在审计记录中。",
        "en": "Changed; the earlier choice stays in the audit record.",
    },
    "duel.skipped": {"zh": "已跳过。", "en": "Skipped."},
    "duel.reported": {
        "zh": "已报告，这一题不再出现。谢谢。",
        "en": "Reported; this item will not come back. Thank you.",
    },
    "duel.broken": {
        "zh": "{side}边的回答没有写完。已记录，不影响您的评分；请重试或跳过。",
        "en": "The {side} answer was not finished. This is recorded and does not affect your ratings; retry or skip.",
    },
    "duel.keys": {
        "zh": "键盘：1–4 选择 · 回车 提交 · S 跳过",
        "en": "Keys: 1–4 choose · Enter submits · S skips",
    },
    "duel.keys_undo": {
        "zh": "键盘：1–4 选择 · 回车 提交 · S 跳过 · Z 撤销",
        "en": "Keys: 1–4 choose · Enter submits · S skips · Z undoes",
    },
    "compare.title": {"zh": "对比", "en": "Compare"},
    "compare.welcome": {
        "zh": "问一个问题，两位匿名助手会同时回答。",
        "en": "Ask one question; two anonymous assistants answer at the same time.",
    },
    "compare.welcome_more": {
        "zh": "可以接着追问，再对整段对话投票；投票后才显示名称。请不要填写患者的身份信息。",
        "en": "You may go on asking, then vote on the whole conversation; names appear only after the vote. Leave out anything that identifies a patient.",
    },
    "compare.placeholder": {"zh": "同一条消息会发给两边…", "en": "A message to both…"},
    "compare.retry": {"zh": "两边重试", "en": "Retry both"},
}
