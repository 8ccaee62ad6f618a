"""Files of pairs sent to a study over HTTP: who may, how large, and what a damaged one says."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from huatuo.accounts import Accounts
from huatuo.config import AppConfig
from huatuo.guard import BODY_LIMIT
from huatuo.ui import frame, uploads
from huatuo.web import Page, build_app
from reviews.people import People
from reviews.protocol import Protocol
from reviews.store import Store
from tests.patience import LONG_S, free_port
from tests.web.conftest import PASSWORD, served

PATH = "/zh/studies/upload"


@dataclass
class Desk:
    """The app with the route, and its record."""

    url: str
    store: Store
    cookies: dict[str, str]

    def send(
        self, files: dict[str, tuple[str, bytes]], who: str = "researcher", **form: str
    ) -> httpx.Response:
        """Sends the form as this role."""
        token = {"session": self.cookies[who]} if who in self.cookies else {}
        data = {"study": "uploaded", "language": "zh", **form}
        with httpx.Client(cookies=token, headers={"origin": self.url}, timeout=LONG_S) as client:
            return client.post(self.url + PATH, data=data, files=files)

    def count(self, study: str = "uploaded") -> int:
        """Pairs in the study."""
        return next((one.pairs for one in self.store.studies() if one.name == study), 0)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    store = Store.open(tmp_path_factory.mktemp("uploads") / "reviews.sqlite3")
    people, config = People(store.database), AppConfig(port=free_port())
    accounts = Accounts(people, config)
    page = Page("chat", "visitor", lambda language: frame.blocks("chat", language))
    app = build_app(config, accounts, [page], [uploads.route(store, accounts)])
    cookies = {"visitor": accounts.visit()}
    for role in ("physician", "adjudicator", "researcher", "admin"):
        cookies[role] = accounts.accept(accounts.invite(role, role, "test"), PASSWORD)
    with served(app, config) as url:
        yield Desk(url, store, cookies)
    store.close()


def lines(*numbers: int, **more: Any) -> bytes:
    """Prepared pairs as JSON lines."""
    return b"".join(
        json.dumps(
            {
                "id": str(n),
                "question": f"第 {n} 问",
                "answer_a": f"甲答 {n}",
                "answer_b": f"乙答 {n}",
                "model_a": "jia",
                "model_b": "yi",
                **more,
            }
        ).encode()
        + b"\n"
        for n in numbers
    )


def test_only_researchers_and_administrators_may_send_files(desk: Desk) -> None:
    before = desk.count()
    for who, status in (
        ("nobody", 303),
        ("visitor", 303),
        ("physician", 403),
        ("adjudicator", 403),
    ):
        answer = desk.send({"first": ("a.jsonl", lines(1, 2))}, who)
        assert answer.status_code == status, who
        assert desk.count() == before
    for who, number in (("researcher", 1), ("admin", 2)):
        answer = desk.send({"first": ("a.jsonl", lines(number))}, who)
        assert answer.status_code == 200 and "新增 1 题" in answer.text, answer.text
    again = desk.send({"first": ("a.jsonl", lines(1, 2))})
    assert "新增 0 题，已有 2 题" in again.text
    assert desk.count() == before + 2
    with desk.store.database.read() as db:
        rows = [row for row in db["audit"].rows if row["subject"] == "study:uploaded"]
    assert len({row["actor"] for row in rows}) == 2, "the audit names both"


def test_two_files_of_answers_are_paired_by_id(desk: Desk) -> None:
    def answers(mark: str) -> bytes:
        items = [{"id": n, "query": f"问题 {n}", "model_output": f"{mark}{n}"} for n in range(3)]
        return json.dumps(items).encode()

    files = {"first": ("甲 model.json", answers("a")), "second": ("yi.json", answers("b"))}
    answer = desk.send(files, study="two files")
    assert answer.status_code == 200 and "新增 3 题" in answer.text, answer.text
    assert desk.count("two files") == 3


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("a.jsonl", lines(10) + b"{broken\n", "a.jsonl：第 2 行：不是有效的 JSON"),
        ("a.jsonl", lines(10, 11) + b'{"id": "x"}\n', "a.jsonl：第 3 行：缺少"),
        ("a.jsonl", lines(10) + b"\xff\xfe\n", "第 2 行：不是 UTF-8 编码的文字"),
        ("a.jsonl", lines(10, 10), "编号“10”出现了两次"),
        ("a.jsonl", b"", "文件里没有内容"),
        ("a.json", b"[" * 100_000, "嵌套太深"),
        ("a.json", b'[{"id": 1, "query": "q", "model_output": "x"}]', "请再选一个文件"),
        ("a.exe", b"MZ", "须以 .json"),
        ("../../../etc/x.jsonl", b"{", "x.jsonl：第 1 行"),
        ("<script>.jsonl", b"{", "_script_.jsonl：第 1 行"),
    ],
)
def test_a_damaged_file_is_refused_whole_and_its_line_named(
    desk: Desk, name: str, body: bytes, words: str
) -> None:
    answer = desk.send({"first": (name, body)}, study="damaged")
    assert answer.status_code == 422 and words in answer.text, answer.text
    assert "没有保存任何内容" in answer.text
    assert "/tmp" not in answer.text and "<script>" not in answer.text.split("<main")[1]
    assert desk.count("damaged") == 0


def test_a_frozen_study_takes_no_further_pairs_and_says_so_in_the_page_s_language(desk: Desk) -> None:  # fmt: skip
    assert desk.send({"first": ("a.jsonl", lines(1))}, study="sealed").status_code == 200
    desk.store.file_study(Protocol("sealed"), "test")
    desk.store.freeze_study("sealed", "test")
    answer = desk.send({"first": ("a.jsonl", lines(1, 2))}, study="sealed")
    assert answer.status_code == 422 and "研究“sealed”的题目已登记，不能再添加" in answer.text
    assert desk.send({"first": ("a.jsonl", lines(1))}, study="sealed").status_code == 200
    assert desk.count("sealed") == 1


def test_items_that_are_left_out_are_told_in_the_page_s_language(desk: Desk) -> None:
    def answers(*numbers: int) -> bytes:
        return json.dumps(
            [{"id": n, "query": "问", "model_output": "答"} for n in numbers]
        ).encode()

    files = {"first": ("a.json", answers(1, 2)), "second": ("b.json", answers(1, 3))}
    told = desk.send(files, study="half").text
    assert "2：第二个文件里没有这一项" in told and "3：第一个文件里没有这一项" in told


@pytest.mark.parametrize(
    "form", [{"study": " "}, {"language": "fr"}, {"study": "x" * 65}, {"study": "live"}]
)
def test_a_form_that_names_no_study_is_refused(desk: Desk, form: dict[str, str]) -> None:
    answer = desk.send({"first": ("a.jsonl", lines(1))}, **form)
    assert answer.status_code == 422, answer.text


def test_a_file_may_be_larger_than_a_form_but_not_without_limit(desk: Desk) -> None:
    long = lines(*range(100), notes="x" * 1000)
    assert len(long) > BODY_LIMIT
    assert desk.send({"first": ("a.jsonl", long)}, study="long").status_code == 200
    huge = b"x" * (uploads.LARGEST + 1)
    answer = desk.send({"first": ("a.jsonl", huge)}, study="huge")
    assert answer.status_code == 413

    def endless() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="first"; filename="a.jsonl"\r\n\r\n'
        for _ in range(uploads.LARGEST // 2**16 + 2):
            yield b"x" * 2**16

    headers = {"origin": desk.url, "content-type": "multipart/form-data; boundary=b"}
    cookies = {"session": desk.cookies["researcher"]}
    with httpx.Client(cookies=cookies, headers=headers, timeout=LONG_S) as client:
        try:
            status = client.post(desk.url + PATH, content=endless()).status_code
        except httpx.WriteError:  # the server hung up in the middle
            status = 413
    assert status == 413 and desk.count("huge") == 0


def test_what_is_no_such_form_is_refused(desk: Desk) -> None:
    headers = {"origin": desk.url}
    cookies = {"session": desk.cookies["researcher"]}
    with httpx.Client(cookies=cookies, headers=headers, timeout=LONG_S) as client:
        for kind, body in (
            ("application/json", b"{}"),
            ("multipart/form-data", b"x"),
            ("multipart/form-data; boundary=b", b"--b\r\nnonsense"),
            ("application/x-www-form-urlencoded", b"study=x&language=zh&first=a"),
        ):
            answer = client.post(desk.url + PATH, content=body, headers={"content-type": kind})
            assert answer.status_code == 422, (kind, answer.status_code)
    evil = {"origin": "https://evil.example"}
    with httpx.Client(cookies=cookies, headers=evil, timeout=LONG_S) as client:
        sent = client.post(desk.url + PATH, files={"first": ("a.jsonl", lines(1))})
        assert sent.status_code == 403


def test_nothing_is_left_of_the_files(desk: Desk, tmp_path: Path, monkeypatch: Any) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    desk.send({"first": ("a.jsonl", lines(90))})
    desk.send({"first": ("a.jsonl", b"{")})
    assert list(tmp_path.iterdir()) == []
