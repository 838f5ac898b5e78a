"""
The engine's log: one event a line on stdout.

``engine.started``  first of all: what this is, and what it is not
``engine.listening``, ``engine.stopped``
``settings.ignored``  the names of settings that are set and unknown here
``source.failed``  the fallback image was answered in its place
``request.answered``  one a request; ``error`` says why it failed
``request.broken``  a fault of our own, with its traceback
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import FilteringBoundLogger, Processor

LEVELS = {"warn": "warning"}


def open_log(level: str, log_format: str) -> FilteringBoundLogger:
    """``level`` and ``log_format`` are imgproxy's names."""
    renderer: Processor = (
        structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
        if log_format in ("pretty", "structured")
        else structlog.processors.JSONRenderer()
    )
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stdout),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[LEVELS.get(level, level).upper()]
        ),
        cache_logger_on_first_use=True,
    )
    return logger
