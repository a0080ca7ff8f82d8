"""The picture, drawn from a small report."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from unit.embedded.reports import report

from node.embedded.bench.__main__ import main
from node.embedded.bench.picture import NoPicture, curve, draw
from node.embedded.bench.results import Report, as_json

PNG = b"\x89PNG\r\n\x1a\n"


def test_svg_and_png_are_written_for_each_work(tmp_path: Path) -> None:
    written = draw(report(), tmp_path / "speed")
    assert [file.name for file in written] == ["speed.svg", "speed.png", "speed-tpcb.svg", "speed-tpcb.png"]
    assert ElementTree.parse(written[0]).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    image = written[1].read_bytes()
    assert image.startswith(PNG)
    width, height = struct.unpack_from("!II", image, 16)
    assert width > 1000
    assert height > 800


def test_the_background_is_transparent(tmp_path: Path) -> None:
    from matplotlib import image

    draw(report(), tmp_path / "speed")
    pixels = image.imread(tmp_path / "speed.png")
    assert pixels.shape[2] == 4
    assert pixels[2, 2, 3] == 0
    assert pixels[:, :, 3].max() == 1


def test_one_report_makes_one_picture(tmp_path: Path) -> None:
    first = draw(report(), tmp_path / "one")[0].read_bytes()
    assert draw(report(), tmp_path / "two")[0].read_bytes() == first


def test_a_line_has_only_what_was_measured() -> None:
    rows = [row for row in report().rows if row.work == "select" and row.mode == "prepared"]
    assert curve(rows, "pgbouncer", "tps") == []
    assert curve(rows, "direct", "cpu_us") == []
    assert curve(rows, "ours", "tps") == [(clients, 6000.0, 5000.0, 7000.0) for clients in (1, 64, 1000)]


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoPicture, match="nothing to draw"):
        draw(Report(), tmp_path / "none")


def test_from_shows_an_earlier_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    file.write_text(as_json(report()))
    assert main(["--from", str(file), "--picture", str(tmp_path / "again")]) == 0
    assert "pgmurmur (lanes=auto)" in capsys.readouterr().out
    assert (tmp_path / "again.png").is_file()


def test_without_matplotlib_it_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    file = tmp_path / "report.json"
    file.write_text(as_json(report()))
    assert main(["--from", str(file), "--picture", str(tmp_path / "none")]) == 1
    assert "pip install 'pgmurmur[bench]'" in capsys.readouterr().err
