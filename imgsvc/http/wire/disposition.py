"""Content-Disposition of a form's part: the field's name and the client's file name.

Sources: RFC 7578 section 4.2, RFC 8187 (`filename*`), WHATWG HTML "multipart/form-data encoding algorithm" (a quote, CR
and LF in a name are sent as %22, %0D and %0A).
"""

import re
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header

MAX_FILENAME = 255  # characters kept of a client's file name
PARAMETER = re.compile(rb';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*("(?:\\.|[^"\\])*"|[^;]*)')
EXTENDED = re.compile(rb"(utf-8|iso-8859-1)'[A-Za-z0-9-]*'((?:[^%\s'\"]|%[0-9a-f]{2})*)", re.IGNORECASE)
ESCAPED = re.compile("%(22|0[DA])", re.IGNORECASE)


def part_names(header: bytes) -> tuple[str, str]:
    """(field name, file name) of a part. `filename*` wins over `filename`, unless it is malformed."""
    _, options = parse_options_header(header)
    name, filename = (_unescaped(options.get(key, b"").decode("utf-8", "replace")) for key in (b"name", b"filename"))
    return name, safe_filename(_extended(header) or filename)


def safe_filename(name: str) -> str:
    """The last component of a client's path, without control characters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(character for character in last if character.isprintable())[:MAX_FILENAME]


def _unescaped(name: str) -> str:
    return ESCAPED.sub(lambda match: chr(int(match[1], 16)), name)


def _extended(header: bytes) -> str:
    for match in PARAMETER.finditer(header):
        value = EXTENDED.fullmatch(match[2].strip().strip(b'"')) if match[1].lower() == b"filename*" else None
        if value:
            try:
                return unquote_to_bytes(value[2]).decode(value[1].decode())
            except UnicodeDecodeError:
                return ""
    return ""
