"""Each public test set is read from small files in its published layout; damage is named with file and line."""

import json
import zipfile
from pathlib import Path

import pytest

from huatuo.errors import ConfigError, HuatuoError
from training.benchmarks import BENCHMARKS, Item, main
from training.data import BadData
from training.rows import Source, json_rows

SHARED = Path(__file__).resolve().parents[3] / "shared/data"

CMEDQA2 = {
    "question.csv": 'question_id,content\n1,头痛三天怎么办？\n2,"咳嗽，有痰\n发热"\n3,不在测试集里\n',
    "answer.csv": 'ans_id,question_id,content\n10,1,多喝水。\n11,1,"请去""神经内科""。"\n12,2,请做胸片。\n13,3,不要。\n',
    "test_candidates.txt": "question_id,ans_id,cnt,label\n1,10,0,1\n1,13,1,0\n1,11,2,1\n2,12,0,1\n2,10,1,0\n",
}
WEBMEDQA = "内科\t1\t7\t头痛怎么办\t去医院。\n内科\t0\t7\t头痛怎么办\t不相干。\n外科\t0\t8\t骨折\t不。\n外科\t1\t8\t骨折\t打石膏。\n"
HUATUO26M = (
    '{"questions": [["感冒怎么办？", "感冒如何治疗？"]], "answers": ["多休息。"]}\n'
    '{"questions": ["发热吃什么药？"], "answers": ["布洛芬。", "对乙酰氨基酚。"]}\n'
)
QIC = '[\n  {"id": "s1", "query": "花费多少", "label": "医疗费用"},\n  {"id": "s2", "query": "什么病", "label": ""}\n]\n'
SFT = '{"data": ["问：头痛", "答：多久了？", "问：三天", "答：去医院。"]}\n{"data": ["问：你好", "答：您好。"]}\n'
CMB_QUESTIONS = json.dumps(
    [
        {"id": 1, "exam_type": "医师考试", "exam_class": "规培结业", "exam_subject": "眼科", "question": "哪项正确",
         "question_type": "单项选择题", "option": {"A": "甲", "B": "乙", "C": "丙", "D": "丁", "E": ""}},
        {"id": 2, "exam_type": "医师考试", "exam_class": "规培结业", "exam_subject": "骨科", "question": "哪些正确",
         "question_type": "多项选择题", "option": {"A": "甲", "B": "乙", "C": "丙"}},
    ], ensure_ascii=False, indent=4,
)  # fmt: skip
CMB_ANSWERS = json.dumps(
    [{"id": 1, "question_type": "单项选择题", "answer": "D"}, {"id": 2, "question_type": "多项选择题", "answer": "AC"}],
    ensure_ascii=False, indent=4,
)  # fmt: skip
CLIN = json.dumps(
    [{"id": 0, "title": "案例分析-腹外疝", "description": "病人，男，49岁。", "QA_pairs": [
        {"question": "诊断？", "solution": "疝。"}, {"question": "治疗？", "solution": "手术。"}]}],
    ensure_ascii=False,
)  # fmt: skip
CMEXAM = (
    "Question,Options,Answer,Explanation\n"
    '下列正确的是,"A 甲\nB 乙\nC 丙",B,因为。\n"多选，下列","A 甲\nB 乙\nC 丙",ABC,因为。\n没有答案,"A 甲\nB 乙",,\n'
)
MEDQA = '{"question": "男性，50岁", "options": {"A": "甲", "B": "乙"}, "answer": "乙", "meta_info": "卫生法规", "answer_idx": "B"}\n'


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def read(name: str, folder: Path, split: str = "test") -> list[Item]:
    return list(BENCHMARKS[name].items(folder, split))


LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "cmedqa2": ("test", CMEDQA2),
    "webmedqa": ("test", {"medQA.test.txt": WEBMEDQA}),
    "huatuo26m": ("test", {"test_datasets.jsonl": HUATUO26M}),
    "kuake-qic": ("test", {"KUAKE-QIC/KUAKE-QIC_test.json": QIC}),
    "huatuogpt-sft": ("train", {"HuatuoGPT_sft_data_v1.jsonl": SFT}),
    "cmb": ("test", {
        "CMB-Exam/CMB-test/CMB-test-choice-question-merge.json": CMB_QUESTIONS,
        "CMB-test-choice-answer.json": CMB_ANSWERS,
    }),
    "cmb-clin": ("test", {"CMB-Clin/CMB-Clin-qa.json": CLIN}),
    "cmexam": ("test", {"test_with_annotations.csv": CMEXAM}),
    "medqa-zh": ("test", {"questions/Mainland/test.jsonl": MEDQA}),
}  # fmt: skip


def test_every_set_is_tested_and_states_licence_home_and_what_was_verified() -> None:
    assert set(LAYOUTS) == set(BENCHMARKS)
    assert all(b.licence and b.home and b.verified for b in BENCHMARKS.values())


def test_cmedqa2_pairs_each_question_with_its_right_answers(tmp_path: Path) -> None:
    one, two = read("cmedqa2", put(tmp_path, CMEDQA2))
    assert (one.id, one.question, one.references) == (
        "1",
        "头痛三天怎么办？",
        ("多喝水。", '请去"神经内科"。'),
    )
    assert (two.question, two.references) == ("咳嗽，有痰\n发热", ("请做胸片。",))
    assert one.place == "test_candidates.txt:2"


def test_webmedqa_keeps_the_answers_of_label_one(tmp_path: Path) -> None:
    one, two = read("webmedqa", put(tmp_path, {"medQA.test.txt": "\ufeff" + WEBMEDQA}))
    assert (one.id, one.label, one.references) == ("7", "内科", ("去医院。",))
    assert (two.id, two.references) == ("8", ("打石膏。",))


def test_huatuo26m_asks_the_first_phrasing(tmp_path: Path) -> None:
    one, two = read("huatuo26m", put(tmp_path, {"test_datasets.jsonl": HUATUO26M}))
    assert (one.question, one.note) == ("感冒怎么办？", "2 phrasings")
    assert two.references == ("布洛芬。", "对乙酰氨基酚。")


def test_qic_has_labels_or_says_that_it_has_none(tmp_path: Path) -> None:
    one, two = read("kuake-qic", put(tmp_path, {"KUAKE-QIC_test.json": QIC}))
    assert (one.label, one.note, two.label, two.note) == ("医疗费用", "", "", "no published label")
    if (SHARED / "KUAKE-QIC_100.json").exists():
        items = read("kuake-qic", SHARED, "100")
        assert len(items) == 100 and len({item.label for item in items}) == 10


def test_conversations_are_split_into_exchanges(tmp_path: Path) -> None:
    items = read("huatuogpt-sft", put(tmp_path, {"HuatuoGPT_sft_data_v1.jsonl": SFT}), "train")
    assert [item.id for item in items] == ["1-1", "1-2", "2-1"]
    assert [message.text for message in items[1].before] == ["头痛", "多久了？"]
    assert (items[1].question, items[1].references) == ("三天", ("去医院。",))


def test_cmb_joins_questions_and_answers_and_drops_empty_options(tmp_path: Path) -> None:
    one, two = read("cmb", put(tmp_path, LAYOUTS["cmb"][1]))
    assert (one.answer, list(one.options), one.label) == ("D", list("ABCD"), "医师考试/规培结业")
    assert two.answer == "AC"
    first, second = read("cmb-clin", put(tmp_path, LAYOUTS["cmb-clin"][1]))
    assert first.question == "病人，男，49岁。\n诊断？" and first.references == ("疝。",)
    assert [message.text for message in second.before] == [first.question, "疝。"]


def test_cmexam_and_medqa_have_options_and_letters(tmp_path: Path) -> None:
    items = read("cmexam", put(tmp_path, LAYOUTS["cmexam"][1]))
    assert [item.answer for item in items] == ["B", "ABC", ""]
    assert items[0].options == {"A": "甲", "B": "乙", "C": "丙"}
    assert items[2].note == "no published answer" and items[1].place.endswith(":5")
    (item,) = read("medqa-zh", put(tmp_path, LAYOUTS["medqa-zh"][1]))
    assert (item.answer, item.label, item.note) == ("B", "卫生法规", "")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_command_shows_licence_and_sha256_and_writes_what_metrics_reads(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split, files = LAYOUTS[name]
    folder, out = put(tmp_path / "in", files), tmp_path / "out/items.jsonl"
    assert main([name, str(folder), "--split", split, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert BENCHMARKS[name].licence in printed
    for file in files:
        assert Source(folder / file).sha256() in printed
    rows = [row for _, row in json_rows(Source(out))]
    items = read(name, folder, split)
    assert [row["id"] for row in rows] == [item.id for item in items]
    assert f"{len(items):,} items" in printed
    assert main([]) == 0 and BENCHMARKS[name].home in capsys.readouterr().out


def test_the_published_zip_files_are_read_as_they_are(tmp_path: Path) -> None:
    for name, text in CMEDQA2.items():
        with zipfile.ZipFile(tmp_path / f"{Path(name).stem}.zip", "w") as archive:
            archive.writestr(name, text)
    with zipfile.ZipFile(tmp_path / "test.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("webMedQA/medQA.test.txt", WEBMEDQA * 1)
    assert len(read("cmedqa2", tmp_path)) == 2 and len(read("webmedqa", tmp_path)) == 2
    whole = (tmp_path / "test.zip").read_bytes()
    (tmp_path / "test.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match=r"test\.zip"):
        read("webmedqa", tmp_path)


def swapped(name: str, file: str, old: str, new: str) -> dict[str, str]:
    files = LAYOUTS[name][1]
    assert old in files[file]
    return {**files, file: files[file].replace(old, new, 1)}


CMB_FILE = "CMB-Exam/CMB-test/CMB-test-choice-question-merge.json"
DAMAGED = [
    ("cmedqa2", "question.csv", "content", "text", "question.csv:1: the header lacks content"),
    ("cmedqa2", "question.csv", "1,头痛三天怎么办？", "1,头痛,三天", "question.csv:2: 3 fields"),
    ("cmedqa2", "question.csv", "1,头痛", "x,头痛", "question.csv:2: question_id 'x' is no number"),
    ("cmedqa2", "question.csv", '发热"', "发热", "question.csv:3: not CSV"),
    ("cmedqa2", "question.csv", "3,不在", "1,不在", "question.csv:5: question_id 1 again"),
    ("cmedqa2", "answer.csv", "10,1,多喝水。", "10,1,", "answer.csv:2: content is empty"),
    ("cmedqa2", "test_candidates.txt", "1,11,2,1", "1,99,2,1", "test_candidates.txt:2: answer 99 is not"),
    ("cmedqa2", "test_candidates.txt", "1,11,2,1", "1,11,2,2", "test_candidates.txt:4: label '2'"),
    ("cmedqa2", "test_candidates.txt", "question_id,ans_id", "id,ans_id", ":1: the header lacks question_id"),
    ("webmedqa", "medQA.test.txt", "内科\t0\t7\t头痛怎么办", "内科\t0\t7", "medQA.test.txt:2: 4 fields between tabs"),
    ("webmedqa", "medQA.test.txt", "外科\t0\t8", "外科\t好\t8", "medQA.test.txt:3: label '好'"),
    ("webmedqa", "medQA.test.txt", "外科\t1\t8", "外科\t0\t8", "medQA.test.txt:3: question 8 has no answer"),
    ("webmedqa", "medQA.test.txt", "外科\t0\t8\t骨折", "外科\t0\t8\t骨裂", ":4: question 8 reads otherwise"),
    ("huatuo26m", "test_datasets.jsonl", '"answers": ["多休息。"]', '"answers": []', ":1: answers is empty"),
    ("huatuo26m", "test_datasets.jsonl", '["发热吃什么药？"]', "[3]", ":2: questions holds int"),
    ("huatuo26m", "test_datasets.jsonl", '"多休息。"', '" "', ":1: answers holds an empty text"),
    ("huatuo26m", "test_datasets.jsonl", "发热吃", "发\\ud83d热", r":2: half a character, '\ud83d'"),
    ("kuake-qic", "KUAKE-QIC/KUAKE-QIC_test.json", "什么病", "什么\\uDE00病", ":3: half a character"),
    ("huatuo26m", "test_datasets.jsonl", '{"questions": [[', "[[", ":1: a JSON object is expected"),
    ("kuake-qic", "KUAKE-QIC/KUAKE-QIC_test.json", "医疗费用", "费用", "KUAKE-QIC_test.json:2: label '费用'"),
    ("kuake-qic", "KUAKE-QIC/KUAKE-QIC_test.json", '"query": "什么病"', '"text": "x"', ":3: query is missing"),
    ("kuake-qic", "KUAKE-QIC/KUAKE-QIC_test.json", '"s2"', '"s1"', ":3: id s1 again; first at KUAKE-QIC_test.json:2"),
    ("kuake-qic", "KUAKE-QIC/KUAKE-QIC_test.json", "},\n", "}\n", ":3: a comma or ]"),
    ("kuake-qic", "KUAKE-QIC/KUAKE-QIC_test.json", "}\n]", "}\n", ":5: ends before the array does"),
    ("huatuogpt-sft", "HuatuoGPT_sft_data_v1.jsonl", "答：您好。", "您好。", "HuatuoGPT_sft_data_v1.jsonl:2: turn 2"),
    ("huatuogpt-sft", "HuatuoGPT_sft_data_v1.jsonl", '"data": ["问：你好"', '"json_dialogue": ["问：你好"', ":2:"),
    ("cmb", CMB_FILE, "单项选择题", "判断题", "CMB-test-choice-question-merge.json:2: question_type"),
    ("cmb", CMB_FILE, '"question": "哪些正确"', '"question": 4', ":17: question is int"),
    ("cmb", "CMB-test-choice-answer.json", '"D"', '"F"', ":2: answer F names no option"),
    ("cmb", "CMB-test-choice-answer.json", '"D"', '"AB"', ":2: answer AB to a question with one"),
    ("cmb-clin", "CMB-Clin/CMB-Clin-qa.json", '"solution": "疝。"', '"answer": "疝。"', ":1: solution is missing"),
    ("cmexam", "test_with_annotations.csv", "Options", "Choices", ":1: the header lacks Options"),
    ("cmexam", "test_with_annotations.csv", ",B,", ",E,", "test_with_annotations.csv:2: answer E"),
    ("cmexam", "test_with_annotations.csv", "B 乙\nC", "A 乙\nC", ":2: option 'A 乙'"),
    ("medqa-zh", "questions/Mainland/test.jsonl", '"answer_idx": "B"', '"answer_idx": "E"', "test.jsonl:1: answer E"),
    ("medqa-zh", "questions/Mainland/test.jsonl", '{"A": "甲", "B": "乙"}', '["甲"]', "test.jsonl:1: options is list"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "old", "new", "told"), DAMAGED)
def test_damage_is_named_with_its_line(
    name: str, file: str, old: str, new: str, told: str, tmp_path: Path
) -> None:
    folder = put(tmp_path, swapped(name, file, old, new))
    with pytest.raises(BadData) as caught:
        read(name, folder, LAYOUTS[name][0])
    assert told in str(caught.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_bytes_that_are_not_utf8_a_missing_file_and_a_pointer_are_said(
    name: str, tmp_path: Path
) -> None:
    split, files = LAYOUTS[name]
    folder = put(tmp_path, files)
    first = folder / next(iter(files))
    whole = first.read_bytes()
    at = len(whole) - len(whole.split(b"\n")[-2 if b"\n" in whole else -1]) - 1
    first.write_bytes(whole[:at] + b"\xff\x80" + whole[at:])
    with pytest.raises(BadData, match=rf"{first.name}:\d+: not UTF-8"):
        read(name, folder, split)
    first.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(BadData, match=r":1: a git-LFS pointer"):
        read(name, folder, split)
    first.unlink()
    with pytest.raises(BadData, match="not there"):
        read(name, folder, split)
    with pytest.raises(ConfigError, match="split nothing"):
        read(name, folder, "nothing")


def test_a_line_or_an_item_without_end_is_refused_and_never_held_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.rows.LONGEST_LINE", 200)
    monkeypatch.setattr("training.rows.LONGEST_ITEM", 100)
    monkeypatch.setattr("training.rows.CHUNK", 50)
    folder = put(tmp_path, {"test_datasets.jsonl": HUATUO26M + "x" * 201 + "\n"})
    with pytest.raises(BadData, match=r"test_datasets\.jsonl:3: a line of more than 200 bytes"):
        read("huatuo26m", folder, "test")
    path = tmp_path / "a.json"
    path.write_text('[\n{"a": "x"},\n{"a": "' + "x" * 500 + '"}]', encoding="utf-8")
    with pytest.raises(BadData, match=r"a\.json:3: not JSON: .*, or more than 100 characters"):
        list(json_rows(Source(path)))


def test_a_failed_run_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = put(tmp_path / "in", {"test_datasets.jsonl": HUATUO26M + "{torn\n"})
    assert main(["huatuo26m", str(folder), "--out", str(tmp_path / "out/x.jsonl")]) == 2
    assert "test_datasets.jsonl:3: not JSON" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
    assert main(["huatuo26m"]) == 2


def test_a_long_array_streams_across_chunks_with_right_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.rows.CHUNK", 7)
    path = tmp_path / "a.json"
    path.write_text(CMB_QUESTIONS, encoding="utf-8")
    rows = list(json_rows(Source(path)))
    assert [row for _, row in rows] == json.loads(CMB_QUESTIONS)
    lines = CMB_QUESTIONS.splitlines()
    assert all(lines[int(place.split(":")[1]) - 1].strip() == "{" for place, _ in rows)
    path.write_bytes(CMB_QUESTIONS.encode()[:-40] + b"\xff")
    with pytest.raises(HuatuoError, match=rf"a\.json:{len(lines) - 4}|not UTF-8"):
        list(json_rows(Source(path)))
    path.write_text("[]", encoding="utf-8")
    assert list(json_rows(Source(path))) == []
