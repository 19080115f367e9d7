"""Requests to the HTTP API of a server: the token, refusals as errors, and what passes by waiting.

Strategy: one session of aiohttp for all requests of an address. A request that the server answers with "come back
later" (429, 503), or that finds nobody, is sent again until its time is over; one that changes something has a key, so
that it is done once. A function that gives tokens is asked at the first request, and anew when the server does not
take its token any more.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import ssl as tls
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from collab.client.backoff import Backoff
from collab.client.document import Token, token_of
from collab.errors import AccessDenied, ClientClosed, ConfigurationError, NotAnswered, RequestRefused
from collab.protocol.names import check_document_name

_log = logging.getLogger("collab.client")

# Statuses that pass by waiting, and codes of problems with such a status that do not.
_PASSING: Final = (429, 502, 503, 504)
_FINAL: Final = ("outcome_unknown", "document_damaged")

# Seconds until a server takes a connection.
_CONNECT_SECONDS: Final = 10.0

# The longest wait that is taken from an answer, in seconds.
_LONGEST_WAIT: Final = 30.0

_PIECE: Final = 64 * 1024


class Api:
    """The HTTP API at one address. Use it between ``start`` and ``close``.

    Args:
        url: of the server, as for a connection: ``ws://``, ``wss://``, ``http://`` or ``https://``. What stands before
            ``/hocuspocus`` in its path stands before ``/api/v1``, too.
        token: shown with each request; see `Token`.
        headers: of each request.
        ssl: for ``https://``; None verifies the server as usual.
        timeout: seconds for one request, with all its repeats.
        max_message_bytes: the largest answer that is taken.
        backoff: makes the pauses between repeats.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None,
        headers: Mapping[str, str] | None,
        ssl: tls.SSLContext | None,
        timeout: float,
        max_message_bytes: int,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._base = _base_of(url)
        self._token = token
        self._shown: str | None = None
        self._headers = dict(headers or {})
        self._ssl = ssl
        self._timeout = timeout
        self._most = max_message_bytes
        self._backoff = backoff
        self._http: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Where the API is."""
        return self._base

    async def start(self) -> None:
        """Begin."""
        if self._http is not None:
            raise RuntimeError("it is entered once at a time")
        self._http = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            connector=aiohttp.TCPConnector(ssl=self._ssl or True),
        )

    async def close(self) -> None:
        """End all connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def json(
        self,
        method: str,
        resource: str,
        name: str | None,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
        repeated: str | None = None,
    ) -> Any:
        """Send a request, and return the JSON of the answer; None for an answer without content.

        Args:
            method: of HTTP.
            resource: the part of the path before the name.
            name: of the document; None: it is about none alone.
            query: what is None is left out.
            body: sent as JSON.
            key: makes the server do it once, however often it is sent.
            repeated: the code of a refusal which says, to a request that is sent again, that it was done before.

        Raises:
            InvalidDocumentName: it is no name of a document.
            RequestRefused: the server does not do that.
            NotAnswered: there was no answer in time, or only that it is not possible now.
            ClientClosed: it is not open.
        """
        answer = await self.send(method, resource, name, query=query, body=body, key=key, repeated=repeated)
        if not answer:
            return None
        try:
            return json.loads(answer)
        except ValueError:
            raise RequestRefused(f"{self._base} answers with what is no JSON: is it the address of a server?") from None

    async def send(
        self,
        method: str,
        resource: str,
        name: str | None,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        lines: bytes | None = None,
        key: str | None = None,
        repeated: str | None = None,
    ) -> bytes:
        """Send a request, and return the body of the answer. ``lines`` are lines of JSON; the rest is as for `json`."""
        if name is not None:
            check_document_name(name)
        headers = dict(self._headers)
        data: bytes | None = None
        if key is not None:
            headers["Idempotency-Key"] = key
        if body is not None:
            # ASCII, so that half a surrogate pair arrives as one, and is refused by the server.
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if lines is not None:
            data = lines
            headers["Content-Type"] = "application/x-ndjson"
        address = self._address(resource, name, query)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout
        backoff = self._backoff()
        asked_anew = False
        sent = 0

        async def count(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            # aiohttp sends some requests again by itself.
            nonlocal sent
            sent += 1
            return await send(request)

        while True:
            try:
                async with asyncio.timeout_at(until):
                    asked = self._shown is None
                    token = await self._show()
                    async with self._send(method, address, data, headers, token, count) as response:
                        found = await self._read(response)
            except aiohttp.ClientError as error:  # before TimeoutError, which some of them are
                wait, why = 0.0, f"{self._base} cannot be reached ({type(error).__name__})"
            except TimeoutError:
                raise NotAnswered(f"{method} {resource} was not answered in {self._timeout:g} seconds") from None
            else:
                status, given = response.status, response.headers
                if status < 300:
                    return found
                if status == 401 and not asked and not asked_anew and callable(self._token):
                    self._shown, asked_anew = None, True
                    continue
                refused = _refusal(status, found)
                if sent > 1 and refused.code == repeated:
                    return b""
                if status not in _PASSING or refused.code in _FINAL:
                    raise refused
                wait, why = _seconds(given.get("Retry-After")), str(refused)
            pause = max(wait, backoff.next())
            if loop.time() + pause >= until:
                raise NotAnswered(why)
            _log.info("%s; trying again", why)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        address: URL,
        data: bytes | None,
        headers: Mapping[str, str],
        token: str,
        count: aiohttp.ClientMiddlewareType,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._http is None:
            raise ClientClosed("it is not open: use it in a with statement")
        shown = {**headers, "Authorization": f"Bearer {token}"} if token else headers
        async with self._http.request(
            method, address, data=data and io.BytesIO(data), headers=shown, allow_redirects=False, middlewares=(count,)
        ) as response:
            yield response

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for piece in response.content.iter_chunked(_PIECE):
            data += piece
            if len(data) > self._most:
                raise RequestRefused(f"the answer has more than {self._most} bytes (max_message_bytes)")
        return bytes(data)

    async def _show(self) -> str:
        """Return the token; one that cannot be had now is asked for again until the time is over."""
        backoff = self._backoff()
        while self._shown is None:
            try:
                self._shown = await token_of(self._token)
            except (AccessDenied, TypeError):
                raise
            except Exception:
                _log.warning("a token could not be had; it is asked for again", exc_info=True)
                await asyncio.sleep(backoff.next())
        return self._shown

    def _address(self, resource: str, name: str | None, query: Mapping[str, Any] | None) -> URL:
        given = {key: str(value) for key, value in (query or {}).items() if value is not None}
        # A slash as %2F, so that nothing of a name is taken for "..".
        url = URL(f"{self._base}/{resource}" + ("" if name is None else f"/{_quoted(name)}"), encoded=True)
        return url.with_query(given) if given else url


def _quoted(name: str) -> str:
    return "".join(
        char
        if char.isascii() and (char.isalnum() or char in "-_~")
        else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in name
    )


class ApiUser:
    """What asks the HTTP API of a server. Use it as an async context manager.

    Args:
        url: of the server, as for a `Connection`; ``http://`` and ``https://`` are the same.
        token: shown with each request; see `Token`. A function is asked once, and anew when the server does not take
            its token any more.
        headers: of each request.
        ssl: for ``wss://`` and ``https://``; None verifies the server as usual.
        timeout: seconds for one call. A server that is away, or asks to come back later, is asked again until then.
        max_message_bytes: the largest answer that is taken.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        headers: Mapping[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
        timeout: float = 30.0,
        max_message_bytes: int = 256 << 20,
    ) -> None:
        self._api = Api(
            url, token=token, headers=headers, ssl=ssl, timeout=timeout, max_message_bytes=max_message_bytes
        )

    @property
    def url(self) -> str:
        """Where the API is."""
        return self._api.url

    async def __aenter__(self) -> Self:
        await self._api.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        await self._api.close()


def _base_of(url: str) -> str:
    """Return where the API is, for an address of a server.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        found = URL(url)
        host = found.host
    except ValueError:
        raise ConfigurationError("the address of the server is no URL") from None
    schemes = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
    if found.scheme not in schemes or not host:
        raise ConfigurationError("the address of a server is as in ws://host:1234 or wss://host/hocuspocus")
    path = found.raw_path.rstrip("/").removesuffix("/hocuspocus")
    return str(found.origin().with_scheme(schemes[found.scheme])) + path + "/api/v1"


def _refusal(status: int, body: bytes) -> RequestRefused:
    """Make an error of an answer; what is no problem details comes from something in front of the server."""
    try:
        said = json.loads(body)
        return RequestRefused(str(said["detail"]), code=str(said["code"]), status=status)
    except (ValueError, TypeError, KeyError):
        return RequestRefused(f"the server, or something in front of it, answers {status}", status=status)


def _seconds(text: str | None) -> float:
    """Read ``Retry-After``; a date, or nothing, is no wait."""
    return min(float(text), _LONGEST_WAIT) if text is not None and text.isascii() and text.isdecimal() else 0.0
