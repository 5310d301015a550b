"""An image on a terminal: an address for each variant, in every format, and no Python."""

import pytest

from imgsvc.cli.tables import print_image


def test_addresses_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {"urls": {"medium": "/m.webp"}, "formats": {"avif": {"medium": "/m.avif"}}, "metadata": {"at": {"x": 1}}}
    print_image({"image_id": "1", **shown})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [["image_id", "1"], ["medium", "/m.webp"], ["avif", "medium", "/m.avif"], ["at", '{"x":', "1}"]]
