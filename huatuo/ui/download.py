"""downloads for researchers, through the guarded shell: the votes, a study's report, its figures as CSV."""

import asyncio
from collections.abc import Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from huatuo import web
from huatuo.accounts import Role
from huatuo.engines.pool import Pool
from huatuo.report import files, page
from huatuo.report.shelf import Shelf
from huatuo.report.teller import Teller
from huatuo.ui import duel
from huatuo.ui.text import LANGUAGES, Language, say
from reviews.errors import BadStudy
from reviews.export import export_zip

ROLE: Role = "researcher"
VOTES = "/export/votes.zip"
REPORT = "/export/report.html"
FIGURES = "/export/figures.zip"


def routes(shelf: Shelf, pool: Pool) -> list[web.Route]:
    """The guarded routes; each takes ?study= (all studies without it) and ?language=zh or en."""

    def votes(study: str, language: Language) -> bytes:
        return export_zip(shelf.store.database, study=study or None)

    def report(study: str, language: Language) -> bytes:
        return page.document(shelf.get(study), _tellers(pool), language).encode()

    def figures(study: str, language: Language) -> bytes:
        return files.zipped(shelf.get(study), _tellers(pool)[language])

    return [
        _route(VOTES, votes, "application/zip", "votes"),
        _route(REPORT, report, "text/html; charset=utf-8", "report"),
        _route(FIGURES, figures, "application/zip", "figures"),
    ]


def _route(
    path: str, make: Callable[[str, Language], bytes], media_type: str, kind: str
) -> web.Route:
    async def answer(request: Request) -> Response:
        study = request.query_params.get("study", "")
        language: Language = "en" if request.query_params.get("language") == "en" else "zh"
        try:
            body = await asyncio.to_thread(make, study, language)
        except BadStudy:
            return PlainTextResponse(say("results.no_such_study", language), status_code=404)
        name = "-".join(filter(None, ("huatuo", study, kind))) + "." + path.rpartition(".")[2]
        disposition = f"attachment; filename=\"huatuo-{kind}.{path.rpartition('.')[2]}\"; filename*=UTF-8''{quote(name, safe='')}"
        return Response(
            body, media_type=media_type, headers={"content-disposition": disposition}
        )  # fmt: skip

    return web.Route(path, answer, ROLE, limit="export")


def _tellers(pool: Pool) -> dict[Language, Teller]:
    return {key: Teller(duel.model_titles(pool, key), key) for key in LANGUAGES}
