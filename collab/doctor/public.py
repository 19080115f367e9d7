"""The way of a client: through the public address and whatever proxies stand there.

Strategy: what a browser does, step by step, and the first step that fails is told with what commonly causes it: the
name, the connection, TLS, a request, and a WebSocket with the origin of the server's own page. Then a ping goes one way
and its answer comes back, each as a frame of some bytes: a proxy that keeps bytes until it has more of them, or does
not know WebSockets, lets one of them wait.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from collab.doctor.findings import Finding, failed, ok, warning

_SECONDS = 10.0
_PONG_SECONDS = 5.0
_LATE = 5.0
"""Seconds: the header ``Date`` has whole ones, and the answer takes some time."""

_PING = b"collab doctor"
_DOCUMENT = "collab-doctor"
"""It is opened and not edited, so it is not stored."""

_PAGE = "(docs/operations.md, Behind a proxy)"
_PROXY = f"let the proxy pass Upgrade and Connection on, by HTTP/1.1 {_PAGE}"

# What OpenSSL says of a certificate: X509_V_ERR_...
_EXPIRED, _NOT_YET, _SELF_SIGNED, _SELF_SIGNED_CHAIN, _NO_ISSUER, _FIRST_UNKNOWN, _OTHER_NAME, _OTHER_ADDRESS = (
    10,
    9,
    18,
    19,
    20,
    21,
    62,
    64,
)


async def look_from_outside(base: str, clock: Callable[[], float] = time.time) -> AsyncIterator[Finding]:
    """Go through ``base``, the public address of the server (``https://collab.example``, with a path if it has one)."""
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        yield failed("address", f"{base!r} is no address", "give one such as https://collab.example")
        return
    secure = parts.scheme in ("https", "wss")
    path = parts.path.rstrip("/")
    web = urlunsplit(("https" if secure else "http", parts.netloc, path, "", ""))
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        try:
            async with http.get(f"{web}/healthz", allow_redirects=False) as answer:
                findings = await _read(answer, web, clock)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            yield _unreached(error, parts.hostname, secure)
            return
        for finding in findings:
            yield finding
        if any(finding.check == "request" and finding.advice for finding in findings):
            return
        yield await _websocket(http, web)


def _unreached(error: BaseException, host: str, secure: bool) -> Finding:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _distrusted(error.certificate_error, host)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return failed("address", f"the name {host} cannot be looked up", "look at the DNS entry of the name")
    if isinstance(error, aiohttp.ClientSSLError):
        return failed(
            "TLS", f"no TLS at this port: {error}", "serve https there, or give the address that begins with http:"
        )
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    ):
        text = "the connection is closed without an answer"
        return failed("address", text, "https at this port?" if not secure else "look at the log of the proxy")
    if isinstance(error, TimeoutError):
        return failed("address", f"no answer within {_SECONDS:.0f} s", "look at firewalls, and at the proxy's own log")
    return failed("address", str(error), "is the proxy running, and is the port open to this machine?")


def _distrusted(error: BaseException, host: str) -> Finding:
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        return failed("TLS", f"the certificate is not for {host}", "get one with this name among its names")
    if code in (_EXPIRED, _NOT_YET):
        what = "has run out" if code == _EXPIRED else "is not valid yet"
        return failed("TLS", f"the certificate {what}", "renew it where TLS ends, or look at the clock of this machine")
    if code in (_NO_ISSUER, _FIRST_UNKNOWN, _SELF_SIGNED, _SELF_SIGNED_CHAIN):
        return failed(
            "TLS",
            "nobody who is trusted here has signed the certificate",
            "serve it with its whole chain; if your own authority has signed it, set SSL_CERT_FILE for this command",
        )
    return failed("TLS", f"the certificate is not trusted: {error}", "look at the certificate")


async def _read(answer: aiohttp.ClientResponse, web: str, clock: Callable[[], float]) -> list[Finding]:
    """Say what ``/healthz`` has answered."""
    status, text = answer.status, (await answer.text(errors="replace"))[:200]
    if status in (301, 302, 303, 307, 308):
        where = answer.headers.get("Location", "nowhere")
        return [failed("request", f"it sends elsewhere: {where}", "give that address: WebSockets follow nobody")]
    if status in (502, 503, 504):
        return [
            failed(
                "request",
                f"status {status}: the proxy does not reach the server",
                "look at the address in the proxy's configuration, and whether the server runs",
            )
        ]
    if status in (401, 403):
        return [
            failed(
                "request",
                f"status {status}: somebody before the server wants a sign-in",
                "let the proxy pass requests on; the server asks for tokens itself",
            )
        ]
    if status != 200 or '"status"' not in text:
        return [
            failed(
                "request",
                f"{web}/healthz answers {status}, and not as collab does",
                "is this the path that the proxy gives to the server, and does it take it away?",
            )
        ]
    found = [ok("request", f"{web} leads to a server")]
    try:
        late = clock() - parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return found
    if abs(late) > _LATE:
        found.append(
            warning(
                "clock",
                f"the clock there and this one differ by {abs(late):.0f} s",
                "let both follow a time server: tokens go by the clock",
            )
        )
    return found


async def _websocket(http: aiohttp.ClientSession, web: str) -> Finding:
    parts = urlsplit(web)
    origin = f"{parts.scheme}://{parts.netloc}"
    try:
        async with http.ws_connect(f"{web}/hocuspocus", headers={"Origin": origin}, autoping=False) as ws:
            began = time.monotonic()
            await ws.ping(_PING)
            async with asyncio.timeout(_PONG_SECONDS):
                while True:
                    message = await ws.receive()
                    if message.type is aiohttp.WSMsgType.PONG and message.data == _PING:
                        break
                    if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                        return failed(
                            "WebSocket",
                            f"it is closed at once ({message.data})",
                            "the server may be full or stopping: look at /readyz and its log",
                        )
            took = (time.monotonic() - began) * 1000
        # Hocuspocus clients are told behind their first message; a y-websocket client at once.
        async with http.ws_connect(f"{web}/ws/{_DOCUMENT}", headers={"Origin": origin}) as ws:
            async with asyncio.timeout(_PONG_SECONDS):
                message = await ws.receive()
            if message.type is aiohttp.WSMsgType.CLOSE and "origin" in str(message.extra):
                return _other_origin(origin, f"closed with {message.data}")
        return ok("WebSocket", f"a ping and its answer take {took:.0f} ms")
    except aiohttp.WSServerHandshakeError as error:
        return _refused(error.status, origin)
    except TimeoutError:
        return failed(
            "WebSocket",
            f"it opens, and a ping has no answer within {_PONG_SECONDS:.0f} s: bytes are kept back",
            f"turn buffering off in the proxy (nginx: proxy_buffering off), and let frames through {_PAGE}",
        )
    except (aiohttp.ClientError, OSError) as error:
        return failed("WebSocket", f"the connection breaks: {error}", _PROXY)


def _other_origin(origin: str, how: str) -> Finding:
    return failed(
        "WebSocket",
        f"{how}: the server does not take {origin} for its own page",
        "let the proxy keep Host (with the port), or send X-Forwarded-Host and -Proto and set --behind-proxy and "
        "--trusted-proxies; or list the page in --allowed-origins",
    )


def _refused(status: int, origin: str) -> Finding:
    if status == 403:
        return _other_origin(origin, "status 403")
    if status == 404:
        return failed(
            "WebSocket",
            "status 404: /hocuspocus leads nowhere",
            "give the proxy's rule for requests to WebSockets too: /ws/ and /hocuspocus",
        )
    if status in (502, 503, 504):
        return failed("WebSocket", f"status {status}: the proxy does not reach the server", _PROXY)
    if status == 429:
        return failed("WebSocket", "status 429: too many new connections", "wait, or look at the limits")
    return failed("WebSocket", f"status {status} and no upgrade: a proxy takes the header Upgrade away", _PROXY)
