"""What aiohttp has to say of requests, without the traceback that each bad one would write.

Strategy: aiohttp logs a peer that sends no HTTP, or that goes away during its handshake, like a defect of
the server, with a traceback, as often as it happens. Both are the peer's doing: the first becomes one line
at a bounded rate, the second none. A real defect keeps its traceback, at a bounded rate too.
"""

from __future__ import annotations

import logging
from typing import Any

from aiohttp.http import HttpProcessingError

from collab.telemetry import RateLimited, get_logger

# What a peer that has gone is met with. A refused connection is none of these: only we connect to anything.
_GONE = (BrokenPipeError, ConnectionAbortedError, ConnectionResetError)


class HttpLog(logging.LoggerAdapter[logging.Logger]):
    """The logger to give to ``web.AppRunner``."""

    def __init__(self) -> None:
        """Log through ``collab.http``."""
        super().__init__(get_logger("http"), {})
        self._limited = RateLimited(self.logger)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log ``msg % args`` as ``logging.Logger.log``, by the kind of the exception that comes with it."""
        error = kwargs.get("exc_info")
        if isinstance(error, _GONE):
            self.logger.debug(msg, *args)
        elif isinstance(error, HttpProcessingError):
            error.__traceback__ = None  # a frame of it keeps the error, so that both would wait for the collector
            # The first line says what is wrong; behind it stands what the peer sent.
            reason = error.message.strip().partition("\n")[0]
            self._limited.info("bad request", "refused: not a request: %s", reason)
        else:
            exc_info = error if isinstance(error, BaseException) else None
            self._limited.log(level, type(error).__name__, str(msg), *args, exc_info=exc_info)
