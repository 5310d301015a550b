"""API keys for the operator: created, listed and revoked. A key is in the answer of its creation and nowhere else."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import UPLOAD
from ...access.token_limits import TokenLimits, reason_of
from ...access.tokens import DEFAULT_ORG, MAX_NAME_CHARACTERS
from ...jobs.answer_model import CREATED, AnswerModel, example
from ...jobs.table.credentials import ApiKey
from ...settings.fields import Matching
from ..openapi.operations import Answer, by_method, operation
from ..state import state_of
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.path_ids import path_id
from ..wire.problems import NO_STORE, key_not_found
from . import auth

KEY_ID = "5d0c2a52-3f35-4a6f-9f3b-7f2a5c0f1b3e"
NAMED: dict[str, Any] = {"name": "shop", "sub": "shop", "org": DEFAULT_ORG}
LISTED: dict[str, Any] = {
    "key_id": KEY_ID,
    **NAMED,
    "permissions": [UPLOAD],
    "narrower": {"buckets": ["holiday"]},
    "created_at": CREATED,
    "last_used_at": None,
    "revoked_at": None,
}
MAX_BYTES = 64 * 1024  # the lists of its limits may be long
Name = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME_CHARACTERS),
    Matching(r"[^\x00-\x1f\x7f-\x9f]*", f"1 to {MAX_NAME_CHARACTERS} characters without control characters"),
]


def _as_in_tokens(schema: dict[str, Any]) -> None:
    """Describe the limits as `TokenLimits` has them, without null."""
    limits = TokenLimits.model_json_schema()["properties"]
    schema["properties"] = {
        name: next(kind for kind in limit["anyOf"] if kind != {"type": "null"}) for name, limit in limits.items()
    }
    schema["additionalProperties"] = False


def _checked(limits: dict[str, Any]) -> dict[str, Any]:
    try:
        TokenLimits.model_validate(limits)
    except ValidationError as error:
        raise PydanticCustomError("limits_invalid", "{reason}", {"reason": reason_of(error)}) from None
    return limits


def _some(permissions: list[str]) -> list[str]:
    if not permissions:
        raise ValueError("must name at least one permission: a key without any could do nothing")
    return permissions


class NewKey(BaseModel):
    """Whom the key acts as, what it may do, and its limits, as in the claim `imgsvc` of a JWT."""

    model_config = ConfigDict(defer_build=True, extra="forbid", json_schema_extra={"examples": [NAMED]})

    name: Annotated[Name, Field(description="A label for people, such as the application that uses it.")]
    sub: Annotated[Name, Field(description="The user that it acts as.")]
    org: Annotated[Name, Field(description="The user's organisation.")] = DEFAULT_ORG
    permissions: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]],
        AfterValidator(_some),
        Field(
            max_length=50,
            description="All that it may do, in every mode of permissions.",
            json_schema_extra={"minItems": 1},
        ),
    ] = [UPLOAD]
    narrower: Annotated[
        dict[str, Any],
        AfterValidator(_checked),
        Field(
            description="Limits of its uploads, as in the claim `imgsvc`.",
            examples=[{"buckets": ["holiday"]}],
            json_schema_extra=_as_in_tokens,
        ),
    ] = {}

    @property
    def limits(self) -> TokenLimits:
        return TokenLimits.model_validate(self.narrower)


class ListedKey(AnswerModel):
    """A key without its secret. `last_used_at` is exact to the hour."""

    model_config = example(**LISTED)

    key_id: str
    name: str
    sub: str
    org: str
    permissions: list[str]
    narrower: dict[str, Any]
    created_at: str
    last_used_at: str | None
    revoked_at: str | None

    @classmethod
    def of(cls, listed: ApiKey, **more: Any) -> Self:
        return cls(
            key_id=listed.key_id,
            name=listed.name,
            sub=listed.user_id,
            org=listed.org_id,
            permissions=list(listed.permissions),
            narrower=listed.narrower.model_dump(mode="json", exclude_none=True),
            created_at=listed.created_at,
            last_used_at=listed.last_used_at,
            revoked_at=listed.revoked_at,
            **more,
        )


class CreatedKey(ListedKey):
    """`key` is shown this once."""

    model_config = example(**LISTED, key="imgk_…")

    key: str


class ListedKeys(AnswerModel):
    """All keys, the newest first, revoked ones too."""

    model_config = example(keys=[LISTED])

    keys: list[ListedKey]


class RevokedKey(AnswerModel):
    """The key is no longer accepted."""

    model_config = example(key_id=KEY_ID, revoked=True)

    key_id: str
    revoked: bool = True


@operation(
    "operator_keys_list",
    "operator",
    "API keys",
    access="operator",
    answers={200: ListedKeys},
    errors=("method_not_allowed", "overloaded"),
)
async def list_keys(request: Request) -> Response:
    """Never public: it names people."""
    await auth.require_signed_in(request)
    keys = await state_of(request).access.credentials.keys()
    return json_response(ListedKeys(keys=[ListedKey.of(key) for key in keys]))


@operation(
    "operator_keys_create",
    "operator",
    "Create an API key",
    access="operator_acting",
    body=NewKey,
    answers={201: Answer("The key, which is shown this once.", CreatedKey)},
    errors=("being_erased", "method_not_allowed", "overloaded"),
)
async def create(request: Request) -> Response:
    """It is sent as a bearer token wherever a JWT is."""
    await auth.require_operator(request)
    wanted = await json_body(request, NewKey, MAX_BYTES)
    secret, key = await state_of(request).access.credentials.create_key(
        wanted.name, wanted.org, wanted.sub, tuple(dict.fromkeys(wanted.permissions)), wanted.limits
    )
    return json_response(CreatedKey.of(key, key=secret), 201, NO_STORE)


@operation(
    "operator_keys_revoke",
    "operator",
    "Revoke an API key",
    access="operator_acting",
    answers={200: RevokedKey},
    errors=("key_not_found", "overloaded"),
)
async def revoke(request: Request) -> Response:
    """At once: no later request is let in by it, and neither is one by a ticket that it issued."""
    await auth.require_operator(request)
    key_id = path_id(request, "key_id", key_not_found)
    if not await state_of(request).access.credentials.revoke_key(key_id):
        raise key_not_found()
    return json_response(RevokedKey(key_id=key_id))


keys = by_method(GET=list_keys, POST=create)
