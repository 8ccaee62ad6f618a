"""words of the account page, and of signing in by a provider."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "account.sessions": {"zh": "登录的设备", "en": "Where you are signed in"},
    "account.sessions_help": {
        "zh": "不认识的设备请结束，再修改密码。",
        "en": "End what you do not recognise, then change your password.",
    },
    "account.seen": {"zh": "最近使用 {at}", "en": "last used {at}"},
    "account.somewhere": {"zh": "设备不详", "en": "unknown device"},
    "account.this": {"zh": "当前设备", "en": "this one"},
    "account.end": {"zh": "结束", "en": "End"},
    "account.everywhere": {"zh": "退出所有设备", "en": "Sign out everywhere"},
    "account.changed": {
        "zh": "密码已修改，其他设备上的登录都已退出。",
        "en": "The password is changed; you are signed out on all other devices.",
    },
    "account.ended": {"zh": "那台设备已退出。", "en": "That device is signed out."},
    "account.wrong": {
        "zh": "现在的密码不对，没有改动。",
        "en": "The present password is wrong; nothing was changed.",
    },
    "account.no_password": {
        "zh": "这个账户没有密码。需要密码时，请向管理员索取设置链接。",
        "en": "This account has no password. If you need one, ask an administrator for a link.",
    },
    "account.provider": {"zh": "用 {title} 登录", "en": "Sign in by {title}"},
    "account.link_help": {
        "zh": "关联后，可以用 {title} 的身份登录本账户。",
        "en": "Once linked, you can sign in to this account by {title}.",
    },
    "account.link": {"zh": "关联 {title}", "en": "Link {title}"},
    "account.linked_help": {
        "zh": "本账户已关联 {title}。",
        "en": "This account is linked to {title}.",
    },
    "account.unlink": {"zh": "解除关联", "en": "End the link"},
    "account.linked": {"zh": "已关联。", "en": "Linked."},
    "account.unlinked": {"zh": "已解除关联。", "en": "The link is ended."},
    "openid.go": {"zh": "用 {title} 登录", "en": "Sign in by {title}"},
    "openid.or": {"zh": "或", "en": "or"},
    "openid.leaving": {"zh": "正在前往 {title}", "en": "On the way to {title}"},
    "openid.failed": {"zh": "没有登录", "en": "Not signed in"},
    "openid.again": {"zh": "重新登录", "en": "Sign in again"},
    "openid.unreachable": {
        "zh": "{title} 现在没有应答，请稍后再试，或用密码登录。",
        "en": "{title} does not answer now. Try again later, or sign in by password.",
    },
    "openid.refused": {
        "zh": "您在 {title} 没有同意登录，没有任何改动。",
        "en": "You did not agree at {title}; nothing was changed.",
    },
    "openid.stale": {
        "zh": "这次登录已经过期，或已用过。请从本站重新开始。",
        "en": "This sign-in is too old or was used already. Please start again from here.",
    },
    "openid.doubtful": {
        "zh": "{title} 的回答没有通过核对，为安全起见没有登录。请告诉管理员。",
        "en": "The answer of {title} did not pass our checks, so you are not signed in. Please tell the administrator.",
    },
    "openid.unknown": {
        "zh": "您在 {title} 的身份还没有关联到这里的账户。请向管理员索取邀请链接，或用密码登录后在“账户”页关联。",
        "en": "Your identity at {title} is not linked to an account here. Ask an administrator for an invitation link, or sign in by password and link it on the page Account.",
    },
    "openid.taken": {
        "zh": "这个身份已关联到另一个账户，没有改动。",
        "en": "This identity is linked to another account; nothing was changed.",
    },
}
