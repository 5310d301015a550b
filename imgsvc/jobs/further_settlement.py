"""The end of a run of a further render: publishes what was made, and names it in the image's row."""

from typing import Any

from ..storage.base import StorageBusy, StorageError
from .failures import NOT_STORED
from .further_run import FurtherRun
from .lanes.messages import Rendered
from .publish import publish
from .retry import Failure, decide
from .run import FurtherStatus
from .settlement import Settlement
from .table.further_changes import MadeFiles
from .table.model import as_text, now


class FurtherSettlement(Settlement):
    """Ends one run. The image's row changes only when all is stored; whatever fails leaves it as it is."""

    def __init__(self, run: FurtherRun) -> None:
        super().__init__(run)
        self._run: FurtherRun = run
        self._further = run.context.table.further
        self._render = run.further

    async def _settle(self, outcome: Any) -> None:
        if isinstance(outcome, Rendered):
            await self._publish(outcome)
        elif self._run.requeued:
            await self._further.requeue(self.job, self._render)
            self._tell("requeued")
        else:
            await self._unsuccessful(outcome or NOT_STORED)

    async def _publish(self, rendered: Rendered) -> None:
        keys = self._render.keys
        try:
            await publish(self._storage, self.job.storage_bucket, keys, self._files(rendered))
        except StorageBusy:
            raise
        except Exception as error:  # a custom storage may raise anything
            self._log.error("publish_failed", reason=str(error), exc_info=not isinstance(error, StorageError))
            await self._unsuccessful(NOT_STORED)
            return
        if not await self._further.finish(self._render, self._made(rendered)):
            await self._overtaken_by_a_change()
            return
        self._log.info("rendered_again", kind=self._render.kind, variants=sorted(keys))
        self._tell("made")
        await self._end_source()

    def _made(self, rendered: Rendered) -> MadeFiles:
        moment, origin = as_text(now()), self._run.rendered_from
        more = {"modified": moment, **({"rendered_from": origin} if origin else {})}
        measured = {made.name: made.measured | more for made in rendered.variants}
        return MadeFiles(measured, self._context.presigned)

    async def _unsuccessful(self, failure: Failure) -> None:
        render = self._render
        decision = decide(
            failure,
            attempts=render.attempts,
            deaths=render.deaths,
            max_attempts=self.job.max_retries,
            delay_seconds=self._context.limits.retry_delay_seconds,
        )
        self.retries = decision.outcome == "retry"
        if not await self._further.unsuccessful(self.job, render, failure, decision):
            await self._overtaken_by_a_change()
            return
        self._log.warning("render_not_made", code=failure.code, reason=failure.message, outcome=decision.outcome)
        self._tell("retried" if decision.outcome == "retry" else "failed")
        if decision.outcome == "fail":
            await self._end_source()

    async def _overtaken_by_a_change(self) -> None:
        await self._further.overtaken(self.job, self._render)
        self._log.info("render_overtaken")
        self._tell("overtaken")

    async def _end_source(self) -> None:
        if self._render.source == "staged":
            await self._remove_source()

    async def _source_wanted(self) -> bool:
        return await self._table.files.source_wanted(self.job)

    def _tell(self, status: FurtherStatus) -> None:
        self._context.on_further(self._render.kind, status)
