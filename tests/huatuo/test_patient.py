"""Patient cases: what is read, what is taken out, and that the hidden truth stays apart."""

import json
from pathlib import Path
from typing import Any

import pytest

from huatuo.acting import RulePatient, questions
from huatuo.errors import BadCases
from huatuo.leaks import bare, leaks, names_of
from huatuo.messages import Message
from huatuo.patient import PatientCase, make_case, read_cases, without_transcript

SHARED = Path(__file__).resolve().parents[3] / "shared/data/Med-dialog_100.json"
STORY = (
    "疾病：\n左眼发红\n病情描述：\n昨天下午发现左眼发红，有一点痒，没有发烧。滴了三次眼药水，没见好转。\n"
    "希望获得的帮助：\n需要去门诊找医生看吗\n患病多久：\n一周内\n用药情况：过敏史：\n蚕豆病（2020-03-28填写）\n"
    "既往病史：\n无（2020-03-28填写）"
)
DOCTOR = (
    "病情摘要及初步印象：\n过敏性结膜炎\n总结建议：\n建议您使用托百士滴眼液，4次每日，间隔一小时。"
)


def case(story: str = STORY, doctor: str = DOCTOR, department: str = "眼科") -> PatientCase:
    return make_case("7", story, doctor, department)


def told(case: PatientCase) -> str:
    return "\n".join((case.opener, *(fact.text for fact in case.facts)))


def written(folder: Path, content: Any) -> Path:
    file = folder / "cases.json"
    raw = (
        content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
    )
    file.write_bytes(raw)
    return file


ITEM = {"id": 7, "medical_case": STORY, "doctor_diagnosis": DOCTOR, "Department": "眼科"}
OTHER = {
    "id": "x8",
    "Description": "疾病：\n咳嗽三天",
    "Diagnosis and suggestions": "疾病诊断：\n支气管炎\n药品：\n氨溴索",
    "Doctor faculty": "内科",
    "Real Dialogue": "医生：多喝水",
}


def test_both_published_layouts_are_read(tmp_path: Path) -> None:
    one, other = read_cases(written(tmp_path, [ITEM, OTHER]))
    assert (one.id, one.department, one.language) == ("7", "眼科", "zh")
    assert one.opener == "医生您好，左眼发红。"
    facts = {fact.key: fact.text for fact in one.facts}
    assert facts["duration"] == "大概不到一周。"
    assert facts["allergy"] == "过敏史：蚕豆病。"
    assert facts["history"] == "以前没有什么病。"
    assert "2020" not in told(one)
    assert [name.text for name in one.hidden.names] == ["过敏性结膜炎"]
    assert other.hidden.names[0].text == "支气管炎"
    assert other.hidden.dialogue == "医生：多喝水"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        ({}, "a JSON list"),
        ([], "a JSON list"),
        ([7], "item 1: an object"),
        ([ITEM, {**ITEM, "id": 8, "medical_case": 3}], "item 2: medical_case is not text"),
        ([{"id": 1}], "item 1: no medical_case"),
        ([{**ITEM, "medical_case": " \n"}], "item 1: medical_case: the message is empty"),
        (
            [{k: v for k, v in ITEM.items() if k != "doctor_diagnosis"}],
            "doctor_diagnosis is missing",
        ),
        ([{k: v for k, v in ITEM.items() if k != "Department"}], "Department is missing"),
        ([{**ITEM, "id": ""}], "item 1: id is missing"),
        ([{**ITEM, "id": True}], "item 1: id is missing"),
        ([{**ITEM, "id": [7]}], "item 1: id is missing"),
        ([ITEM, ITEM], "item 2: the id 7 stands here twice"),
        ([{**ITEM, "medical_case": "疼" * 20_001}], "20,001 characters"),
        ([{**ITEM, "medical_case": "疼\ud800"}], "unreadable character"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name_and_the_item(
    tmp_path: Path, content: Any, message: str
) -> None:
    if isinstance(
        content, list
    ):  # json.dumps writes a lone surrogate as an escape, as files have it
        content = json.dumps(content).encode()
    file = written(tmp_path, content)
    with pytest.raises(BadCases) as error:
        read_cases(file)
    assert message in str(error.value) and file.name in str(error.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BadCases, match=r"none\.json: cannot be read"):
        read_cases(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("咳嗽\nDialogue\n医生：\n考虑肺炎\n病人：\n谢谢", "咳嗽"),
        ("咳嗽\n医生给您发来一个提醒：\n请复诊", "咳嗽"),
        ("咳嗽\n医生：\n考虑肺炎\n病人：\n严重吗", "咳嗽"),
        ("咳嗽\n病人：严重吗\n医生：考虑肺炎", "咳嗽"),
        ("咳嗽三天。医生：多久了？病人：三天。", "咳嗽三天。"),
        ("I cough.\nPatient: is it bad?\nDoctor: pneumonia", "I cough."),
        ("预约医生：\n张三\n咳嗽", "预约医生：\n张三\n咳嗽"),
        ("医生：您好，我咳嗽", "医生：您好，我咳嗽"),  # a patient who addresses a doctor
        ("患者：男，咳嗽三天", "患者：男，咳嗽三天"),
        ("医生说是肺炎，医生也没说别的", "医生说是肺炎，医生也没说别的"),
    ],
)
def test_a_pasted_dialogue_is_cut_off_and_nothing_else(text: str, kept: str) -> None:
    assert without_transcript(text)[0] == kept


def test_a_transcript_goes_to_the_hidden_side_whole() -> None:
    found = case(
        STORY + "\n医生给您发来一个提醒：\nDialogue\n医生：\n应该去医院住院治疗\n病人：\n好的"
    )
    assert found.notes == ("transcript",)
    assert "住院" not in told(found) and "住院" in found.hidden.dialogue


@pytest.mark.parametrize(
    ("story", "doctor", "gone", "stays"),
    [
        ("疾病：\n双眼结膜炎\n病情描述：\n右眼有点红", DOCTOR, "结膜炎", "右眼有点红"),
        (
            "疾病：\n考虑急性 胰腺炎吗\n病情描述：\n上腹痛",
            "疾病诊断：\n急性胰腺炎",
            "胰腺炎",
            "上腹痛",
        ),
        (
            "疾病：\n双向情感障碍\n病情描述：\n药吃完了",
            "诊断：\n双相情感障碍",
            "情感障碍",
            "药吃完了",
        ),
        ("疾病：\n我有ＣＯＰＤ, Asthma", "Diagnosis:\nasthma", "Asthma", "ＣＯＰＤ"),
    ],
)
def test_the_diagnosis_is_taken_out_of_the_patients_own_words(
    story: str, doctor: str, gone: str, stays: str
) -> None:
    found = case(story, doctor)
    assert "name" in found.notes
    assert gone not in told(found) and stays in told(found)


def test_a_complaint_stays_although_the_doctor_called_it_so() -> None:
    found = case("疾病：\n上厕所便血", "疾病诊断：\n便血")
    assert "便血" in found.opener and not found.notes


def test_the_department_is_not_told() -> None:
    found = case(STORY + "\n已就诊医院及科室：\n市医院 眼科")
    assert "眼科" not in told(found) and "市医院" in told(found) and "department" in found.notes


def test_a_booking_without_a_complaint_tells_nothing() -> None:
    found = case("就诊时间：\n2020-04-01\n就诊患者：\n邱*\n就诊地点：\n仅医生和患者本人可见\n所患")
    assert found.notes == ("booking", "empty") and not found.facts
    assert found.opener == "医生您好，我想咨询一下。"


def test_identifiers_of_a_case_are_masked() -> None:
    found = case("疾病：\n头疼\n病情描述：\n我叫张三，电话13800138000，头疼三天了")
    assert "13800138000" not in told(found)


def test_the_hidden_truth_is_not_in_what_a_log_would_show() -> None:
    assert "结膜炎" not in repr(case())


@pytest.mark.parametrize(
    ("doctor", "names"),
    [
        (
            "病情摘要及初步印象：\n膀胱癌，股骨头置换术后\n总结建议：\n手术",
            ["膀胱癌", "股骨头置换"],
        ),
        (
            "疾病诊断：\n泌尿道感染；血尿；前列腺增生\n药品：\n头孢",
            ["泌尿道感染", "血尿", "前列腺增生"],
        ),
        ("病情摘要及初步印象：\n头昏待查神经官能症可能", ["头昏", "神经官能症"]),
        ("病情摘要及初步印象：\n暂时无法给出\n总结建议：\n面诊", []),
        ("病情摘要及初步印象：\n。\n总结建议：\n。", []),
        ("Diagnosis:\nacute bronchitis and anemia\nAdvice:\nrest", ["acute bronchitis", "anemia"]),
    ],
)
def test_the_names_in_a_doctors_text(doctor: str, names: list[str]) -> None:
    assert [name.text for name in names_of(doctor, "")] == names


@pytest.mark.parametrize(
    ("text", "is_leak"),
    [
        ("我得的是过敏性结膜炎吗？", True),
        ("是结膜炎吧", True),
        ("是不是过 敏 性-结 膜 炎", True),
        ("是過敏性结膜炎吗", True),  # its head still stands there
        ("建议您使用托百士滴眼液，4次每日", True),
        ("眼睛红，有点痒", False),
        ("滴了三次眼药水", False),
        ("会不会过敏", False),
    ],
)
def test_names_and_copied_pieces_are_found(text: str, is_leak: bool) -> None:
    hidden = case().hidden
    assert bool(leaks(text, hidden.names, hidden.diagnosis, told(case()), "")) is is_leak


def test_what_the_assistant_has_said_is_no_secret() -> None:
    hidden = case().hidden
    assert not leaks("真的是结膜炎吗？", hidden.names, hidden.diagnosis, "", "考虑过敏性结膜炎。")


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("您好。请问痒吗？有没有发烧？", 2),
        ("1. 多久了？\n2. 发烧吗？", 2),
        ("请描述一下症状。", 1),
        ("建议多休息。", 0),
        ("How long? Do you have a fever", 2),
    ],
)
def test_questions_are_counted(text: str, asked: int) -> None:
    assert len(questions(text)) == asked


def say(answer: str, *, seed: int = 1, last: bool = False, before: tuple[Message, ...] = ()) -> str:
    import asyncio

    found = case()
    said = (Message("user", found.opener), *before, Message("assistant", answer))
    return asyncio.run(RulePatient().say(found, said, seed=seed, last=last)).text


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("多久了？", "不到一周"),
        ("有没有发烧？", "没有发烧"),
        ("痒吗？", "痒"),
        ("用过什么药？", "眼药水"),
        ("对什么过敏吗？", "蚕豆病"),
        ("以前有什么慢性病吗？", "以前没有什么病"),
        ("说说具体情况？", "左眼"),
    ],
)
def test_the_rule_patient_answers_what_is_asked(question: str, part: str) -> None:
    assert part in say(question)


@pytest.mark.parametrize("question", ["家里人有遗传病吗？", "大便怎么样？", "睡眠好吗？"])
def test_the_rule_patient_says_so_when_it_does_not_know(question: str) -> None:
    answer = say(question)
    assert answer in ("这个我不太清楚。", "这个我没有注意过。", "这个我说不上来。")


def test_the_rule_patient_asks_when_nothing_is_asked_and_is_polite_at_the_end() -> None:
    assert "需要去门诊找医生看吗" in say("多休息。")
    assert say("多休息。", last=True).endswith("麻烦您了。")


def test_the_rule_patient_tells_nothing_twice() -> None:
    first = say("用过什么药？")
    before = (Message("assistant", "用过什么药？"), Message("user", first))
    again = say("还用过什么药？", before=before)
    assert "眼药水" in first and "眼药水" not in again


def test_the_same_seed_is_the_same_patient() -> None:
    assert say("睡眠好吗？", seed=5) == say("睡眠好吗？", seed=5)
    assert len({say("睡眠好吗？", seed=seed) for seed in range(12)}) == 3


@pytest.mark.skipif(not SHARED.exists(), reason="shared/data/Med-dialog_100.json is not there")
def test_all_published_cases_load_and_none_gives_its_truth_away() -> None:
    cases = read_cases(SHARED)
    assert len(cases) == 100 and len({c.department for c in cases}) == 20
    noted = {n: [c.id for c in cases if n in c.notes] for n in ("transcript", "booking", "empty")}
    assert noted == {"transcript": ["24017"], "booking": ["7441", "36497"], "empty": ["7441"]}
    raw = {str(item["id"]): item for item in json.loads(SHARED.read_text(encoding="utf-8"))}
    named = 0
    for found in cases:
        words = told(found)
        for role in ("医生：\n", "病人：", "Dialogue"):
            assert role not in words, found.id
        assert found.department not in words, found.id
        for name in found.hidden.names:
            if name.is_disease:
                named += bare(name.text) in bare(raw[found.id]["medical_case"])
                assert bare(name.text) not in bare(words), (found.id, name)
                assert bare(name.head) not in bare(words), (found.id, name)
        given = leaks(words, found.hidden.names, found.hidden.dialogue, "", "")
        assert not given or found.id == "24017", (found.id, given)
    assert named >= 15  # the published text does say them: the check above can fail
