"""What an ASGI server says of a request, as aiohttp's message.

Strategy: the message is made of the scope field by field. It never becomes bytes that somebody parses, so nothing that
a client has written can be taken for the end of a header or of a request. What says how a body or a connection is
framed is the ASGI server's business: those headers are left out, or written anew.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, MutableMapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from aiohttp import hdrs
from aiohttp.http import HttpVersion10, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

Scope = MutableMapping[str, Any]

MOST_LINE: Final = 16 * 1024
"""Bytes of an address with its query, and of a header. As `collab.transports.guard.door` takes them of a socket."""

MOST_HEAD: Final = 64 * 1024
"""Bytes of all headers."""

# Any would do: the ASGI server has done the handshake with the client, with the client's own.
_KEY: Final = base64.b64encode(bytes(16)).decode()

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")

# How a body and a connection are framed, and what the ASGI server does itself.
_NOT_PASSED_ON: Final = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

# Requests with these have no body that anybody here reads.
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class BadScope(Exception):
    """A request that cannot be served.

    Args:
        status: of the answer.
        reason: a sentence for its sender.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Asked(NamedTuple):
    """A request.

    Attributes:
        message: its head.
        root_path: where the application is mounted, as the client sees it, percent-encoded; empty for the root.
        has_body: whether one may come that somebody reads.
    """

    message: RawRequestMessage
    root_path: str
    has_body: bool


def read_scope(scope: Scope) -> Asked:
    """Make the head of a request from the scope of an ASGI server, for HTTP or for a WebSocket.

    The path of the message is the part below the mount, percent-encoded as the client has written it.

    Raises:
        BadScope: it is no request, or too long.
    """
    for_socket = scope["type"] == "websocket"
    method = "GET" if for_socket else str(scope["method"])
    if not _TOKEN.fullmatch(method.encode("utf-8", "surrogatepass")):
        raise BadScope(400, "the method is malformed")
    root_path, path = split_path(scope)
    query = bytes(scope.get("query_string") or b"")
    target = path + (f"?{quote(query, safe=_IN_QUERY)}" if query else "")
    if len(target) > MOST_LINE:
        raise BadScope(414, "the address is too long")
    headers = _read_headers(scope["headers"])
    if for_socket:
        _offer(headers, scope.get("subprotocols") or ())
    message = RawRequestMessage(
        method=method,
        path=target,
        # One request on a connection, whose body ends with it: nothing is framed here.
        version=HttpVersion10,
        headers=CIMultiDictProxy(headers),
        raw_headers=(),
        should_close=True,
        compression=None,
        upgrade=for_socket,
        chunked=False,
        url=URL(target, encoded=True),
    )
    return Asked(message, root_path, not for_socket and method not in _WITHOUT_BODY and _has_body(scope, headers))


# What may stand in a query as it is. The rest is percent-encoded, and what is percent-encoded stays so.
_IN_QUERY: Final = "!$%&'()*+,/:;=?@-._~[]|^`{}\\\"<>"
_IN_PATH: Final = "!$%&'()*+,/:;=@-._~[]|^`{}\\\"<>"


def split_path(scope: Scope) -> tuple[str, str]:
    """Give where the application is mounted, and the path below that, both percent-encoded.

    Frameworks differ: some leave the whole path in the scope and add what is the mount's to ``root_path``, some take
    it away from ``path``. ``raw_path`` is the whole path, and alone shows bytes that are no UTF-8.
    """
    mount = str(scope.get("root_path") or "").rstrip("/")
    below = str(scope["path"])
    if mount and (below == mount or below.startswith(mount + "/")):
        below = below[len(mount) :]
    below = below if below.startswith("/") else "/" + below
    raw = scope.get("raw_path")
    if raw:
        raw = bytes(raw).partition(b"?")[0]
        if mount:
            raw = _below(raw, mount.encode("utf-8", "surrogateescape"))
        # A framework may have rewritten the path: then that is what counts.
        if unquote_to_bytes(raw).decode("utf-8", "replace") == _shown(below):
            return quote(mount), quote(raw, safe=_IN_PATH)
    return quote(mount), quote(below.encode("utf-8", "surrogateescape"), safe="/:@!$&'()*+,;=-._~")


def _shown(path: str) -> str:
    """Give a path as text in which what is no UTF-8 is replaced, however the ASGI server has decoded it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _below(raw: bytes, mount: bytes) -> bytes:
    """Take a mount, which is not percent-encoded, off a path that is; the path itself if it is not below it."""
    end = len(mount)
    if b"%" in raw[:end]:
        end = next((at for at in range(len(mount), len(raw) + 1) if unquote_to_bytes(raw[:at]) == mount), 0)
    if unquote_to_bytes(raw[:end]) != mount or raw[end : end + 1] not in (b"/", b""):
        return raw
    return raw[end:] or b"/"


def _read_headers(told: Iterable[tuple[bytes, bytes]]) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    total = 0
    for name, value in told:
        name, value = bytes(name).lower(), bytes(value)
        total += len(name) + len(value) + 4
        if len(name) + len(value) > MOST_LINE or total > MOST_HEAD:
            raise BadScope(431, "the headers are too long")
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadScope(400, "a header is malformed")
        if name not in _NOT_PASSED_ON:
            headers.add(name.decode("ascii"), value.decode("utf-8", "surrogateescape").strip(" \t"))
    lengths = headers.getall(hdrs.CONTENT_LENGTH, ())
    if lengths and (len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal() and len(lengths[0]) < 20)):
        raise BadScope(400, "the content length is malformed")
    if len(headers.getall(hdrs.HOST, ())) > 1:
        raise BadScope(400, "there are several hosts")
    return headers


def _has_body(scope: Scope, headers: CIMultiDict[str]) -> bool:
    if (length := headers.get(hdrs.CONTENT_LENGTH)) is not None:
        return int(length) > 0
    # Only HTTP/1 says by a header that one comes of which the length is not known.
    http_1 = str(scope.get("http_version", "1.1")).startswith("1")
    return not http_1 or any(bytes(name).lower() == b"transfer-encoding" for name, _ in scope["headers"])


def _offer(headers: CIMultiDict[str], subprotocols: Iterable[str]) -> None:
    """Write the handshake of a WebSocket, which the ASGI server has taken off the wire."""
    headers.pop(hdrs.SEC_WEBSOCKET_EXTENSIONS, None)
    headers.pop(hdrs.SEC_WEBSOCKET_PROTOCOL, None)
    headers[hdrs.CONNECTION] = "upgrade"
    headers[hdrs.UPGRADE] = "websocket"
    headers[hdrs.SEC_WEBSOCKET_VERSION] = "13"
    headers[hdrs.SEC_WEBSOCKET_KEY] = _KEY
    offered = ", ".join(subprotocols)
    if offered:
        if not _VALUE.fullmatch(offered.encode("utf-8", "surrogatepass")) or len(offered) > MOST_LINE:
            raise BadScope(400, "the subprotocols are malformed")
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = offered
