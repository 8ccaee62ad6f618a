"""who is asking: the session, the order of the roles, the cookie, and the app's own address.

Nothing here reads the record; huatuo/accounts.py does.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

from huatuo.config import AppConfig

Role = Literal["visitor", "physician", "adjudicator", "researcher", "admin"]
Language = Literal["zh", "en"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From the least to the most; each role may do what those before it may."""
TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
"""256 random bits, as secrets.token_urlsafe(32) writes them."""


@dataclass(frozen=True)
class Session:
    """Who is asking. owner: stable id for what belongs to them; user_id: None for a visitor."""

    owner: str
    user_id: int | None
    name: str
    role: Role
    language: Language


def has_role(session: Session, role: str) -> bool:
    """Whether the session's role is `role` or above. Raises ValueError for an unknown role."""
    return ROLES.index(session.role) >= ROLES.index(cast(Role, role))


def digest(token: str) -> str:
    """What the record keeps of a token: its sha256 in hex."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def cookie(request: Any, name: str) -> str | None:
    """The cookie's value from a starlette or gradio request; None when absent or unreadable."""
    try:
        cookies = request.cookies
        value = cookies[name] if name in cookies else None  # noqa: SIM401 (gradio's is no dict)
    except (AttributeError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def language_of(request: Any, default: Language) -> Language:
    """The language in the request's path, else the default."""
    try:
        start = str(request.url.path).split("/")[1]
    except (AttributeError, IndexError):
        start = ""
    return cast(Language, start) if start in get_args(Language) else default


def base_url(config: AppConfig) -> str:
    """The address that browsers use, without a slash at its end."""
    if config.public_url:
        return config.public_url
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    return f"http://{f'[{host}]' if ':' in host else host}:{config.port}"


def host_of(config: AppConfig) -> str:
    """The host name in `base_url`, lower case."""
    return urlsplit(base_url(config)).hostname or ""
