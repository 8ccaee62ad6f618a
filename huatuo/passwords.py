"""password rules after NIST SP 800-63B: length, what is guessed first, the own name; and argon2 hashing.

No rule asks for digits or signs, none asks for a change after so many days, and every character of
any script counts as one. Guesses are estimated by zxcvbn (Wheeler 2016, USENIX Security), which knows
leaked passwords, keyboard walks, dates and names; a few Chinese favourites stand here.
"""

import secrets
import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

from huatuo.errors import InputError

PASSWORD_LIMIT = 128
SHORTEST = 10
ESTIMATED = 72
"""Characters that zxcvbn looks at; what follows can only make guessing harder."""
LEAST_SCORE = 3
"""zxcvbn's: at least 10^8 guesses, safe against guessing at the sign-in and slow hashes."""
_SERVICE = ("huatuo", "huatuogpt", "review")
_FAVOURITES = frozenset(
    [
        "woaini1314",
        "woaini1314520",
        "woaini5201314",
        "5201314520",
        "1314520520",
        "a123456789",
        "aa12345678",
        "abcd123456",
        "qq123456789",
        "1qaz2wsx3edc",
        "zaq12wsxcde",
        "huatuogpt123",
        "huatuo12345",
        "yisheng123456",
    ]
)
PASSWORD_PROBLEMS = {
    "short": "is too short",
    "long": f"has more than {PASSWORD_LIMIT} characters",
    "name": "contains the account's name, or is part of it",
    "common": "is one of the passwords that are guessed first",
}


class Hasher:
    """Hashes and compares passwords, at most two at a time."""

    def __init__(self) -> None:
        # OWASP's second choice for argon2id: 19 MiB, two passes, one lane; about 30 ms of one core.
        self._argon2 = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._nobody = self._argon2.hash(secrets.token_hex(16))
        self._two = threading.Semaphore(2)

    def hash(self, password: str) -> str:
        """The argon2id hash that the record keeps."""
        with self._two:
            return self._argon2.hash(_same(password))

    def fits(self, password_hash: str, password: str) -> bool:
        """Whether the password is the one; takes as long where there is no hash to compare with."""
        try:
            with self._two:
                known = password_hash or self._nobody
                right = self._argon2.verify(known, _same(password[: PASSWORD_LIMIT + 1]))
        except (VerificationError, InvalidHashError):
            return False
        return right and bool(password_hash)


def password_problem(password: str, name: str, shortest: int = SHORTEST) -> str | None:
    """A key of PASSWORD_PROBLEMS, or None when the password may be used."""
    same, own = folded(password), folded(name)
    if len(password) > PASSWORD_LIMIT:
        return "long"
    if len(password) < shortest:
        return "short"
    if own and (same in own or (len(own) > 1 and own in same)):
        return "name"
    if same in _FAVOURITES or len(set(same)) < 4:
        return "common"
    guess = zxcvbn(same[:ESTIMATED], user_inputs=[*_SERVICE, *own.split()])
    return "common" if guess["score"] < LEAST_SCORE else None


def check_password(password: str, name: str, shortest: int = SHORTEST) -> None:
    """Raises InputError when the password may not be used."""
    problem = password_problem(password, name, shortest)
    if problem:
        raise InputError(f"the password {PASSWORD_PROBLEMS[problem]}; choose another")


def folded(name: str) -> str:
    """A name or password as names are compared: one Unicode form, no letter case."""
    return unicodedata.normalize("NFKC", name[:200]).strip().casefold()


def _same(password: str) -> bytes:
    """One form for what different keyboards and input methods send."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "replace")
