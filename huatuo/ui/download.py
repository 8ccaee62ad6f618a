"""the export as one ZIP, for researchers, made by the record and streamed through the guarded shell."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from huatuo import web
from huatuo.accounts import Role
from reviews.export import export_zip
from reviews.store import Store

ROLE: Role = "researcher"
PATH = "/export/votes.zip"


def route(store: Store) -> web.Route:
    """The guarded route that answers with every vote, pseudonymous, and the manifest."""

    async def answer(request: Request) -> Response:
        body = await asyncio.to_thread(export_zip, store.database)
        return Response(
            body,
            media_type="application/zip",
            headers={"content-disposition": 'attachment; filename="huatuo-votes.zip"'},
        )

    return web.Route(PATH, answer, ROLE, limit="export")
