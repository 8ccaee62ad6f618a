"""signing in by an OpenID Connect provider: authorization code with PKCE, state and nonce, all checked.

The provider's documents and keys come from the configured issuer alone; no redirect is followed. Who
somebody is (issuer and subject) is taken from an ID token whose signature, issuer, audience, time and
nonce hold, never from an e-mail address. What has begun is kept in memory, for ten minutes and one use,
tied to the browser that began it by a cookie of its own: the session's strict cookie stays at home when
the provider sends somebody back. Sources: OpenID Connect Core 1.0 §3.1, RFC 7636, RFC 9207, RFC 9700.
"""

import hmac
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from huatuo.config import AppConfig, OpenIdConfig, is_safe_url
from huatuo.errors import ConfigError, ProviderFailed
from huatuo.identity import Language, base_url, digest
from reviews.people import Identity
from reviews.records import utcnow

log = logging.getLogger(__name__)

BACK = "/openid/back"
"""Where the provider sends people back to; to be registered there, after the app's own address."""
SCOPE = "openid profile"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures by a key pair; never one by a shared secret, never none."""
LEEWAY_S = 120
PENDING_S = 600.0
PENDING_LIMIT = 1000
KNOWN_S = 3600.0
FRESH_S = 60.0
TIMEOUT_S = 10.0
LARGEST = 256 * 1024
SUBJECT_LIMIT = 255


@dataclass(frozen=True)
class Wish:
    """What somebody goes to the provider for.

    sign-in: into the account that is linked. accept: use the one-time link `link`. link: tie the
    identity to the account of the session whose token has the hash `session`. there: where to go then.
    """

    kind: Literal["sign-in", "accept", "link"]
    language: Language
    there: str = ""
    link: str = ""
    session: str = ""


@dataclass(frozen=True)
class Known:
    """Whom the provider vouches for; `name` is what it calls them, perhaps empty."""

    identity: Identity
    name: str


@dataclass(frozen=True)
class _Begun:
    wish: Wish
    browser: str
    nonce: str
    verifier: str
    at: float


class Provider:
    """One OpenID provider, and the sign-ins that have begun there."""

    def __init__(
        self,
        config: OpenIdConfig,
        redirect_uri: str,
        secret: str = "",
        clock: Callable[[], datetime] = utcnow,
    ) -> None:
        self.config = config
        self._redirect_uri = redirect_uri
        self._secret = secret
        self._clock = clock
        self._guard = threading.Lock()
        self._begun: dict[str, _Begun] = {}
        self._about: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    @classmethod
    def of(cls, config: AppConfig) -> "Provider | None":
        """The provider of configs/app.toml, or None. Raises ConfigError when its secret is not set."""
        if not config.openid.issuer:
            return None
        name = config.openid.client_secret_env
        secret = os.environ.get(name, "") if name else ""
        if name and not secret:
            raise ConfigError(
                f"openid.client_secret_env names {name}, which is not set; set it to the secret "
                "that the provider gave for this app"
            )
        return cls(config.openid, base_url(config) + BACK, secret)

    def begin(self, wish: Wish, browser: str) -> str:
        """The address at the provider to go to. browser: the value of the cookie that ties it to one.

        Raises ProviderFailed.
        """
        about = self._discovered()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with self._client(about) as client:
            url, _ = client.create_authorization_url(
                about["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        begun = _Begun(wish, digest(browser), nonce, verifier, self._now())
        with self._guard:
            self._begun = {k: v for k, v in self._begun.items() if not self._is_old(v)}
            while len(self._begun) >= PENDING_LIMIT:
                del self._begun[next(iter(self._begun))]
            self._begun[digest(state)] = begun
        return str(url)

    def finish(self, query: Mapping[str, str], browser: str) -> tuple[Wish, Known]:
        """What was wished and who came back. query: as the provider sent it through the browser.

        A state works once, in the browser that began it. Raises ProviderFailed.
        """
        with self._guard:
            begun = self._begun.pop(digest(query.get("state", "")), None)
        if begun is None or self._is_old(begun):
            raise ProviderFailed("stale", "this sign-in was not begun here, or is over")
        if not hmac.compare_digest(begun.browser, digest(browser)):
            raise ProviderFailed("stale", "this sign-in was begun in another browser")
        about = self._discovered()
        issuer = query.get("iss")
        promised = about.get("authorization_response_iss_parameter_supported") is True
        if issuer != self.config.issuer and (issuer is not None or promised):
            raise ProviderFailed("doubtful", "the answer names another issuer")
        if "error" in query:
            agreed = query["error"] != "access_denied"
            raise ProviderFailed("doubtful" if agreed else "refused", "the provider refused")
        token = self._exchanged(about, query.get("code", ""), begun.verifier)
        return begun.wish, self._checked(about, token, begun.nonce)

    # Inside

    def _now(self) -> float:
        return self._clock().timestamp()

    def _is_old(self, begun: _Begun) -> bool:
        return not 0 <= self._now() - begun.at <= PENDING_S

    def _client(self, about: Mapping[str, Any]) -> OAuth2Client:
        methods = about.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        basic = "client_secret_basic" in methods
        way = "client_secret_basic" if basic else "client_secret_post"
        return OAuth2Client(
            client_id=self.config.client_id,
            client_secret=self._secret or None,
            token_endpoint_auth_method=way if self._secret else "none",
            code_challenge_method="S256",
            scope=SCOPE,
            redirect_uri=self._redirect_uri,
            timeout=TIMEOUT_S,
            follow_redirects=False,
        )

    def _discovered(self) -> dict[str, Any]:
        """The provider's own description, read once an hour."""
        if self._about is not None and self._now() - self._about[0] < KNOWN_S:
            return self._about[1]
        about = self._read(self.config.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if about.get("issuer") != self.config.issuer:
            raise ProviderFailed("doubtful", "the provider's document names another issuer")
        for key in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not self._may_ask(about.get(key)):
                raise ProviderFailed("doubtful", f"{key} is not a safe address of the issuer")
        self._about = (self._now(), about)
        return about

    def _may_ask(self, url: Any) -> bool:
        """Whether this lies on the issuer's host, or on one that the configuration names."""
        if not isinstance(url, str) or not is_safe_url(url):
            return False
        place, own = urlsplit(url), urlsplit(self.config.issuer)
        return place.netloc == own.netloc or place.hostname in self.config.hosts

    def _read(self, url: str) -> dict[str, Any]:
        """A JSON object from the provider, at most 256 kB, from this address and no other."""
        body = b""
        try:
            with (
                httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False) as client,
                client.stream("GET", url, headers={"accept": "application/json"}) as answer,
            ):
                if answer.status_code != 200:
                    raise ProviderFailed("unreachable", f"it answered {answer.status_code}")
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > LARGEST:
                        raise ProviderFailed("doubtful", "its document is too large")
            found = json.loads(body)
        except httpx2.HTTPError as error:
            raise ProviderFailed("unreachable", type(error).__name__) from error
        except (ValueError, RecursionError) as error:
            raise ProviderFailed("doubtful", "its document is not JSON") from error
        if not isinstance(found, dict):
            raise ProviderFailed("doubtful", "its document is no JSON object")
        return found

    def _exchanged(self, about: Mapping[str, Any], code: str, verifier: str) -> str:
        """The ID token for a code. A code that was used before is refused by the provider."""
        if not code or len(code) > 4096:
            raise ProviderFailed("doubtful", "the answer has no code")
        try:
            with self._client(about) as client:
                given = client.fetch_token(
                    about["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=verifier,
                )
        except OAuthError as error:
            raise ProviderFailed("doubtful", "the provider did not take the code") from error
        except httpx2.HTTPError as error:
            raise ProviderFailed("unreachable", type(error).__name__) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ProviderFailed("doubtful", "its answer to the code is not JSON") from error
        token = given.get("id_token")
        if not isinstance(token, str) or len(token) > LARGEST:
            raise ProviderFailed("doubtful", "its answer to the code has no ID token")
        return token

    def _checked(self, about: Mapping[str, Any], token: str, nonce: str) -> Known:
        """Whom an ID token names, if everything about it holds."""
        said = about.get("id_token_signing_alg_values_supported") or ["RS256"]
        algorithms = [name for name in ALGORITHMS if name in said]
        try:
            claims = self._signed(about, token, algorithms).claims
            jwt.JWTClaimsRegistry(
                now=lambda: int(self._now()),
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self.config.issuer},
                aud={"essential": True, "value": self.config.client_id},
                exp={"essential": True},
                iat={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ProviderFailed("doubtful", f"the ID token: {type(error).__name__}") from error
        audience, party = claims["aud"], claims.get("azp")
        if isinstance(audience, list) and len(audience) > 1 and party is None:
            raise ProviderFailed("doubtful", "the ID token is for several, and names no party")
        if party not in (None, self.config.client_id):
            raise ProviderFailed("doubtful", "the ID token was made for another app")
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_LIMIT:
            raise ProviderFailed("doubtful", "the ID token names nobody")
        names = (claims.get("name"), claims.get("preferred_username"))
        name = next((n for n in names if isinstance(n, str) and n.strip()), "")
        return Known(Identity(self.config.issuer, subject), name)

    def _signed(self, about: Mapping[str, Any], token: str, algorithms: list[str]) -> jwt.Token:
        """The token, its signature checked; a key that is new is asked for, at most once a minute."""
        at, keys = self._keys or (0.0, None)
        if keys is not None:
            try:
                return jwt.decode(token, keys, algorithms=algorithms)
            except (JoseError, ValueError):
                if self._now() - at < FRESH_S:
                    raise
        self._keys = (self._now(), _key_set(self._read(about["jwks_uri"])))
        return jwt.decode(token, self._keys[1], algorithms=algorithms)


def _key_set(found: Mapping[str, Any]) -> KeySet:
    """The provider's keys for signatures; kinds that are not known are left out."""
    given = found.get("keys")
    keys = [
        key
        for key in (given if isinstance(given, list) else [])
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC") and key.get("use") != "enc"
    ]
    if not keys:
        raise ProviderFailed("doubtful", "the provider shows no key for signatures")
    return KeySet.import_key_set({"keys": keys})
