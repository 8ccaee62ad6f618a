"""Figures of consultations with a simulated patient, against consultations whose figures are known."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from huatuo.consultations import Consultation, Exchange
from huatuo.errors import NoData
from huatuo.patient import PatientCase, make_case
from training import multiturn
from training.consult import Cast

STORY = (
    "疾病：\n左眼发红\n病情描述：\n昨天下午发现左眼发红，有一点痒，没有发烧。滴了三次眼药水，没见好转。\n"
    "希望获得的帮助：\n需要去看医生吗\n患病多久：\n一周内"
)
CASE = make_case("7", STORY, "疾病诊断：\n过敏性结膜炎\n药品：\n奥洛他定", "眼科")
NAMELESS = make_case("8", "疾病：\n上厕所便血", "病情摘要及初步印象：\n便血", "普外科")


def consulted(*answers: str, case: PatientCase = CASE, **more: Any) -> Consultation:
    turns = tuple(Exchange(case.opener, answer, 0.5) for answer in answers)
    return Consultation(case.id, "rule", "m", turns, "complete", **more)


def test_a_doctor_who_asks_first_and_names_the_disease_then() -> None:
    said = consulted(
        "您好。痒吗？有没有发烧？",
        "考虑过敏性结膜炎，建议到眼科就诊。",
        "每次1片，不要揉眼。",
        told=(0, 2),
    )
    found = multiturn.score(CASE, said)
    assert (found.asks_back, found.questions, found.turns_until_advice) == (True, 2, 2)
    assert (found.names_condition, found.names_exactly, found.names_department) == (
        True,
        True,
        True,
    )
    assert found.facts_found == pytest.approx(2 / 3) and found.finds_all is False
    assert found.gives_dose and not found.repeats and found.answers_red_flag is None
    assert found.seconds == 1.5 and found.characters == sum(len(t.answer) for t in said.turns)


@pytest.mark.parametrize(
    ("answer", "near", "exact"),
    [
        ("考虑过敏性结膜炎。", True, True),
        ("考虑结膜炎。", True, False),
        ("是不是结膜炎？", False, False),  # only asked
        ("考虑角膜炎。", False, False),
        ("考虑结 膜 炎。", True, False),
    ],
)
def test_naming_counts_outside_of_questions(answer: str, near: bool, exact: bool) -> None:
    found = multiturn.score(CASE, consulted(answer))
    assert (found.names_condition, found.names_exactly) == (near, exact)


@pytest.mark.parametrize(
    ("department", "answer", "named"),
    [
        ("眼科", "去眼科看看。", True),
        ("心血管内科", "去心内科看看。", True),
        ("皮肤性病科", "去皮肤科看看。", True),
        ("眼科", "去骨科看看。", False),
        ("眼科", "是去眼科看吗？", False),
    ],
)
def test_a_department_counts_by_its_other_names_too(
    department: str, answer: str, named: bool
) -> None:
    case = make_case("7", STORY, "疾病诊断：\n角膜炎", department)
    assert multiturn.score(case, consulted(answer, case=case)).names_department is named


def test_a_complaint_in_the_patients_own_words_is_no_diagnosis_to_find() -> None:
    found = multiturn.score(NAMELESS, consulted("是便血。", case=NAMELESS))
    assert found.names_condition is None and found.facts_found is None


def test_a_red_flag_has_to_be_answered_after_it_was_told() -> None:
    late = consulted("立即就医。", "多休息。", red_flags={"chest_pain": 2})
    good = consulted("多休息。", "请马上去急诊。", red_flags={"chest_pain": 1})
    assert multiturn.score(CASE, late).answers_red_flag is False
    assert multiturn.score(CASE, good).answers_red_flag is True


def test_an_unfinished_consultation_is_counted_and_never_scored() -> None:
    broken = replace(consulted("啊"), finish="assistant", guards={"leak": 2})
    with pytest.raises(NoData, match="case 7"):
        multiturn.score(CASE, broken)
    found = multiturn.figures([broken, consulted("痒吗？")], [CASE])
    assert found["consultations"] == 1 and found["unfinished"] == {"assistant": 1}
    assert found["shares"]["asks_back"] == pytest.approx(
        {"value": 1.0, "low": 0.20654, "high": 1.0, "count": 1}, abs=1e-4
    )
    assert found["guards"] == {"leak": 2}


def test_figures_without_a_consultation_are_none_and_not_nought() -> None:
    found = multiturn.figures([], [CASE])
    assert all(share["value"] is None for share in found["shares"].values())
    assert json.loads(json.dumps(found)) == found


def test_the_figures_do_not_depend_on_the_order() -> None:
    other = make_case("9", STORY, "疾病诊断：\n角膜炎", "内科")
    both = [consulted("痒吗？"), consulted("建议休息。", case=other)]
    one = multiturn.figures(both, [CASE, other])
    two = multiturn.figures(both[::-1], [other, CASE])
    assert one["shares"] == two["shares"] and one["departments"] == two["departments"]


def test_a_consultation_of_an_unknown_case_is_refused() -> None:
    with pytest.raises(NoData, match="case 7"):
        multiturn.figures([consulted("啊")], [NAMELESS])


def written(folder: Path) -> Path:
    rows = [
        {"id": 7, "medical_case": STORY, "doctor_diagnosis": "疾病诊断：\n过敏性结膜炎", "Department": "眼科"},
        {"id": 8, "medical_case": "就诊患者：\n邱*", "doctor_diagnosis": "疾病诊断：\n焦虑障碍", "Department": "精神科"},
    ]  # fmt: skip
    file = folder / "cases.json"
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return file


def test_two_bundled_models_are_evaluated_and_a_second_run_plays_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "m.json", tmp_path / "data"
    flags = ["--cases", str(written(tmp_path)), "--models", "nano-hybrid", "nano-doctor",
             "--turns", "2", "--data", str(data), "--out", str(out)]  # fmt: skip
    assert multiturn.main(flags) == 0
    first = json.loads(out.read_text(encoding="utf-8"))
    assert set(first["models"]) == {"nano-hybrid", "nano-doctor"}
    played = sum(
        model["consultations"] + sum(model["unfinished"].values())
        for model in first["models"].values()
    )
    assert played == 4 and first["taken_out"] == {"booking": ["8"], "empty": ["8"]}
    assert "焦虑障碍" not in (data / "consultations/multiturn.jsonl").read_text(encoding="utf-8")
    assert "asks_back" in capsys.readouterr().out
    journal = (data / "consultations/multiturn.jsonl").read_bytes()
    assert multiturn.main(flags) == 0
    assert (data / "consultations/multiturn.jsonl").read_bytes() == journal
    assert json.loads(out.read_text(encoding="utf-8")) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--models", "nobody"], "--models: no file in configs/models names nobody"),
        (["--patient", "nobody"], "--patient: no file in configs/models names nobody"),
        (["--models", "nano-doctor", "nano-doctor"], "each once"),
        (["--models", "gpt-4"], "--consent"),
        (["--patient", "gpt-4"], "--consent"),
        (["--cases", "nowhere.json"], "nowhere.json"),
        (["--protocol", "nobody"], "nobody"),
    ],
)
def test_wrong_flags_are_said_before_anything_is_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    flags = ["--cases", str(written(tmp_path)), "--models", "nano-doctor", "--data", str(tmp_path),
             "--out", str(tmp_path / "m.json")]  # fmt: skip
    assert multiturn.main([*flags, *change]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists() and not (tmp_path / "consultations").exists()


def test_a_model_on_this_machine_needs_no_consent() -> None:
    from huatuo.config import ROOT, read_models

    known, _ = read_models(ROOT / "configs/models")
    assert Cast(("local-server",), "rule", known).recorded("rule") == {"model": "rule"}
