"""A process that has decoded nothing before."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.server_process import ROOT

RENDER = """
import sys, tempfile
from pathlib import Path
from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.imaging.pipeline import render
import io
with open(sys.argv[1], "rb") as source:
    made = render(source, sys.argv[2], Recipe((Variant("a", 60, 85, 2),), 10**7, 1), {"a": io.BytesIO()})
print(made.variants[0].width)
"""
KINDS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}


def picture(form: str) -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").resize((120, 80)).save(data, form)
    return data.getvalue()


@pytest.mark.parametrize("mime", KINDS)
def test_first_picture_of_a_process_is_decoded(mime: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(picture(KINDS[mime]))
    done = subprocess.run([sys.executable, "-c", RENDER, str(source), mime], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "60\n", done.stderr
