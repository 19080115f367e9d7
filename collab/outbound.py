"""One address of somebody else, asked or told something over HTTP within bounds of time and size.

Strategy: whatever stands there may be slow, down or lying, so every answer is read up to a limit and
within one time-out for all of it, from the name's look-up to the last byte. Redirects are not followed,
cookies are not kept, nothing is decompressed, proxies of the environment are not used: what is sent
goes to the configured address and nowhere else. Certificates are verified. This is the one client of a server.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from collab.errors import ConfigurationError
from collab.net import is_loopback, is_public

MAX_CONNECTIONS = 32
"""Sockets to one address, and so requests at a time: whoever sends more lets them wait before, because the time-out
begins when a request comes here."""


class NoAnswer(Exception):
    """No whole answer came in time; the text is for the operator's log and shows nothing that the other side sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, the body (None if it was larger than allowed), and ``Retry-After``, if any."""

    status: int
    body: bytes | None
    retry_after: str | None = None


class Outbound:
    """An address with its bounds. Use it between ``start`` and ``close``.

    Attributes:
        name: the address for log lines: without user, password and query, which may hold secrets.
    """

    def __init__(
        self,
        url: str,
        *,
        option: str,
        danger: str,
        timeout: float,
        max_bytes: int,
        allow_http: bool = False,
        public_only: bool = False,
    ) -> None:
        """Take the address that ``option`` gives.

        Args:
            url: https, or http on this machine.
            option: what to call it in complaints.
            danger: what comes of plain http to another machine.
            timeout: seconds for one request and its whole answer.
            max_bytes: the largest body that is read.
            allow_http: take plain http to any host.
            public_only: connect to addresses of the internet alone, whatever the name is resolved to.

        Raises:
            ConfigurationError: no absolute URL, or one that is not allowed.
        """
        try:
            self._url = URL(url)
            host = self._url.host
        except ValueError:
            raise ConfigurationError(f"{option} is not a URL") from None
        if self._url.scheme not in ("http", "https") or not host:
            raise ConfigurationError(f"{option} is not an absolute URL, as in https://app.example/path")
        if self._url.scheme == "http" and not allow_http and not is_loopback(host):
            raise ConfigurationError(f"{option} must begin with https://: {danger}")
        if public_only and is_public(host) is False:
            raise ConfigurationError(f"{option} is at a private address, and only public ones are allowed")
        self.name = str(self._url.with_user(None).with_query(None).with_fragment(None))
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._public_only = public_only
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the connection pool; nothing is sent yet."""
        resolver = _PublicResolver() if self._public_only else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, resolver=resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "collab"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close its sockets."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, method: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request and read its answer; a body is JSON.

        Raises:
            NoAnswer: no whole answer came in time.
        """
        session = self._session
        if session is None:
            raise NoAnswer(f"{self.name} is not asked before start and after close")
        given = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
        try:
            async with session.request(method, self._url, data=body, headers=given, allow_redirects=False) as response:
                found = bytearray()
                retry_after = response.headers.get("Retry-After")
                async for chunk in response.content.iter_any():
                    found += chunk
                    if len(found) > self._max_bytes:
                        response.close()  # not back to the pool: the rest of it is still coming
                        return Answer(response.status, None, retry_after)
                return Answer(response.status, bytes(found), retry_after)
        except TimeoutError:
            raise NoAnswer(f"{self.name} did not answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # By its type alone: the text of a client error may show what the other side sent.
            raise NoAnswer(f"{self.name} did not answer: {type(error).__name__}") from None


class _PublicResolver(AbstractResolver):
    """Gives addresses of the internet alone; what is connected to is what was looked at."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if is_public(each["host"])]
        if not public:
            raise OSError(None, "the name has no public address")
        return public

    async def close(self) -> None:
        await self._resolver.close()
