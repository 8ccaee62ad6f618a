"""files of prepared pairs or cases, sent by a plain form on the studies page and read into a study."""

import asyncio
import html as escape
import re
import tempfile
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Message

from huatuo import web
from huatuo.accounts import Accounts, Role
from huatuo.arena import rater_of
from huatuo.errors import InputError
from huatuo.guard import Refusal
from huatuo.identity import Language
from huatuo.ui import frame
from huatuo.ui.plain import plain, problem_box
from huatuo.ui.text import TEXT, say
from reviews.errors import BadFile, BadStudy, StudyFrozen
from reviews.importer import Report, import_files
from reviews.store import Store

ROLE: Role = "researcher"
PATH = "/{language}/studies/upload"
LARGEST = 20 * 2**20
"""Bytes of one form with its files."""
PATIENCE_S = 120.0
SHOWN = 20
"""Items that are told one by one."""


def form(language: Language, studies: list[str]) -> str:
    """The form as HTML. studies: names that are proposed."""
    names = "".join(f'<option value="{escape.escape(name)}">' for name in studies)

    def box(key: str, kind: str, more: str = "") -> str:
        label = say(f"studies.upload_{key}", language)
        return f'<label>{label}<input name="{key}" type="{kind}" {more}></label>'

    languages = "".join(
        f'<option value="{one}">{say(f"studies.{one}", language)}</option>' for one in ("zh", "en")
    )
    return f"""<form class="upload" method="post" action="/{language}/studies/upload"
 enctype="multipart/form-data">
{box("study", "text", 'list="study-names" required maxlength="64"')}
<datalist id="study-names">{names}</datalist>
{box("first", "file", 'accept=".json,.jsonl" required')}
{box("second", "file", 'accept=".json"')}
<label>{say("studies.language", language)}<select name="language">{languages}</select></label>
<button>{say("studies.upload", language)}</button></form>
<p class="quiet">{say("studies.upload_help", language, megabytes=LARGEST // 2**20)}</p>"""


def route(store: Store, accounts: Accounts) -> web.Route:
    """The guarded route that takes the form and answers with what became of it."""

    async def upload(request: Request, language: Language) -> Response:
        session = await run_in_threadpool(accounts.require, request, ROLE)
        given = (request, store, rater_of(session))
        try:
            study, report = await asyncio.wait_for(_read(*given), PATIENCE_S)
        except TimeoutError:
            raise Refusal(408) from None
        except BadFile as error:
            where = frame.place(f"{Path(error.file).name}: {error.place}".rstrip(": "), language)
            return _page(language, problem=_told(where, frame.reason(error, language), language))
        except (BadStudy, StudyFrozen, InputError) as error:
            where = frame.place(getattr(error, "where", ""), language)
            return _page(language, problem=_told(where, frame.reason(error, language), language))
        return _page(language, study, report)

    return web.Route(PATH, upload, ROLE, ("POST",), "upload", LARGEST)


def _told(where: str, words: str, language: Language) -> str:
    """A sentence with what it is about before it."""
    return say("studies.about", language, label=where, words=words) if where else words


async def _read(request: Request, store: Store, actor: int) -> tuple[str, Report]:
    """Takes the form apart and files what the files hold. Raises InputError, RecordError, Refusal."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > LARGEST:
            raise Refusal(413)
        return message

    try:
        form = await Request(request.scope, counted).form(max_files=2, max_fields=4)
    except (MultiPartException, HTTPException) as error:
        raise InputError("the form could not be read; choose the files again") from error
    try:
        files = [form.get("first"), form.get("second")]
        sent = [one for one in files if isinstance(one, UploadFile) and one.filename]
        study, spoken = form.get("study"), form.get("language")
        if not isinstance(study, str) or not study.strip() or spoken not in ("zh", "en"):
            raise InputError("a study's name and a language are needed")
        if not sent:
            raise InputError("choose one file, or two to pair by id")
        with tempfile.TemporaryDirectory(prefix="huatuo-upload-") as folder:
            paths = [await _kept(one, Path(folder) / str(n)) for n, one in enumerate(sent)]
            report = await run_in_threadpool(
                import_files, store, paths, study.strip(), language=str(spoken), actor=actor
            )
    finally:
        await form.close()
    return study.strip(), report


async def _kept(one: UploadFile, folder: Path) -> Path:
    """The file in a folder of its own, under a plain form of its name, which may name a model."""
    name = re.sub(r"[^\w.-]", "_", Path(one.filename or "").name)[-80:].lstrip(".")
    if Path(name).suffix not in (".json", ".jsonl"):
        raise InputError("a file's name must end with .json or .jsonl")
    folder.mkdir()
    (folder / name).write_bytes(await one.read())
    return folder / name


def _page(
    language: Language, study: str = "", report: Report | None = None, problem: str = ""
) -> Response:
    """What became of the files."""
    links = f'<p><a href="/{language}/studies/">{say("studies.back", language)}</a></p>'
    title = say("studies.uploaded" if report else "studies.not_uploaded", language)
    if report is None:
        words = f"<p>{say('studies.nothing_changed', language)}</p>"
        return HTMLResponse(plain(title, problem_box(problem) + words + links, language), 422)
    stored, refused = report.stored, report.found.refused
    counts = say(
        f"studies.{report.kind}_read",
        language,
        study=escape.escape(study),
        read=report.found.read,
        added=stored.added,
        there=stored.already_there,
        refused=len(refused) + len(stored.differs),
    )
    items = [_told(item, TEXT[f"why.{why}"][language], language) for item, why in refused]
    items += [_told(item, say("studies.differs", language), language) for item in stored.differs]
    rows = "".join(f"<li>{escape.escape(one)}</li>" for one in items[:SHOWN])
    more = len(items) - SHOWN
    if more > 0:
        rows += f"<li>{say('studies.and_more', language, more=more)}</li>"
    return HTMLResponse(plain(title, f"<p>{counts}</p><ul>{rows}</ul>{links}", language))
