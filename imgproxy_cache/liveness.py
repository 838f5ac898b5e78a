"""
Does the proxy on this machine answer?

Asked every few seconds by the container's HEALTHCHECK: with the standard
library alone, since importing what the proxy is made of costs ten times more.
"""

import http.client

from imgproxy_cache.settings.addresses import BindAddress

TIMEOUT_SECONDS = 5.0


def why_not_alive(bind: BindAddress, health_path: str) -> str | None:
    """Say why the proxy does not pass on imgproxy's health; None where it does."""
    host = "127.0.0.1" if bind.is_everywhere else bind.host
    connection = http.client.HTTPConnection(host or "", bind.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", health_path, headers={"Connection": "close"})
        answer = connection.getresponse()
        reason = answer.read(200).decode("utf-8", "replace").strip()
    except TimeoutError:
        return f"no answer in {TIMEOUT_SECONDS:g} s"
    except http.client.HTTPException as exc:
        return f"no HTTP: {exc!r}"
    except OSError as exc:
        return (exc.strerror or str(exc)).lower()
    finally:
        connection.close()
    return None if answer.status == 200 else f"answered {answer.status}: {reason}"
