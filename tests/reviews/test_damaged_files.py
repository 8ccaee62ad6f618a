"""Files that cannot be used, old and new schemas, and a log that was tampered with (table K)."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reviews import audit, migrations
from reviews.database import Database
from reviews.errors import AuditBroken, SchemaTooNew, StoreDamaged, StoreReadOnly
from reviews.export import export
from reviews.people import People
from reviews.records import Assignment, PreparedPair, PreparedTurn
from reviews.store import Store

Live = Callable[..., Assignment]


def test_only_the_owner_may_read_the_files(path: Path, store: Store) -> None:
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    store.close()
    path.chmod(0o644)
    Store.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_k8_a_read_only_file_is_named(path: Path, store: Store) -> None:
    store.close()
    path.chmod(0o400)
    with pytest.raises(StoreReadOnly, match=r"reviews\.sqlite3"):
        Store.open(path)
    path.chmod(0o600)


def test_k8_a_read_only_folder_is_named(path: Path, store: Store) -> None:
    store.close()
    path.parent.chmod(0o500)
    with pytest.raises(StoreReadOnly, match="data"):
        Store.open(path)
    path.parent.chmod(0o700)


def test_k8_a_missing_folder_or_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreReadOnly, match="not-there"):
        Store.open(tmp_path / "not-there" / "data" / "reviews.sqlite3")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreReadOnly, match="file"):
        Store.open(tmp_path / "file" / "reviews.sqlite3")
    with pytest.raises(StoreDamaged):
        Store.open(tmp_path)


def _damage(content: bytes, how: str) -> bytes:
    if how == "text":
        return b"this is not a database, it is a letter\n" * 50
    if how == "truncated":
        return content[: len(content) // 2]
    if how == "flipped page":
        return content[:8192] + bytes(255 - b for b in content[8192:12288]) + content[12288:]
    return content[:50]


@pytest.mark.parametrize("how", ["text", "truncated", "flipped page", "header only"])
def test_k9_a_damaged_file_is_refused_and_left_as_it_is(
    path: Path, filled: Store, how: str
) -> None:
    filled.close()
    damaged = _damage(path.read_bytes(), how)
    path.write_bytes(damaged)
    with pytest.raises(StoreDamaged, match=r"reviews\.sqlite3"):
        Store.open(path)
    assert path.read_bytes() == damaged


def test_k9_the_database_of_another_program_is_refused(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (name TEXT)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="another program"):
        Store.open(path)
    assert path.read_bytes() == before


def _bytes_of(path: Path) -> tuple[bytes, bytes]:
    return path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()


def _record_in_use(path: Path, rater_name: str) -> tuple[bytes, bytes]:
    """The bytes of a record with ten pairs in the file and ten votes in its -wal."""
    store = Store.open(path)
    rater = People(store.database).add_user(rater_name, "physician", "h", "x").id
    turn = (PreparedTurn("问", "甲", "乙"),)
    store.add_prepared("s", [PreparedPair(f"c{i}", "m", "n", turn) for i in range(10)], "x")
    store.close()
    store = Store.open(path)
    while (given := store.next_prepared(rater, "s")) is not None:
        store.cast_vote(given.id, rater, "left")
    found = _bytes_of(path)
    store.close()
    return found


@pytest.fixture
def mine_and_anothers(tmp_path: Path) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    mine = _record_in_use(tmp_path / "a" / "reviews.sqlite3", "wang")
    return mine, _record_in_use(tmp_path / "b" / "reviews.sqlite3", "zhao")


def _put(path: Path, file: bytes, wal: bytes | None) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(file)
    if wal is not None:
        path.with_name(path.name + "-wal").write_bytes(wal)


def test_k16_without_its_wal_the_record_is_its_older_whole_self(
    path: Path, mine_and_anothers: Any
) -> None:
    (file, wal), _ = mine_and_anothers
    _put(path, file, None)
    older = Store.open(path)
    assert older.votes() == [] and older.studies()[0].pairs == 10
    older.verify_audit()
    older.close()
    _put(path, file, wal)  # without its -shm, which SQLite makes anew
    newer = Store.open(path)
    assert len(newer.votes()) == 10
    newer.verify_audit()
    newer.close()


def test_k16_anothers_wal_is_refused_and_neither_file_is_touched(
    path: Path, mine_and_anothers: Any
) -> None:
    (file, _), (_, foreign) = mine_and_anothers
    _put(path, file, foreign)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="-wal"):
            Store.open(path)
        assert _bytes_of(path) == (file, foreign)
    path.with_name(path.name + "-wal").unlink()
    restored = Store.open(path)
    assert restored.studies()[0].pairs == 10
    restored.verify_audit()
    restored.close()


def _step(db: Any) -> None:
    db["comparisons"].add_column("note", str)


def _step_that_fails(db: Any) -> None:
    db["comparisons"].add_column("note", str)
    raise RuntimeError("half-way")


def test_k10_k12_an_older_schema_is_backed_up_and_migrated_or_left_whole(
    path: Path, store: Store, wang: int, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.cast_vote(live().id, wang, "left", reason="为什么")
    votes, newest = store.votes(), migrations.STEPS
    store.close()

    monkeypatch.setattr(migrations, "STEPS", [*newest, _step_that_fails])
    with pytest.raises(RuntimeError, match="half-way"):
        Store.open(path)
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA user_version").fetchone()[0] == len(newest)
    assert "note" not in [row[1] for row in conn.execute("PRAGMA table_info(comparisons)")]
    conn.close()

    monkeypatch.setattr(migrations, "STEPS", [*newest, _step])
    again = Store.open(path)
    with again.database.read() as db:
        assert db.conn.execute("PRAGMA user_version").fetchone()[0] == len(newest) + 1
        assert "note" in db["comparisons"].columns_dict
        assert [row["name"] for row in db["_sqlite_migrations"].rows] == [
            *(step.__name__ for step in newest),
            "_step",
        ]
    assert again.votes() == votes
    again.verify_audit()
    again.close()
    backups = list(path.parent.glob("*.backup"))
    assert backups and all(b.stat().st_mode & 0o077 == 0 for b in backups)
    monkeypatch.undo()
    restored = Store.open(backups[0])
    assert restored.votes() == votes
    restored.close()


@pytest.mark.parametrize("version", range(1, len(migrations.STEPS)))
def test_k10_every_older_schema_comes_up_to_the_newest(
    path: Path, mine_and_anothers: Any, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file, wal), _ = mine_and_anothers
    path.parent.mkdir()
    with monkeypatch.context() as old:  # the old schema, filled with the rows of a newer file
        old.setattr(migrations, "STEPS", migrations.STEPS[:version])
        database = Database(path)
        migrations.migrate(database)
        _put(path.with_name("newer.sqlite3"), file, wal)
        with database.connection().conn as conn:
            conn.execute("ATTACH ? AS newer", (str(path.with_name("newer.sqlite3")),))
            for table in (
                "users",
                "comparisons",
                "turns",
                "answers",
                "assignments",
                "votes",
                "audit",
            ):
                known = ", ".join(
                    row["name"] for row in conn.execute(f"PRAGMA main.table_info({table})")
                )
                conn.execute(
                    f"INSERT INTO main.{table} ({known}) SELECT {known} FROM newer.{table}"
                )
        database.close()
    store = Store.open(path)
    assert [(v.choice, v.rater) for v in store.votes()] == [("left", 1)] * 10
    assert store.verify_audit().rows == 12
    with store.database.read() as db:
        assert db.conn.execute("PRAGMA user_version").fetchone()[0] == len(migrations.STEPS)
    store.close()
    assert len(list(path.parent.glob("*.backup"))) == 1


def test_k11_a_newer_schema_is_refused_and_nothing_is_written(path: Path, store: Store) -> None:
    store.close()
    conn = sqlite3.connect(path)
    conn.execute(f"PRAGMA user_version={len(migrations.STEPS) + 1}")
    conn.close()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match="newer"):
        Store.open(path)
    assert path.read_bytes() == before


def test_k15_a_clock_that_jumps_back_keeps_the_order(
    store: Store, wang: int, live: Live, clock: Any
) -> None:
    ids = []
    for _ in range(3):
        given = live()
        store.cast_vote(given.id, wang, "left")
        ids.append(given.id)
        clock.move(days=-365)
    assert [row.assignment_id for row in store.votes()] == ids
    store.verify_audit()


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit SET after = '{}' WHERE seq = 3", 3),
        ("UPDATE audit SET actor = 'user:9' WHERE seq = 4", 4),
        ("UPDATE audit SET hash = prev_hash WHERE seq = 5", 5),
        ("DELETE FROM audit WHERE seq = 2", 2),
        ("UPDATE votes SET choice = 'right' WHERE rowid_of = 4", 4),
        ("UPDATE votes SET reason = 'x' WHERE rowid_of = 3", 3),
        ("DELETE FROM votes WHERE rowid_of = 5", 5),
    ],
)
def test_k17_verify_names_the_first_row_that_was_changed_and_export_refuses(
    path: Path, tmp_path: Path, store: Store, wang: int, live: Live, statement: str, seq: int
) -> None:
    ids = {}
    for number in range(3, 6):  # rows 1 and 2 are the two accounts' or the first report
        given = live()
        if number == 3:
            store.report(given.id, wang, "first")
            given = live()
        store.cast_vote(given.id, wang, "left")
        ids[number] = given.id
    assert store.verify_audit().rows == 5
    raw = sqlite3.connect(path, isolation_level=None)
    for table in ("votes", "audit"):
        for event in ("update", "delete"):
            raw.execute(f"DROP TRIGGER {table}_no_{event}")
    if "rowid_of" in statement:
        number = int(statement[-1])
        statement = statement.replace(f"rowid_of = {number}", f"assignment_id = '{ids[number]}'")
    raw.execute(statement)
    raw.close()
    with store.database.read() as db, pytest.raises(AuditBroken) as broken:
        audit.verify(db)
    assert broken.value.seq == seq
    with pytest.raises(AuditBroken):
        export(store.database, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vote_slipped_in_without_a_log_row_is_found(
    path: Path, store: Store, wang: int, live: Live
) -> None:
    given = live()
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("INSERT INTO votes VALUES (?,1,'left','','{}',NULL,'2026','','')", (given.id,))
    raw.close()
    with pytest.raises(AuditBroken, match="no log row"):
        store.verify_audit()


def test_the_log_follows_the_stated_hash_rule(store: Store, wang: int, live: Live) -> None:
    store.cast_vote(live().id, wang, "left", reason="秘密的话")
    with store.database.read() as db:
        rows = [tuple(row) for row in db.conn.execute("SELECT * FROM audit ORDER BY seq")]
    assert rows[0][7] == audit.FIRST_HASH
    for before, row in itertools.pairwise(rows):
        assert row[7] == before[8]
    assert not any("秘密的话" in str(row) for row in rows)  # words stay erasable
