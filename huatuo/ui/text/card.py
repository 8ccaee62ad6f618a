"""words of the card of a case that a physician plays, on the compare page."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "card.title": {"zh": "病例卡", "en": "Case card"},
    "card.how": {
        "zh": "请您扮演这位患者：从第一行说起，助手问到什么就答什么，卡上没有的可以说不清楚。",
        "en": "Please play this patient: begin with the first line, answer what is asked, and say that you do not know "
        "what is not on the card.",
    },
    "card.truth": {
        "zh": "原病例医生的结论（不要告诉助手）",
        "en": "What the case's own doctor found (not for the assistants)",
    },
    "card.use": {
        "zh": "按病例卡提问，这一对计入该研究",
        "en": "Ask by the case card; this pair counts in its study",
    },
}
