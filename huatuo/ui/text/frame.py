"""words of the frame of every page."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "app.name": {"zh": "华佗 · 评审", "en": "Huatuo Review"},
    "page.chat": {"zh": "问诊", "en": "Chat"},
    "page.compare": {"zh": "对比", "en": "Compare"},
    "page.review": {"zh": "评审", "en": "Review"},
    "page.results": {"zh": "结果", "en": "Results"},
    "page.models": {"zh": "模型", "en": "Models"},
    "page.admin": {"zh": "管理", "en": "Admin"},
    "frame.pages": {"zh": "页面", "en": "Pages"},
    "frame.menu": {"zh": "菜单", "en": "Menu"},
    "frame.language": {"zh": "EN", "en": "中文"},
    "frame.language_label": {"zh": "Switch to English", "en": "切换到中文"},
    "frame.theme": {"zh": "切换深色或浅色", "en": "Switch dark or light"},
    "frame.sign_in": {"zh": "登录", "en": "Sign in"},
    "frame.sign_out": {"zh": "退出", "en": "Sign out"},
    "frame.account": {"zh": "账户", "en": "Account"},
    "frame.note": {"zh": "提示", "en": "Note"},
    "frame.attention": {"zh": "请注意", "en": "Please note"},
    "frame.skip": {"zh": "跳到正文", "en": "Skip to content"},
    "notice.limits": {
        "zh": "研究用工具，不是医生；回答由人工智能生成，可能有误。急症请立即拨打 120 或就近急诊。",
        "en": "A research tool, not a doctor; answers are AI-generated and may be wrong. In an emergency call 120 (China) or your local number.",
    },
    "notice.demonstration": {
        "zh": "演示模型 · {millions} 百万参数 · 内容不可作为医疗建议",
        "en": "Demonstration model · {millions} million parameters · not medical advice",
    },
    "notice.model": {"zh": "正在与 {title} 对话", "en": "You are talking to {title}"},
    "notice.red_flag": {"zh": "请先看这里", "en": "Please read this first"},
    "notice.masked": {
        "zh": "为保护隐私，已隐去您消息中的 {kinds}。",
        "en": "To protect privacy, we removed from your message: {kinds}.",
    },
}
