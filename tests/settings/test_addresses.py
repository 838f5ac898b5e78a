"""Who listens where, and who cannot beside whom."""

import pytest

from imgproxy_cache.errors import SettingsError
from imgproxy_cache.settings import Settings


def settings(environ: dict[str, str]) -> Settings:
    return Settings.from_environ({"S3_BUCKET": "images"} | environ)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"PORT": "8081"}, "PORT='8081': expected another port than that of CACHE_UPSTREAM_URL"),
        (
            {"IMGPROXY_BIND": "0.0.0.0:8082"},
            "IMGPROXY_BIND='0.0.0.0:8082': expected another port than that of CACHE_ADMIN_BIND",
        ),
        (
            {"CACHE_ADMIN_BIND": "127.0.0.1:8081"},
            "CACHE_ADMIN_BIND='127.0.0.1:8081': expected another port than that of"
            " CACHE_UPSTREAM_URL",
        ),
        (
            {"CACHE_UPSTREAM_URL": "http://127.0.0.1:8080"},
            "CACHE_UPSTREAM_URL='http://127.0.0.1:8080': expected another port than that of PORT",
        ),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if type(value) is dict else "",
)
def test_two_programs_cannot_have_one_port(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(environ)
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize(
    "environ",
    [
        {"IMGPROXY_BIND": "192.0.2.1:8082"},
        {"IMGPROXY_BIND": "127.0.0.1:0", "CACHE_ADMIN_BIND": "127.0.0.1:0"},
        {"CACHE_UPSTREAM_URL": "http://imgproxy:8080"},
    ],
    ids=str,
)
def test_one_port_of_two_addresses_is_two(environ: dict[str, str]) -> None:
    settings(environ)


@pytest.mark.parametrize(
    ("environ", "collision"),
    [
        pytest.param(
            {"IMGPROXY_PROMETHEUS_BIND": ":8081"},
            "IMGPROXY_PROMETHEUS_BIND=':8081' takes the port that imgproxy has from"
            " CACHE_UPSTREAM_URL, 8081: change one of them",
            id="imgproxy's own, as the Helm chart sets it",
        ),
        pytest.param(
            {"IMGPROXY_PROMETHEUS_BIND": ":8082"},
            "IMGPROXY_PROMETHEUS_BIND=':8082' takes the port of CACHE_ADMIN_BIND, 8082:"
            " change one of them",
            id="the operator's",
        ),
        pytest.param(
            {"IMGPROXY_PROMETHEUS_BIND": "0.0.0.0:9000", "IMGPROXY_BIND": ":9000"},
            "IMGPROXY_PROMETHEUS_BIND='0.0.0.0:9000' takes the port of IMGPROXY_BIND, 9000:"
            " change one of them",
            id="the public one",
        ),
    ],
)
def test_a_port_that_metrics_of_imgproxy_take_is_named(
    environ: dict[str, str], collision: str
) -> None:
    read = settings(environ)
    assert (read.port_collision, read.warnings) == (collision, (collision,))


@pytest.mark.parametrize(
    "environ",
    [
        {"IMGPROXY_PROMETHEUS_BIND": ":9090"},
        {"IMGPROXY_PROMETHEUS_BIND": ":8082", "CACHE_ADMIN_BIND": ""},
    ],
    ids=str,
)
def test_metrics_on_a_port_of_their_own_are_in_nobodys_way(environ: dict[str, str]) -> None:
    assert settings(environ).port_collision is None
