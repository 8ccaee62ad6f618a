"""words of signing in, invitations, the account; and what the shell says when it refuses."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "signin.title": {"zh": "登录", "en": "Sign in"},
    "signin.name": {"zh": "姓名或代号", "en": "Name or code"},
    "signin.password": {"zh": "密码", "en": "Password"},
    "signin.submit": {"zh": "登录", "en": "Sign in"},
    "signin.help": {
        "zh": "还没有账户，或忘记了密码？请向管理员索取邀请链接。",
        "en": "No account yet, or password forgotten? Ask an administrator for an invitation link.",
    },
    "signin.wrong": {
        "zh": "姓名或密码不对，请再试一次。",
        "en": "The name or the password is wrong; please try again.",
    },
    "signin.locked": {
        "zh": "密码错误次数过多，账户已暂时锁定，请 {minutes} 分钟后再试。",
        "en": "Too many wrong passwords; the account is locked for a while. Try again in {minutes} minutes.",
    },
    "signin.too_fast": {
        "zh": "这个网络地址的登录次数过多，请几分钟后再试。",
        "en": "Too many sign-ins from this network address; please try again in some minutes.",
    },
    "signin.welcome": {"zh": "欢迎", "en": "Welcome"},
    "signin.invited": {
        "zh": "{name}，您好。您受邀以“{role}”身份使用，请设置密码。",
        "en": "Hello {name}. You are invited as {role}; please choose a password.",
    },
    "signin.new": {"zh": "新密码", "en": "New password"},
    "signin.again": {"zh": "再输入一次", "en": "Once more"},
    "signin.old": {"zh": "现在的密码", "en": "Present password"},
    "signin.accept": {"zh": "设置密码并登录", "en": "Set password and sign in"},
    "signin.rule": {
        "zh": "至少 {shortest} 个字符，不含姓名，不用常见密码。一句话最好记，也最安全。",
        "en": "At least {shortest} characters, without your name, not a common password. A short sentence works best.",
    },
    "signin.differ": {"zh": "两次输入的密码不一样。", "en": "The two passwords differ."},
    "signin.problem_short": {
        "zh": "密码太短，至少 {shortest} 个字符。",
        "en": "The password is too short: at least {shortest} characters.",
    },
    "signin.problem_long": {
        "zh": "密码太长，最多 128 个字符。",
        "en": "The password is too long: at most 128 characters.",
    },
    "signin.problem_name": {
        "zh": "密码里不要包含姓名或代号。",
        "en": "The password must not contain your name.",
    },
    "signin.problem_common": {
        "zh": "这个密码太容易被猜到，请换一个。",
        "en": "This password is guessed too easily; please choose another.",
    },
    "signin.change": {"zh": "修改密码", "en": "Change password"},
    "signin.reset_title": {"zh": "设置新密码", "en": "A new password"},
    "signin.reset": {
        "zh": "{name}，您好。请设置新密码；设好后，其他设备上的登录都会退出。",
        "en": "Hello {name}. Please choose a new password; you will be signed out on all other devices.",
    },
    "signin.used_title": {"zh": "链接已失效", "en": "This link no longer works"},
    "signin.used": {
        "zh": "这个链接只能用一次，而且有期限。请向管理员索取新的链接。",
        "en": "This link works once and for a limited time. Please ask an administrator for a new one.",
    },
    "web.home": {"zh": "回到首页", "en": "To the first page"},
    "web.go_on": {"zh": "继续", "en": "Continue"},
    "web.no_script": {
        "zh": "这个页面需要浏览器启用 JavaScript。",
        "en": "This page needs JavaScript to be enabled in the browser.",
    },
    "web.error.title": {"zh": "这一步没有完成", "en": "This step was not completed"},
    "web.error": {
        "zh": "请求没有被接受，没有保存任何改动。请返回后重试。",
        "en": "The request was not accepted and nothing was changed. Please go back and try again.",
    },
    "web.401.title": {"zh": "请先登录", "en": "Please sign in"},
    "web.401": {"zh": "这个页面需要登录。", "en": "This page needs you to sign in."},
    "web.403.title": {"zh": "没有权限", "en": "Not allowed"},
    "web.403": {
        "zh": "您的账户没有这个页面的权限；如有需要，请联系管理员。",
        "en": "Your account may not open this page; ask an administrator if you need it.",
    },
    "web.404.title": {"zh": "没有这个页面", "en": "No such page"},
    "web.404": {
        "zh": "地址可能有误，或页面已移走。",
        "en": "The address may be wrong, or the page has moved.",
    },
    "web.413": {
        "zh": "发送的内容太大，没有保存。请精简后再试。",
        "en": "What was sent is too large and was not saved. Please shorten it and try again.",
    },
    "web.421": {
        "zh": "这个地址没有列在 configs/app.toml 的 allowed_hosts 或 public_url 中。",
        "en": "This address is not listed under allowed_hosts or public_url in configs/app.toml.",
    },
    "web.429": {
        "zh": "请求太频繁，请稍等一分钟再试。",
        "en": "Too many requests; please wait a minute.",
    },
    "web.500.title": {"zh": "出了意外", "en": "Something unexpected happened"},
    "web.500": {
        "zh": "这一步没有保存，之前的内容都在。请刷新后再试，或把下面的编号告诉管理员。",
        "en": "This step was not saved; everything before it is safe. Reload and try again, or give the code below to the administrator.",
    },
    "web.503": {
        "zh": "系统正忙，没有保存任何改动。请稍后再试。",
        "en": "The system is busy and nothing was changed. Please try again shortly.",
    },
    "admin.audit_broken": {
        "zh": "不完整，导出已停用：{why}",
        "en": "Broken, exports are refused: {why}",
    },
    "role.visitor": {"zh": "访客", "en": "visitor"},
    "role.physician": {"zh": "医生", "en": "physician"},
    "role.adjudicator": {"zh": "仲裁医生", "en": "adjudicator"},
    "role.researcher": {"zh": "研究者", "en": "researcher"},
    "role.admin": {"zh": "管理员", "en": "administrator"},
}
