"""Small pages for people, without scripts."""

import base64
import hashlib
from html import escape

STYLE = (
    ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto}"
    "code{font-size:1.1em}dt{font-weight:600;margin-top:1rem}dd{margin:0}"
)
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def small_page(title: str, content: str) -> str:
    """A small page for people; `content` is HTML."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style><main>{content}</main></html>"
    )
