"""The resizes that engines are compared by: real photographs to sizes and formats of web pages."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resize:
    """`name` is a file of the photographs; qualities are those of imgproxy."""

    name: str
    kind: str  # fit or fill
    width: int
    height: int
    format: str


MIX = (
    Resize("rocket.jpg", "fit", 480, 320, "jpeg"),
    Resize("astronaut.jpg", "fill", 300, 300, "jpeg"),
    Resize("coffee.jpg", "fit", 320, 240, "webp"),
    Resize("chelsea.jpg", "fill", 200, 200, "jpeg"),
    Resize("coffee.webp", "fit", 400, 400, "jpeg"),
    Resize("rocket.jpg", "fill", 600, 315, "webp"),
    Resize("cat.png", "fit", 300, 200, "png"),
    Resize("astronaut.jpg", "fit", 128, 128, "webp"),
)


def cold_targets() -> Iterator[bytes]:
    """The mix over and over; a cachebuster makes every path a new one."""
    for number, resize in enumerate(itertools.cycle(MIX)):
        options = f"rs:{resize.kind}:{resize.width}:{resize.height}/cb:{number}"
        yield f"/_/{options}/plain/local:///{resize.name}@{resize.format}".encode()
