"""How the tests are shared out between two workers: all that drive a browser go to one of them. And patience."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from huatuo import guard, openid
from huatuo.engines import remote
from huatuo.engines.base import Deadlines
from reviews import software
from reviews.database import Database
from reviews.store import Store
from tests.patience import LONG_S


class BrowserApart(LoadScopeScheduling):
    """Tests one by one to whoever is free; those of a file with `browser` in its name as one piece.

    Two browsers at once on two cores make each other late. xdist's own groups do not work with this
    pytest: they rename a test after its name was kept.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "browser" if "browser" in nodeid.partition("::")[0] else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BrowserApart:
    """Asked by xdist when it shares out the tests."""
    return BrowserApart(config, log)


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    """Where no test says otherwise, nothing in this process gives up soon: a machine that stands still for twenty
    seconds is no model, client or writer that died. A test of a deadline sets one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deadlines.__init__, "__defaults__", (LONG_S,) * 3)
        patch.setattr(remote, "CONNECT_S", LONG_S)
        patch.setattr(openid, "TIMEOUT_S", LONG_S)
        patch.setattr(guard, "BODY_S", LONG_S)
        patch.setattr(guard, "POUR_S", LONG_S)
        patch.setattr(software, "commit", cache(software.commit))  # git has ten seconds each time
        for make in (Database.__init__, Store.open.__func__):  # type: ignore[attr-defined]
            patch.setitem(make.__kwdefaults__, "busy_timeout_s", LONG_S)
        yield
