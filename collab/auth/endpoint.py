"""One address of somebody else, asked about access or for keys.

Strategy: :mod:`collab.outbound` sends and bounds. The scheme is https, for what is fetched decides who
gets in; plain http is for this machine, or for a network that the operator vouches for. A question is signed where the
server has a key of its own; keys are fetched without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind

from collab.auth.signing import Signer
from collab.errors import AccessUnavailable
from collab.outbound import MAX_CONNECTIONS, Answer, NoAnswer, Outbound
from collab.telemetry.tracing import passed_on, span

__all__ = ["MAX_CONNECTIONS", "Answer", "Endpoint"]


class Endpoint:
    """An address with its bounds. Use it between ``start`` and ``close``.

    Attributes:
        name: the address for log lines: without user, password and query, which may hold secrets.
    """

    def __init__(
        self,
        url: str,
        *,
        option: str,
        timeout: float,
        max_bytes: int,
        allow_http: bool = False,
        signer: Signer | None = None,
    ) -> None:
        """Take the address that ``option`` gives; see :class:`collab.outbound.Outbound`.

        ``signer`` signs what is posted there.
        """
        self._outbound = Outbound(
            url,
            option=option,
            danger="over plain http whoever is on the way decides who gets in",
            timeout=timeout,
            max_bytes=max_bytes,
            allow_http=allow_http,
        )
        self.name = self._outbound.name
        self._signer = signer

    async def start(self) -> None:
        """Make the connection pool; nothing is sent yet."""
        await self._outbound.start()

    async def close(self) -> None:
        """Close its sockets."""
        await self._outbound.close()

    async def get(self) -> Answer:
        """Fetch what is there; see ``_ask`` for what is raised."""
        return await self._ask("GET", None, {})

    async def post(self, content: dict[str, Any]) -> Answer:
        """Send ``content`` as JSON; see ``_ask`` for what is raised."""
        body = json.dumps(content).encode()
        headers = {} if self._signer is None else self._signer.headers(self.name, body)
        return await self._ask("POST", body, headers)

    async def _ask(self, method: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """Send one request and read its answer.

        Raises:
            AccessUnavailable: no whole answer came in time.
        """
        try:
            with span(f"{method} {self.name}", {"http.request.method": method}, kind=SpanKind.CLIENT) as current:
                answer = await self._outbound.send(method, body, {**headers, **passed_on()})
                current.set_attribute("http.response.status_code", answer.status)
                return answer
        except NoAnswer as error:
            raise AccessUnavailable(str(error)) from None
