"""Every route of the app and of Gradio inside it, for every role: what is not in this table fails."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Mount

ROLES = ("none", "visitor", "physician", "adjudicator", "researcher", "admin")
TOKEN = "A" * 43

# Our own routes: (method, path) -> status for each of ROLES.
OWN = {
    ("GET", "/"): (303, 303, 303, 303, 303, 303),
    ("GET", "/{language}"): (303, 303, 303, 303, 303, 303),
    ("GET", "/{language}/"): (303, 303, 303, 303, 303, 303),
    ("GET", "/healthz"): (200, 200, 200, 200, 200, 200),
    ("GET", "/favicon.ico"): (200, 200, 200, 200, 200, 200),
    ("GET", "/static/{name}"): (200, 200, 200, 200, 200, 200),
    ("GET", "/assets/{name}"): (404, 404, 404, 404, 404, 404),  # no file of this name
    ("GET", "/{language}/sign-in"): (200, 200, 200, 200, 200, 200),
    ("POST", "/{language}/sign-in"): (422, 422, 422, 422, 422, 422),  # the body is no form
    ("POST", "/{language}/sign-out"): (303, 303, 303, 303, 303, 303),
    ("GET", "/{language}/invite/{token}"): (403, 403, 403, 403, 403, 403),  # unknown
    ("POST", "/{language}/invite/{token}"): (422, 422, 422, 422, 422, 422),
    ("GET", "/{language}/account"): (303, 303, 200, 200, 200, 200),
    ("POST", "/{language}/account"): (303, 303, 422, 422, 422, 422),
    ("POST", "/{language}/account/end-session"): (303, 303, 422, 422, 422, 422),
    ("POST", "/{language}/account/sign-out-everywhere"): (303, 303, 422, 422, 422, 422),
    ("POST", "/{language}/account/unlink"): (303, 303, 422, 422, 422, 422),
    ("GET", "/{language}/{name}"): (308, 308, 308, 308, 308, 308),  # /zh/chat
    # The two further routes of conftest.py
    ("GET", "/{language}/export"): (303, 303, 403, 403, 200, 200),
    ("GET", "/{language}/explode"): (500, 500, 500, 500, 500, 500),
}
# Gradio's routes that a page needs -> (status when the role suffices, when it does not).
GRADIO = {
    ("GET", "/"): (200, "page"),
    ("HEAD", "/"): (200, "page"),
    ("GET", "/theme.css"): (200, "data"),
    ("GET", "/assets/{path:path}"): (200, "data"),
    ("GET", "/static/{path:path}"): (200, "data"),
    ("GET", "/gradio_api/app_id"): (200, "data"),
    ("GET", "/gradio_api/heartbeat/{session_hash}"): (200, "data"),
    ("GET", "/gradio_api/queue/data"): (200, "data"),
    ("POST", "/gradio_api/queue/join"): (200, "data"),
    ("POST", "/gradio_api/run/{api_name}"): (200, "data"),
    ("POST", "/gradio_api/cancel"): (200, "data"),
}
# Gradio's other routes: 404 for everybody. A new Gradio's new route fails until it stands here.
DENIED = set("""
GET /config|GET /config/|GET /favicon.ico|GET /gradio_api/app_id/|GET /gradio_api/deep_link
GET /gradio_api/call/v2/{api_name}/{event_id}|GET /gradio_api/call/{api_name}/{event_id}
GET /gradio_api/custom_component/{id}/{environment}/{type}/{file_name}|GET /gradio_api/dev/reload
GET /gradio_api/file/{path:path}|GET /gradio_api/file={path_or_url:path}
HEAD /gradio_api/file={path_or_url:path}|GET /gradio_api/info|GET /gradio_api/info/
GET /gradio_api/login_check|GET /gradio_api/login_check/|GET /gradio_api/openapi.json
GET /gradio_api/proxy={url_path:path}|HEAD /gradio_api/proxy={url_path:path}
GET /gradio_api/run-history/buckets|GET /gradio_api/run-history/records
GET /gradio_api/run-history/records/{endpoint}/{record_id}/assets/{asset_id}
GET /gradio_api/queue/status|GET /gradio_api/runs|GET /gradio_api/runs/|GET /gradio_api/startup-events
GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file
GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8
GET /gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}
GET /gradio_api/theme.css|GET /gradio_api/token|GET /gradio_api/token/|GET /gradio_api/upload_progress
GET /gradio_api/user|GET /gradio_api/user/|GET /gradio_api/vibe-code|GET /gradio_api/vibe-code/
GET /login_check|GET /logout|GET /manifest.json|GET /monitoring|GET /monitoring/summary
GET /monitoring/{key}|GET /pwa_icon|GET /pwa_icon/{size}|GET /robots.txt|GET /svelte/{path:path}
POST /gradio_api/api/{api_name}|POST /gradio_api/api/{api_name}/|POST /gradio_api/call/v2/{api_name}
POST /gradio_api/call/v2/{api_name}/|POST /gradio_api/call/{api_name}|POST /gradio_api/call/{api_name}/
POST /gradio_api/component_server|POST /gradio_api/component_server/
POST /gradio_api/process_recording|POST /gradio_api/reset|POST /gradio_api/reset/
POST /gradio_api/run-history/connect|POST /gradio_api/run/{api_name}/|POST /gradio_api/stream/{event_id}
POST /gradio_api/stream/{event_id}/close|POST /gradio_api/undo-vibe-edit
POST /gradio_api/undo-vibe-edit/|POST /gradio_api/upload|POST /gradio_api/vibe-code
POST /gradio_api/vibe-code/|POST /gradio_api/vibe-edit|POST /gradio_api/vibe-edit/
POST /gradio_api/vibe-starter-queries|POST /gradio_api/vibe-starter-queries/|POST /login|POST /login/
""".replace("\n", "|").strip("|").split("|"))  # fmt: skip
PAGES = {"chat": "visitor", "compare": "physician", "admin": "admin"}
FILLED = {
    "{language}": "zh",
    "{token}": TOKEN,
    "{session_hash}": "abc123",
    "{api_name}": "loaded",
    "{path:path}": "x",
    "{path_or_url:path}": "/etc/passwd",
    "{url_path:path}": "http://169.254.169.254/latest",
}
SAMPLES = {
    "/static/{name}": "/static/style.css",
    "/{language}/{name}": "/zh/chat",
    "/static/{path:path}": "/static/fonts/SourceSansPro/SourceSansPro-Regular.woff2",
}


def routes_of(app: Any) -> Iterator[tuple[str, str]]:
    """(method, path) of all routes, also of included routers; mounts are left out."""
    for route in app.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            yield from routes_of(inner)
        elif getattr(route, "methods", None):
            yield from ((method, route.path) for method in route.methods)


def filled(path: str) -> str:
    path = SAMPLES.get(path, path)
    for name, value in FILLED.items():
        path = path.replace(name, value)
    while "{" in path:
        path = path[: path.index("{")] + "x" + path[path.index("}") + 1 :]
    return path


def status(client: httpx.Client, method: str, path: str, **more: Any) -> int:
    """The status alone: some answers are streams without an end."""
    with client.stream(method, path, **more) as answer:
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        return answer.status_code


def test_every_route_of_our_own_answers_each_role_as_the_table_says(site: Any) -> None:
    found = set(routes_of(site.app))
    assert found - OWN.keys() == set(), "routes that are not in the table"
    assert OWN.keys() - found == set(), "rows of the table without a route"
    for (method, path), expected in OWN.items():
        got = []
        for who in ROLES:
            kept = "none" if path.endswith("sign-out") else who  # the session is needed later
            with site.client(kept) as client:
                got.append(status(client, method, filled(path)))
        assert tuple(got) == expected, (method, path)


def gradio_apps(site: Any) -> dict[str, Any]:
    return {route.path: route.app for route in site.app.routes if isinstance(route, Mount)}


def test_every_route_of_gradio_is_known(site: Any) -> None:
    apps = gradio_apps(site)
    assert set(apps) == {f"/{lang}/{page}" for lang in ("zh", "en") for page in PAGES}
    known = set(GRADIO) | {tuple(line.split(" ", 1)) for line in DENIED}
    for place, app in apps.items():
        found = set(routes_of(app))
        assert len(found) > 60, place
        assert found - known == set(), f"{place}: unlisted; allow or deny them, then list them"


@pytest.mark.parametrize("who", ROLES)
def test_gradios_other_routes_do_not_exist_for_anyone(site: Any, who: str) -> None:
    with site.client(who) as client:
        for page in PAGES:
            for method, path in (line.split(" ", 1) for line in DENIED):
                got = status(client, method, f"/zh/{page}{filled(path)}")
                assert got == 404, (who, page, method, path, got)


def call_of(app: Any, api_name: str) -> dict[str, Any]:
    """The body of a call to a page's function."""
    number = next(n for n, fn in app.blocks.fns.items() if fn.api_name == api_name)
    return {"data": [], "fn_index": number, "session_hash": "abc123", "event_id": "e"}


@pytest.mark.parametrize("who", ROLES)
def test_the_routes_a_page_needs_are_open_to_its_role_only(site: Any, who: str) -> None:
    asset = next(p.name for p in assets() if p.suffix == ".css")
    for language in ("zh", "en"):
        for page, role in PAGES.items():
            at = f"/{language}/{page}"
            app = gradio_apps(site)[at]
            allowed = ROLES.index(who) >= ROLES.index(role)
            for (method, path), (good, kind) in GRADIO.items():
                where = at + filled(path)
                if path.startswith("/assets"):
                    where = f"{at}/assets/{asset}"
                if path.endswith("queue/data"):
                    where += "?session_hash=abc123"
                body = {"json": call_of(app, "loaded")} if method == "POST" else {}
                with site.client(who) as client:
                    got = status(client, method, where, **body)
                assert got == expected(who, allowed, page, method, good, kind), (who, where, got)


def expected(who: str, allowed: bool, page: str, method: str, good: int, kind: str) -> int:
    if allowed:
        return good
    if kind == "page":
        if who == "none" and page == "chat" and method == "GET":
            return 200  # a new visitor
        return 303 if who in ("none", "visitor") else 403
    return 401 if who in ("none", "visitor") else 403


def assets() -> Iterator[Any]:
    from huatuo.ui.files import FRONTEND

    return (FRONTEND / "assets").iterdir()
