"""Asking a running server over HTTP, for the commands that show how it is.

Strategy: the server is that of the same options on this machine, or one by its address. The standard library alone
asks: a health check runs every few seconds. Redirects are not followed, for a token goes to the given address alone.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Annotated, Any, Final
from urllib.parse import urlencode, urlsplit

import typer

from collab.errors import CollabError, ConfigurationError
from collab.settings import Settings

TOKEN_ENV: Final = "COLLAB_TOKEN"  # noqa: S105 - the name of a variable

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Ask the server at this address; without it, the one on this machine, by --host and --port.",
        show_default=False,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar=TOKEN_ENV,
        show_envvar=False,
        help=f"A token with admin for all documents (*). Others see the command line: better set {TOKEN_ENV}.",
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="For each answer.")]

_ALL_ADDRESSES: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - listened on, not by us

# Bytes of an answer that are read.
_MOST: Final = 32 * 1024 * 1024


class NoAnswer(CollabError):
    """There is no server at the address, or it gives no answer in time."""


class Denied(CollabError):
    """The server does not show that without another token."""


class Server:
    """One server.

    Args:
        host, port, path: where it is; ``path`` is what stands before ``/api``.
        tls: None for plain http.
        token: None where none is needed.
        timeout: seconds for connecting, and for each read.
    """

    def __init__(
        self, host: str, port: int, path: str, tls: ssl.SSLContext | None, token: str | None, timeout: float
    ) -> None:
        self._host, self._port, self._path, self._tls = host, port, path.rstrip("/"), tls
        self._token, self._timeout = token, timeout
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{shown}:{port}{self._path}"

    @classmethod
    def local(cls, settings: Settings, token: str | None, timeout: float) -> Server:
        """Give the server of these options on this machine; they are --host, --port and --tls-cert."""
        host, tls = settings.host[0], None
        if settings.tls_cert is not None:
            # The certificate names the server as others reach it. Who else could listen here could read its key, too.
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        return cls(_ALL_ADDRESSES.get(host, host), settings.port, "", tls, token, timeout)

    @classmethod
    def at(cls, url: str, token: str | None, timeout: float) -> Server:
        """Give the server at an address; raises ``ConfigurationError`` for one that is none."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigurationError("--url is not a URL") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigurationError("--url is an address such as https://collab.example")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigurationError("--url has no user, no query and no fragment")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(host, port or (80 if tls is None else 443), parts.path, tls, token, timeout)

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask for what is at a path; give the status and the body. Raises ``NoAnswer``."""
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        try:
            connection.request("GET", self._path + path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_MOST)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(f"no answer from {self.url}{path}: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def ask(self, path: str, **parameters: object) -> dict[str, Any]:
        """Ask the HTTP API for an object.

        Raises:
            NoAnswer: there is none, or it is none of a server of ours.
            Denied: it is not shown to who has this token.
        """
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        status, body = self.get(f"/api/v1{path}" + (f"?{query}" if query else ""))
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if status in (401, 403):
            raise Denied(f"{self.url} shows this to admins of all documents: set {TOKEN_ENV} to a token of one")
        if not isinstance(found, dict) or status != 200:
            detail = found.get("detail") if isinstance(found, dict) else None
            raise NoAnswer(f"{self.url} answers {status}" + (f": {detail}" if detail else ""))
        return found


def find(settings: Settings, url: str | None, token: str | None, timeout: float) -> Server:
    """Give the server that is meant; raises ``ConfigurationError`` for an address or a token that is none."""
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token and token):
        raise ConfigurationError("the token has characters that no token has")
    return Server.local(settings, token, timeout) if url is None else Server.at(url, token, timeout)
