"""every visible string of the app, in Chinese and in English, keyed by meaning."""

from typing import Literal

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")


def say(key: str, language: Language, **values: object) -> str:
    """The string named `key` in `language`, with `{name}` filled from `values`.

    Raises KeyError for an unknown key: a missing string is a fault of ours, seen by the tests.
    """
    text = TEXT[key][language]
    return text.format(**values) if values else text


# One line a key where it fits; Chinese first, because most readers are.
TEXT: dict[str, dict[Language, str]] = {
    # The frame of every page
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
    # Chat
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
    # Why an engine failed, in words for people
    "fault.Busy": {"zh": "模型现在很忙。", "en": "The model is busy."},
    "fault.Timeout": {"zh": "等待超时。", "en": "It took too long."},
    "fault.Truncated": {"zh": "中途断开。", "en": "It broke off half-way."},
    "fault.Refused": {"zh": "模型没有给出回答。", "en": "The model gave no answer."},
    "fault.Unavailable": {"zh": "模型暂时不可用。", "en": "The model is not available now."},
    "fault.other": {"zh": "发生了意外错误。", "en": "Something unexpected happened."},
    # Errors of what a person did
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
    # Compare and review: two answers side by side
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
    # Compare
    "compare.title": {"zh": "对比", "en": "Compare"},
    "compare.welcome": {
        "zh": "问一个问题，两位匿名助手会同时回答。",
        "en": "Ask one question; two anonymous assistants answer at the same time.",
    },
    "compare.welcome_more": {
        "zh": "可以接着追问，再对整段对话投票；投票后才显示名称。请不要填写患者的身份信息。",
        "en": "You may go on asking, then vote on the whole conversation; names appear only after the vote. Leave out anything that identifies a patient.",
    },
    "compare.placeholder": {"zh": "同一条消息会发给两边…", "en": "One message goes to both sides…"},
    "compare.retry": {"zh": "两边重试", "en": "Retry both"},
    # Review
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
    "review.revising": {
        "zh": "正在修改已提交的一题，原来的选择是“{choice}”。",
        "en": "You are revising a submitted item; your earlier choice was “{choice}”.",
    },
    "review.nothing_to_undo": {"zh": "没有可以撤销的题目。", "en": "There is nothing to undo."},
    # Results
    "results.title": {"zh": "结果", "en": "Results"},
    "results.all": {"zh": "全部", "en": "All"},
    "results.empty": {
        "zh": "还没有投票。医生在“对比”或“评审”页投票后，这里会显示结果。",
        "en": "No votes yet. Results appear here once physicians have voted on Compare or Review.",
    },
    "results.sentence_settled": {
        "zh": "{a} 胜过 {b}：{win} 对 {loss}，平 {tie}（{n} 票）。在分出胜负的票中占比的 95 % 区间为 {low} 至 {high}：结论已稳定。",
        "en": "{a} beats {b}: {win} to {loss}, {tie} ties ({n} votes). Share of the decided votes, 95 % interval: {low} to {high}. Settled.",
    },
    "results.sentence_open": {
        "zh": "{a} 与 {b} 尚分不出高下：{win} 对 {loss}，平 {tie}（{n} 票）。在分出胜负的票中占比的 95 % 区间为 {low} 至 {high}。{more}",
        "en": "{a} and {b} cannot be told apart yet: {win} to {loss}, {tie} ties ({n} votes). Share of the decided votes, 95 % interval: {low} to {high}. {more}",
    },
    "results.more_votes": {
        "zh": "按现在的差距，大约还需 {votes} 票。",
        "en": "At the present gap about {votes} more votes are needed.",
    },
    "results.too_few": {
        "zh": "票数还太少，满 {least} 票后再估计还需多少。",
        "en": "Too few votes to say how many are needed; an estimate comes at {least}.",
    },
    "results.bars": {"zh": "两两对比：胜 / 平 / 负", "en": "Pairs: win / tie / loss"},
    "results.win": {"zh": "胜", "en": "win"},
    "results.tie": {"zh": "平", "en": "tie"},
    "results.loss": {"zh": "负", "en": "loss"},
    "results.both_bad": {"zh": "都不可用", "en": "both unusable"},
    "results.votes": {"zh": "票数", "en": "Votes"},
    "results.share": {"zh": "胜率的 95 % 区间", "en": "95 % interval of wins"},
    "results.ranking": {
        "zh": "排名（Bradley–Terry–Davidson，95 % 区间）",
        "en": "Ranking (Bradley–Terry–Davidson, 95 % intervals)",
    },
    "results.model": {"zh": "模型", "en": "Model"},
    "results.against": {"zh": "对手", "en": "against"},
    "results.strength": {"zh": "强度（对数）", "en": "Strength (log)"},
    "results.interval": {"zh": "95 % 区间", "en": "95 % interval"},
    "results.side": {
        "zh": "位置效应（左边的优势）：{beta}，95 % 区间 {low} 至 {high}。",
        "en": "Position effect (advantage of the left side): {beta}, 95 % interval {low} to {high}.",
    },
    "results.raters": {
        "zh": "{raters} 位医生，{votes} 票，{cases} 个题目。",
        "en": "{raters} physicians, {votes} votes, {cases} cases.",
    },
    "results.left_out": {
        "zh": "另有 {votes} 票没有计入：那里有回答说出了自己是哪个模型。导出里都在，并有标记。",
        "en": "{votes} more votes are left out: there an answer said which model it is. The export has them, flagged.",
    },
    "results.export": {"zh": "导出投票（ZIP）", "en": "Export votes (ZIP)"},
    "results.table": {"zh": "数据表", "en": "Table"},
    "results.rank": {"zh": "名次", "en": "Rank"},
    "results.note.few_raters": {
        "zh": "医生少于 5 位：区间按题目聚类，请谨慎解读。",
        "en": "Fewer than 5 physicians: intervals are clustered by case; read them with caution.",
    },
    "results.note.one_cluster": {
        "zh": "只有一组数据，区间仅供参考。",
        "en": "There is only one cluster of votes; the intervals are only a hint.",
    },
    "results.note.separated": {
        "zh": "有模型全胜或全败：强度由弱先验限定，区间偏宽。",
        "en": "Some model won or lost every time: its strength is held by a weak prior and the intervals are wide.",
    },
    "results.note.not_comparable": {
        "zh": "有几组模型之间还没有相互比较，分开排列，组间不能比较。",
        "en": "Some groups of models have not been compared with each other; they are ranked apart.",
    },
    "results.note.no_votes": {"zh": "还没有投票。", "en": "No votes yet."},
    # Admin
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
    # Models
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
    # Signing in, invitations, the account; and what the shell says when it refuses
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
        "zh": "密码错误次数过多，账户已暂时锁定，请 15 分钟后再试。",
        "en": "Too many wrong passwords; the account is locked for a while. Try again in 15 minutes.",
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
        "zh": "至少 10 个字符，不含姓名，不用常见密码。一句话最好记，也最安全。",
        "en": "At least 10 characters, without your name, not a common password. A short sentence works best.",
    },
    "signin.differ": {"zh": "两次输入的密码不一样。", "en": "The two passwords differ."},
    "signin.problem_short": {
        "zh": "密码太短，至少 10 个字符。",
        "en": "The password is too short: at least 10 characters.",
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
    "signin.changed": {
        "zh": "密码已修改，其他设备上的登录都已退出。",
        "en": "The password is changed; you are signed out on all other devices.",
    },
    "signin.used_title": {"zh": "链接已失效", "en": "This link no longer works"},
    "signin.used": {
        "zh": "邀请链接只能用一次，而且有期限。请向管理员索取新的链接。",
        "en": "An invitation works once and for a limited time. Please ask an administrator for a new one.",
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
    "role.researcher": {"zh": "研究者", "en": "researcher"},
    "role.admin": {"zh": "管理员", "en": "administrator"},
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
