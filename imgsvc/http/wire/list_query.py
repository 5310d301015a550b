"""The query of a list of images, shared by the user's and the operator's: filters, page and cursor."""

import json
from dataclasses import asdict
from typing import Annotated

from pydantic import Field
from starlette.requests import Request

from ...access.cursors import CursorInvalid
from ...jobs.table.listing import FIRST, ImageFilter, Position
from ...jobs.table.model import Status, folded
from ...settings.fields import Matching
from ..state import state_of
from .moments import Moment
from .problems import validation
from .upload_fields import Bucket
from .validation import WHOLE_NUMBER, StrictQuery

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
MAX_NAME = 255  # characters
NEWER = ("failed_since", "failed_before")  # filters that the cursors of earlier versions don't know
Digest = Annotated[str, Matching("[0-9A-Fa-f]{64}", "64 hexadecimal digits")]


class ListQuery(StrictQuery):
    bucket: Annotated[Bucket | None, Field(description="Only images of this bucket.")] = None
    status: Annotated[Status | None, Field(description="Only images whose job has this status.")] = None
    q: Annotated[
        str | None,
        Field(min_length=1, max_length=MAX_NAME, description="The beginning of the file name, in upper or lower case."),
    ] = None
    sha256: Annotated[Digest | None, Field(description="The SHA-256 of the uploaded bytes, in hex.")] = None
    created_after: Annotated[Moment | None, Field(description="Only images that were accepted then or later.")] = None
    created_before: Annotated[Moment | None, Field(description="Only images that were accepted before.")] = None
    limit: Annotated[
        int, Field(ge=1, le=MAX_LIMIT, description="The largest number of images on a page."), WHOLE_NUMBER
    ] = DEFAULT_LIMIT
    after: Annotated[
        str | None,
        Field(max_length=100, description="`next` of the page before, with the same filters and the same user."),
    ] = None

    def filter(self, org_id: str | None, user_id: str | None) -> ImageFilter:
        """Of one user, of an organisation, or of all."""
        return ImageFilter(
            org_id=org_id,
            user_id=user_id,
            bucket=self.bucket,
            status=self.status,
            sha256=self.sha256.lower() if self.sha256 else None,
            name=folded(self.q) if self.q else None,
            since=self.created_after or "",
            before=self.created_before or "",
        )


def position(request: Request, cursor: str | None, context: str) -> Position:
    """Where a page begins. Raises Problem (422)."""
    if cursor is None:
        return FIRST
    try:
        return Position(*state_of(request).access.cursors.position(cursor, context))
    except CursorInvalid:
        message = "must be `next` of a page of the same list, with the same filters and by the same user"
        raise validation((("query", "after"), message, "cursor_invalid")) from None


def context_of(reader: str, wanted: ImageFilter) -> str:
    """What a cursor is good for: one kind of reader and one set of filters."""
    filters = {name: value for name, value in asdict(wanted).items() if value or name not in NEWER}
    return json.dumps([reader, filters])
