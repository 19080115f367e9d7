"""What stands in a request: the token and the document's name, for sockets and for plain HTTP."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from collab.protocol.names import decode_document_name

_NO_HEADERS: Final[CIMultiDictProxy[str]] = CIMultiDictProxy(CIMultiDict())
_NO_ADDRESS: Final = URL("/")


class Head:
    """The head of a request in the place of aiohttp's own, which cannot be changed.

    aiohttp keeps it for as long as a request is served, which for a WebSocket is its whole life.

    Args:
        message: aiohttp's own.
    """

    __slots__ = (
        "chunked",
        "compression",
        "headers",
        "method",
        "path",
        "raw_headers",
        "should_close",
        "upgrade",
        "url",
        "version",
    )

    def __init__(self, message: Any) -> None:
        self.method, self.path, self.version, self.url = message.method, message.path, message.version, message.url
        self.headers, self.raw_headers = message.headers, message.raw_headers
        self.should_close, self.compression = message.should_close, message.compression
        self.upgrade, self.chunked = message.upgrade, message.chunked

    def _replace(self, **changes: Any) -> Head:
        """Change it, where aiohttp's own would give a changed copy: nobody is to see what was there before."""
        for name, value in changes.items():
            setattr(self, name, value)
        return self


def forget_head(request: web.Request) -> None:
    """Forget the headers and the addresses of a request: some KB that would live as long as its socket.

    Not where somebody else looks at the request when the socket has ended: an access log, or the middlewares of an
    application that this one is a part of.
    """
    log: AbstractAccessLogger | None = getattr(request.protocol, "access_logger", None)
    if (log is not None and log.enabled) or len(request.match_info.apps) > 1:
        return
    message: Any = request._message
    if isinstance(message, Head):
        message.headers, message.raw_headers, message.url, message.path = _NO_HEADERS, (), _NO_ADDRESS, ""
    request._headers, request._rel_url = _NO_HEADERS, _NO_ADDRESS
    request._transport_peername = request._transport_sockname = None
    request._cache.clear()


def bearer_token(request: web.Request) -> str:
    """Return the token of a request: from the Authorization header, else the parameter ``token``."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.query.get("token", "")


def raw_document_name(request: web.Request) -> bytes:
    """Return the bytes of the document name in a request's path, percent-decoded.

    The undecoded path is read, because what is not UTF-8 must be refused rather than replaced.
    """
    resource = request.match_info.route.resource
    assert resource is not None
    prefix = resource.canonical.partition("{")[0]
    return unquote_to_bytes(request.rel_url.raw_path)[len(prefix.encode()) :]


def public_path(request: web.Request) -> str:
    """Return the path of a request as its client sees it, percent-encoded: below the mount of an ASGI application."""
    mount: str = getattr(request.protocol, "root_path", "")
    return mount + request.rel_url.raw_path


def document_name(request: web.Request) -> str:
    """Return the document name in a request's path.

    Raises:
        InvalidDocumentName: see ``decode_document_name``.
    """
    return decode_document_name(raw_document_name(request))
