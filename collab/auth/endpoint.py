"""One address of somebody else, asked over HTTP within bounds of time and size.

Strategy: whatever stands there may be slow, down or lying, so every answer is read up to a limit and
within one time-out for all of it, from the name's look-up to the last byte. Redirects are not followed,
cookies are not kept, nothing is decompressed, proxies of the environment are not used: what is sent
goes to the configured address and nowhere else. The scheme is https, for what is fetched decides who
gets in; plain http is for this machine, or for a network that the operator vouches for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from collab.errors import AccessUnavailable, ConfigurationError
from collab.net import is_loopback

MAX_CONNECTIONS = 32
"""Sockets to one address, and so questions at a time: whoever asks more lets them wait before (``places``), because
the time-out begins when a question comes here."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, and the body or None if it was larger than allowed."""

    status: int
    body: bytes | None


class Endpoint:
    """An address with its bounds. Use it between ``start`` and ``close``.

    Attributes:
        name: the address for log lines: without user, password and query, which may hold secrets.
    """

    def __init__(self, url: str, *, option: str, timeout: float, max_bytes: int, allow_http: bool = False) -> None:
        """Take the address that ``option`` gives.

        Args:
            url: https, or http on this machine.
            option: what to call it in complaints.
            timeout: seconds for one question and its whole answer.
            max_bytes: the largest body that is read.
            allow_http: take plain http to any host.

        Raises:
            ConfigurationError: no absolute URL, or http where it is not allowed.
        """
        try:
            self._url = URL(url)
            host = self._url.host
        except ValueError:
            raise ConfigurationError(f"{option} is not a URL") from None
        if self._url.scheme not in ("http", "https") or not host:
            raise ConfigurationError(f"{option} is not an absolute URL, as in https://app.example/path")
        if self._url.scheme == "http" and not allow_http and not is_loopback(host):
            raise ConfigurationError(
                f"{option} must begin with https://: over plain http whoever is on the way decides who gets in"
            )
        self.name = str(self._url.with_user(None).with_query(None).with_fragment(None))
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the connection pool; nothing is sent yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
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

    async def get(self) -> Answer:
        """Fetch what is there; see ``_ask`` for what is raised."""
        return await self._ask("GET", None)

    async def post(self, content: dict[str, Any]) -> Answer:
        """Send ``content`` as JSON; see ``_ask`` for what is raised."""
        return await self._ask("POST", content)

    async def _ask(self, method: str, content: dict[str, Any] | None) -> Answer:
        """Send one request and read its answer.

        Raises:
            AccessUnavailable: no whole answer came in time.
        """
        session = self._session
        if session is None:
            raise AccessUnavailable(f"{self.name} is not asked before start and after close")
        try:
            async with session.request(method, self._url, json=content, allow_redirects=False) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > self._max_bytes:
                        response.close()  # not back to the pool: the rest of it is still coming
                        return Answer(response.status, None)
                return Answer(response.status, bytes(body))
        except TimeoutError:
            raise AccessUnavailable(f"{self.name} did not answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # By its type alone: the text of a client error may show what the other side sent.
            raise AccessUnavailable(f"{self.name} did not answer: {type(error).__name__}") from None
