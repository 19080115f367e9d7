"""What the server says about itself: log lines, and numbers that are counted.

Strategy: ``logs`` has the loggers and how lines are written. ``counters`` has the plain objects in which every layer
counts; what reads and exports them stands at the top (``collab.transports.http.metrics``).
"""

from __future__ import annotations

from collab.telemetry.logs import (
    FORMATS,
    LEVELS,
    ROOT,
    ConnectionLog,
    JsonFormatter,
    OneLineFormatter,
    RateLimited,
    complain,
    configure,
    escape_controls,
    get_logger,
    mask_secrets,
    shown_name,
)

__all__ = [
    "FORMATS",
    "LEVELS",
    "ROOT",
    "ConnectionLog",
    "JsonFormatter",
    "OneLineFormatter",
    "RateLimited",
    "complain",
    "configure",
    "escape_controls",
    "get_logger",
    "mask_secrets",
    "shown_name",
]
