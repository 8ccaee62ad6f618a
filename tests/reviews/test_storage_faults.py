"""The file under it all: kills, full disks, locks, damage, old and new schemas (table K)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reviews import migrations
from reviews.database import Database
from reviews.errors import (
    StoreBusy,
    StoreFull,
)
from reviews.people import People
from reviews.records import Assignment, PreparedPair, PreparedTurn
from reviews.store import Store
from tests.patience import LONG_S

ROOT = Path(__file__).resolve().parents[2]
Live = Callable[..., Assignment]


class Writer:
    """A forked process that votes when told to and says so, vote by vote, through a pipe.

    dies: (after how many votes, and how many seconds later) it is killed, among the votes that follow.
    """

    def __init__(
        self, path: Path, rater: int, ids: list[str], dies: tuple[int, float] | None = None
    ) -> None:
        self._dies = dies
        self._said, said = os.pipe()
        context = multiprocessing.get_context("fork")
        self._go = context.Event()
        self.process = context.Process(target=self._vote, args=(path, rater, ids, said))
        self.process.start()
        os.close(said)
        assert os.read(self._said, 1) == b"+"  # the record is open

    def _vote(self, path: Path, rater: int, ids: list[str], said: int) -> None:
        store = Store.open(path, check=False)
        store.current_live(rater)
        os.write(said, b"+")
        self._go.wait()
        for number, assignment_id in enumerate(ids):
            if self._dies and number == self._dies[0]:
                threading.Thread(target=self._kill).start()
            store.cast_vote(assignment_id, rater, "left", reason="更完整", seconds=1.5)
            os.write(said, assignment_id.encode() + b"\n")

    def go(self) -> None:
        self._go.set()

    def _kill(
        self,
    ) -> None:  # from inside: on a slow machine the test would come too early or too late
        assert self._dies is not None
        time.sleep(self._dies[1])
        os.kill(os.getpid(), signal.SIGKILL)

    def said(self) -> list[str]:
        """Every acknowledged id; waits for the end of the process."""
        with os.fdopen(self._said) as pipe:
            lines = pipe.read().split("\n")
        self.process.join()
        return [line for line in lines if len(line) == 32]


def many(store: Store, raters: int, each: int) -> dict[int, list[str]]:
    """Assignments for several raters: rater -> ids."""
    people = People(store.database)
    turn = (PreparedTurn("问", "甲", "乙"),)
    store.add_prepared("many", [PreparedPair(f"c{i}", "m1", "m2", turn) for i in range(each)], "x")
    work: dict[int, list[str]] = {}
    for number in range(raters):
        rater = people.add_user(f"rater {number}", "physician", "h", "x").id
        with store.database.write() as db:
            for row in db.conn.execute("SELECT id FROM comparisons").fetchall():
                assignment_id = f"{rater:08x}{row['id'][:24]}"
                db.conn.execute(
                    "INSERT INTO assignments (id, comparison_id, rater_id, left_is, state, "
                    "issued_at) VALUES (?,?,?,'a','open','2026-01-01T00:00:00+00:00')",
                    (assignment_id, row["id"], rater),
                )
                work.setdefault(rater, []).append(assignment_id)
    return work


def assert_whole(path: Path) -> None:
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert not conn.execute("PRAGMA foreign_key_check").fetchall()
    conn.close()


def test_eight_processes_times_fifty_votes_lose_none(path: Path) -> None:
    store = Store.open(path)
    work = many(store, raters=8, each=50)
    writers = [Writer(path, rater, ids) for rater, ids in work.items()]
    for writer in writers:
        writer.go()
    said = [assignment_id for writer in writers for assignment_id in writer.said()]
    assert all(writer.process.exitcode == 0 for writer in writers)
    assert len(said) == 400
    kept = {row.assignment_id for row in store.votes()}
    assert kept == set(said) == {i for ids in work.values() for i in ids}
    assert store.verify_audit().rows >= 400
    store.close()
    assert_whole(path)


@pytest.mark.slow
def test_k1_kill_9_during_votes_loses_no_acknowledged_vote(path: Path) -> None:
    store = Store.open(path)
    rounds, processes, each = 25, 2, 100
    work = many(store, raters=processes, each=rounds * each)
    acknowledged: set[str] = set()
    cut_short = 0
    for number in range(rounds):
        part = slice(number * each, (number + 1) * each)
        dies = (number, 0.0004 * number)
        writers = [Writer(path, rater, ids[part], dies) for rater, ids in work.items()]
        for writer in writers:
            writer.go()
        for writer in writers:
            said = writer.said()
            cut_short += len(said) < each
            acknowledged |= set(said)
        kept = {row.assignment_id for row in store.votes()}
        assert acknowledged <= kept
        assert len(kept) <= len(acknowledged) + processes * (number + 1)  # at most one in flight
        store.verify_audit()
    assert cut_short > rounds, "the kills must fall among the votes"
    assert len(acknowledged) > 50
    store.close()
    assert_whole(path)


def test_k2_a_kill_inside_a_transaction_leaves_nothing_of_it(path: Path) -> None:
    store = Store.open(path)
    rater = People(store.database).add_user("wang", "physician", "h", "x").id
    code = (
        "import os, sys, reviews.studies as studies\n"
        "from reviews.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "issue = studies.issue\n"
        "def crash(*a):\n    os.kill(os.getpid(), 9)\n"
        "studies.issue = crash\n"
        "store.open_live(int(sys.argv[2]), 'm1', 'm2', 'a', language='zh')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), str(rater)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    with store.database.read() as db:
        assert (db["comparisons"].count, db["assignments"].count) == (0, 0)
    assert store.open_live(rater, "m1", "m2", "a", language="zh").state == "open"
    store.close()


@pytest.mark.parametrize("zeroed", [False, True])
@pytest.mark.parametrize("lost", [1, 100, 4096, 4120, 0.1, 0.5, 0.8])
def test_k3_a_torn_wal_gives_an_older_whole_state(
    path: Path, tmp_path: Path, lost: float, zeroed: bool
) -> None:
    """lost: how many of the last bytes, or which share of the file."""
    store = Store.open(path)
    work = many(store, raters=1, each=20)
    (rater,) = work
    for assignment_id in work[rater]:
        store.cast_vote(assignment_id, rater, "left")
    wal = path.with_name(path.name + "-wal").read_bytes()
    copy = tmp_path / "copy.sqlite3"
    copy.write_bytes(path.read_bytes())
    keep = len(wal) - int(lost if lost >= 1 else len(wal) * lost)
    torn = wal[:keep] + (b"\0" * (len(wal) - keep) if zeroed else b"")
    copy.with_name("copy.sqlite3-wal").write_bytes(torn)
    store.close()
    again = Store.open(copy)
    kept = [row.assignment_id for row in again.votes()]
    again.verify_audit()
    assert kept == [i for i in work[rater] if i in set(kept)]  # a prefix, never a mixture
    if lost >= 1:  # within the last frame or two: the last vote is there or not, the others are
        assert len(kept) in (19, 20)
    again.close()
    assert_whole(copy)


def test_k4_a_full_disk_changes_nothing_and_the_next_vote_works(
    store: Store, wang: int, live: Live
) -> None:
    first, second = live(), live()
    conn = store.database.connection().conn
    store.cast_vote(first.id, wang, "left")
    pages = conn.execute("PRAGMA page_count").fetchone()[0]
    conn.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreFull, match=r"reviews\.sqlite3.*space"):
        for _ in range(100):
            store.cast_vote(second.id, wang, "left", reason="长" * 2000)
            second = live()
    assert store.view(second.id, wang)[0].state == "open"
    store.verify_audit()
    conn.execute("PRAGMA max_page_count=1000000")
    assert store.cast_vote(second.id, wang, "left", reason="长" * 2000) == "recorded"
    store.verify_audit()


def test_k5_a_vote_is_undone_when_its_log_row_fails(store: Store, wang: int, live: Live) -> None:
    given = live()
    conn = store.database.connection().conn
    conn.execute(
        "CREATE TEMP TRIGGER no_space BEFORE INSERT ON main.audit "
        "BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    with pytest.raises(sqlite3.IntegrityError):
        store.cast_vote(given.id, wang, "left")
    conn.execute("DROP TRIGGER no_space")
    assignment, _ = store.view(given.id, wang)
    assert (assignment.state, assignment.vote) == ("open", None)
    assert store.cast_vote(given.id, wang, "left") == "recorded"


def test_k6_a_locked_database_is_store_busy_and_the_retry_records_once(
    path: Path, store: Store, wang: int, live: Live
) -> None:
    given = live()
    impatient = Store.open(path, busy_timeout_s=0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(StoreBusy, match=r"reviews\.sqlite3"):
        impatient.cast_vote(given.id, wang, "left")
    assert time.monotonic() - began < 60  # LONG_S is what it waits if it is not told 0.2
    other.execute("ROLLBACK")
    other.close()
    assert impatient.view(given.id, wang)[0].state == "open"
    assert impatient.cast_vote(given.id, wang, "left") == "recorded"
    assert impatient.cast_vote(given.id, wang, "left") == "same"
    impatient.close()


def test_k6_a_stopped_process_that_holds_the_lock_file_is_not_waited_for_without_end(
    path: Path, store: Store, wang: int, live: Live
) -> None:
    given = live()
    impatient = Store.open(path, busy_timeout_s=0.2)
    with store.database.write():
        for _ in range(2):
            failed: list[BaseException] = []
            thread = threading.Thread(target=_try_vote, args=(impatient, given.id, wang, failed))
            thread.start()
            thread.join(LONG_S)
            assert isinstance(failed[0], StoreBusy)
    impatient.database.busy_timeout_s = LONG_S  # its waiting thread has to be let run first
    assert impatient.cast_vote(given.id, wang, "left") == "recorded"
    with impatient.database.write():
        pass
    impatient.close()
    assert store.cast_vote(given.id, wang, "left") == "same"
    with store.database.write():
        pass


def _try_vote(store: Store, given: str, rater: int, failed: list[BaseException]) -> None:
    try:
        store.cast_vote(given, rater, "left")
    except StoreBusy as error:
        failed.append(error)


def test_k7_reading_then_writing_meets_no_stale_snapshot(
    path: Path, store: Store, wang: int
) -> None:
    other = Store.open(path)
    failed: list[BaseException] = []

    def work(mine: Store) -> None:
        try:
            for _ in range(30):
                mine.current_live(wang)
                mine.open_live(wang, "m1", "m2", "a", language="zh")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(s,)) for s in (store, other, store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with store.database.read() as db:
        assert db["assignments"].count == 120
    with store.database.write():  # held from the first moment on, also against other programs
        outside = sqlite3.connect(path, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            outside.execute("BEGIN IMMEDIATE")
        outside.close()
    other.close()


def test_threads_each_have_their_own_connection(store: Store) -> None:
    found: set[int] = set()
    threads = [
        threading.Thread(target=lambda: found.add(id(store.database.connection())))
        for _ in range(4)
    ]
    keep = [store.database.connection()]
    for thread in threads:
        thread.start()
        thread.join()
    assert id(keep[0]) not in found
    conn = store.database.connection().conn
    assert conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert conn.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert conn.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert conn.execute("PRAGMA busy_timeout").fetchone()[0] == 1000 * store.database.busy_timeout_s


def test_ended_threads_leave_no_open_files(store: Store) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(30):
        thread = threading.Thread(target=store.studies)
        thread.start()
        thread.join()
    assert count() <= before + 6


def test_k14_a_backup_made_during_votes_is_whole(path: Path, tmp_path: Path) -> None:
    store = Store.open(path)
    work = many(store, 1, 60)
    (rater,) = work
    writer = Writer(path, rater, work[rater])
    writer.go()
    copy = migrations.backup(store.database, tmp_path / "copy.sqlite3")
    assert len(writer.said()) == 60
    restored = Store.open(copy)
    restored.verify_audit()
    assert len(restored.votes()) <= 60
    restored.close()
    store.close()


def test_k14_a_kill_during_a_backup_leaves_no_file_that_looks_like_one(
    path: Path, tmp_path: Path
) -> None:
    store = Store.open(path)
    many(store, 1, 60)
    target = tmp_path / "copy.sqlite3"

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        Path.rename = die  # type: ignore[method-assign, assignment]
        migrations.backup(store.database, target)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not target.exists()
    migrations.backup(store.database, target)
    with pytest.raises(FileExistsError):
        migrations.backup(store.database, target)
    store.close()
    assert_whole(target)


def test_a_closed_store_says_so(path: Path) -> None:
    store = Store.open(path)
    store.close()
    store.close()
    with pytest.raises(StoreBusy, match="closed"):
        store.studies()


def test_a_database_survives_a_fork(store: Store, wang: int, live: Live) -> None:
    given = live()
    child = os.fork()
    if child == 0:  # no pytest in here: leave by _exit
        try:
            done = store.cast_vote(given.id, wang, "left") == "recorded"
            os._exit(0 if done else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.cast_vote(given.id, wang, "left") == "same"
    store.verify_audit()


def test_a_write_inside_a_write_is_an_error_not_a_hang(path: Path) -> None:
    database = Database(path)
    with database.write(), pytest.raises(RuntimeError), database.write():
        pass
    database.close()
