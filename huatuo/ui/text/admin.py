"""words of the admin page."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "admin.title": {"zh": "管理", "en": "Admin"},
    "admin.accounts": {"zh": "账户", "en": "Accounts"},
    "admin.name": {"zh": "姓名或代号", "en": "Name or code"},
    "admin.role": {"zh": "角色", "en": "Role"},
    "admin.invite": {"zh": "生成一次性邀请链接", "en": "Make a one-time invitation link"},
    "admin.invited": {
        "zh": "请把这个链接交给 {name}（{role}），{hours} 小时内有效，只能用一次：",
        "en": "Give this link to {name} ({role}); it is valid for {hours} hours and works once:",
    },
    "admin.taken": {
        "zh": "已有名为 {name} 的账户，请换一个名字。",
        "en": "There is already an account named {name}; please choose another name.",
    },
    "admin.status": {"zh": "状态", "en": "Status"},
    "admin.active": {"zh": "有效", "en": "active"},
    "admin.disabled": {"zh": "已停用", "en": "disabled"},
    "admin.disable": {"zh": "停用账户（投票保留）", "en": "Disable account (votes stay)"},
    "admin.enable": {"zh": "恢复账户", "en": "Enable account"},
    "admin.choose_account": {"zh": "选择账户", "en": "Choose an account"},
    "admin.done_disabled": {
        "zh": "已停用 {name}，其投票保留。",
        "en": "{name} is disabled; the votes stay.",
    },
    "admin.done_enabled": {"zh": "已恢复 {name}。", "en": "{name} is enabled again."},
    "admin.models": {"zh": "模型", "en": "Models"},
    "admin.state": {"zh": "状态", "en": "State"},
    "admin.why": {"zh": "说明", "en": "Remark"},
    "admin.ready": {"zh": "可用", "en": "ready"},
    "admin.loading": {"zh": "准备中", "en": "loading"},
    "admin.down": {"zh": "不可用", "en": "down"},
    "admin.off": {"zh": "未启用", "en": "off"},
    "admin.off_why": {
        "zh": "要启用，请把它文件（configs/models 目录）里的 enabled 改为 true",
        "en": "to use it, set enabled = true in its file in configs/models",
    },
    "admin.lacks": {"zh": "未下载", "en": "not fetched"},
    "admin.lacks_why": {
        "zh": "下载命令见“模型”页",
        "en": "the command that fetches it stands on the page Models",
    },
}
