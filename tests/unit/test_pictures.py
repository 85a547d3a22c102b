"""The pictures of docs/ are what `scripts/pictures` draws, and fetch nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.pictures import benchmark
from tools.pictures.top import without_fonts

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted(DOCS.glob("*.svg"))


def test_the_bars_are_those_of_the_run_that_is_kept_beside_them() -> None:
    kept = json.loads((DOCS / "benchmark.json").read_text())
    assert benchmark.draw(kept) == (DOCS / "benchmark.svg").read_text()


def test_of_a_run_the_first_underlay_is_kept_and_no_path(tmp_path: Path) -> None:
    found = {
        "date": "2026-01-01",
        "machine": "a CPU",
        "cores": 2,
        "kernel": "6.18.44-somebody",
        "rounds": 1,
        "seconds": 2.0,
        "contestants": {"pywgd": "pywgd 0.1.0 (/home/me/pywgd)", "other": "other 7"},
        "underlays": {"trains": {"title": "whole", "probe": ""}, "singles": {"title": "single"}},
        "load_before": 3,
        "values": [
            {"round": 1, "underlay": under, "contestant": who, "tcp_1": rate, "rss": 5.0}
            for under, who, rate in (
                ("trains", "pywgd", 9.0),
                ("trains", "other", 3.0),
                ("singles", "pywgd", 4.0),
            )
        ],
    }
    (tmp_path / "results.json").write_text(json.dumps(found))
    benchmark.keep(tmp_path / "results.json", tmp_path)
    text = (tmp_path / "benchmark.json").read_text()
    assert "/home" not in text and "somebody" not in text and "single" not in text
    drawn = benchmark.write(tmp_path).read_text()
    assert "TCP, 1 stream" in drawn and "9.00" in drawn and "4.00" not in drawn


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_whole_and_fetches_nothing(path: Path) -> None:
    text = path.read_text()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert re.findall(r"url\((?!#)|href=|@import|@font-face", text) == []


def test_fonts_of_elsewhere_are_left_out() -> None:
    style = '@font-face {\n font-family: "x";\n src: url("https://example.org/x.woff2");\n}\n.a {}'
    assert without_fonts(style).strip() == ".a {}"
