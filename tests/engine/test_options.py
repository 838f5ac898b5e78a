"""What a path's options mean: every expected value is what imgproxy's documentation says."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.imgproxy_path import LONG_NAMES, PathRules, read_path
from imgproxy_cache.engine.errors import Forbidden, InvalidUrl
from imgproxy_cache.engine.options import (
    Color,
    Crop,
    Extend,
    Gravity,
    GravityType,
    Limits,
    Options,
    Padding,
    ResizingType,
    Trim,
)
from imgproxy_cache.engine.url_options import (
    NotInTheEngine,
    OptionRules,
    options_from_path,
    presets_from_lines,
)

NOW = 1_700_000_000.0
SECURITY = OptionRules(security_options_are_allowed=True)
FILL, FIT = ResizingType.FILL, ResizingType.FIT


def options(
    written: str, rules: OptionRules | None = None, *, only_presets: bool = False
) -> Options:
    path = read_path(f"/_/{written}".encode(), PathRules(only_presets=only_presets))
    assert path is not None
    return options_from_path(path, rules or OptionRules(), now=NOW, only_presets=only_presets)


def gravity(kind: str, x: float = 0, y: float = 0) -> Gravity:
    return Gravity(GravityType(kind), x, y)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param("rs:fill:300:200:1:1", {}, id="resize"),
        pytest.param("resize:fill:300:200:1:1:no:5:6", {"g": gravity("no", 5, 6)}, id="with place"),
        pytest.param("rs:fill/s:300:200:1:1", {}, id="size"),
        pytest.param("rs:fill/w:300/h:200/el:1/ex:1", {}, id="one by one"),
        pytest.param("rt:fill/width:300/height:200/enlarge:t/extend:true", {}, id="long names"),
        pytest.param("rs:fill:9:9/rs::300:200:1:1", {}, id="an empty argument changes nothing"),
    ],
)
def test_sizes_are_written_in_many_ways(written: str, expected: dict[str, Gravity]) -> None:
    extend = Extend(enabled=True, gravity=expected.get("g", Gravity()))
    assert options(f"{written}/plain/a") == Options(
        resizing_type=FILL, width=300, height=200, enlarge=True, extend=extend
    )


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        pytest.param("rt:fill-down", {"resizing_type": ResizingType.FILL_DOWN}, id="fill-down"),
        pytest.param("rs:force:30", {"resizing_type": ResizingType.FORCE, "width": 30}, id="force"),
        pytest.param("mw:5/mh:6", {"min_width": 5, "min_height": 6}, id="least sizes"),
        pytest.param("z:1.5", {"zoom_width": 1.5, "zoom_height": 1.5}, id="zoom"),
        pytest.param("z:2:.5", {"zoom_width": 2.0, "zoom_height": 0.5}, id="zoom of both sides"),
        pytest.param("dpr:2", {"dpr": 2.0}, id="dpr"),
        pytest.param("el:nonsense", {}, id="nonsense is false"),
        pytest.param(
            "exar:1:so:1:2",
            {"extend_aspect_ratio": Extend(enabled=True, gravity=gravity("so", 1, 2))},
            id="extend_aspect_ratio",
        ),
        pytest.param("g:soea:2:3.5", {"gravity": gravity("soea", 2, 3.5)}, id="gravity"),
        pytest.param("g:no:2:3/g:so", {"gravity": gravity("so", 2, 3)}, id="offsets stay"),
        pytest.param("g:no:2:3/g:sm", {"gravity": gravity("sm")}, id="but not with smart"),
        pytest.param("g:fp:0.2:0.8", {"gravity": gravity("fp", 0.2, 0.8)}, id="focus point"),
        pytest.param("c:100", {"crop": Crop(100)}, id="crop of the width"),
        pytest.param("c:0.5:20:noea", {"crop": Crop(0.5, 20, gravity("noea"))}, id="crop"),
        pytest.param("t:10", {"trim": Trim(10)}, id="trim"),
        pytest.param(
            "t:10:f00:1:1", {"trim": Trim(10, Color(255, 0, 0), True, True)}, id="trim of a colour"
        ),
        pytest.param("t:10/t:", {}, id="no trim"),
        pytest.param("pd:4", {"padding": Padding(4, 4, 4, 4)}, id="padding"),
        pytest.param("pd:4:8", {"padding": Padding(4, 8, 4, 8)}, id="padding of two"),
        pytest.param("pd:1:2:3:4", {"padding": Padding(1, 2, 3, 4)}, id="padding of four"),
        pytest.param("pd::2", {"padding": Padding(0, 2, 0, 2)}, id="padding of the sides"),
        pytest.param("ar:0", {"auto_rotate": False}, id="auto_rotate"),
        pytest.param("rot:-270", {"rotate": -270}, id="rotate"),
        pytest.param("fl:1", {"flip_horizontal": True}, id="flip"),
        pytest.param("fl:0:1", {"flip_vertical": True}, id="flip upside down"),
        pytest.param("bg:1:2:3", {"background": Color(1, 2, 3)}, id="background"),
        pytest.param("bg:00ff7F", {"background": Color(0, 255, 127)}, id="background in hex"),
        pytest.param("bg:0f8", {"background": Color(0, 255, 136)}, id="background in short hex"),
        pytest.param("bg:fff/bg:", {}, id="no background"),
        pytest.param("bl:1.5/sh:.7/pix:8", {"blur": 1.5, "sharpen": 0.7, "pixelate": 8}, id="f"),
        pytest.param(
            "sm:0/kcr:0/scp:0",
            {"strip_metadata": False, "keep_copyright": False, "strip_color_profile": False},
            id="metadata",
        ),
        pytest.param("q:60", {"quality": 60}, id="quality"),
        pytest.param(
            "fq:jpg:50:webp:60/fq:webp:70", {"format_quality": {"jpeg": 50, "webp": 70}}, id="fq"
        ),
        pytest.param("mb:3000", {"max_bytes": 3000}, id="max_bytes"),
        pytest.param("f:jpg", {"format": "jpeg"}, id="format"),
        pytest.param("ext:avif", {"format": "avif"}, id="format by its third name"),
        pytest.param("skp:jpg:png", {"skip_processing": frozenset({"jpeg", "png"})}, id="skp"),
        pytest.param("raw:1", {"raw": True}, id="raw"),
        pytest.param("cb:anything", {}, id="cachebuster"),
        pytest.param("exp:1700000001", {"expires": 1_700_000_001}, id="expires"),
        pytest.param("exp:0", {}, id="expires never"),
        pytest.param("fn:my%20cat", {"filename": "my%20cat"}, id="filename"),
        pytest.param("fn:bXkgY2F0:1", {"filename": "my cat"}, id="filename in base64"),
        pytest.param("att:1", {"return_attachment": True}, id="return_attachment"),
        pytest.param("wm:0.5:soea:10:10:0.2", {}, id="a watermark that nobody configured"),
    ],
)
def test_option_changes_what_it_says(written: str, changed: dict[str, Any]) -> None:
    assert options(f"{written}/plain/a") == replace(Options(), **changed)


@pytest.mark.parametrize(
    "written",
    [
        "nonsense:1",
        "rs:fit:abc:64",
        "rs:stretch:1:1",
        "rs:fit:1:1:1:1:ce:1:1:1",
        "rt:fit:1",
        "w:",
        "w:-1",
        "w:1.5",
        "w:1_0",
        "w:\N{ARABIC-INDIC DIGIT ONE}",
        "w:99999999999999999999",
        "z:0",
        "z:1:2:3",
        "dpr:-1",
        "dpr:inf",
        "dpr:nan",
        "dpr:1e999",
        "ex:1:sm",
        "g:up",
        "g:sm:1",
        "g:fp:0.5",
        "g:fp:0.5:1.1",
        "g:no:1:2:3",
        "c:-1",
        "c:1:1:xx",
        "t:x",
        "t:10:red",
        "pd:1:2:3:4:5",
        "pd:x",
        "rot:45",
        "fl:1:1:1",
        "bg:1:2",
        "bg:256:0:0",
        "bg:12345",
        "bl:-1",
        "q:101",
        "fq:webp",
        "fq:xyz:50",
        "f:xyz",
        "f:jpg:png",
        "skp:xyz",
        "cb:a:b",
        "exp:1699999999",
        "exp:soon",
        "fn:*:1",
        "fn:a:1:b",
        "pr:unknown",
        "wm:2",
        "wm:0.5:sm",
        "rs%3Afit%3Aabc",
    ],
)
def test_what_imgproxy_refuses_is_refused(written: str) -> None:
    with pytest.raises(InvalidUrl) as caught:
        options(f"{written}/plain/a")
    assert (caught.value.status, caught.value.public) == (404, "Invalid URL")


def test_old_basic_urls_are_refused() -> None:
    with pytest.raises(InvalidUrl, match="basic URL"):
        options("fit/300/300/ce/0/bG9jYWw6Ly8vY2hlbHNlYS5qcGc")


def test_option_of_imgproxy_pro_is_named_as_such() -> None:
    with pytest.raises(NotInTheEngine, match="'unsharp_masking': imgproxy Pro has it"):
        options("unsharp_masking:1/plain/a")


def test_watermark_that_would_have_to_be_drawn_is_refused() -> None:
    with pytest.raises(NotInTheEngine, match="the real imgproxy draws it"):
        options("wm:0.5/plain/a", OptionRules(has_watermark=True))
    assert options("wm:0/plain/a", OptionRules(has_watermark=True)) == Options()


@pytest.mark.parametrize(
    ("written", "limits"),
    [
        pytest.param("msr:1.5", Limits(src_resolution=1_500_000), id="resolution"),
        pytest.param("msfs:1000", Limits(src_file_size=1000), id="file size"),
        pytest.param("maf:10", Limits(animation_frames=10), id="frames"),
        pytest.param("mafr:2", Limits(animation_frame_resolution=2_000_000), id="of a frame"),
        pytest.param("mrd:500", Limits(result_dimension=500), id="result"),
    ],
)
def test_limits_are_changed_only_where_the_settings_allow_it(written: str, limits: Limits) -> None:
    assert options(f"{written}/plain/a", SECURITY) == Options(limits=limits)
    with pytest.raises(Forbidden) as caught:
        options(f"{written}/plain/a")
    assert (caught.value.status, caught.value.public) == (403, "Invalid URL")


def test_ending_of_the_source_wins_over_the_format_but_not_over_raw() -> None:
    assert options("f:png/plain/a@webp") == Options(format="webp")
    assert options("f:png/raw:1/plain/a@webp") == Options(format="png", raw=True)


def test_settings_are_the_defaults_of_options() -> None:
    rules = OptionRules(defaults=Options(default_quality=50, strip_metadata=False))
    assert options("q:0/plain/a", rules).quality_of("jpeg") == 50
    assert options("sm:1/plain/a", rules).strip_metadata


@pytest.mark.parametrize(
    ("written", "jpeg", "webp"),
    [
        pytest.param("cb:1", 80, 79, id="settings"),
        pytest.param("fq:webp:60", 80, 60, id="format_quality"),
        pytest.param("q:50/fq:webp:60", 50, 50, id="quality wins"),
        pytest.param("q:0/fq:webp:0", 80, 79, id="zero is none"),
    ],
)
def test_quality_of_a_format(written: str, jpeg: int, webp: int) -> None:
    found = options(f"{written}/plain/a")
    assert (found.quality_of("jpeg"), found.quality_of("webp")) == (jpeg, webp)


def rules_with(*lines: str) -> OptionRules:
    presets, problems = presets_from_lines(lines, ":")
    assert not problems
    return OptionRules(presets=presets)


THUMB = "thumb=rs:fill:40:40/q:50"


@pytest.mark.parametrize(
    ("lines", "written", "changed"),
    [
        pytest.param(
            [THUMB], "pr:thumb", {"resizing_type": FILL, "width": 40, "height": 40, "quality": 50}
        ),
        pytest.param([THUMB, "x=pr:thumb/rs:fit:9:9"], "preset:x", {"width": 9, "height": 9}),
        pytest.param(["a=w:1", "b=h:2"], "pr:a:b", {"width": 1, "height": 2}),
        pytest.param(["default=w:5/h:6"], "h:7", {"width": 5, "height": 7}),
        pytest.param(["a=w:1/pr:b", "b=h:2/pr:a"], "pr:a", {"width": 1, "height": 2}),
        pytest.param(["# a comment", "", " a = w:1 "], "pr:a", {"width": 1}),
    ],
    ids=["named", "nested", "two at once", "default", "recursive", "as in a file"],
)
def test_presets_are_applied(lines: list[str], written: str, changed: dict[str, Any]) -> None:
    found = options(f"{written}/plain/a", rules_with(*lines))
    assert {name: getattr(found, name) for name in changed} == changed


def test_only_presets_reads_the_first_segment_as_their_names() -> None:
    rules = rules_with(THUMB, "wide=w:99")
    assert options("thumb:wide/plain/a@png", rules, only_presets=True) == Options(
        resizing_type=FILL, width=99, height=40, quality=50, format="png"
    )
    with pytest.raises(InvalidUrl, match="unknown preset 'rs'"):
        options("rs:fill:1:1/plain/a", rules, only_presets=True)


@pytest.mark.parametrize(
    "line", ["thumb", "=w:1", "thumb=", "thumb=w", "a=w:1=2", "a=w:x", "a=nonsense:1", "a=pr:b"]
)
def test_broken_presets_are_named(line: str) -> None:
    _, problems = presets_from_lines([line], ":")
    assert problems


def test_only_allowed_options_are_taken_from_a_url_but_any_from_a_preset() -> None:
    rules = replace(rules_with("a=h:2"), allowed=frozenset({"w", "pr"}))
    assert options("w:1/pr:a/plain/a", rules) == Options(width=1, height=2)
    with pytest.raises(InvalidUrl, match="ALLOWED_PROCESSING_OPTIONS"):
        options("width:1/plain/a", rules)


ARGUMENTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "0", "1", "-1", "0.5", "1e308", "jpg", "ce", "fp", "sm", "fill", "t", "é"]
    ),
)


@given(
    name=st.one_of(st.sampled_from(sorted(LONG_NAMES)), st.text(max_size=5)),
    arguments=st.lists(ARGUMENTS, min_size=1, max_size=9),
)
def test_any_option_is_read_or_refused(name: str, arguments: list[str]) -> None:
    written = ":".join([name, *arguments])
    path = read_path(f"/_/{written}/plain/a".encode("utf-8", "surrogatepass"), PathRules())
    if path is None:
        return
    with suppress(InvalidUrl, Forbidden):
        options_from_path(path, SECURITY, now=NOW)
