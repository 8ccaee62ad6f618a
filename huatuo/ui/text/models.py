"""words of the models page."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "models.title": {"zh": "模型", "en": "Models"},
    "models.intro": {
        "zh": "论文中比较的各个系统：能否使用、许可范围、如何获取。用于医院研究之前，请先看清许可。",
        "en": "The systems that the paper compares: which are ready, what their licences allow and how to get them. Read the licence before a hospital's study.",
    },
    "models.which": {"zh": "可用的模型", "en": "Models that are ready"},
    "models.ask": {"zh": "提一个测试问题", "en": "Ask a test question"},
    "models.pace": {
        "zh": "首字 {first} 秒，每秒约 {pace} 个字",
        "en": "first words after {first} s, about {pace} characters a second",
    },
    "models.ready": {"zh": "可用", "en": "ready"},
    "models.loading": {"zh": "准备中", "en": "loading"},
    "models.down": {"zh": "不可用", "en": "down"},
    "models.off": {"zh": "未启用", "en": "off"},
    "models.broken": {"zh": "文件有误", "en": "broken file"},
    "models.lacks_key": {"zh": "缺密钥", "en": "lacks its key"},
    "models.lacks_weights": {"zh": "缺权重", "en": "lacks weights"},
    "models.use_yes": {"zh": "可用于医院研究", "en": "may be used in a hospital's study"},
    "models.use_research": {
        "zh": "仅限研究，不可商用",
        "en": "research only, no commercial use",
    },
    "models.use_ask": {
        "zh": "用于医院研究前须征得同意",
        "en": "ask its makers before a hospital's study",
    },
    "models.use_no": {"zh": "不可用于医院研究", "en": "not for a hospital's study"},
    "models.use_unknown": {"zh": "许可未知", "en": "use in a study not known"},
    "models.no_licence": {"zh": "没有写明许可证", "en": "no licence named"},
    "models.size": {"zh": "权重", "en": "On disk"},
    "models.memory": {"zh": "约需内存", "en": "In memory, about"},
    "models.source": {"zh": "来源", "en": "Source"},
    "models.get": {"zh": "获取命令", "en": "Command to get it"},
    "models.question": {
        "zh": "你好，我头痛三天了，该怎么办？",
        "en": "Hello, I have had a headache for three days. What should I do?",
    },
    "admin.studies": {"zh": "研究", "en": "Studies"},
    "admin.pairs": {"zh": "题目", "en": "Pairs"},
    "admin.audit": {"zh": "审计记录", "en": "Audit record"},
    "admin.audit_ok": {
        "zh": "完整：{rows} 行，最后的校验值 {hash}。",
        "en": "Intact: {rows} rows, last hash {hash}.",
    },
}
