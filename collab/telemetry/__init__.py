"""What the server says about itself: log lines, and numbers that are counted.

Strategy: ``logs`` has the loggers and how lines are written, ``secrets`` keeps secrets out of them and of the lines of
others. ``counters`` has the plain objects in which every layer counts; what reads and exports them stands at the top
(``collab.transports.http.metrics``).
"""

from __future__ import annotations

from collab.telemetry.logs import (
    FORMATS,
    LEVELS,
    ROOT,
    BoundedHandler,
    ConnectionLog,
    JsonFormatter,
    OneLineFormatter,
    RateLimited,
    complain,
    configure,
    escape_controls,
    get_logger,
    name_node,
    shown_name,
    shown_text,
    shown_user,
    tell_left_out,
)
from collab.telemetry.secrets import keep_secrets_out, mask_secrets

__all__ = [
    "FORMATS",
    "LEVELS",
    "ROOT",
    "BoundedHandler",
    "ConnectionLog",
    "JsonFormatter",
    "OneLineFormatter",
    "RateLimited",
    "complain",
    "configure",
    "escape_controls",
    "get_logger",
    "keep_secrets_out",
    "mask_secrets",
    "name_node",
    "shown_name",
    "shown_text",
    "shown_user",
    "tell_left_out",
]
