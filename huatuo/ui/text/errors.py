"""words for what went wrong."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "fault.Busy": {"zh": "模型现在很忙。", "en": "The model is busy."},
    "fault.Timeout": {"zh": "等待超时。", "en": "It took too long."},
    "fault.Truncated": {"zh": "中途断开。", "en": "It broke off half-way."},
    "fault.Refused": {"zh": "模型没有给出回答。", "en": "The model gave no answer."},
    "fault.Unavailable": {"zh": "模型暂时不可用。", "en": "The model is not available now."},
    "fault.NoConsent": {
        "zh": "这个模型在境外，未经同意不会发送。",
        "en": "The model is abroad; nothing was sent without a consent.",
    },
    "fault.other": {"zh": "发生了意外错误。", "en": "Something unexpected happened."},
    "error.Empty": {"zh": "请先写下内容。", "en": "Please write something first."},
    "error.TooLong": {
        "zh": "内容太长，最多 {limit} 个字，请精简后再发送；原文仍在输入框中。",
        "en": "That is too long: {limit} characters at most. Please shorten it; your text is still in the box.",
    },
    "error.Unreadable": {
        "zh": "内容里有无法识别的字符，请删去后重试。",
        "en": "The text holds unreadable characters; please remove them and try again.",
    },
    "error.TooFast": {
        "zh": "发送得太快了，请稍等一会儿再试。",
        "en": "That was too fast; please wait a moment and try again.",
    },
    "error.NotSignedIn": {
        "zh": "登录已失效，请重新登录；已提交的内容都已保存。",
        "en": "Your session has ended, please sign in again; everything submitted is saved.",
    },
    "error.Forbidden": {
        "zh": "您的账户没有这项权限。",
        "en": "Your account may not do this.",
    },
    "error.LockedOut": {
        "zh": "尝试次数过多，请稍后再试。",
        "en": "Too many attempts; please try again later.",
    },
    "error.StoreBusy": {
        "zh": "系统正忙，这一步没有保存，请再点一次。",
        "en": "The system is busy and this step was not saved; please click again.",
    },
    "error.StoreFull": {
        "zh": "磁盘已满，这一步没有保存。请联系管理员；之前的内容都在。",
        "en": "The disk is full and this step was not saved. Tell the administrator; everything before it is safe.",
    },
    "error.UnknownAssignment": {
        "zh": "没有找到这一题，请刷新页面。",
        "en": "This item was not found; please reload the page.",
    },
    "error.NotYours": {
        "zh": "没有找到这一题，请刷新页面。",
        "en": "This item was not found; please reload the page.",
    },
    "error.BadVote": {
        "zh": "这一票没有保存：请选四项之一，理由不超过 2000 字。",
        "en": "The vote was not saved: choose one of the four, with a reason of at most 2,000 characters.",
    },
    "error.Busy": {
        "zh": "上一个回答还没有写完。可以先按“停止”，再发送。",
        "en": "The last answer is still being written. Press Stop first, then send.",
    },
    "error.NameTaken": {
        "zh": "这个姓名或代号已有账户。",
        "en": "There is an account of this name already.",
    },
    "error.InputError": {
        "zh": "这段内容不能使用，请改一下再发送。",
        "en": "This cannot be used; please change it and send again.",
    },
    "error.NotFinished": {
        "zh": "两边的回答都完整后才能投票。",
        "en": "You can vote when both answers are complete.",
    },
    "error.AlreadyVoted": {
        "zh": "这一题已有不同的投票，原来的保留；要改请先按“撤销”。",
        "en": "A different vote is already recorded and stays; use Undo to change it.",
    },
    "error.AssignmentClosed": {
        "zh": "这一题已经结束，请看下一题。",
        "en": "This item is closed; please go on to the next.",
    },
    "error.Unavailable": {
        "zh": "现在没有可用的模型，请稍后再试或联系管理员。",
        "en": "No model is available now; please try later or tell the administrator.",
    },
    "error.unexpected": {
        "zh": "发生了意外错误（编号 {code}），这一步没有保存。请刷新后再试，或把编号告诉管理员。",
        "en": "Something unexpected happened (code {code}) and this step was not saved. Reload and try again, or give the code to the administrator.",
    },
}
