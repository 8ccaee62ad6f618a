"""The SQLite file: durable settings, one connection per thread, one writer at a time.

Every connection runs in WAL mode with synchronous=FULL, foreign keys on and a waiting time.
A write transaction takes the process's lock, then a lock file beside the database, then
BEGIN IMMEDIATE: waiting processes are woken by the kernel in turn, where SQLite alone lets
them sleep and starve. The kernel drops the lock file's lock when a process dies.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from reviews.errors import RecordError, StoreBusy, StoreDamaged, StoreFull, StoreReadOnly
from reviews.lock import FileLock
from reviews.records import utcnow

if TYPE_CHECKING:
    import sqlite_utils

BUSY_TIMEOUT_S = 30.0
DEFAULT_NAME = "reviews.sqlite3"
APPLICATION_ID = 0x48475256  # "HGRV", so that a foreign database is never taken for ours
_HEADER = b"SQLite format 3\x00"
_BY_CODE: dict[int, type[RecordError]] = {
    sqlite3.SQLITE_BUSY: StoreBusy,
    sqlite3.SQLITE_LOCKED: StoreBusy,
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_CORRUPT: StoreDamaged,
    sqlite3.SQLITE_NOTADB: StoreDamaged,
    sqlite3.SQLITE_IOERR: StoreDamaged,
    sqlite3.SQLITE_READONLY: StoreReadOnly,
    sqlite3.SQLITE_PERM: StoreReadOnly,
    sqlite3.SQLITE_CANTOPEN: StoreReadOnly,
}
_ADVICE: dict[type[RecordError], str] = {
    StoreBusy: "another process holds it; nothing was changed, try again",
    StoreFull: "no space left; nothing was changed, free some space and try again",
    StoreDamaged: "the file is damaged; it was left as it is, restore a backup",
    StoreReadOnly: "it cannot be written; check the owner and the rights of file and folder",
}


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's own errors into the record's, naming the file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) or 0
        kind = _BY_CODE.get(code & 0xFF)
        if kind is None:
            raise
        raise kind(f"{path}: {_ADVICE[kind]} ({error})") from error


class _Held:
    """A thread's connection, closed as soon as the thread ends or the database is closed."""

    def __init__(self, db: sqlite_utils.Database) -> None:
        self.db = db

    def __del__(self) -> None:
        self.db.close()


class Database:
    """One database file, used from any thread of any process. Close it when done."""

    def __init__(
        self,
        path: Path | str,
        *,
        clock: Callable[[], datetime] = utcnow,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Prepare the file (created with mode 0600) without reading its content.

        Raises StoreReadOnly, naming the path, when file or folder cannot be used, and
        StoreDamaged when the file is there but is no SQLite database.
        """
        self.path = Path(path)
        self.clock = clock
        self.busy_timeout_s = busy_timeout_s
        self._local = threading.local()
        self._connections: weakref.WeakSet[_Held] = weakref.WeakSet()
        self._closed = False
        _prepare_file(self.path)
        self._open_locks()

    def connection(self) -> sqlite_utils.Database:
        """This thread's own connection; opened on first use. Raises the Store* errors."""
        mine: _Held | None = getattr(self._local, "held", None)
        forked = self._pid != os.getpid()
        if mine is not None and not forked:
            return mine.db
        if self._closed:
            raise StoreBusy(f"{self.path}: the record is closed")
        if forked:  # a connection or lock taken through a fork belongs to the parent
            self._kept_for_parent = (self._local, self._connections, self._file_lock)
            self._local, self._connections = threading.local(), weakref.WeakSet()
            self._open_locks()
        import sqlite_utils

        with plain_errors(self.path):
            conn = sqlite3.connect(
                self.path,
                timeout=self.busy_timeout_s,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            self._ensure_wal(conn)
            conn.execute("PRAGMA synchronous=FULL")
            conn.execute("PRAGMA foreign_keys=ON")
        conn.row_factory = sqlite3.Row
        # recursive_triggers (the default here): a REPLACE must fire the delete triggers too.
        db = sqlite_utils.Database(conn, execute_plugins=False)
        self._local.held = _Held(db)
        self._connections.add(self._local.held)
        return db

    @contextmanager
    def read(self) -> Iterator[sqlite_utils.Database]:
        """One consistent view of the data; never waits for a writer."""
        db = self.connection()
        with plain_errors(self.path):
            db.conn.execute("BEGIN")
            try:
                yield db
            finally:
                db.conn.rollback()

    @contextmanager
    def write(self) -> Iterator[sqlite_utils.Database]:
        """One write transaction: committed and on disk when the block ends, else undone.

        Raises StoreBusy after the waiting time, StoreFull, StoreReadOnly, StoreDamaged.
        """
        db = self.connection()
        conn = db.conn
        if conn.in_transaction:
            raise RuntimeError("a transaction is already open in this thread")
        with self._alone(), plain_errors(self.path):
            conn.execute("BEGIN IMMEDIATE")
            try:
                yield db
                conn.execute("COMMIT")
            except BaseException:
                conn.rollback()
                raise

    def _ensure_wal(self, conn: sqlite3.Connection) -> None:
        if conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            return
        with self._alone():  # SQLite does not wait here: two starts at once would collide
            conn.execute("PRAGMA journal_mode=WAL")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The only writer among the threads and processes that come through here."""
        if not self._thread_lock.acquire(timeout=self.busy_timeout_s):
            raise StoreBusy(f"{self.path}: {_ADVICE[StoreBusy]}")
        try:
            if not self._file_lock.acquire(self.busy_timeout_s):
                raise StoreBusy(f"{self.path}: {_ADVICE[StoreBusy]}")
            try:
                yield
            finally:
                self._file_lock.release()
        finally:
            self._thread_lock.release()

    def _open_locks(self) -> None:
        try:
            self._file_lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        except OSError as error:
            raise StoreReadOnly(f"{self.path.parent}: {_ADVICE[StoreReadOnly]}") from error
        self._thread_lock = threading.Lock()
        self._pid = os.getpid()

    def close(self) -> None:
        """Close every thread's connection; later calls raise StoreBusy."""
        if self._closed:
            return
        self._closed = True
        for held in list(self._connections):
            held.db.close()
        self._local = threading.local()
        self._file_lock.close()


def _prepare_file(path: Path) -> None:
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.stat().st_mode & 0o222:
            raise PermissionError(folder)
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            return
    except OSError as error:
        raise StoreReadOnly(f"{folder}: {_ADVICE[StoreReadOnly]}") from error
    _check_file(path)


def _check_file(path: Path) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise StoreDamaged(f"{path}: this is not a file")
    try:
        if not mode & 0o222:  # root may write even so, but whoever set it meant it
            raise PermissionError(path)
        with path.open("r+b") as file:
            header = file.read(len(_HEADER))
        if mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise StoreReadOnly(f"{path}: {_ADVICE[StoreReadOnly]}") from error
    if header and header != _HEADER:
        raise StoreDamaged(f"{path}: this is not an SQLite database; it was left as it is")
