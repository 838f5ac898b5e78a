"""SVGs without what could run in a browser or reach out of the document."""

from __future__ import annotations

import html
import re

from lxml import etree

from imgproxy_cache.engine.errors import BrokenSvg

# Script, and doors to other kinds of documents
UNSAFE_ELEMENTS = {"script", "iframe", "form", "foreignobject", "object", "embed", "handler"}
# SMIL can set what was removed: <set attributeName="href" to="javascript:...">
ANIMATIONS = {"set", "animate", "animatemotion", "animatetransform", "animatecolor"}
LINK_SCHEMES = {"http", "https"}
IMAGE_SCHEMES = {"http", "https", "data"}
SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(?=:)")
DECLARATION = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml\s")
# Browsers drop them from URLs: "java&#10;script:" is a scheme to them
IGNORED_IN_URLS = re.compile(r"[\x00-\x20\x7f-\xa0]")


def sanitized(source: bytes) -> bytes:
    """
    The document without scripts, event attributes, foreign objects and links to run code.

    Entities of the document are put in their places (within libxml2's limits)
    and everything around the root element is dropped: in a browser they could
    bring back what was removed.  Nothing is read from files or networks.

    Raises: BrokenSvg.
    """
    # lxml puts in entities of the document only (its default since 5.0), within bounds
    parser = etree.XMLParser(no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(source, parser)
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise BrokenSvg(str(exc)) from exc
    if _is_unsafe(root):
        raise BrokenSvg("the document is no picture")
    for node in list(root.iterdescendants()):
        if _is_unsafe(node):
            _remove(node)
    for element in root.iter(etree.Element):
        _remove_unsafe_attributes(element)
    is_declared = DECLARATION.match(source) is not None
    body: bytes = etree.tostring(
        root, encoding="utf-8", xml_declaration=is_declared, with_tail=False
    )
    return body + b"\n"


def _is_unsafe(node: etree._Element) -> bool:
    if not isinstance(node.tag, str):
        # A comment says nothing; a processing instruction may name a style sheet with scripts,
        # and an entity that is still there is one from outside
        return not isinstance(node, etree._Comment)
    name = _local_name(node.tag).lower()
    if name in ANIMATIONS:
        changed = str(node.get("attributeName", "")).strip().rpartition(":")[2].lower()
        return changed == "href" or changed.startswith("on")
    return name in UNSAFE_ELEMENTS


def _remove(node: etree._Element) -> None:
    """Remove a node and what is in it, but not the text that follows it."""
    parent, before = node.getparent(), node.getprevious()
    if parent is None:
        return
    if node.tail and before is not None:
        before.tail = (before.tail or "") + node.tail
    elif node.tail:
        parent.text = (parent.text or "") + node.tail
    parent.remove(node)


def _remove_unsafe_attributes(element: etree._Element) -> None:
    tag = _local_name(str(element.tag)).lower()
    for name, value in element.attrib.items():
        local = _local_name(str(name)).lower()
        if local.startswith("on") or (local == "href" and not _is_safe_link(str(value), tag)):
            del element.attrib[name]


def _is_safe_link(value: str, tag: str) -> bool:
    link = IGNORED_IN_URLS.sub("", html.unescape(value))
    if not link or link.startswith("#"):
        return True
    if tag == "use":  # would take foreign elements, with their scripts, into the document
        return False
    scheme = SCHEME.match(link)
    allowed = IMAGE_SCHEMES if tag == "image" else LINK_SCHEMES
    return scheme is None or scheme[0].lower() in allowed


def _local_name(name: str) -> str:
    return name.rpartition("}")[2]
