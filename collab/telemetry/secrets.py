"""No token and no password in a log line, neither in ours nor in those that servers and frameworks write around us.

Strategy: ``mask_secrets`` finds secrets in text, by the names before them or by their own form. Our formatters use it
for every line. Lines of others do not pass our formatters: an application that mounts ours has handlers of its own, and
the access logs of aiohttp, uvicorn and others write addresses, where clients of y-websocket put their token. So
``keep_secrets_out`` puts a filter onto their loggers, by name. It masks each record before any handler has it, and
leaves records without a secret as they are. For aiohttp the address itself is
masked too, when the token has been read (``collab.transports.guard.hiding``): then an access log of any name is safe.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable, MutableMapping

MASK = "***"

# With what a name of this kind ends: access_token, id_token and refresh_token are tokens too.
_NAME = r"(?:\w{0,40}_)?token|password|passwd|pwd"

# Greedy up to the last "@" of the word: a password with an unescaped "@" is masked whole, and
# taking too much is the safe side.
_URL_PASSWORD = re.compile(r"(\w://[^:/?#\s@]*):[^\s]*@")
# Also inside of an address that is a parameter of another one, where "=", "?" and "&" are %3D, %3F and %26.
_KEYWORD = re.compile(rf"(?i)((?:\b|(?<=%3f)|(?<=%26))(?:{_NAME})(?:=|%3d))(?:(?!%26)[^\s&'\";,)])+")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{16,}")
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")

_IS_SECRET = re.compile(rf"(?i)(?:{_NAME})")

LOGGERS = (
    "aiohttp.access",
    "aiohttp.client",
    "aiohttp.internal",
    "aiohttp.server",
    "aiohttp.web",
    "aiohttp.websocket",
    "asyncio",
    "django.channels.server",
    "django.request",
    "django.server",
    "granian.access",
    "gunicorn.access",
    "gunicorn.error",
    "hypercorn.access",
    "hypercorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "uvicorn.error",
)
"""The loggers of servers and frameworks that write addresses, headers, or exceptions which may hold them."""

# What logging itself keeps in a record; what stands beside it was put there by ``extra``.
_OWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})


def is_secret_name(name: str) -> bool:
    """Tell whether a parameter of this name holds a secret."""
    return _IS_SECRET.fullmatch(name) is not None


def mask_secrets(text: str) -> str:
    """Replace secrets in ``text`` by ``***``.

    They are passwords in URLs (``scheme://user:password@host``), the values of ``token=...`` and ``password=...``, what
    stands behind ``Bearer``, and JWTs wherever they stand.
    """
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _KEYWORD.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    return _JWT.sub(MASK, text)


class SecretFilter(logging.Filter):
    """Mask secrets in every record, and let it pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask what ``record`` says: its message, its arguments, its ``extra`` values and its traceback."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_masked, record.args))
        elif isinstance(record.args, MutableMapping):
            _mask_values(record.args)
        try:
            message = record.getMessage()
        except Exception:
            message = None  # the handler that formats it tells of what is wrong
        if message is not None and (masked := mask_secrets(message)) != message:
            record.msg, record.args = masked, None
        for key in record.__dict__.keys() - _OWN:
            record.__dict__[key] = _masked(record.__dict__[key])
        _mask_traceback(record)
        return True


def keep_secrets_out(names: Iterable[str] = LOGGERS) -> None:
    """Mask secrets in what the loggers ``names`` write from now on; calling it again changes nothing."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(each, SecretFilter) for each in logger.filters):
            logger.addFilter(SecretFilter())


def _masked(value: object) -> object:
    if isinstance(value, str):
        return mask_secrets(value)
    if isinstance(value, dict):
        return {key: _masked(each) for key, each in value.items()}
    return value


def _mask_values(values: MutableMapping[str, object]) -> None:
    """Mask in place: such a mapping may be of a class of its own, which looks up more than it holds."""
    for key, value in list(values.items()):
        if isinstance(value, str):
            values[key] = mask_secrets(value)


def _mask_traceback(record: logging.LogRecord) -> None:
    """Put the masked text of an exception in its place, if it holds a secret; handlers would write it anew."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        text = "".join(traceback.format_exception(error))
        if (masked := mask_secrets(text)) != text:
            record.exc_info, record.exc_text = None, masked.rstrip("\n")
    elif record.exc_text:
        record.exc_text = mask_secrets(record.exc_text)
    if record.stack_info:
        record.stack_info = mask_secrets(record.stack_info)
