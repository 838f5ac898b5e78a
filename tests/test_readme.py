"""What the README says is what the code does."""

import hmac
import os
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from imgproxy_cache.core.policy import NotStored
from imgproxy_cache.metrics import Metrics
from imgproxy_cache.settings.reference import SETTINGS
from tests import readme

ROOT = Path(__file__).parents[1]

SOURCE, OPTIONS, EXTENSION = "https://example.com/photos/cat.jpg", "rs:fill:300:300", "webp"
KEYS = {
    "IMGPROXY_KEY": "943b421c9eb07c830af81030552c86009268de4e338ba2ee2eab8247c6da0881",
    "IMGPROXY_SALT": "520f986b998545b4785e0defbc4f3c1203f22de2374a3d53cb7a7fe9fea309c5",
}
# rest=/rs:fill:300:300/$(printf %s $SOURCE | base64 -w0 | tr +/ -_ | tr -d =).webp
# (printf %s $IMGPROXY_SALT | xxd -r -p; printf %s $rest) |
#   openssl dgst -sha256 -mac HMAC -macopt hexkey:$IMGPROXY_KEY -binary |
#   base64 -w0 | tr +/ -_ | tr -d =
SIGNED_PATH = (
    "/UBvB3AHg7ERZt7NEJ8U8o5UJGhRXuWS30gejv_-ngfU/rs:fill:300:300/"
    "aHR0cHM6Ly9leGFtcGxlLmNvbS9waG90b3MvY2F0LmpwZw.webp"
)
# printf %s $SIGNED_PATH | md5sum
OBJECT_NAME = "2002cba163e9a4476e2a3af99911cc73"
FALLBACK = f"this.onerror=null; this.src='https://PROXY{SIGNED_PATH}'"


def test_settings_table_is_that_of_the_code() -> None:
    in_words = {
        "",
        "required",
        "the standard chain",
        "found",
        "a temporary folder",
        "twice imgproxy's workers",
    }
    expected = [
        [
            as_code(setting.name),
            setting.default if setting.default in in_words else as_code(setting.default),
            setting.meaning,
        ]
        for setting in SETTINGS
    ]
    assert readme.table("variable") == expected


def as_code(values: str) -> str:
    return ", ".join(f"`{value}`" for value in values.split(", "))


def test_table_of_what_is_never_stored_is_that_of_the_code() -> None:
    assert [name for name, *_ in readme.table("name")] == [f"`{reason}`" for reason in NotStored]


def test_metrics_that_are_named_exist() -> None:
    metrics = Metrics().text().decode()
    named = [word for word in readme.text().split("`") if word.startswith("imgproxy_cache_")]
    assert len(named) == 4
    for name in named:
        assert f"# TYPE {name} " in metrics or f"# TYPE {name.removesuffix('_total')} " in metrics


def test_links_lead_somewhere() -> None:
    targets = [part.split(")")[0] for part in readme.text().split("](")[1:]]
    places = [target for target in targets if not target.startswith("https://")]
    assert set(places) == {
        "diagram.png",
        "#the-embedded-engine",
        "docs/read-through.md",
        "LICENSE",
        "CHANGELOG.md",
    }
    assert "\n## The embedded engine\n" in readme.text()
    assert all((ROOT / file).is_file() for file in places if not file.startswith("#"))


def test_commands_that_print_a_name_print_it() -> None:
    lines = readme.blocks("console")[0].splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed = subprocess.run(
        ["sh", "-c", "\n".join(commands)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert printed.stdout.splitlines() == [line for line in lines if not line.startswith("$ ")]


def test_python_example_makes_signed_paths_and_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    example: dict[str, Any] = {}
    exec(readme.blocks("python")[0], example)
    path = example["signed_path"](SOURCE, OPTIONS, EXTENSION)
    assert path == SIGNED_PATH
    assert example["object_name"](path) == OBJECT_NAME
    assert example["image_tag"](SOURCE, OPTIONS, EXTENSION) == (
        f'<img src="https://BUCKET_URL/{OBJECT_NAME}" onerror="{FALLBACK}">'
    )


def test_elixir_example_takes_the_steps_that_make_the_same_paths_and_names() -> None:
    """Each step as Elixir documents it, done here in Python."""
    example = readme.blocks("elixir")[0]

    assert (
        'rest = "/#{options}/#{Base.url_encode64(source, padding: false)}.#{extension}"' in example
    )
    rest = f"/{OPTIONS}/{urlsafe_b64encode(SOURCE.encode()).decode().rstrip('=')}.{EXTENSION}"

    assert (
        ':crypto.mac(:hmac, :sha256, secret("IMGPROXY_KEY"), secret("IMGPROXY_SALT") <> rest)'
        in example
    )
    assert "System.fetch_env!() |> Base.decode16!(case: :mixed)" in example
    key, salt = (bytes.fromhex(KEYS[name]) for name in ("IMGPROXY_KEY", "IMGPROXY_SALT"))
    signature = hmac.digest(key, salt + rest.encode(), "sha256")

    assert '"/" <> Base.url_encode64(signature, padding: false) <> rest' in example
    path = f"/{urlsafe_b64encode(signature).decode().rstrip('=')}{rest}"
    assert path == SIGNED_PATH

    assert "Base.encode16(:crypto.hash(:md5, path), case: :lower)" in example
    assert md5(path.encode()).hexdigest() == OBJECT_NAME


# Not a skip: CI knows only one, and few machines have Elixir.
if shutil.which("elixir"):

    def test_elixir_example_makes_signed_paths_and_their_names(tmp_path: Path) -> None:
        script = tmp_path / "example.exs"
        script.write_text(
            f"""{readme.blocks("elixir")[0]}
            path = Images.signed_path("{SOURCE}", "{OPTIONS}", "{EXTENSION}")
            Enum.each([path, Images.object_name(path)], &IO.puts/1)
            Enum.each([Images.src(path), Images.onerror(path)], &IO.puts/1)
            """
        )
        environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **KEYS}
        ran = subprocess.run(
            ["elixir", str(script)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        bucket_url = f"https://BUCKET_URL/{OBJECT_NAME}"
        assert ran.stdout.splitlines() == [SIGNED_PATH, OBJECT_NAME, bucket_url, FALLBACK]
