"""Errors of commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CommandFailed(Exception):
    """The command did not succeed (exit status 1). The message is one line."""


@contextmanager
def failing_for(*expected: type[Exception], in_words: Callable[[BaseException], str] = str) -> Iterator[None]:
    """Raise CommandFailed for these errors, alone or in the groups that task groups make of them.

    Not `except*`: an exception raised there would be wrapped in another group.
    """
    try:
        yield
    except expected as error:
        raise CommandFailed(in_words(error)) from None
    except BaseExceptionGroup as group:
        if group.split(expected)[1] is not None:
            raise
        raise CommandFailed(in_words(_first(group))) from None


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
