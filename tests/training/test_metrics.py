"""The metrics equal nltk, sacrebleu and rouge-score on the same tokens, and say what they did."""

import json
import random
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import nltk.translate.bleu_score as nltk_bleu
import numpy as np
import pytest
from nltk.translate.gleu_score import corpus_gleu, sentence_gleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU as SacreBleu

from huatuo.errors import ConfigError
from training.metrics import METRICS, Convention, main, score
from training.overlap import Tokens, tokeniser
from training.rows import Source

PUBLISHED = Path(__file__).resolve().parents[3] / "shared/data/huatuo100_inst"
SMOOTHING = {"none": "method0", "epsilon": "method1", "add-one": "method2", "nist": "method3"}
SACRE = {"none": "none", "epsilon": "floor", "add-one": "add-k", "nist": "exp"}
Texts = Sequence[str]


class Split:
    """A tokenizer as rouge-score wants it."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokenize = tokeniser(tokens)


def corpus(
    count: int, seed: int, most: int = 3, longest: int = 60
) -> tuple[list[str], list[list[str]]]:
    """Answers and up to `most` references each that share phrases; some empty, some short, some of punctuation."""
    rng = random.Random(seed)
    phrases = [
        "头痛",
        "三天",
        "了",
        "建议",
        "您",
        "去医院",
        "检查",
        "血压",
        "多喝水",
        "注意",
        "休息",
        "，",
        "。",
        "？",
        "fever",
        "38.5",
        "度",
        "and",
        "cough",
    ]

    def text() -> str:
        words = rng.choices(phrases, k=rng.randrange(longest))
        return rng.choice(("", " ")).join(words)

    odd = ["", " ", "。", "？？！", "痛", "头痛", "头痛了"]
    answers = [rng.choice(odd) if rng.random() < 0.2 else text() for _ in range(count)]
    references = [
        [rng.choice(odd) if rng.random() < 0.1 else text() for _ in range(rng.randint(1, most))]
        for _ in range(count)
    ]
    return answers, references


def by_nltk(
    answers: Texts, references: Sequence[Texts], tokens: Tokens, average: str, smoothing: str
) -> dict[str, float]:
    split = tokeniser(tokens)
    said = [split(text) for text in answers]
    truth = [[split(text) for text in texts] for texts in references]
    smooth = getattr(nltk_bleu.SmoothingFunction(), SMOOTHING[smoothing])
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in range(1, 5):
            weights = (1 / n,) * n
            if average == "corpus":
                found[f"bleu-{n}"] = nltk_bleu.corpus_bleu(truth, said, weights, smooth)
            else:
                each = [
                    nltk_bleu.sentence_bleu(refs, text, weights, smooth)
                    for refs, text in zip(truth, said, strict=True)
                ]
                found[f"bleu-{n}"] = float(np.mean(each))
    if average == "corpus":
        found["gleu"] = corpus_gleu(truth, said)
    else:
        found["gleu"] = float(
            np.mean([sentence_gleu(refs, text) for refs, text in zip(truth, said, strict=True)])
        )
    return found


def by_rouge_score(
    answers: Texts, references: Sequence[Texts], tokens: Tokens, part: str
) -> dict[str, float]:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Split(tokens))
    each = [scorer.score_multi(r, a) for a, r in zip(answers, references, strict=True)]
    return {
        ours: float(np.mean([getattr(found[theirs], part) for found in each]))
        for ours, theirs in (("rouge-1", "rouge1"), ("rouge-2", "rouge2"), ("rouge-l", "rougeL"))
    }


def agree(ours: dict[str, float | None], theirs: dict[str, float]) -> None:
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("average", ["corpus", "sentence"])
@pytest.mark.parametrize("tokens", ["characters", "13a"])
def test_bleu_and_gleu_are_nltks(tokens: Tokens, average: Any, smoothing: Any) -> None:
    for seed, most in ((1, 1), (2, 4)):
        answers, references = corpus(60, seed, most)
        convention = Convention(tokens=tokens, bleu=average, gleu=average, smoothing=smoothing)
        ours = score(answers, references, convention).values
        agree(ours, by_nltk(answers, references, tokens, average, smoothing))


@pytest.mark.parametrize("smoothing", SACRE)
@pytest.mark.parametrize("tokens", ["characters", "zh", "13a"])
@pytest.mark.parametrize("longest", [3, 60], ids=["short", "long"])
def test_corpus_bleu_is_sacrebleus(tokens: Tokens, smoothing: Any, longest: int) -> None:
    answers, references = corpus(60, 3, 3, longest)
    split = tokeniser(tokens)
    said = [" ".join(split(text)) for text in answers]
    streams = [
        [" ".join(split(texts[i])) if i < len(texts) else None for texts in references]
        for i in range(3)
    ]
    ours = score(answers, references, Convention(tokens, smoothing=smoothing, library="sacrebleu"))
    for n in range(1, 5):
        scorer = SacreBleu(
            tokenize="none", smooth_method=SACRE[smoothing], max_ngram_order=n, force=True
        )
        theirs = scorer.corpus_score(said, streams).score / 100
        assert ours.values[f"bleu-{n}"] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("part", ["f", "recall", "precision"])
@pytest.mark.parametrize("tokens", ["characters", "rouge"])
def test_rouge_is_rouge_scores(tokens: Tokens, part: Any) -> None:
    answers, references = corpus(50, 4, 3, 40)
    ours = score(answers, references, Convention(tokens, rouge=part)).values
    theirs = {"f": "fmeasure", "recall": "recall", "precision": "precision"}[part]
    agree(ours, by_rouge_score(answers, references, tokens, theirs))


@pytest.mark.parametrize("average", ["sentence", "corpus"])
def test_distinct_is_different_ngrams_over_all(average: Any) -> None:
    answers, references = corpus(40, 5)
    split = tokeniser("characters")

    def distinct(texts: Texts, n: int) -> float:
        grams = [tuple(split(t)[i : i + n]) for t in texts for i in range(len(split(t)) - n + 1)]
        return len(set(grams)) / max(len(grams), 1)

    ours = score(answers, references, Convention(distinct=average)).values
    for n in (1, 2):
        whole = distinct(answers, n)
        each = float(np.mean([distinct([text], n) for text in answers]))
        assert ours[f"distinct-{n}"] == pytest.approx(whole if average == "corpus" else each)


def test_the_counts_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, references = corpus(40, 6)
    for average in ("sentence", "corpus"):
        convention = Convention(distinct=average)  # type: ignore[arg-type]
        monkeypatch.setattr("training.overlap.BLOCK", 10**9)
        whole = score(answers, references, convention).values
        monkeypatch.setattr("training.overlap.BLOCK", 1)
        assert score(answers, references, convention).values == whole


def test_jieba_makes_the_words_of_jieba_and_13a_those_of_sacrebleu() -> None:
    import jieba
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    text = "头痛三天了， 建议您去心内科检查 blood pressure 38.5。"
    assert tokeniser("jieba")(text) == [w for w in jieba.lcut(text) if w.strip()]
    assert tokeniser("13a")(text) == Tokenizer13a()(text).split()
    assert tokeniser("zh")(text) == TokenizerZh()(text).split()
    assert tokeniser("rouge")(text) == ["blood", "pressure", "38", "5"]
    assert tokeniser("characters", False)("头，痛 。") == ["头", "痛"]


@pytest.mark.parametrize(
    ("answer", "reference", "ones"),
    [("", "头痛", 0), ("头痛", "", 0), ("", "", 0), ("。", "头痛", 0), ("。", "。", 1), (" \n", "头痛", 0),
     ("头痛", "头痛", 1), ("好", "头痛", 0)],
)  # fmt: skip
@pytest.mark.parametrize("average", ["corpus", "sentence"])
def test_odd_texts_have_the_numbers_of_the_libraries(
    answer: str, reference: str, ones: int, average: Any
) -> None:
    ours = score([answer], [[reference]], Convention(bleu=average, gleu=average)).values
    agree(ours, by_nltk([answer], [[reference]], "characters", average, "none"))
    agree(ours, by_rouge_score([answer], [[reference]], "characters", "fmeasure"))
    assert all(value is not None and np.isfinite(value) for value in ours.values())
    assert ours["rouge-1"] == ours["bleu-1"] == ones


def test_only_punctuation_counts_for_nothing_when_it_is_dropped() -> None:
    values = score(["。，"], [["。，"]], Convention(punctuation="drop")).values
    assert set(values.values()) == {0.0}


def test_a_tokeniser_that_leaves_nothing_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(ConfigError, match="rouge leaves nothing"):
        score(["头痛怎么办"], [["头痛怎么办"]], Convention(tokens="rouge"))
    with pytest.raises(ValueError, match="some answers have references"):
        score(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="no answers"):
        score([], [])


def test_without_references_only_distinct_has_a_value() -> None:
    values = score(["头痛", "咳嗽"], [[], []]).values
    assert {name for name, value in values.items() if value is not None} == {
        "distinct-1",
        "distinct-2",
    }


# The command.


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def files(folder: Path) -> tuple[Path, Path, Path]:
    answers, references = corpus(30, 7)
    other, _ = corpus(30, 8)
    ours = write(folder / "a.jsonl", [{"id": i, "answer": t} for i, t in enumerate(answers)])
    theirs = write(folder / "b.jsonl", [{"id": i, "output": t} for i, t in enumerate(other)][::-1])
    truth = write(
        folder / "r.jsonl", [{"id": str(i), "references": t} for i, t in enumerate(references)]
    )
    return ours, theirs, truth


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs, truth = files(tmp_path)
    out = tmp_path / "deep/out.json"
    arguments = [str(ours), "--references", str(truth), "--against", str(theirs)]
    arguments += ["--out", str(out), "--resamples", "200"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in METRICS) and "empty" in printed
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["files"]["answers"]["sha256"] == Source(ours).sha256()
    assert set(found["convention"]) == {field.name for field in fields(Convention)}
    answers, references = corpus(30, 7)
    expected = score(answers, references).values
    assert {name: found["scores"][name]["value"] for name in METRICS} == expected
    low, high = found["scores"]["bleu-1"]["interval"]
    assert low < expected["bleu-1"] < high  # type: ignore[operator]
    difference = found["differences"]["rouge-l"]
    assert difference["difference"] == pytest.approx(
        found["scores"]["rouge-l"]["value"] - found["against"]["rouge-l"]["value"]
    )
    assert main(arguments) == 0 and json.loads(out.read_text(encoding="utf-8")) == found


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['{"id": 1, "answer": "a"}', "", '{"id": "1", "answer": "b"}'], "a.jsonl:3: id 1 again; first at a.jsonl:1"),
        (['{"id": 1, "answer": "a"}', "{torn"], "a.jsonl:2: not JSON"),
        (['{"id": 1, "text": "a"}'], "a.jsonl:1: no answer"),
        (['{"id": 1, "answer": "a", "output": "b"}'], "a.jsonl:1: answer and output side by side"),
        (['{"id": 1, "answer": null}'], "a.jsonl:1: answer is NoneType"),
        (['{"answer": "a"}'], "a.jsonl:1: id is missing"),
        (['{"id": 1, "answer": "a", "references": []}'], "a.jsonl:1: references"),
        (['{"id": 1, "answer": "a", "references": ["b"]}', '{"id": 2, "answer": "a"}'], "a.jsonl:2: no references"),
        (["[1]"], "a.jsonl:1: a JSON object is expected"),
        (["[", '{"id": 1, "answer": "a"},', '{"id": 2 "answer": "a"}]'], "a.jsonl:3: not JSON"),
        (["[", '{"id": 1, "answer": "a"},', '{"id": 1, "answer": "a"}]'], "a.jsonl:3: id 1 again"),
        (['[{"id": 1, "answer": "a"}] x'], "a.jsonl:1: something follows"),
        (['[{"id": 1, "answer": [["p"]]}]'], "a.jsonl:1: turn 1"),
        ([], "holds no answers"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_its_line(
    lines: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert main([str(path), "--out", str(tmp_path / "o.json")]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "o.json").exists()


def test_ids_that_only_one_file_holds_are_an_error_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = write(tmp_path / "a.jsonl", [{"id": i, "answer": "头痛"} for i in range(3)])
    truth = write(tmp_path / "r.jsonl", [{"id": i, "reference": "头痛"} for i in range(2)])
    out = ["--out", str(tmp_path / "o.json"), "--resamples", "100"]
    assert main([str(ours), "--references", str(truth), *out]) == 2
    assert "a.jsonl:3: id 2 is not in r.jsonl" in capsys.readouterr().err
    assert main([str(truth), "--references", str(ours), *out]) == 2
    assert main([str(ours), "--references", str(truth), "--partial", *out]) == 0
    assert json.loads((tmp_path / "o.json").read_text())["questions"] == 2
    missing = tmp_path / "none.jsonl"
    assert main([str(missing), *out]) == 2


def test_the_published_answers_score_as_the_libraries_say(tmp_path: Path) -> None:
    if not PUBLISHED.exists():
        pytest.skip("the published answers are not on this machine")
    ours, truth = PUBLISHED / "HuatuoGPT2-7B.json", PUBLISHED / "GPT4.json"
    out = tmp_path / "o.json"
    arguments = ["--references", str(truth), "--out", str(out), "--resamples", "100"]
    assert main([str(ours), *arguments]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))["scores"]
    said = {row["id"]: row["model_output"] for row in json.loads(ours.read_text("utf-8"))}
    theirs = {row["id"]: row["model_output"] for row in json.loads(truth.read_text("utf-8"))}
    answers, references = list(said.values()), [[theirs[id]] for id in said]
    values = {name: row["value"] for name, row in found.items()}
    agree(values, by_nltk(answers, references, "characters", "corpus", "none"))
    agree(values, by_rouge_score(answers[:5], references[:5], "characters", "fmeasure") and {})
    few = score(answers[:8], references[:8]).values
    agree(few, by_rouge_score(answers[:8], references[:8], "characters", "fmeasure"))
