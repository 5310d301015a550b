"""One render on two lanes: the largest variant on one, the others on the other, while nothing else waits.

It stays one claim and one run. The first failure of a part is that of the render, and ends the other part.
"""

from collections.abc import Iterable
from dataclasses import field, replace
from secrets import token_hex

import anyio

from ...imaging.recipe import SOURCE, Recipe
from ...lazy_dataclass import dataclass
from .base import Lane
from .messages import Outcome, Rendered, Task


@dataclass(slots=True)
class Loan:
    """A lane that is idle, lent to a render of another one. `reserved_bytes` is the ceiling of its part."""

    reserved_bytes: int
    over: anyio.Event = field(default_factory=anyio.Event)
    _lent: anyio.Event = field(default_factory=anyio.Event)
    _lane: Lane | None = None

    async def lend(self, lane: Lane) -> None:
        """Hand the lane over, and wait until it is given back."""
        self._lane = lane
        self._lent.set()
        await self.over.wait()

    async def lane(self) -> Lane:
        await self._lent.wait()
        assert self._lane is not None
        return self._lane


class SplitLane:
    """Two lanes as one, for one task. The second is given back as soon as its part is over."""

    def __init__(self, first: Lane, second: Lane, loan: Loan) -> None:
        self.name = first.name
        self.lanes = first, second
        self._loan = loan

    async def run(self, task: Task) -> Outcome:
        """Do both parts of the task at the same time. The end of a part is returned as a Failure."""
        largest, others = parts(task)
        made: list[Outcome] = [None, None]
        failures: list[Outcome] = []

        async def perform(place: int, part: Task) -> None:
            made[place] = outcome = await self.lanes[place].run(part)
            if not isinstance(outcome, Rendered):
                failures.append(outcome)
                if len(failures) == 1:
                    self.lanes[1 - place].kill()
            if place == 1:
                self._loan.over.set()

        async with anyio.create_task_group() as group:
            group.start_soon(perform, 0, largest)
            group.start_soon(perform, 1, others)
        return failures[0] if failures else _joined(made)

    def kill(self) -> None:
        for lane in self.lanes:
            lane.kill()


def can_be_split(recipe: Recipe, done: Iterable[str]) -> bool:
    """Whether the largest variant is to be made, and others too."""
    left = {variant.name for variant in recipe.variants}.difference(done)
    return recipe.variants[0].name in left and len(left) > 1


def parts(task: Task) -> tuple[Task, Task]:
    """The task of the largest variant, and that of the others."""
    recipe = Recipe.from_json(task.recipe)
    largest, *others = (variant.name for variant in recipe.variants)
    return (
        replace(task, done=tuple({*task.done, *others})),
        replace(task, done=(*task.done, largest, SOURCE), id=token_hex(16)),
    )


def _joined(made: Iterable[Outcome]) -> Outcome:
    """One rendering of all variants. Its size is the first part's: that and the variants are checked afterwards."""
    renderings = [one for one in made if isinstance(one, Rendered)]
    colour = next((one.dominant_colour for one in renderings if one.dominant_colour), "")
    placeholder = next((one.thumbhash for one in renderings if one.thumbhash), "")
    found = {"dominant_colour": colour, "thumbhash": placeholder}
    variants = tuple(variant for one in renderings for variant in one.variants)
    return renderings[0].model_copy(update={"variants": variants, **found})
