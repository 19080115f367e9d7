"""What a request says of itself once its token has been read: the same, without the token.

Strategy: clients of y-websocket show their token in the address, and every access log writes addresses. When the guard
has a request, the parameters are read and kept (``request.query`` has what was sent), and ``***`` takes the place of
the token in the address, and in that of the page that a browser names as ``Referer``. So a line that is written of the
request later, by an access log of any kind or for an error, has no token. The names are private to aiohttp, which is
pinned.
"""

from __future__ import annotations

from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy

from collab.telemetry.secrets import MASK, is_secret_name, mask_secrets

# What a request has worked out of its address; ``query`` is not among them.
_OF_THE_ADDRESS = ("path_qs", "query_string", "raw_path", "rel_url", "url")


def hide_secrets(request: web.Request) -> None:
    """Take secrets out of the address and the ``Referer`` of a request; ``request.query`` keeps what was sent."""
    if request.query_string and any(map(is_secret_name, request.query)):
        _hide_in_address(request)
    referer = request.headers.get(hdrs.REFERER)
    if referer is not None and (masked := mask_secrets(referer)) != referer:
        _replace_referer(request, masked)


def _hide_in_address(request: web.Request) -> None:
    shown = [(name, MASK if is_secret_name(name) else value) for name, value in request.query.items()]
    address = request.rel_url.with_query(shown)
    path = request._message.path.partition("?")[0]
    request._message = request._message._replace(path=f"{path}?{address.raw_query_string}", url=address)
    request._rel_url = address
    for name in _OF_THE_ADDRESS:
        request._cache.pop(name, None)


def _replace_referer(request: web.Request, referer: str) -> None:
    headers = CIMultiDict(request.headers)
    headers[hdrs.REFERER] = referer
    request._headers = CIMultiDictProxy(headers)
    raw = tuple((name, referer.encode() if name.lower() == b"referer" else text) for name, text in request.raw_headers)
    request._message = request._message._replace(headers=request._headers, raw_headers=raw)
    for name in ("headers", "raw_headers"):
        request._cache.pop(name, None)
