"""A small OpenID provider over real HTTP, with RSA keys of its own, that can be told to misbehave."""

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID = "huatuo-review"
SECRET = "a secret of the test"
PEOPLE = {"zhao": "赵医生", "qian": "Qian Li"}


@dataclass
class Grant:
    """What a code stands for."""

    who: str
    redirect_uri: str
    challenge: str
    nonce: str


@dataclass
class Lies:
    """How it misbehaves; as made, it does not."""

    claims: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    sign: str = "RS256"


class OpenIdProvider(ThreadingHTTPServer):
    """Serves discovery, authorize, token and jwks, and checks what the app sends."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://{host}:{self.server_port}/realm"
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.other_key = RSAKey.generate_key(2048, {"kid": "one"})
        self.grants: dict[str, Grant] = {}
        self.asked: list[str] = []
        self.redirect_uris: set[str] = set()
        self.lies = Lies()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def about(self) -> dict[str, Any]:
        """The discovery document."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.lies.about,
        }

    def agree(self, url: str, who: str) -> str:
        """Where the browser is sent after `who` agreed at the address that the app led to."""
        asked = dict(parse_qsl(urlsplit(url).query))
        assert asked["client_id"] == CLIENT_ID and asked["response_type"] == "code", asked
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
        assert asked["redirect_uri"] in self.redirect_uris, asked
        code = secrets.token_urlsafe(16)
        self.grants[code] = Grant(
            who, asked["redirect_uri"], asked["code_challenge"], asked["nonce"]
        )
        back = {"code": code, "state": asked["state"], "iss": self.url}
        return f"{asked['redirect_uri']}?{urlencode(back)}"

    def token(self, grant: Grant) -> str:
        """The ID token, or what it lies."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": f"subject-of-{grant.who}",
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": grant.nonce,
            "name": PEOPLE.get(grant.who, grant.who),
            "email": "shared@hospital.example",
            **self.lies.claims,
        }
        claims = {key: value for key, value in claims.items() if key not in self.lies.without}
        header = {"alg": "RS256", "kid": "one"}
        if self.lies.sign == "other key":
            return jwt.encode(header, claims, self.other_key)
        if self.lies.sign == "none":
            return f"{_part({'alg': 'none'})}.{_part(claims)}."
        if self.lies.sign == "HS256 by the public key":
            signed = f"{_part({'alg': 'HS256', 'kid': 'one'})}.{_part(claims)}"
            import hmac

            public = self.key.as_pem(private=False)
            mark = hmac.new(public, signed.encode(), hashlib.sha256).digest()
            return f"{signed}.{_base64(mark)}"
        token = jwt.encode(header, claims, self.key)
        if self.lies.sign == "cut":
            return token[:-20]
        return token

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that hung up is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    server: OpenIdProvider

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        name = parts.path.removeprefix("/realm/")
        if self._lies(name):
            return
        if name == ".well-known/openid-configuration":
            self._json(self.server.about())
        elif name == "jwks":
            key = self.server.key.as_dict(private=False)
            odd = {"kty": "oct-ish", "kid": "odd"}
            self._json({"keys": [odd, key]})
        elif name == "authorize":
            people = "".join(
                f'<button name="who" value="{who}">{html.escape(name)}</button>'
                for who, name in PEOPLE.items()
            )
            action = html.escape(self.path)
            self._page(f'<form method="post" action="{action}">{people}</form>')
        else:
            self._json({}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        name = urlsplit(self.path).path.removeprefix("/realm/")
        if self._lies(name):
            return
        form = {key: values[0] for key, values in parse_qs(body).items()}
        if name == "authorize":
            self.send_response(303)
            self.send_header("location", self.server.agree(self.path, form["who"]))
            self.end_headers()
        elif name == "token":
            self._exchange(form)

    def _exchange(self, form: dict[str, str]) -> None:
        given = base64.b64encode(f"{CLIENT_ID}:{SECRET.replace(' ', '+')}".encode()).decode()
        plain = base64.b64encode(f"{CLIENT_ID}:{SECRET}".encode()).decode()
        if self.headers.get("authorization") not in (f"Basic {given}", f"Basic {plain}"):
            self._json({"error": "invalid_client"}, 401)
            return
        grant = self.server.grants.pop(form.get("code", ""), None)
        hashed = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            grant is None
            or form.get("redirect_uri") != grant.redirect_uri
            or _base64(hashed) != grant.challenge
        ):
            self._json({"error": "invalid_grant"}, 400)
            return
        answer = {"access_token": "x", "token_type": "Bearer", "id_token": self.server.token(grant)}
        if "id_token" in self.server.lies.without:
            del answer["id_token"]
        self._json(answer)

    def _lies(self, name: str) -> bool:
        """Answers as the lies say, if they say anything about this address."""
        lies = self.server.lies
        self.server.asked.append(name)
        if name in lies.redirects:
            self.send_response(302)
            self.send_header("location", lies.redirects[name])
            self.end_headers()
        elif name in lies.statuses:
            self._json({}, lies.statuses[name])
        elif name in lies.bodies:
            self._send(lies.bodies[name], "application/json", 200)
        else:
            return False
        return True

    def _json(self, value: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _page(self, body: str) -> None:
        page = f"<!doctype html><html lang=zh><title>provider</title><body>{body}</body></html>"
        self._send(page.encode(), "text/html; charset=utf-8", 200)

    def _send(self, body: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _part(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())
