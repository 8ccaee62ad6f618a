"""findings that are kept until the record changes, so that a page or a download computes nothing twice."""

import threading
from collections import OrderedDict

from reviews import findings, reading
from reviews.findings import Findings
from reviews.store import Store

MOST_KEPT = 8


class Shelf:
    """The findings of the studies asked for last, each as of the log's last row and the day."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept: OrderedDict[tuple[str, int, str], Findings] = OrderedDict()
        self._guard = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def get(self, name: str = "") -> Findings:
        """A study's findings, "" for all studies; computed once for all who ask at the same time.

        A study without a vote has findings too, all of them absent. Raises BadStudy for an unknown
        study, Store*.
        """
        with self._guard:
            busy = self._busy.setdefault(name, threading.Lock())
        with busy:
            found = self.kept(name)
            if found is None:
                read = reading.read(self.store, name)
                now = self.store.database.clock()
                found = findings.find(read, now=now)
                with self._guard:
                    self._kept[name, read.seq, f"{now:%Y-%m-%d}"] = found
                    while len(self._kept) > MOST_KEPT:
                        self._kept.popitem(last=False)
            return found

    def kept(self, name: str = "") -> Findings | None:
        """The same if it is there already and still holds, else None; costs nothing."""
        day = f"{self.store.database.clock():%Y-%m-%d}"
        key = (name, reading.mark(self.store)[0], day)
        with self._guard:
            return self._kept.get(key)
