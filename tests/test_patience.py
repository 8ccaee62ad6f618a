"""How long the product waits: what tests/conftest.py stretches for the tests is read in a process of its own."""

import json
import subprocess
import sys

from huatuo.toml import ROOT

READ = """
import inspect, json
from huatuo import guard, openid
from huatuo.engines import remote
from huatuo.engines.base import Deadlines
from reviews.database import Database
from reviews.store import Store
waits = {f"{make.__qualname__}": make.__kwdefaults__["busy_timeout_s"] for make in (Database.__init__, Store.open.__func__)}
waits |= {"connect": remote.CONNECT_S, "sign-in": openid.TIMEOUT_S, "body": guard.BODY_S, "pour": guard.POUR_S}
print(json.dumps({**waits, **vars(Deadlines())}))
"""


def test_the_product_gives_up_as_soon_as_it_says() -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "Database.__init__": 30,
        "Store.open": 30,
        "connect": 5,
        "sign-in": 10.0,
        "body": 10,
        "pour": 2.0,
        "first_token_s": 30,
        "between_tokens_s": 20,
        "whole_answer_s": 120,
    }
