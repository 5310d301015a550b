"""What may be said of a picture is a closed list, and everything that the decoders say is on it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgsvc.imaging
from imgsvc.imaging import errors
from imgsvc.imaging.error_messages import GENERAL, is_ours, sentence

FOLDER = Path(imgsvc.imaging.__file__).parent
WORDS = {"_reason(error)": "its data is broken", "step.__name__": "decode", "measured": "9 x 9 = 0.1 megapixels"}
WORDS |= {
    "self._codec.words": "HEVC",
    "words": "The picture is coded as",
    "exact": "0.1",
    "allowed": "at most 7 megapixels are allowed",
}


def raised() -> Iterator[tuple[str, str, str]]:
    """Each sentence that an ImageError in the source is made of: where, its code, and the text with 7 in its blanks."""
    of_variants = {*FOLDER.glob("still_*.py"), FOLDER / "moving_webp.py", FOLDER / "stripped.py"}
    for path in sorted(set(FOLDER.glob("*.py")) - of_variants):  # those are about what a worker wrote, for the log
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                kind = getattr(errors, node.func.id, None)
                if isinstance(kind, type) and issubclass(kind, errors.ImageError):
                    yield f"{path.name}:{node.lineno}", kind.code, text(node.args[0])


def text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr), ast.unparse(node)
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else WORDS.get(ast.unparse(part.value), "7")  # type: ignore[attr-defined]
        for part in node.values
    )


def test_every_sentence_of_the_decoders_is_ours() -> None:
    found = list(raised())
    assert len(found) > 50
    missing = [
        f"{where}: {words!r}, in SENTENCES[{code!r}]" for where, code, words in found if not is_ours(code, words)
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("image_unreadable", "the operator's token is 1234"),
        ("image_unreadable", "The JPEG has 1 colour components.\nadmin=true"),
        ("image_unreadable", "The JPEG has hunter2 scans; at most 3 are read."),
        ("image_unreadable", f"The JPEG has {'9' * 400} colour components."),
        ("image_unreadable", "The JPEG has ٣ colour components."),
        ("timeout", "Processing took too long (stopped after hunter2)."),
        ("image_too_large", "The JPEG has no scan."),
        ("internal_error", "Traceback (most recent call last)"),
    ],
)
def test_anything_else_becomes_the_general_sentence(code: str, words: str) -> None:
    assert sentence(code, words) == GENERAL[code]


def test_foreign_code_is_refused() -> None:
    with pytest.raises(KeyError):
        sentence("interrupted", "x")
