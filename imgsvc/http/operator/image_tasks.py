"""What the operator has done to many images at once: rendering them again, and dropping kept sources."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from ...jobs.answer_model import COMPLETED, IMAGE_ID, JOB_ID, STARTED, AnswerModel, example
from ...jobs.table.render_tasks import NewTask, RenderReport
from ..openapi.operations import Answer, by_method, operation
from ..state import state_of
from ..wire.json_body import json_body
from ..wire.json_response import json_response
from ..wire.problems import NO_STORE, validation
from . import auth

MOST_DROPPED = 1_000


class RenderOrder(BaseModel):
    """What to render again."""

    model_config = ConfigDict(
        defer_build=True, extra="forbid", json_schema_extra={"examples": [{"variants": ["hero"]}]}
    )

    variants: Annotated[
        list[str] | None, Field(min_length=1, max_length=64, description="Names of `[images] sizes`; all unless given.")
    ] = None
    bucket: Annotated[str | None, Field(max_length=400, description="Only images of this bucket.")] = None
    missing_only: Annotated[
        bool, Field(strict=True, description="Only what an image has not at all; not what it has with other settings.")
    ] = False


class ImageFinding(AnswerModel):
    """An image that keeps what it had, or some of it (`failed`, with the reason), or whose variants could only be
    made from its largest one (`from_variant`, with its name).
    """

    image_id: str
    kind: Literal["failed", "from_variant"]
    reason: str | None


class ImageTask(AnswerModel):
    """The running task, or the last one. `done` of `total` are rows of the table, for a progress bar; `examined`,
    `ordered`, `rendered`, `from_variant`, `failed` and `waiting` are images. `held`: it waits for the end of a backup.
    `findings` are the first 100 of each kind.
    """

    model_config = example(
        task_id=JOB_ID,
        state="done",
        variants=["hero"],
        bucket=None,
        missing_only=False,
        held=False,
        done=4_001,
        total=4_001,
        examined=4_000,
        ordered=3_990,
        waiting=0,
        rendered=3_989,
        from_variant=1,
        failed=1,
        findings=[{"image_id": IMAGE_ID, "kind": "from_variant", "reason": "original"}],
        began_at=STARTED,
        ended_at=COMPLETED,
    )

    task_id: str | None = None
    state: Literal["none", "running", "done", "cancelled"] = "none"
    variants: list[str] | None = None
    bucket: str | None = None
    missing_only: bool = False
    held: bool = False
    done: int = 0
    total: int = 0
    examined: int = 0
    ordered: int = 0
    waiting: int = 0
    rendered: int = 0
    from_variant: int = 0
    failed: int = 0
    findings: tuple[ImageFinding, ...] = ()
    began_at: str | None = None
    ended_at: str | None = None

    @classmethod
    def of(cls, report: RenderReport | None, *, held: bool) -> Self:
        if report is None:
            return cls()
        task = report.task
        return cls(
            task_id=task.task_id,
            state=task.state,
            variants=None if task.variants is None else sorted(task.variants),
            bucket=task.bucket,
            missing_only=task.missing_only,
            held=held and task.state == "running",
            done=max(0, task.after_row - report.waiting),
            total=task.upto_row,
            examined=task.examined,
            ordered=task.ordered,
            waiting=report.waiting,
            rendered=task.rendered,
            from_variant=task.from_variant,
            failed=task.failed,
            findings=tuple(
                ImageFinding(image_id=one.image_id, kind=one.kind, reason=one.reason) for one in report.findings
            ),
            began_at=task.began_at,
            ended_at=task.ended_at,
        )


@operation(
    "operator_images_render",
    "operator",
    "Render images again",
    access="operator_acting",
    body=RenderOrder,
    answers={202: Answer("The task has started; GET /api/v1/operator/images/task shows its progress.", ImageTask)},
    errors=("task_running", "overloaded"),
)
async def render(request: Request) -> Response:
    """Makes the variants of `[images] sizes` that images lack, or have with other settings: from the kept source, else
    from the largest variant. New uploads go first, a backup is waited for, and a restart goes on with it. What an image
    has is served until the new file is there; a changed variant gets a new URL, to which the old one leads for 30 days.
    """
    await auth.require_operator(request)
    state, wanted = state_of(request), await json_body(request, RenderOrder)
    recipe = state.settings.images.recipe
    names = None if wanted.variants is None else frozenset(wanted.variants)
    for name in sorted((names or frozenset()) - {variant.name for variant in recipe.variants}):
        raise validation((("body", "variants"), f"{name!r} is no name of [images] sizes", "unknown_variant"))
    await state.jobs.again.begin(NewTask(recipe, names, wanted.bucket, wanted.missing_only))
    return await _shown(request, 202)


@operation(
    "operator_images_task",
    "operator",
    "The running task of images, or the last one",
    access="operator",
    answers={200: ImageTask},
    errors=("overloaded",),
)
async def show(request: Request) -> Response:
    """`state` is `none` when there was none."""
    await auth.require_reader(request)
    return await _shown(request, 200)


@operation(
    "operator_images_task_cancel",
    "operator",
    "Cancel the running task of images",
    access="operator_acting",
    answers={202: Answer("The task has ended.", ImageTask)},
    errors=("overloaded",),
)
async def cancel(request: Request) -> Response:
    """What it has made stays. Ordering it again goes on with what is left."""
    await auth.require_operator(request)
    await state_of(request).jobs.again.cancel()
    return await _shown(request, 202)


async def _shown(request: Request, status: int) -> Response:
    again = state_of(request).jobs.again
    return json_response(ImageTask.of(await again.latest(), held=again.held), status, NO_STORE)


task = by_method(GET=show, DELETE=cancel)


class DropSources(BaseModel):
    """How many images this request is for."""

    model_config = ConfigDict(
        defer_build=True, extra="forbid", json_schema_extra={"examples": [{"limit": MOST_DROPPED}]}
    )

    limit: Annotated[int, Field(ge=1, le=MOST_DROPPED, description="The most images of one request.")] = MOST_DROPPED


class DroppedSources(AnswerModel):
    """How many images lost their source, and how many bytes those have. Send it again until `images` is 0."""

    model_config = example(images=1_000, bytes=2_411_724_000)

    images: int
    bytes: int


@operation(
    "operator_images_drop_sources",
    "operator",
    "Remove kept sources",
    access="operator_acting",
    body=DropSources,
    answers={200: DroppedSources},
    errors=("overloaded",),
)
async def drop_sources(request: Request) -> Response:
    """What `[images] keep_source` has kept, as many images at a time. The variants stay. Files go within minutes, and
    after a backup that runs.
    """
    await auth.require_operator(request)
    wanted, jobs = await json_body(request, DropSources), state_of(request).jobs
    images, size = await jobs.table.further.drop_sources(wanted.limit)
    if images:
        jobs.housekeeping.sweep_soon()
    return json_response(DroppedSources(images=images, bytes=size))
