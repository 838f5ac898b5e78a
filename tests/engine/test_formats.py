"""What a source's first bytes say."""

from __future__ import annotations

import time

import pytest

from imgproxy_cache.engine.errors import InvalidSource
from imgproxy_cache.engine.formats import SIGNATURE_BYTES, format_of


@pytest.mark.parametrize(
    ("source", "name"),
    [
        pytest.param(b"<svg/>", "svg", id="a root element"),
        pytest.param(b"\xef\xbb\xbf<?xml?>\n<!-- <b> --><x:svg>", "svg", id="much before it"),
        pytest.param(b"<!-- <svg> --><html/>", None, id="only in a comment"),
        pytest.param(b"<!-- <svg>", None, id="in a comment that is not closed"),
        pytest.param(b"<svgs/>", None, id="another name"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_svg_is_known_by_its_root_element(source: bytes, name: str | None) -> None:
    if name:
        assert format_of(source) == name
    else:
        with pytest.raises(InvalidSource):
            format_of(source)


@pytest.mark.parametrize("piece", [b"<!--", b"<", b"<a:", b" <", b"<a.-"])
def test_telling_takes_no_time_whatever_the_bytes(piece: bytes) -> None:
    began = time.process_time()
    with pytest.raises(InvalidSource):
        format_of(piece * (SIGNATURE_BYTES // len(piece)))
    assert time.process_time() - began < 0.5
