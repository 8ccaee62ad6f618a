"""unsent work on a comparison: kept on the server while the rater works, given back on any device."""

import asyncio
import dataclasses
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from huatuo import privacy, web
from huatuo.accounts import Accounts, Role
from huatuo.arena import rater_of
from reviews.errors import AlreadyVoted, AssignmentClosed, BadVote, NotYours, UnknownAssignment
from reviews.records import Choice, Span, Vote
from reviews.store import Store

ROLE: Role = "physician"
PATH = "/draft"
MOST_SPANS = 50
LONGEST = 8000
"""Characters of an own answer."""


class Work(BaseModel):
    """What a rater has done on a comparison so far. Sides are as seen; active_s: seconds at work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: Choice | None = None
    reason: str = Field(default="", max_length=LONGEST)
    ratings: dict[str, int] = Field(default_factory=dict, max_length=100)
    spans: tuple[Span, ...] = Field(default=(), max_length=MOST_SPANS)
    better: str = Field(default="", max_length=LONGEST)
    better_side: Literal["left", "right", ""] = ""
    consent: bool = False
    active_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def spans_text(self) -> str:
        """The marks as the page keeps them."""
        return json.dumps([dataclasses.asdict(span) for span in self.spans], ensure_ascii=False)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to give back."""
        return not (self.choice or self.reason or self.ratings or self.spans or self.better)


class _Sent(BaseModel):
    """What the page's script posts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ticket: str = Field(max_length=64)
    work: Work


def of_vote(vote: Vote) -> Work:
    """The work that led to a vote, to be revised."""
    better = vote.better
    return Work(
        choice=vote.choice,
        reason=vote.reason,
        ratings=dict(vote.ratings),
        spans=vote.spans,
        better=better.text if better else "",
        better_side=better.side if better else "",
        consent=better is not None,
    )


def stored(store: Store, assignment_id: str, rater: int) -> Work:
    """The rater's draft, or nothing; one that an older version wrote otherwise counts as nothing."""
    found = store.draft(assignment_id, rater)
    try:
        return Work.model_validate(found or {})
    except ValidationError:
        return Work()


def masked(work: Work) -> Work:
    """The work without identifiers in what was written: a draft is stored too."""
    return work.model_copy(
        update={
            "reason": privacy.mask(work.reason).text,
            "better": privacy.mask(work.better).text,
        }
    )


def route(store: Store, accounts: Accounts) -> web.Route:
    """The guarded route that keeps what the page's script sends: 204, or why not in a status.

    404: not this rater's. 409: the comparison takes no draft any more. 422: not what the page sends. 429: too many a minute.
    """

    def keep(rater: int, body: bytes) -> int:
        try:
            sent = _Sent.model_validate_json(body)
            assignment, _ = store.view(sent.ticket, rater)
            if assignment.state == "voted":  # it came too late, or from a tab left behind
                return 409
            data: dict[str, Any] = masked(sent.work).model_dump(mode="json")
            store.save_draft(sent.ticket, rater, data)
        except (ValidationError, BadVote):
            return 422
        except (NotYours, UnknownAssignment):
            return 404
        except (AssignmentClosed, AlreadyVoted):
            return 409
        return 204

    async def answer(request: Request) -> Response:
        session = await asyncio.to_thread(accounts.require, request, ROLE)
        body = await request.body()
        return Response(status_code=await asyncio.to_thread(keep, rater_of(session), body))

    return web.Route(PATH, answer, ROLE, methods=("POST",), limit="draft")
