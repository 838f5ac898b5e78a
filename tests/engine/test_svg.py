"""What is left of an SVG that could do harm."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET

import pytest

from imgproxy_cache.engine.errors import BrokenSvg
from imgproxy_cache.engine.svg import sanitized

SVG = "http://www.w3.org/2000/svg"


def cleaned(inside: str, before: str = "") -> str:
    document = (
        f'{before}<svg xmlns="{SVG}" xmlns:xlink="http://www.w3.org/1999/xlink">{inside}</svg>'
    )
    answer = sanitized(document.encode())
    ET.fromstring(answer)
    start, end = answer.index(b">") + 1, answer.rindex(b"</svg>") if b"</svg>" in answer else None
    return answer[start:end].decode().strip()


@pytest.mark.parametrize(
    "inside",
    [
        pytest.param('<rect width="1" height="2" style="fill:red"/>', id="a shape"),
        pytest.param("<text>a &lt; b</text>", id="text"),
        pytest.param("<style>a { color: red }</style>", id="style"),
        pytest.param('<use href="#a"/>', id="use of a part of itself"),
        pytest.param('<a href="https://example.com/">x</a>', id="link"),
        pytest.param('<a href="/x.svg">x</a>', id="link on the same host"),
        pytest.param('<image href="data:image/png;base64,AAAA"/>', id="embedded picture"),
        pytest.param('<image xlink:href="https://example.com/x.png"/>', id="linked picture"),
        pytest.param('<animate attributeName="x" to="5"/>', id="animation"),
        pytest.param("<!-- a comment --><g/>", id="comment"),
    ],
)
def test_what_only_draws_is_kept(inside: str) -> None:
    assert cleaned(inside) == inside


@pytest.mark.parametrize(
    ("inside", "left"),
    [
        pytest.param("<script>x()</script><g/>", "<g/>", id="script"),
        pytest.param("<SCRIPT>x()</SCRIPT>", "", id="script in capitals"),
        pytest.param('<x:script xmlns:x="urn:x">x()</x:script>', "", id="script of any namespace"),
        pytest.param("a<script/>b<script/>c", "abc", id="the text around stays"),
        pytest.param("<g/>a<script/>b", "<g/>ab", id="the text behind a sibling stays"),
        pytest.param("<foreignObject><p>x</p></foreignObject>", "", id="foreign object"),
        pytest.param("<iframe/><form/><embed/><object/>", "", id="other documents"),
        pytest.param('<g onload="x()"/>', "<g/>", id="event"),
        pytest.param('<g ONLOAD="x()" onanythingnew="y"/>', "<g/>", id="events to come"),
        pytest.param('<g><g><g onclick="x()"/></g></g>', "<g><g><g/></g></g>", id="deep inside"),
        pytest.param('<a href="javascript:x()"/>', "<a/>", id="javascript"),
        pytest.param('<a xlink:href=" JavaScript:x()"/>', "<a/>", id="javascript in disguise"),
        pytest.param('<a href="java&#10;script:x()"/>', "<a/>", id="newline in a scheme"),
        pytest.param('<a href="jav&amp;#97;script:x()"/>', "<a/>", id="escaped twice"),
        pytest.param('<a href="data:text/html,x"/>', "<a/>", id="data as a link"),
        pytest.param('<image href="vbscript:x"/>', "<image/>", id="another script"),
        pytest.param('<use href="https://evil.example/x.svg#a"/>', "<use/>", id="use of others"),
        pytest.param('<use href="data:image/svg+xml,x"/>', "<use/>", id="use of data"),
        pytest.param('<set attributeName="href" to="javascript:x()"/>', "", id="set a link"),
        pytest.param('<animate attributeName="xlink:href" to="x"/>', "", id="animate a link"),
        pytest.param('<set attributeName="onclick" to="x()"/>', "", id="set an event"),
        pytest.param('<?xml-stylesheet href="x.xsl"?><g/>', "<g/>", id="processing instruction"),
    ],
)  # fmt: skip
def test_what_can_do_harm_is_removed(inside: str, left: str) -> None:
    assert cleaned(inside) == left


def test_entities_cannot_bring_back_what_was_removed() -> None:
    doctype = "<!DOCTYPE svg [<!ENTITY x '<script>x()</script><g/>'>]>"
    assert cleaned("&x;", doctype) == "<g/>"


def test_style_sheet_in_front_of_the_document_is_removed() -> None:
    assert sanitized(f'<?xml-stylesheet href="x.xsl"?><svg xmlns="{SVG}"/>'.encode()) == (
        f'<svg xmlns="{SVG}"/>\n'.encode()
    )


def test_declaration_is_kept_and_the_encoding_becomes_utf_8() -> None:
    source = f'<?xml version="1.0" encoding="ISO-8859-1"?><svg xmlns="{SVG}">\xe4</svg>'
    answer = sanitized(source.encode("latin-1"))
    assert answer.startswith(b"<?xml version='1.0' encoding='utf-8'?>")
    assert "\xe4".encode() in answer


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<svg>", id="not closed"),
        pytest.param(b"<svg></svg><svg></svg>", id="two roots"),
        pytest.param(b"<svg a='1' a='2'/>", id="an attribute twice"),
        pytest.param(b"<script/>", id="only a script"),
        pytest.param(b"<svg>\xff</svg>", id="wrong encoding"),
        pytest.param(
            b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
            id="a file as an entity",
        ),
        pytest.param(
            b'<!DOCTYPE svg [<!ENTITY x SYSTEM "http://127.0.0.1:1/">]><svg>&x;</svg>',
            id="a URL as an entity",
        ),
        pytest.param(b"<svg>" + b"<g>" * 5000 + b"</g>" * 5000 + b"</svg>", id="very deep"),
    ],
)
def test_what_is_no_picture_is_broken(source: bytes) -> None:
    with pytest.raises(BrokenSvg) as caught:
        sanitized(source)
    assert (caught.value.status, caught.value.public) == (422, "Broken or unsupported SVG image")


def test_a_billion_laughs_are_not_laughed() -> None:
    entities = "".join(
        f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" if n else "<!ENTITY l0 'ha'>" for n in range(10)
    )
    began = time.process_time()
    with pytest.raises(BrokenSvg):
        sanitized(f"<!DOCTYPE svg [{entities}]><svg>&l9;</svg>".encode())
    assert time.process_time() - began < 5
