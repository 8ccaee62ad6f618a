"""The Batch API over a real server: whole, expired, failed and cancelled batches, kills between any two steps."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from huatuo.toml import ROOT
from tests.patience import LONG_S
from tests.training import test_huatuo_judge as theirs
from tests.training.openai_server import OpenAiServer, finish
from tests.training.test_judge import CASES, PRICES, command, form, planted, serving, written
from training import batches as module
from training import huatuo_judge, judge
from training.batch import main

__all__ = ["serving"]
QUICK = ["--every-s", "0.02"]
WINNERS = [case[2] for case in CASES]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.01)


def winners(folder: Path) -> list[Any]:
    return [row["winner"] for row in written(folder)[0]]


def test_a_batch_gives_the_verdicts_and_a_second_run_asks_nothing(
    serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(planted)
    arguments = command(tmp_path, server, **PRICES, confirm_above=1.5)
    assert judge.main(arguments) == 2 and not server.bodies  # dearer than 1.50
    assert main([*arguments, *QUICK]) == 0  # a batch is half the price, so no --yes is needed
    assert winners(tmp_path) == WINNERS
    assert (server.uploads, server.created, len(server.bodies)) == (1, 1, 16)
    assert "answered 16, tokens_in 16,000" in capsys.readouterr().out
    requests = [json.loads(line) for line in server.files["file-1"].splitlines()]
    assert {r["url"] for r in requests} == {"/v1/chat/completions"}
    assert len({r["custom_id"] for r in requests}) == 16
    assert requests[0]["body"]["response_format"]["type"] == "json_schema"
    assert main([*arguments, *QUICK]) == 0 and judge.main(arguments) == 0
    assert (server.uploads, server.created, len(server.bodies)) == (1, 1, 16)


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_what_an_ended_batch_answered_is_kept_and_the_rest_is_asked_again(
    status: str, serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(planted)

    def once(there: OpenAiServer, batch: dict[str, Any]) -> None:
        finish(there, batch, status, only=5)
        there.on_batch = finish

    server.on_batch = once
    assert main([*command(tmp_path, server), *QUICK]) == 0
    assert winners(tmp_path) == WINNERS
    assert server.created == 2 and len(server.bodies) == 16  # none was paid for twice
    said = capsys.readouterr().out
    assert f"batch_1 {status}: " in said and "request: batch_expired 11" in said


def test_a_batch_that_fails_as_a_whole_says_why(serving: Any, tmp_path: Path, capsys: Any) -> None:
    server = serving(planted)

    def fail(_: OpenAiServer, batch: dict[str, Any]) -> None:
        data = [{"code": "token_limit_exceeded", "message": "m", "line": None, "param": None}]
        batch |= {"status": "failed", "errors": {"object": "list", "data": data}}

    server.on_batch = fail
    arguments = [*command(tmp_path, server), *QUICK]
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert "batch: token_limit_exceeded 1" in told.out
    assert "16 requests have no reply" in told.err and not (tmp_path / "out").exists()
    server.on_batch = finish
    assert main(arguments) == 0 and winners(tmp_path) == WINNERS and server.created == 2


def test_requests_that_fail_and_replies_that_cannot_be_read_go_into_the_next_batch(
    serving: Any, tmp_path: Path
) -> None:
    def say(body: dict[str, Any], number: int) -> Any:
        return {1: 500, 2: "prose", 3: {"text": form("1"), "finish_reason": "length"}}.get(
            number, planted(body)
        )

    server = serving(say)
    assert main([*command(tmp_path, server), *QUICK]) == 0
    assert winners(tmp_path) == WINNERS and server.created == 2 and len(server.bodies) == 19


def test_a_reply_that_is_never_the_form_becomes_an_error_row_after_three_batches(
    serving: Any, tmp_path: Path
) -> None:
    server = serving(lambda body, _: "prose" if "好8" in json.dumps(body, ensure_ascii=False) else planted(body))  # fmt: skip
    assert main([*command(tmp_path, server), *QUICK]) == 0
    rows, found = written(tmp_path)
    assert server.created == 3 and found["errors"] == 1 and rows[0]["error"]
    assert len(server.bodies) == 14 + 3 * 2


def test_damaged_lines_strange_ids_and_doubles_are_counted_and_never_verdicts(
    serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(planted)

    def damage(there: OpenAiServer, batch: dict[str, Any]) -> None:
        finish(there, batch)
        lines = there.files[batch["output_file_id"]].splitlines(keepends=True)
        strange = lines[3].replace(json.loads(lines[3])["custom_id"].encode(), b"f" * 64)
        there.files[batch["output_file_id"]] = b"".join(
            [lines[0][:200] + b"\n", b"[]\n", *lines[1:3], lines[2], strange, *lines[4:]]
        )
        there.on_batch = finish

    server.on_batch = damage
    assert main([*command(tmp_path, server), *QUICK]) == 0
    said = capsys.readouterr().out
    assert "broke off or damaged 2" in said and "not asked here, or twice 2" in said
    assert "unanswered 2" in said and winners(tmp_path) == WINNERS and server.created == 2


def test_another_models_batch_is_refused(serving: Any, tmp_path: Path, capsys: Any) -> None:
    server = serving(lambda body, _: {"text": planted(body), "model": "gpt-3.5"})
    assert main([*command(tmp_path, server), *QUICK]) == 2
    assert "answered for the model 'gpt-3.5'" in capsys.readouterr().err
    assert not [
        p for p in (tmp_path / "cache").rglob("*.json") if p.parent.parent.name != "batches"
    ]


def test_without_waiting_the_same_command_goes_on_with_the_same_batch(
    serving: Any, tmp_path: Path
) -> None:
    server = serving(planted)
    server.on_batch = lambda _, batch: batch.update(status="in_progress")
    arguments = [*command(tmp_path, server), "--no-wait"]
    assert main(arguments) == 4 and main(arguments) == 4 and server.created == 1
    server.on_batch = finish
    assert main(arguments) == 0 and server.created == 1 and winners(tmp_path) == WINNERS


def test_a_batch_goes_on_by_its_id_when_its_note_is_lost(serving: Any, tmp_path: Path, capsys: Any) -> None:  # fmt: skip
    server = serving(planted)
    server.on_batch = lambda _, batch: batch.update(status="in_progress")
    arguments = [*command(tmp_path, server), "--no-wait"]
    assert main(arguments) == 4
    for path in (tmp_path / "cache" / "batches").rglob("*.json*"):
        path.unlink()
    server.on_batch = finish
    assert main([*arguments, "--batch", "batch_1"]) == 0
    assert server.created == 1 and winners(tmp_path) == WINNERS
    assert main([*arguments, "--batch", "batch_9"]) == 2
    assert "refused (HTTP 404)" in capsys.readouterr().err


def test_another_jobs_batch_is_not_waited_for_and_a_shared_question_not_sent_twice(
    serving: Any, tmp_path: Path
) -> None:
    server = serving(planted)
    server.on_batch = lambda _, batch: batch.update(status="in_progress")
    (tmp_path / "b").mkdir()
    first = command(tmp_path, server, CASES[:4])
    second = command(tmp_path / "b", server, CASES[4:], cache=str(tmp_path / "cache"))
    assert main([*first, "--no-wait"]) == 4
    server.on_batch = lambda there, batch: batch["id"] == "batch_1" or finish(there, batch)
    assert main([*second, *QUICK]) == 0 and winners(tmp_path / "b") == WINNERS[4:]
    assert server.created == 2 and server.batches["batch_1"]["status"] == "in_progress"
    (tmp_path / "all").mkdir()
    both = command(
        tmp_path / "all", server, cache=str(tmp_path / "cache")
    )  # its first half is `first`
    assert main([*both, "--no-wait"]) == 4  # it waits for the first job's batch
    server.on_batch = finish
    assert main([*both, *QUICK]) == 0 and winners(tmp_path / "all") == WINNERS
    assert main([*first, *QUICK]) == 0 and server.created == 3 and len(server.bodies) == 24


def test_a_batch_that_another_command_only_noted_is_left_to_it_and_an_estimate_buys_nothing(
    serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(planted)
    server.on_batch = lambda _, batch: batch.update(status="in_progress")
    first = command(tmp_path, server)
    assert main([*first, "--no-wait"]) == 4
    (note,) = (tmp_path / "cache" / "batches").rglob("*-1.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"id": "", "status": ""}))
    server.batches.clear()  # killed between the note and the batch
    assert main([*first, "--estimate"]) == 0 and server.created == 1 and not server.bodies
    (tmp_path / "b").mkdir()
    second = command(tmp_path / "b", server, CASES[:1], cache=str(tmp_path / "cache"), max_calls=2)
    server.on_batch = finish
    assert main([*second, *QUICK]) == 0 and len(server.bodies) == 2
    assert winners(tmp_path / "b") == WINNERS[:1]
    requests = note.parent / f"{note.stem.rpartition('-')[0]}.jsonl"
    requests.write_bytes(requests.read_bytes()[:-30])
    capsys.readouterr()
    assert main([*first, *QUICK]) == 2
    assert f"{requests}: the requests of batch" in capsys.readouterr().err


def test_two_commands_at_the_same_moment_make_one_batch(serving: Any, tmp_path: Path) -> None:
    server = serving(planted)
    upload, met = server.upload, threading.Barrier(2)

    def slow(*sent: Any) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):
            met.wait(2)  # without a lock the other one comes here too
        return upload(*sent)

    server.upload = slow  # type: ignore[method-assign]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    at = [command(folder, server, cache=str(tmp_path / "cache")) for folder in folders]
    with ThreadPoolExecutor(2) as both:
        assert list(both.map(main, [[*one, *QUICK] for one in at])) == [0, 0]
    assert server.uploads == server.created == 1 and len(server.bodies) == 16
    assert winners(folders[0]) == winners(folders[1]) == WINNERS


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"max_cost": 0.5}, "max_cost: the batch could take"),
        ({"max_calls": 15}, "max_calls: the batch could take"),
        ({"max_total_tokens": 9000}, "max_total_tokens: the batch could take"),
        ({"confirm_above": 0.1}, "is more than confirm_above"),
    ],
)
def test_a_batch_that_could_pass_a_cap_is_not_made(
    more: dict[str, Any], told: str, serving: Any, tmp_path: Path, capsys: Any
) -> None:
    server = serving(planted)
    yes = [] if "confirm_above" in more else ["--yes"]
    assert main([*command(tmp_path, server, **PRICES, **more), *QUICK, *yes]) == 2
    assert told in capsys.readouterr().err and not server.uploads and not server.created


def test_many_requests_are_split(serving: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_REQUESTS", 7)
    server = serving(planted)
    assert main([*command(tmp_path, server), *QUICK]) == 0
    assert server.created == 3 and winners(tmp_path) == WINNERS
    assert [len(raw.splitlines()) for name, raw in server.files.items() if name.startswith("file-")] == [7, 7, 2]  # fmt: skip


def killed_when(server: OpenAiServer, arguments: list[str], reached: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "training.batch", *arguments], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + LONG_S
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert reached()


def test_killed_after_the_batch_was_made_before_it_was_noted(serving: Any, tmp_path: Path) -> None:
    """The server makes the batch and never answers; the next run finds it by its metadata."""
    server = serving(planted)
    arguments = [*command(tmp_path, server), *QUICK]
    create, silent = server.create, [True]

    def made_in_silence(asked: dict[str, Any]) -> Any:
        made = create(asked)
        while silent[0]:
            time.sleep(0.02)
        return made

    server.create = made_in_silence  # type: ignore[method-assign]
    killed_when(server, arguments, lambda: server.created == 1)
    silent[0] = False
    notes = list((tmp_path / "cache" / "batches").rglob("*.json"))
    assert len(notes) == 1 and json.loads(notes[0].read_text())["id"] == ""
    assert main(arguments) == 0
    assert server.created == 1 and len(server.bodies) == 16 and winners(tmp_path) == WINNERS


def test_killed_while_waiting(serving: Any, tmp_path: Path) -> None:
    server = serving(planted)
    looks: list[int] = []

    def waits(_: OpenAiServer, batch: dict[str, Any]) -> None:
        looks.append(1)
        batch["status"] = "in_progress"

    server.on_batch = waits
    arguments = [*command(tmp_path, server), *QUICK]
    killed_when(server, arguments, lambda: len(looks) > 3)
    server.on_batch = partial(finish, status="completed")
    assert main(arguments) == 0
    assert server.created == server.uploads == 1 and winners(tmp_path) == WINNERS


def test_the_authors_judge_goes_through_batches_to_the_same_rulings_at_half_the_price(
    serving: Any, tmp_path: Path, capsys: Any
) -> None:
    prices = {"price_in": 10.0, "price_out": 30.0}
    folders = [tmp_path / name for name in ("once", "batches")]
    found = []
    for folder, flags in zip(folders, ([], ["--in-batches", *QUICK]), strict=True):
        folder.mkdir()
        prose = iter(
            ["I like both."]
        )  # one reply without a label is a try, and the next batch asks again
        server = serving(
            theirs.by_prompt(lambda prompt, number, left=prose: next(left, "") or theirs.plain(prompt, number))
        )  # fmt: skip
        arguments = [*theirs.prepare(folder, server, **prices), *flags]
        if flags:
            assert huatuo_judge.main([*arguments, "--estimate"]) == 0
            assert "12 cases in batches: 24 calls, 72 at most" in capsys.readouterr().out
            capped = [*theirs.prepare(folder, server, **prices, max_cost=0.05), *flags]
            assert huatuo_judge.main(capped) == 2 and not server.created
            assert "max_cost: about" in capsys.readouterr().err
            arguments = [*theirs.prepare(folder, server, **prices), *flags]
            server.on_batch = lambda *_: None  # it takes its time
            assert huatuo_judge.main([*arguments, "--no-wait"]) == 4 and not server.bodies
            server.on_batch = finish
        assert huatuo_judge.main(arguments) == 0
        assert len(server.bodies) == 24 + 1 and server.created == 2 * bool(flags)
        assert huatuo_judge.main(arguments) == 0 and len(server.bodies) == 25
        found.append(json.loads((folder / "out.json").read_text("utf-8")))
    once, batched = found
    assert (once["in_batches"], batched["in_batches"]) == (0, 25)
    assert once["cost"] == pytest.approx(25 * (1000 * 10 + 200 * 30) / 1e6)
    assert batched["cost"] == pytest.approx(once["cost"] / 2)
    tries = [[order.pop("tries") for r in one["rulings"] for order in r["orders"]] for one in found]
    assert sorted(tries[0]) == sorted(tries[1]) == [1] * 23 + [2]
    assert once["rulings"] == batched["rulings"]
    assert [once[key] for key in ("win", "loss", "tie")] == [4, 4, 4]
