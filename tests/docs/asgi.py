"""Ask an ASGI application one thing, and serve one below an aiohttp address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web


async def ask(
    app: Any, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send one request to an ASGI application; give status, headers and body of the answer."""
    url = urlsplit(path)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": url.path,
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    status, told, parts = 0, dict[str, str](), list[bytes]()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            told.update((name.decode(), value.decode()) for name, value in message["headers"])
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, told, b"".join(parts)


def as_aiohttp(app: Any) -> web.Application:
    """Give an aiohttp application that hands each request to an ASGI application."""

    async def handle(request: web.Request) -> web.Response:
        status, headers, body = await ask(app, request.method, request.path_qs, await request.read(), request.headers)
        return web.Response(status=status, body=body, headers={"Content-Type": headers["content-type"]})

    outer = web.Application()
    outer.router.add_route("*", "/{rest:.*}", handle)
    return outer
