#!/usr/bin/env python3
"""
Draws diagram.png, the picture of the README: `.venv/bin/python scripts/draw_diagram.py`.

Coordinates are in pixels of the finished picture, which the README shows at half its size.  The
background is our own, so that the picture is the same on a light and on a dark page.
"""

from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFilter, ImageFont

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPH = ROOT / "samples/chelsea.jpg"
SIZE = (1760, 1000)
# Drawn larger, then made smaller: Pillow's lines and arcs have no soft edges of their own.
SCALE = 3

Box = tuple[int, int, int, int]
Point = tuple[int, int]
T = TypeVar("T", Box, Point)

PAPER, WHITE = "#eef2f7", "#ffffff"
INK, GREY, LINE = "#16202e", "#566376", "#c3ccd9"
FIRST, SECOND = "#c2570c", "#0b7d54"
BUCKET, PROXY, IMGPROXY, SOURCE = "#0b7d54", "#2456c9", "#6b4bc4", "#566376"

PAGE_BOX: Box = (50, 60, 470, 950)
BUCKET_BOX: Box = (820, 90, 1150, 370)
PROXY_BOX: Box = (820, 630, 1150, 890)
IMGPROXY_BOX: Box = (1248, 630, 1440, 890)
SOURCE_BOX: Box = (1538, 630, 1714, 890)
CONTAINER_BOX: Box = (790, 560, 1470, 950)


class Drawing:
    """A canvas in the finished picture's pixels."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", _scaled(SIZE), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def finished(self) -> Image.Image:
        return self.image.resize(SIZE, Image.Resampling.LANCZOS)

    def card(self, box: Box, fill: str = WHITE, edge: str = LINE, radius: int = 22) -> None:
        shadow = Image.new("RGBA", self.image.size, (0, 0, 0, 0))
        below = (box[0], box[1] + 8, box[2], box[3] + 8)
        ImageDraw.Draw(shadow).rounded_rectangle(_scaled(below), radius * SCALE, (22, 32, 46, 46))
        self.image.alpha_composite(shadow.filter(ImageFilter.GaussianBlur(12 * SCALE)))
        self.rounded(box, fill, edge, radius)

    def rounded(
        self, box: Box, fill: str | None, edge: str | None = None, radius: int = 22, width: int = 3
    ) -> None:
        self._draw.rounded_rectangle(_scaled(box), radius * SCALE, fill, edge, width * SCALE)

    def ellipse(self, box: Box, fill: str, edge: str | None = None, width: int = 4) -> None:
        self._draw.ellipse(_scaled(box), fill, edge, width * SCALE)

    def polygon(self, points: list[Point], fill: str) -> None:
        self._draw.polygon([_scaled(point) for point in points], fill)

    def line(self, points: list[Point], fill: str, width: int) -> None:
        self._draw.line([_scaled(point) for point in points], fill, width * SCALE, joint="curve")

    def text(
        self,
        at: Point,
        text: str,
        size: int,
        fill: str = INK,
        *,
        bold: bool = False,
        anchor: str = "mm",
    ) -> None:
        """Pillow brings one font, of one weight: a thin outline makes it bold."""
        font = ImageFont.load_default(size * SCALE)
        stroke = size * SCALE / 34 if bold else size * SCALE / 110
        self._draw.text(
            _scaled(at), text, fill, font, anchor, stroke_width=stroke, stroke_fill=fill
        )

    def photograph(self, box: Box, radius: int = 12) -> None:
        left, top, right, bottom = _scaled(box)
        with Image.open(PHOTOGRAPH) as photograph:
            # The cat's face.
            picture = photograph.crop((90, 0, 390, 300)).resize((right - left, bottom - top))
        mask = Image.new("L", picture.size, 0)
        ImageDraw.Draw(mask).rounded_rectangle(
            (0, 0, picture.width - 1, picture.height - 1), radius * SCALE, 255
        )
        self.image.paste(picture, (left, top), mask)

    def arrow(self, start: Point, end: Point, colour: str, *, dashed: bool = False) -> None:
        (x0, y0), (x1, y1) = start, end
        length = max(abs(x1 - x0), abs(y1 - y0))
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        head, half = 24, 13
        pieces = range(0, length - head, 22) if dashed else [0]
        for piece in pieces:
            stop = min(piece + 12, length - head) if dashed else length - head + 2
            self.line(
                [
                    (round(x0 + dx * piece), round(y0 + dy * piece)),
                    (round(x0 + dx * stop), round(y0 + dy * stop)),
                ],
                colour,
                6,
            )
        base_x, base_y = x1 - dx * head, y1 - dy * head
        self.polygon(
            [
                end,
                (round(base_x - dy * half), round(base_y + dx * half)),
                (round(base_x + dy * half), round(base_y - dx * half)),
            ],
            colour,
        )

    def number(self, at: Point, number: int, colour: str) -> None:
        x, y = at
        self.ellipse((x - 25, y - 25, x + 25, y + 25), colour, PAPER, 5)
        self.text(at, str(number), 30, WHITE, bold=True)


def draw() -> Image.Image:
    drawing = Drawing()
    drawing.rounded((0, 0, *SIZE), PAPER, "#d5dce6", radius=36, width=2)
    _draw_page(drawing)
    _draw_bucket(drawing)
    _draw_container(drawing)
    _draw_source(drawing)
    _draw_first_load(drawing)
    _draw_second_load(drawing)
    _draw_legend(drawing)
    return drawing.finished()


def _draw_page(drawing: Drawing) -> None:
    left, top, right, bottom = PAGE_BOX
    drawing.card(PAGE_BOX)
    drawing.rounded((left, top, right, top + 62), "#dfe6ef", LINE)
    drawing.rounded((left + 3, top + 40, right - 3, top + 62), "#dfe6ef", radius=0)
    drawing.line([(left, top + 62), (right, top + 62)], LINE, 3)
    for x, colour in ((32, "#e0655f"), (62, "#e3b04b"), (92, "#5cb270")):
        drawing.ellipse((left + x - 9, top + 22, left + x + 9, top + 40), colour)
    drawing.text(((left + right) // 2 + 30, top + 32), "your page", 28, GREY, bold=True)
    drawing.photograph((left + 40, top + 104, right - 40, top + 444))
    for y, end in ((top + 482, right - 40), (top + 512, right - 120)):
        drawing.rounded((left + 40, y, end, y + 13), "#dbe2ec", radius=6)
    drawing.rounded((left + 20, bottom - 326, right - 20, bottom - 36), "#f4f6fa", LINE, 14, 2)
    lines = [
        ("<img", INK),
        ('   src="BUCKET/<md5>"', BUCKET),
        ('   onerror="', INK),
        ("     this.onerror=null;", INK),
        ("     this.src='PROXY/<path>'\">", FIRST),
    ]
    for number, (text, colour) in enumerate(lines):
        drawing.text((left + 40, bottom - 282 + 50 * number), text, 27, colour, anchor="lm")


def _draw_bucket(drawing: Drawing) -> None:
    left, top, right, _ = BUCKET_BOX
    middle = (left + right) // 2
    drawing.card(BUCKET_BOX)
    body = [(middle - 62, top + 62), (middle + 62, top + 62), (middle + 46, top + 150)]
    drawing.polygon([*body, (middle - 46, top + 150)], BUCKET)
    drawing.ellipse((middle - 46, top + 136, middle + 46, top + 164), BUCKET)
    drawing.ellipse((middle - 62, top + 44, middle + 62, top + 80), "#bfe3d4", BUCKET, 5)
    drawing.text((middle, top + 205), "bucket", 36, bold=True)
    drawing.text((middle, top + 245), "S3, GCS, Azure", 27, GREY)


def _draw_container(drawing: Drawing) -> None:
    drawing.rounded(CONTAINER_BOX, "#e2e9f5", "#a9bbdd", radius=30, width=3)
    left, top, right, _ = CONTAINER_BOX
    drawing.text((right - 30, top + 36), "one container", 27, GREY, anchor="rm")
    left, top, right, _ = PROXY_BOX
    middle = (left + right) // 2
    drawing.card(PROXY_BOX, PROXY, PROXY)
    drawing.text((middle, top + 90), "imgproxy-cache", 38, WHITE, bold=True)
    drawing.text((middle, top + 140), ":8080", 28, "#d6e2ff")
    drawing.text((middle, top + 188), "answers at once,", 27, WHITE)
    drawing.text((middle, top + 222), "keeps good images", 27, WHITE)
    left, top, right, _ = IMGPROXY_BOX
    middle = (left + right) // 2
    drawing.card(IMGPROXY_BOX, IMGPROXY, IMGPROXY)
    drawing.text((middle, top + 90), "imgproxy", 35, WHITE, bold=True)
    drawing.text((middle, top + 140), ":8081", 28, "#e4dbff")
    drawing.text((middle, top + 188), "resizes", 27, WHITE)


def _draw_source(drawing: Drawing) -> None:
    left, top, right, _ = SOURCE_BOX
    middle = (left + right) // 2
    drawing.card(SOURCE_BOX)
    drawing.photograph((middle - 60, top + 30, middle + 60, top + 150), 10)
    drawing.text((middle, top + 188), "source", 34, bold=True)
    drawing.text((middle, top + 226), "the original", 26, GREY)


def _draw_first_load(drawing: Drawing) -> None:
    page, bucket, proxy = PAGE_BOX[2], BUCKET_BOX, PROXY_BOX
    drawing.arrow((page, 150), (bucket[0], 150), FIRST)
    drawing.number((page + 42, 150), 1, FIRST)
    drawing.text((660, 118), "BUCKET/<md5>", 27)
    drawing.text((660, 182), "not there yet", 27, FIRST)

    drawing.arrow((page, 680), (proxy[0], 680), FIRST)
    drawing.number((page + 42, 680), 2, FIRST)
    drawing.text((650, 648), "PROXY/<path>", 27)

    middle = (IMGPROXY_BOX[1] + IMGPROXY_BOX[3]) // 2
    drawing.arrow((proxy[2], middle), (IMGPROXY_BOX[0], middle), FIRST)
    drawing.number((proxy[2] + 34, middle), 3, FIRST)
    drawing.arrow((IMGPROXY_BOX[2], middle), (SOURCE_BOX[0], middle), FIRST)
    drawing.number((IMGPROXY_BOX[2] + 36, middle), 4, FIRST)

    drawing.arrow((proxy[0], 830), (page, 830), FIRST)
    drawing.number((proxy[0] - 42, 830), 5, FIRST)
    drawing.text((626, 798), "the image, at once", 27)

    up = (bucket[0] + bucket[2]) // 2
    drawing.arrow((up, proxy[1]), (up, bucket[3]), FIRST, dashed=True)
    drawing.number((up, proxy[1] - 130), 6, FIRST)
    drawing.text((up + 44, proxy[1] - 148), "in the background,", 27, anchor="lm")
    drawing.text((up + 44, proxy[1] - 112), "under the MD5 of its path", 27, anchor="lm")


def _draw_second_load(drawing: Drawing) -> None:
    page, bucket = PAGE_BOX[2], BUCKET_BOX[0]
    drawing.arrow((bucket, 300), (page, 300), SECOND)
    drawing.number((bucket - 42, 300), 7, SECOND)
    drawing.text((626, 268), "the image", 27)
    drawing.text((626, 332), "the proxy is not asked", 27, SECOND)


def _draw_legend(drawing: Drawing) -> None:
    for y, colour, title, text in (
        (150, FIRST, "First load", "by way of the proxy: 1 to 6"),
        (280, SECOND, "Every load after it", "from the bucket alone: 7"),
    ):
        drawing.rounded((1236, y - 40, 1246, y + 60), colour, radius=5)
        drawing.text((1270, y - 18), title, 38, colour, bold=True, anchor="lm")
        drawing.text((1270, y + 34), text, 28, anchor="lm")


def _scaled(values: T) -> T:
    return tuple(value * SCALE for value in values)  # type: ignore[return-value]


def _of_few_colours(picture: Image.Image) -> Image.Image:
    """A quarter of the bytes; the last of 256 colours is for what is outside the round corners."""
    opaque = Image.new("RGB", picture.size, PAPER)
    opaque.paste(picture, mask=picture.getchannel("A"))
    few = opaque.quantize(255, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
    few.putpalette([*(few.getpalette() or [])[: 255 * 3], 255, 255, 255])
    outside = picture.getchannel("A").point(lambda alpha: 255 if alpha < 128 else 0)
    few.paste(255, mask=outside)
    return few


if __name__ == "__main__":
    _of_few_colours(draw()).save(ROOT / "diagram.png", optimize=True, transparency=255)
