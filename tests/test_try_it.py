"""`make run`, once the environment is there: what it prints is what one finds."""

import io
import re
import sys
import urllib.request
from pathlib import Path
from signal import SIGINT

from PIL import Image

from tests.commands import SECONDS, started, wait_for
from tests.servers.process import free_port

ROOT = Path(__file__).parents[1]
TRY_IT = [sys.executable, str(ROOT / "scripts/try-it")]


def ports() -> dict[str, str]:
    return {
        "CACHE_UPSTREAM_URL": f"http://127.0.0.1:{free_port()}",
        "CACHE_ADMIN_BIND": f"127.0.0.1:{free_port()}",
        "IMGPROXY_BIND": f"127.0.0.1:{free_port()}",
    }


def test_urls_that_are_printed_answer_and_their_images_are_in_the_files_that_are_printed(
    tmp_path: Path,
) -> None:
    with started(environ=ports(), output=tmp_path / "output", program=TRY_IT) as run:
        run.until("Ctrl-C stops everything")
        words = run.output.read_text()
        urls = re.findall(r"^  (http://\S+)$", words, re.MULTILINE)
        files = [ROOT / name for name in re.findall(r"^  (\.dev/store/\w+)$", words, re.MULTILINE)]
        for file in files:
            file.unlink(missing_ok=True)
        bodies = [urllib.request.urlopen(url, timeout=SECONDS).read() for url in urls]
        pictures = [Image.open(io.BytesIO(body)) for body in bodies]
        found = [(picture.format, picture.size) for picture in pictures]
        assert found == [("JPEG", (300, 300)), ("WEBP", (200, 133))]
        wait_for(lambda: all(file.exists() for file in files))
        assert [file.read_bytes() for file in files] == bodies
        run.process.send_signal(SIGINT)
        assert run.ends() == 0
        assert run.leaves_nothing_behind()


def test_operators_own_settings_do_not_make_its_urls_wrong(tmp_path: Path) -> None:
    theirs = {"IMGPROXY_KEY": "00", "IMGPROXY_SALT": "00", "S3_BUCKET": "images"}
    theirs["IMGPROXY_BIND"] = f"[::1]:{free_port()}"
    with started(environ=ports() | theirs, output=tmp_path / "output", program=TRY_IT) as run:
        run.until("Ctrl-C stops everything")
        (url, _) = re.findall(r"^  (http://\S+)$", run.output.read_text(), re.MULTILINE)
        assert urllib.request.urlopen(url, timeout=SECONDS).status == 200


def test_wrong_settings_are_told_and_nothing_starts(tmp_path: Path) -> None:
    bad = {"IMGPROXY_BIND": "everywhere"}
    with started(environ=bad, output=tmp_path / "output", program=TRY_IT) as run:
        assert run.ends() == 1
        assert run.output.read_text() == (
            "cannot start, 1 setting to fix:\n"
            "  IMGPROXY_BIND='everywhere': expected host:port or :port\n"
        )
