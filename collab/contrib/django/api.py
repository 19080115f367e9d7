"""The HTTP API of the server, as Django's processes ask it: a few calls, each within a bound of time and size.

Strategy: the standard library's client, which blocks as everything in a view does. Nothing is kept open: a request of
Django's asks rarely, and may be the last of its process. Redirects are not followed and proxies of the environment are
not used, so the token goes to the configured address alone.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from collab.contrib.django.conf import Conf
from collab.contrib.django.tokens import own_token

MAX_ANSWER: Final = 32 << 20
"""Bytes of an answer that are read: more than any text that a document may hold."""

MEDIA: Final = {"text": "text/plain", "markdown": "text/markdown", "html": "text/html"}
"""The formats that a field can mirror, with what they are called in requests."""

_MAY_BE_REPEATED: Final = (401, 403, 408, 429, 500, 502, 503, 504)
"""What waits for somebody else: the server itself, or whoever has to set the secret right."""


class ServerError(Exception):
    """The server has not done what it was asked for."""


class ServerAway(ServerError):
    """The server did not answer, or cannot do it now: the same may be tried again.

    Attributes:
        silent: nothing has come from it, so that it need not be asked for anything else either.
    """

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class ServerRefused(ServerError):
    """The server has answered that it will not do that, however often it is asked; the text says why.

    Attributes:
        code: of the problem, as in docs/api.md.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class Overtaken(ServerError):
    """The document has changed since it was read."""


@dataclass(frozen=True, slots=True)
class Text:
    """What a root shows.

    Attributes:
        value: its text; empty for what is not there.
        state: names the state of the document; None where there is no document.
        there: whether the root has ever held anything.
    """

    value: str
    state: str | None
    there: bool = True


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given: Any, **also: Any) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


class Api:
    """Asks the server; raises `ServerAway` and `ServerRefused`."""

    def __init__(self, conf: Conf) -> None:
        self._conf = conf

    def read(self, document: str, root: str, format: str) -> Text:
        """Read a root as text, Markdown or HTML."""
        path = f"content/{quote(document, safe='')}"
        try:
            body, state = self._ask("GET", f"{path}?{urlencode({'root': root, 'format': format})}")
        except ServerRefused as error:
            if error.code == "document_not_found":
                return Text("", None, False)
            if error.code != "content_not_found":
                raise
            # There is a document, without this root.
            return Text("", self._ask("HEAD", path)[1], False)
        return Text(body.decode(), state)

    def write(self, document: str, root: str, format: str, text: str, state: str | None) -> int | None:
        """Make a root show a text, by difference, if the document is in this state; raises ``Overtaken`` if not.

        Returns the newest number of the log when that was stored, also where nothing had to be changed; None if the
        server does not say one.
        """
        headers = {"Content-Type": f"{MEDIA[format]}; charset=utf-8"}
        headers |= {"If-None-Match": "*"} if state is None else {"If-Match": state}
        query = urlencode({"root": root, "label": "django"})
        try:
            body, _ = self._ask("PUT", f"content/{quote(document, safe='')}?{query}", text.encode(), headers)
        except ServerRefused as error:
            if error.code == "precondition_failed":
                raise Overtaken(str(error)) from None
            raise
        number = json.loads(body).get("number")
        return number if isinstance(number, int) else None

    def delete(self, document: str) -> None:
        """Put a document into the trash; one that is not there stays so."""
        try:
            self._ask("DELETE", f"documents/{quote(document, safe='')}")
        except ServerRefused as error:
            if error.code not in ("document_not_found", "document_deleted"):
                raise

    def check(self, document: str | None, user: str | None) -> None:
        """Let all nodes ask again who may do what."""
        given = {"action": "check", "document": document, "user": user}
        command = {key: value for key, value in given.items() if value is not None}
        self._ask("POST", "control", json.dumps(command).encode(), {"Content-Type": "application/json"})

    def updated(self, cursor: str | None) -> tuple[list[tuple[str, str]], str | None]:
        """List documents with the times of their last edits, the newest first; give the cursor of what follows too."""
        query = {"order": "updated", "limit": "100"} | ({} if cursor is None else {"cursor": cursor})
        found = json.loads(self._ask("GET", f"documents?{urlencode(query)}")[0])
        return [(each["name"], each["updated_at"]) for each in found["documents"]], found["next"]

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[bytes, str | None]:
        """Send a request; return the body of the answer, and its ETag."""
        request = urllib.request.Request(
            f"{self._conf.server_url}/api/v1/{path}",
            data=body,
            method=method,
            headers={"Authorization": f"Bearer {own_token(self._conf)}", "User-Agent": "collab", **(headers or {})},
        )
        try:
            with _opener.open(request, timeout=self._conf.server_seconds) as answer:
                return _read(answer), answer.headers.get("ETag")
        except urllib.error.HTTPError as error:
            with error:
                raise _problem(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # By its type alone: its text may hold what somebody else has sent.
            raise ServerAway(f"{self._conf.server_url} did not answer: {type(error).__name__}", silent=True) from None


def _read(answer: Any) -> bytes:
    found: bytes = answer.read(MAX_ANSWER + 1)
    if len(found) > MAX_ANSWER:
        raise ServerRefused("too_large", "the answer is larger than is read")
    return found


def _problem(error: urllib.error.HTTPError) -> ServerError:
    """Read what an answer says is wrong (RFC 9457)."""
    try:
        found = json.loads(error.read(64 << 10) or b"{}")
        code, detail = str(found.get("code", error.code)), str(found.get("detail", ""))[:500]
    except (ValueError, AttributeError, OSError, http.client.HTTPException):
        code, detail = str(error.code), ""
    if error.code in _MAY_BE_REPEATED:
        return ServerAway(f"the server answered {error.code} ({code}): {detail}")
    if error.code == 404 and code == str(error.code):
        return ServerAway("the server answered 404 without saying more: is COLLAB['SERVER_URL'] right?")
    return ServerRefused(code, detail)
