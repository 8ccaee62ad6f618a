"""words of the results page; what the figures say stands in the report's files."""

from huatuo.ui.text.language import Words

WORDS: Words = {
    "results.title": {"zh": "结果", "en": "Results"},
    "results.all": {"zh": "全部", "en": "All"},
    "results.empty": {
        "zh": "还没有投票。医生在“对比”或“评审”页投票后，这里会显示结果。",
        "en": "No votes yet. Results appear here once physicians have voted on Compare or Review.",
    },
    "results.none_count": {
        "zh": "已有投票，但都不能计入：那里有回答说出了自己是哪个模型。导出里都在，并有标记。",
        "en": "There are votes, but none counts: each has an answer that said which model it is. The export has them, flagged.",
    },
    "results.counts": {
        "zh": "{raters} 位医生，{votes} 票，{comparisons} 组对比。",
        "en": "{raters} physicians, {votes} votes, {comparisons} comparisons.",
    },
    "results.report": {"zh": "下载报告（HTML，可打印）", "en": "Report (HTML, printable)"},
    "results.figures": {"zh": "各图数据（CSV，ZIP）", "en": "All figures (CSV, ZIP)"},
    "results.export": {"zh": "导出投票（ZIP）", "en": "Export votes (ZIP)"},
    "results.for_experts": {
        "zh": "以下供统计人员核对。",
        "en": "Below: for those who check the statistics.",
    },
    "results.everything": {"zh": "计算全部统计", "en": "Compute every figure"},
    "results.short": {
        "zh": "票数很多，这里先给出胜负与排名；一致性、安全标记、分项等请按下面的按钮。",
        "en": "With this many votes only the pairs and the ranking come at once; press the button for agreement, safety flags, criteria and the rest.",
    },
    "results.no_such_study": {
        "zh": "记录里没有这项研究。请回到结果页重新选择。",
        "en": "The record has no such study. Go back to the results page and choose again.",
    },
    # used by the admin page's tables as well
    "results.model": {"zh": "模型", "en": "Model"},
    "results.votes": {"zh": "票数", "en": "Votes"},
}
