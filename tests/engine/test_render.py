"""Pictures in, pictures out: sizes as imgproxy's, pixels as Pillow's."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import pyvips
from PIL import Image, ImageOps, ImageStat

from imgproxy_cache.engine.errors import BrokenImage, EngineError, InvalidSource, UnsupportedFormat
from imgproxy_cache.engine.options import Options
from imgproxy_cache.engine.render import RenderRules, render
from imgproxy_cache.engine.save import EncoderRules
from tests.engine.pictures import RULES, difference, encoded, opened, options, rendered

IMAGES = Path(__file__).parents[1] / "images"
CAT = (IMAGES / "chelsea.jpg").read_bytes()
LOGO = (IMAGES / "logo.svg").read_bytes()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

# What imgproxy 4.0.12 made of a picture of 451 x 300
SIZES = [
    ("w:64", (64, 43)),
    ("h:64", (96, 64)),
    ("rs:fit:64:64", (64, 43)),
    ("rs:fit:1000:1000", (451, 300)),
    ("rs:fit:1000:1000:1", (1000, 665)),
    ("rs:fill:100:50", (100, 50)),
    ("rs:fill:400:400", (400, 300)),
    ("rs:fill:1000:500", (451, 300)),
    ("rs:fill:1000:500:1", (1000, 500)),
    ("rs:fill-down:1000:500", (451, 226)),
    ("rs:fill-down:300:1000", (90, 300)),
    ("rs:fill-down:100:50", (100, 50)),
    ("rs:force:30:60", (30, 60)),
    ("rs:force:1000:60", (451, 27)),
    ("rs:auto:40:60", (40, 27)),
    ("rs:auto:60:40", (60, 40)),
    ("w:1", (1, 1)),
    ("z:0.5", (226, 150)),
    ("z:2", (451, 300)),
    ("z:1.5:0.5", (451, 100)),
    ("z:2/el:1", (902, 600)),
    ("w:50/dpr:2", (100, 67)),
    ("w:500/dpr:2", (451, 300)),
    ("w:500/dpr:0.5", (250, 166)),
    ("w:500/dpr:0.5/ex:1", (250, 150)),
    ("mw:700", (700, 466)),
    ("w:50/mw:100", (50, 67)),
    ("w:50/mh:100", (50, 100)),
    ("rs:force:50:50/mw:70", (50, 50)),
    ("rs:fit:100:100/ex:1", (100, 100)),
    ("rs:fit:100:30/exar:1", (100, 30)),
    ("rs:fit:500:500/exar:1", (451, 451)),
    ("ex:1/w:500", (500, 300)),
    ("c:100:100", (100, 100)),
    ("c:0.5:0.3", (226, 90)),
    ("c:1000:100", (451, 100)),
    ("c:0.001:0.001", (1, 1)),
    ("c:200:100/w:33", (33, 17)),
    ("pd:10:20", (491, 320)),
    ("w:50/pd:1:2:3:4/dpr:2", (112, 75)),
    ("rot:90/w:50", (50, 75)),
    ("rot:90/rs:fill:100:50", (100, 50)),
    ("w:200/mrd:100", (100, 67)),
    ("rs:fill:200:200/mrd:90/pd:10", (90, 90)),
    ("ex:1/rs:fit:500:400/mrd:100", (100, 80)),
]


@pytest.mark.parametrize(("text", "size"), SIZES, ids=[text for text, _ in SIZES])
@pytest.mark.parametrize("name", ["chelsea.jpg", "cat.png"], ids=["jpeg", "png"])
def test_result_has_imgproxys_size(name: str, text: str, size: tuple[int, int]) -> None:
    answer = rendered((IMAGES / name).read_bytes(), text)
    assert opened(answer).size == size == (answer.width, answer.height)
    assert (answer.source_width, answer.source_height) == (451, 300)


# Where


@pytest.fixture(scope="module")
def board() -> Image.Image:
    """Nine fields of 20 x 20, each of a colour of its own."""
    picture = Image.new("RGB", (60, 60))
    for column in range(3):
        for row in range(3):
            color = (column * 100 + 20, row * 100 + 20, 128)
            picture.paste(color, (column * 20, row * 20, column * 20 + 20, row * 20 + 20))
    return picture


def field(answer: Image.Image) -> tuple[int, int]:
    """Column and row of the only field of the board that the picture shows."""
    colors = answer.convert("RGB").getcolors()
    assert colors is not None
    assert len(colors) == 1, "it shows more than one field"
    red, green, _ = colors[0][1]  # type: ignore[misc]
    return (red - 20) // 100, (green - 20) // 100


PLACES = {
    "ce": (1, 1), "no": (1, 0), "so": (1, 2), "we": (0, 1), "ea": (2, 1),
    "nowe": (0, 0), "noea": (2, 0), "sowe": (0, 2), "soea": (2, 2),
    "fp:0.1:0.9": (0, 2), "fp:0.5:0.1": (1, 0), "nowe:20:40": (1, 2), "soea:40:20": (0, 1),
    "ce:20:-20": (2, 0), "no:0:20": (1, 1),
}  # fmt: skip


@pytest.mark.parametrize(("gravity", "place"), PLACES.items(), ids=PLACES)
def test_gravity_says_which_part_is_cut_out(
    board: Image.Image, gravity: str, place: tuple[int, int]
) -> None:
    assert field(opened(rendered(encoded(board), f"c:20:20:{gravity}"))) == place
    assert field(opened(rendered(encoded(board), f"c:20:20/g:{gravity}"))) == place


TURNS = {
    "rot:90": lambda board: board.rotate(-90),
    "rot:180": lambda board: board.rotate(180),
    "rot:270": lambda board: board.rotate(90),
    "fl:1": ImageOps.mirror,
    "fl:0:1": ImageOps.flip,
    "fl:1:1/rot:90": lambda board: board.rotate(-90).rotate(180),
    "fl:1/rot:90": lambda board: ImageOps.mirror(board.rotate(-90)),
    "fl:0:1/rot:270": lambda board: ImageOps.flip(board.rotate(90)),
}


@pytest.mark.parametrize("gravity", PLACES)
@pytest.mark.parametrize(("turn", "turned"), TURNS.items(), ids=TURNS)
def test_crop_is_of_the_picture_as_it_is_seen(
    board: Image.Image, turn: str, turned: object, gravity: str
) -> None:
    seen = turned(board)  # type: ignore[operator]
    answer = opened(rendered(encoded(board), f"{turn}/c:20:20:{gravity}"))
    assert field(answer) == field(opened(rendered(encoded(seen), f"c:20:20:{gravity}")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("text", ["f:png", "f:png/c:50:30:nowe", "f:png/rs:fill:60:90/g:soea"])
def test_picture_is_turned_as_its_exif_says(orientation: int, text: str) -> None:
    picture = Image.open(io.BytesIO(CAT)).crop((0, 0, 320, 200))
    exif = Image.Exif()
    exif[0x112] = orientation
    source = encoded(picture, "JPEG", quality=95, exif=exif)
    upright = encoded(ImageOps.exif_transpose(Image.open(io.BytesIO(source))))
    answer, expected = rendered(source, text), rendered(upright, text)
    assert difference(opened(answer), opened(expected)) < 3
    assert (answer.source_width, answer.source_height) == Image.open(io.BytesIO(upright)).size


def test_exif_is_not_asked_when_auto_rotate_is_off() -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    source = encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif)
    assert opened(rendered(source, "ar:1")).size == (20, 30)
    assert opened(rendered(source, "ar:0")).size == (30, 20)


def test_smart_gravity_finds_what_stands_out() -> None:
    picture = Image.new("RGB", (400, 100), (90, 90, 90))
    for x in range(330, 370, 4):
        picture.paste((230, 160, 130), (x, 30, x + 2, 70))
    answer = opened(rendered(encoded(picture), "c:100:100:sm"))
    assert ImageStat.Stat(answer).extrema[0][1] > 200


def test_trim_cuts_off_what_is_like_the_corner() -> None:
    picture = Image.new("RGB", (100, 80), WHITE)
    picture.paste(RED, (20, 10, 60, 70))
    source = encoded(picture)
    assert opened(rendered(source, "t:10")).size == (40, 60)
    assert opened(rendered(source, "t:10::1:0")).size == (60, 60)
    assert opened(rendered(source, "t:10::1:1")).size == (60, 60)
    assert opened(rendered(source, "t:10:ff0000")).size == (100, 80)
    assert opened(rendered(source, "t:10/rs:fit:20:20")).size == (13, 20)
    assert opened(rendered(encoded(Image.new("RGB", (9, 9))), "t:10")).size == (9, 9)


# What it looks like


def test_scaled_picture_looks_like_pillows() -> None:
    answer = opened(rendered(CAT, "w:100/f:png"))
    expected = Image.open(io.BytesIO(CAT)).resize(answer.size, Image.Resampling.LANCZOS)
    assert difference(answer, expected) < 6  # fur; JPEGs are decoded smaller first


def test_transparent_pixels_do_not_shine_through_when_scaled() -> None:
    picture = Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 20, 40))
    red, green, *_ = opened(rendered(encoded(picture), "w:4/bg:000000")).getpixel((1, 1))  # type: ignore[misc]
    assert (red > 200, green) == (True, 0)


def test_background_is_white_where_the_format_has_no_transparency() -> None:
    source = encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 0)))
    assert opened(rendered(source, "f:jpg")).getpixel((5, 5)) == WHITE
    assert opened(rendered(source, "f:png")).getpixel((5, 5)) == (0, 0, 0, 0)
    assert opened(rendered(source, "f:png/bg:ff0000")).getpixel((5, 5)) == RED


def test_what_is_around_the_picture_is_background_or_nothing() -> None:
    source = encoded(Image.new("RGB", (20, 20), BLUE))
    padded = opened(rendered(source, "pd:5/f:png"))
    assert (padded.size, padded.getpixel((2, 2))) == ((30, 30), (0, 0, 0, 0))
    extended = opened(rendered(source, "rs:fit:40:20/ex:1:we/bg:00ff00/f:png"))
    assert (extended.getpixel((5, 5)), extended.getpixel((30, 5))) == (BLUE, GREEN)


def test_pixelated_picture_has_squares() -> None:
    answer = opened(rendered(CAT, "pix:50/f:png"))
    square = answer.crop((50, 50, 100, 100)).getcolors()
    assert square is not None
    assert len(square) == 1


def test_blur_smooths_and_sharpen_roughens() -> None:
    def roughness(text: str) -> float:
        picture = opened(rendered(CAT, f"{text}/f:png"))
        return difference(picture.crop((1, 0, 400, 300)), picture.crop((0, 0, 399, 300)))

    assert roughness("bl:3") < roughness("q:0") < roughness("sh:2")


def test_colors_of_a_profile_are_seen_although_the_profile_is_stripped() -> None:
    plain = pyvips.Image.jpegload_buffer(CAT)
    wide = plain.icc_transform("p3", input_profile="srgb").pngsave_buffer()
    answer = opened(rendered(wide, "scp:1"))
    assert difference(answer, Image.open(io.BytesIO(CAT))) < 2
    assert "icc_profile" not in answer.info
    kept = opened(rendered(wide, "scp:0"))
    assert kept.info["icc_profile"] == Image.open(io.BytesIO(wide)).info["icc_profile"]
    assert kept.tobytes() == Image.open(io.BytesIO(wide)).convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("mode", "expected"), [("L", "L"), ("LA", "LA"), ("1", "L"), ("CMYK", "RGB"), ("I;16", "L")]
)
def test_picture_of_any_colors_is_rendered(mode: str, expected: str) -> None:
    photo = Image.open(io.BytesIO(CAT))
    picture = (
        Image.frombytes("I;16", (64, 64), bytes(range(256)) * 32)
        if mode == "I;16"
        else photo.convert(mode)
    )
    source = encoded(picture, "JPEG" if mode == "CMYK" else "PNG")
    answer = opened(rendered(source, "w:50/f:png"))
    assert (answer.mode, answer.size[0]) == (expected, 50)
    if mode == "CMYK":
        assert difference(answer, photo.resize(answer.size)) < 60


def test_picture_of_few_colors_stays_one() -> None:
    source = encoded(Image.open(io.BytesIO(CAT)).quantize(16))
    assert opened(rendered(source, "w:100")).mode == "P"


# What it is saved as


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif", "gif", "tiff"])
def test_every_format_can_be_asked_for_and_read(name: str) -> None:
    answer = rendered(CAT, f"rs:fill:64:48/f:{name}")
    assert (answer.format, opened(answer).size) == (name, (64, 48))
    again = rendered(answer.body, "w:32/f:png")
    assert opened(again).size == (32, 24)


@pytest.mark.parametrize(
    ("changes", "source", "expected"),
    [
        pytest.param({}, "jpeg", "jpeg", id="as the source"),
        pytest.param({}, "png", "png", id="as the source, PNG"),
        pytest.param({}, "webp", "jpeg", id="not a preferred format"),
        pytest.param({"format": "webp"}, "jpeg", "webp", id="as asked"),
        pytest.param({"prefer_formats": {"webp"}}, "jpeg", "webp", id="as the client likes"),
        pytest.param({"prefer_formats": {"webp", "avif"}}, "jpeg", "avif", id="AVIF first"),
        pytest.param({"prefer_formats": {"webp"}, "format": "png"}, "jpeg", "png", id="asked wins"),
        pytest.param({"enforce_formats": {"webp"}, "format": "png"}, "jpeg", "webp", id="enforced"),
        pytest.param({"enforce_formats": {"webp"}}, "jpeg", "jpeg", id="nothing to enforce"),
        pytest.param({"prefer_formats": {"jxl"}}, "jpeg", "jpeg", id="JPEG XL, which we have not"),
        pytest.param(
            {"enforce_formats": {"jxl", "webp"}, "format": "png"}, "jpeg", "webp", id="what we have"
        ),
    ],
)
def test_format_is(changes: dict[str, object], source: str, expected: str) -> None:
    body = encoded(Image.new("RGB", (20, 20)), source)
    assert render(body, replace(Options(), **changes), RULES).format == expected  # type: ignore[arg-type]


def test_picture_that_may_be_transparent_gets_a_format_that_can() -> None:
    source = encoded(Image.new("RGBA", (20, 20)), "WEBP")
    assert rendered(source, "w:10").format == "png"
    assert rendered(source, "w:10/bg:fff").format == "jpeg"
    opaque = encoded(Image.new("RGB", (20, 20)), "WEBP")
    assert rendered(opaque, "pd:5").format == "png"


def test_picture_too_small_for_avif_becomes_another() -> None:
    assert rendered(CAT, "w:15/f:avif").format == "jpeg"
    assert rendered(encoded(Image.new("RGBA", (20, 9))), "f:avif").format == "png"


def test_quality_is_the_urls_then_the_formats_then_the_servers() -> None:
    def size(text: str) -> int:
        return len(rendered(CAT, text).body)

    assert (
        size("q:20") == size("fq:jpeg:20") == size("fq:jpeg:90/q:20") < size("q:80") == size("w:0")
    )
    assert size("f:webp") == size("f:webp/q:79")
    assert size("f:avif/w:64") == size("f:avif/w:64/q:63")


def test_quality_falls_until_the_bytes_suffice() -> None:
    assert len(rendered(CAT, "q:100").body) > 50_000
    assert 5_000 < len(rendered(CAT, "q:100/mb:10000").body) <= 10_000
    assert opened(rendered(CAT, "mb:1")).size == (451, 300)
    assert rendered(CAT, "f:png/mb:1000").body == rendered(CAT, "f:png").body


def test_encoders_do_as_the_settings_say() -> None:
    rules = EncoderRules(jpeg_progressive=True, png_quantize=True, png_quantization_colors=4)
    configured = RenderRules(encoders=rules)
    assert opened(rendered(CAT, "w:64", configured)).info.get("progressive") == 1
    png = opened(rendered(CAT, "w:64/f:png", configured))
    assert png.mode == "P"
    assert len(png.getcolors() or ()) <= 4


# Metadata


def photo_with_metadata() -> bytes:
    exif = Image.Exif()
    exif[0x8298], exif[0x13B], exif[0x10F] = "(c) somebody", "somebody", "a camera"
    return encoded(Image.new("RGB", (40, 30)), "JPEG", exif=exif, xmp=b"<x:xmpmeta/>")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("w:20", {0x8298, 0x13B}, id="copyright and artist"),
        pytest.param("w:20/kcr:0", set(), id="nothing"),
        pytest.param("w:20/sm:0", {0x8298, 0x13B, 0x10F}, id="everything"),
    ],
)
def test_of_the_metadata_is_kept(text: str, kept: set[int]) -> None:
    answer = opened(rendered(photo_with_metadata(), text))
    assert {tag for tag in answer.getexif() if tag in {0x8298, 0x13B, 0x10F}} == kept
    assert ("xmp" in answer.info) == ("sm:0" in text)


# Animations


@pytest.fixture(scope="module")
def animation() -> bytes:
    frames = [Image.new("RGB", (40, 30), color) for color in (RED, GREEN, BLUE)]
    for frame in frames:
        frame.paste(WHITE, (0, 0, 10, 10))
    return encoded(
        frames[0], "GIF", save_all=True, append_images=frames[1:], duration=[50, 100, 150], loop=3
    )


@pytest.mark.parametrize("name", ["gif", "webp"])
def test_animation_stays_one_where_that_is_allowed(animation: bytes, name: str) -> None:
    answer = rendered(animation, f"maf:10/rs:fill:20:20/g:ea/f:{name}")
    assert (answer.width, answer.height) == (20, 20)
    picture = opened(answer)
    # GIF counts repetitions, WebP showings
    plays = picture.info["loop"] + (name == "gif")
    assert (picture.n_frames, plays) == (3, 4)  # type: ignore[attr-defined]
    brightest, durations = [], []
    for number in range(3):
        picture.seek(number)
        picture.load()
        means = ImageStat.Stat(picture.convert("RGB")).mean
        brightest.append(means.index(max(means)))
        durations.append(picture.info["duration"])
    assert (brightest, durations) == ([0, 1, 2], [50, 100, 150])


def test_animation_has_no_more_frames_than_allowed(animation: bytes) -> None:
    assert opened(rendered(animation, "maf:2/f:gif")).n_frames == 2  # type: ignore[attr-defined]
    assert opened(rendered(animation, "f:gif")).n_frames == 1  # type: ignore[attr-defined]
    assert rendered(animation, "maf:10/f:png").format == "png"


# Limits


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_before_any_is_decoded() -> None:
    with pytest.raises(InvalidSource) as caught:
        rendered(png_that_claims(10_000, 5_001), "w:64")
    assert (caught.value.status, caught.value.public) == (422, "Invalid source image")
    with pytest.raises(InvalidSource):
        rendered(CAT, "msr:0.1352/w:64")  # 451 x 300 are 135,300
    assert rendered(CAT, "msr:0.1353/w:64").width == 64


def test_frames_count_together_or_each_for_itself(animation: bytes) -> None:
    with pytest.raises(InvalidSource):
        rendered(animation, "maf:3/msr:0.0035/f:gif")
    assert rendered(animation, "maf:3/msr:0.0035/mafr:0.0013/f:gif").width == 40
    with pytest.raises(InvalidSource):
        rendered(animation, "maf:3/mafr:0.0011/f:gif")


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        pytest.param(b"", "w:9", InvalidSource, id="nothing"),
        pytest.param(b"<html>not an image</html>", "w:9", InvalidSource, id="HTML"),
        pytest.param(b"\xff\xd8 no more", "w:9", BrokenImage, id="only a signature"),
        pytest.param(CAT[:300], "w:9", BrokenImage, id="half a head"),
        pytest.param(b"<svg><g></svg>", "f:png", BrokenImage, id="broken SVG"),
        pytest.param(png_that_claims(9, 9)[:20], "w:5", BrokenImage, id="half a PNG head"),
        pytest.param(encoded(Image.new("RGB", (9, 9)), "BMP"), "w:5", UnsupportedFormat, id="BMP"),
        pytest.param(CAT, "f:jxl", UnsupportedFormat, id="JPEG XL"),
        pytest.param(CAT, "f:svg", UnsupportedFormat, id="a photograph as SVG"),
    ],
)
def test_what_cannot_be_rendered_is(source: bytes, text: str, expected: type[EngineError]) -> None:
    with pytest.raises(expected):
        rendered(source, text)


def test_broken_sources_are_told_apart_whatever_other_threads_do() -> None:
    def failure(source: bytes) -> type[Exception] | None:
        try:
            rendered(source, "f:png")
        except EngineError as exc:
            return type(exc)
        return None

    broken = [b"<svg><g></svg>", b"\xff\xd8 no more", CAT[:300]]
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(failure, broken * 300)) == {BrokenImage}


def test_source_is_broken_whose_message_another_thread_is_writing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object, **__: object) -> None:
        raise pyvips.Error("unable to call jpegload_buffer", "VipsJpeg: ")

    monkeypatch.setattr(pyvips.Image, "jpegload_buffer", load, raising=False)
    with pytest.raises(BrokenImage):
        rendered(CAT, "f:png")


# Drawings


def test_drawing_is_passed_on_without_scripts_unless_pixels_are_asked_for() -> None:
    answer = rendered(LOGO.replace(b"</svg>", b"<script>x()</script></svg>"), "rs:fit:64:64")
    assert (answer.format, answer.body) == ("svg", LOGO)
    assert (answer.width, answer.height) == (120, 80)
    picture = rendered(LOGO, "w:240/f:png")
    assert opened(picture).size == (240, 160)
    assert opened(picture).convert("RGB").getpixel((120, 80)) == (255, 204, 51)


def test_settings_say_otherwise_of_drawings() -> None:
    script = LOGO.replace(b"</svg>", b"<script>x()</script></svg>")
    assert rendered(script, "w:9", RenderRules(sanitize_svg=False)).body == script
    assert rendered(LOGO, "w:9", RenderRules(always_rasterize_svg=True)).format == "png"


def test_drawing_that_claims_to_be_huge_is_drawn_as_asked() -> None:
    source = LOGO.replace(b'width="120" height="80"', b'viewBox="0 0 120 80" width="24000"', 1)
    assert opened(rendered(source, "w:60/f:png")).size == (60, 40)


def test_formats_can_be_passed_on_as_they_are() -> None:
    assert rendered(CAT, "skp:jpg/w:64").body == CAT
    assert rendered(CAT, "skp:jpg/w:64/f:webp").format == "webp"
    with pytest.raises(InvalidSource):
        rendered(CAT, "skp:jpg/msr:0.01")


# All at once

# Broken drawings within a drawing, which is drawn without them
HOSTILE_DRAWINGS = """
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from tests.engine.pictures import rendered

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">%s</svg>'
IMAGE = b'<image width="5" height="5" href="data:image/svg+xml;base64,%s"/>'
broken = [b64encode(SVG % b"<x:g/>%d" % number) for number in range(1000)]
hostile = SVG % b"".join(IMAGE % drawing for drawing in broken)
with ThreadPoolExecutor(4) as threads:
    print({answer.format for answer in threads.map(rendered, [hostile] * 100, ["f:png"] * 100)})
"""


@pytest.mark.slow
def test_hostile_drawings_in_many_threads_do_no_harm() -> None:
    command = [sys.executable, "-c", HOSTILE_DRAWINGS]  # a process of its own, for it may die
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "{'png'}\n"), done.stderr[:2000]


def test_many_threads_render_what_one_does() -> None:
    jobs = [(CAT, f"rs:fill:{side}:{side}/g:sm") for side in range(20, 60)]
    alone = [rendered(*job).body for job in jobs]
    with ThreadPoolExecutor(4) as threads:
        together = [answer.body for answer in threads.map(lambda job: rendered(*job), jobs)]
    assert together == alone


def resident_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat_over_two_thousand_renders() -> None:
    small = encoded(Image.open(io.BytesIO(CAT)).resize((90, 60)), "JPEG")
    work = [options("w:32"), options("rs:fill:24:24/g:fp:0.2:0.2"), options("rot:90/w:32/bg:fff")]
    for number in range(200):
        render(small, work[number % 3], RULES)
    before = resident_megabytes()
    for number in range(2000):
        render(small, work[number % 3], RULES)
    assert resident_megabytes() - before < 20
