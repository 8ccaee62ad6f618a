"""Letters are read by one strict rule, and accuracies are counts with Wilson intervals."""

import math

import pytest

from training.benchmark_layouts import Item
from training.choice import Marked, letters_of, paired, prompt_of, tally

OPTIONS = dict(zip("ABCDE", "甲乙丙丁戊", strict=True))


@pytest.mark.parametrize(
    ("said", "letters"),
    [
        ("B", "B"), ("b", "B"), ("（B）。", "B"), ("Ｂ", "B"), ("【E】", "E"), ("A、C", "AC"), ("ACD", "ACD"), ("C,A", "AC"),
        ("答案是B", "B"), ("正确答案：A和C", "AC"), ("因为咳嗽，所以应选D。", "D"), ("故本题选择B项", "B"),
        ("The answer is B.", "B"), ("answer: A, C and D", "ACD"), ("选项A错误，答案为C", "C"),
        ("答案为C。选项A错误", "C"), ("先想答案是A，不对，答案是B", "B"),
        ("B. 肺炎，因为发热", "B"),
        ("", None), ("。", None), ("不知道", None), ("维生素C缺乏", None), ("A. 甲\nB. 乙", None), ("F", None),
        ("the answer is a disease", None), ("Answer: Aspirin", None), ("建议选择CT检查", None), ("应选MRI", None),
        ("I think so", None), ("可选A", None), ("甲", None),
    ],
)  # fmt: skip
def test_letters_are_read_by_the_rule_and_by_nothing_else(said: str, letters: str | None) -> None:
    assert letters_of(said, OPTIONS) == letters


def test_the_prompt_says_the_kind_of_question_only_where_the_set_says_it() -> None:
    item = Item("1", "哪项正确？", options={"A": "甲", "B": "乙"}, answer="B")
    assert prompt_of(item) == "请回答下面选择题。\n哪项正确？\nA. 甲\nB. 乙"
    several = Item("2", "哪些？", options={"A": "甲", "B": "乙"}, answer="AB", several=True)
    assert "多项" in prompt_of(several)


def marked(*rows: tuple[str, str | None, bool], label: str = "内科") -> list[Marked]:
    return [
        Marked(Item(str(n), "?", (), label, OPTIONS, answer), letters, failed)
        for n, (answer, letters, failed) in enumerate(rows)
    ]


def test_unanswerable_is_wrong_and_a_failure_is_nothing() -> None:
    rows = marked(("A", "A", False), ("A", "B", False), ("A", None, False), ("A", None, True), ("AC", "A", False))  # fmt: skip
    found = tally(rows)
    counts = [found[k] for k in ("asked", "right", "wrong", "unanswerable", "failed", "of")]
    assert counts == [5, 1, 2, 1, 1, 4]
    assert found["accuracy"] == 0.25
    z = 1.959963984540054
    middle = (0.25 + z * z / 8) / (1 + z * z / 4)
    half = z * math.sqrt(0.25 * 0.75 / 4 + z * z / 64) / (1 + z * z / 4)
    assert found["interval"] == pytest.approx([middle - half, middle + half], abs=1e-9)
    assert found["by_subject"]["内科"]["right"] == 1
    nothing = tally(marked(("A", None, True)))
    assert nothing["accuracy"] is None and nothing["interval"] is None


def test_the_paired_test_is_the_exact_one_of_mcnemar() -> None:
    one = marked(*[("A", "A", False)] * 8, ("A", "B", False), ("A", "A", True))
    two = marked(*[("A", "B", False)] * 7, *[("A", "A", False)] * 3)
    found = paired(one, two, 500, 0)
    assert found is not None
    assert (found["only_first"], found["only_second"], found["items"]) == (7, 1, 9)
    assert found["p"] == pytest.approx(2 * (1 + 8) / 2**8)
    turned = paired(two, one, 500, 0)
    assert turned is not None and turned["difference"] == -found["difference"]
    assert paired(marked(("A", None, True)), marked(("A", "A", False)), 500, 0) is None
