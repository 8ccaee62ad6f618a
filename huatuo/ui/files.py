"""the stylesheet, the script and Gradio's own assets: served once for all pages, with long caching."""

import functools
import gzip
import hashlib
import re
from pathlib import Path

import gradio
from starlette.requests import Request
from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
FRONTEND = Path(gradio.__file__).parent / "templates" / "frontend"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".woff": "font/woff",
    ".ttf": "font/ttf",
}
FOREVER = "public, max-age=31536000, immutable"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@functools.cache
def static_url(name: str) -> str:
    """The address of a file in huatuo/ui/static, with its version, so that it is cached for long."""
    version = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={version}"


def static_file(request: Request, name: str) -> Response:
    """One of our own files; 404 for any other name."""
    return _file(request, STATIC, name, FOREVER if "v" in request.query_params else "no-cache")


def gradio_asset(request: Request, name: str) -> Response:
    """One file of Gradio's frontend; its name holds a hash, so it is cached for ever."""
    return _file(request, FRONTEND / "assets", name, FOREVER)


def _file(request: Request, folder: Path, name: str, caching: str) -> Response:
    kind = TYPES.get(Path(name).suffix)
    if kind is None or not _NAME.fullmatch(name) or not (folder / name).is_file():
        return Response("not found", 404)
    headers = {"cache-control": caching, "vary": "accept-encoding"}
    squeezed = kind.startswith(("text/", "image/svg"))
    if squeezed and "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        modified_ns = (folder / name).stat().st_mtime_ns
        return Response(_gzipped(folder / name, modified_ns), headers=headers, media_type=kind)
    return Response((folder / name).read_bytes(), headers=headers, media_type=kind)


@functools.lru_cache(maxsize=512)
def _gzipped(path: Path, modified_ns: int) -> bytes:
    return gzip.compress(path.read_bytes(), 6, mtime=0)
