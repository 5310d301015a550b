"""HTML elements. Text is escaped unless it was made here."""

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
ADDRESSES = frozenset({"href", "src", "action", "srcset"})
SCHEME = re.compile(r"\s*([^/?#]*?):")


class Html(str):
    """Markup: it is not escaped again."""

    __slots__ = ()


Child: TypeAlias = "Html | str | int | Iterable[Child] | None"


def el(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """An element. None is left out, as a child and as an attribute; lists of children are joined.

    `class_` and `for_` are `class` and `for`, and `data_key` is `data-key`. Raises ValueError for an address that would
    run a script.
    """
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Html(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """The children one after the other."""
    return Html("".join(_written(child) for child in children))


def foreign(text: str, **attributes: str | None) -> Html:
    """Words of a client, with isolated text direction."""
    return el("bdi", text, dir="auto", **attributes)


def _written(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, (str, int)):
        return escape(str(child))
    return "".join(_written(one) for one in child)


def _attribute(name: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    scheme = SCHEME.match(str(value)) if name in ADDRESSES else None
    if scheme and scheme[1].lower() not in ("http", "https"):
        raise ValueError(f"{name} has the scheme {scheme[1]!r}")
    return f' {name}="{escape(str(value))}"'
