"""words of the chat page."""

from huatuo.ui.text.language import Language, Words

WORDS: Words = {
    "chat.title": {"zh": "问诊", "en": "Chat"},
    "chat.welcome": {
        "zh": "请描述您的不适，或问一个健康问题。",
        "en": "Describe what troubles you, or ask a health question.",
    },
    "chat.welcome_more": {
        "zh": "这是随项目附带的小模型，用来展示对话与评审流程。请不要填写姓名、电话、证件号。",
        "en": "This small model ships with the project to show how conversations and reviews work. Please leave out names, phone and ID numbers.",
    },
    "chat.examples": {"zh": "可以这样问", "en": "You could ask"},
    "chat.you": {"zh": "您", "en": "You"},
    "chat.assistant": {"zh": "华佗", "en": "Huatuo"},
    "chat.input": {"zh": "您的问题", "en": "Your question"},
    "chat.placeholder": {
        "zh": "描述症状、持续时间、已用药物…",
        "en": "Symptoms, how long, medicines taken…",
    },
    "chat.send": {"zh": "发送", "en": "Send"},
    "chat.stop": {"zh": "停止", "en": "Stop"},
    "chat.regenerate": {"zh": "重答", "en": "Regenerate"},
    "chat.new": {"zh": "新对话", "en": "New chat"},
    "chat.helpful": {"zh": "有帮助", "en": "Helpful"},
    "chat.unhelpful": {"zh": "没有帮助", "en": "Not helpful"},
    "chat.thanks": {"zh": "已记录您的评价。", "en": "Your rating is recorded."},
    "chat.loading": {
        "zh": "模型正在准备，请稍候…",
        "en": "The model is getting ready, one moment…",
    },
    "chat.dropped": {
        "zh": "对话较长，最早的 {turns} 条没有再交给模型；页面上仍然完整。",
        "en": "The conversation is long: its {turns} oldest messages were not given to the model; the page still shows all.",
    },
    "answer.cancelled": {
        "zh": "已停止，回答不完整。",
        "en": "Stopped; this answer is not complete.",
    },
    "answer.length": {
        "zh": "回答到达长度上限，没有写完。",
        "en": "The answer reached the length limit and is not complete.",
    },
    "answer.error": {
        "zh": "回答没有写完：{why}您的问题已保存，可以按“重答”再试。",
        "en": "The answer was not finished: {why} Your question is saved; press Regenerate to try again.",
    },
    "answer.thinking": {"zh": "正在写", "en": "writing"},
}

# Questions a visitor may start with: six departments, complete and incomplete openers.
EXAMPLES: dict[Language, tuple[str, ...]] = {
    "zh": (
        "我头疼三天了，早上更重",
        "最近总是胃疼反酸，吃完饭更明显",
        "孩子发烧39度，咳嗽两天，怎么办？",
        "膝盖疼，上下楼更厉害，要做什么检查？",
        "晚上老是睡不着，心里烦",
        "身上起红疙瘩，很痒，吃什么药？",
    ),
    "en": (
        "I have knee pain",
        "I have a fever. What should I do?",
        "I have trouble sleeping.",
        "I have a toothache.",
        "I have diarrhea.",
        "I have an itchy rash.",
    ),
}
