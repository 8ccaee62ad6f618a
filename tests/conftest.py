"""How the tests are shared out between two workers: all that drive a browser go to one of them."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


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
