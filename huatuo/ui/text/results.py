"""words of the results page."""

from huatuo.ui.text.language import Words

WORDS: Words = {
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
}
