"""The pages at ``/``: the build of ``web_demo`` as files, with the headers that make them safe.

Strategy: one ``index.html`` is every page; its script looks at the address. Beside it lie two kinds of
files. What is in a folder carries a hash of its content in its name, so it may be kept for ever and goes
out through aiohttp's ``FileResponse``, which picks the ``.br`` or ``.gz`` beside it. The few others
(``index.html`` above all) keep their names from build to build, so they are revalidated each time, by a
tag made of their content: files from a wheel all bear one date, and two builds often differ in nothing but
a hash of equal length, so date and size would keep a stale page alive.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from aiohttp import ETag, hdrs, web
from aiohttp.abc import AbstractStreamWriter

# Scripts are ours alone; data: connections and fonts, and blob: workers are what the whiteboard's drawing library
# reads and runs for images and for text in exported drawings (its WebAssembly it can do without). Styles may be
# inline because the editors write their own into a <style> element. 'self' in connect-src covers the WebSocket of the
# same host and port (CSP level 3). Frames are our own: /split shows a document twice. form-action and base-uri
# have no fallback to default-src.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "connect-src 'self' data:",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)

SECURITY_HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        # The address names the document: whoever has it can open it.
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
    }
)

REVALIDATE = "no-cache"
# A year is the longest that RFC 9111 caches are asked to honour in practice.
FOR_EVER = "public, max-age=31536000, immutable"

NOT_BUILT = (
    "This server has no page: none had been built when it was installed.\n"
    "In a checkout, this builds it: make web (and, for an installed server, pip install . again).\n"
    "Clients connect to /ws/{name} and /hocuspocus all the same.\n"
)
NOT_FOUND = "404: not found\n"

# Named here and not guessed: the tables of the operating system differ, and nosniff makes a wrong one fatal.
_CONTENT_TYPES = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".ico": "image/x-icon",
        ".jpg": "image/jpeg",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".md": "text/plain; charset=utf-8",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
        ".wasm": "application/wasm",
        ".webp": "image/webp",
        ".woff2": "font/woff2",
    }
)

# Every segment starts with a letter, a digit or an underscore: no hidden file, no way up.
_ASSET = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)


def find_web_root() -> Path | None:
    """Find the built page: in the installed package, else in the checkout that the package lies in.

    Returns the directory that holds ``index.html``, or None when nothing has been built.
    """
    package = Path(__file__).resolve().parents[2]
    for root in (package / "_web", package.parent / "web_demo" / "dist"):
        if (root / "index.html").is_file():
            return root
    return None


def add_static_routes(app: web.Application, root: Path | None) -> None:
    """Serve the build in ``root`` at ``/``; with None, answer 503 there and say how to build it.

    All addresses in the build are relative, so ``app`` may be mounted below any path. Add these
    routes last: paths that other routes take are never asked for here.
    """
    if root is None:
        app.router.add_get("/", _not_built)
        return
    page = _Page(root.resolve())
    app.router.add_get("/", page.index)
    app.router.add_get("/split", page.index)
    app.router.add_get("/admin", page.index)
    for folder in page.folders():
        app.router.add_get(f"/{folder}/{{path:.+}}", page.asset)
    for name in page.other_files():
        app.router.add_get(f"/{name}", page.file)


async def _not_built(request: web.Request) -> web.Response:
    headers = {**SECURITY_HEADERS, hdrs.CACHE_CONTROL: "no-store"}
    return web.Response(status=503, text=NOT_BUILT, headers=headers)


class _Page:
    """The handlers of one build."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def other_files(self) -> list[str]:
        """Name the files beside ``index.html``: the icon, the licences of what is bundled."""
        return sorted(
            entry.name
            for entry in self._root.iterdir()
            if entry.is_file() and entry.suffix in _CONTENT_TYPES and entry.name != "index.html"
        )

    def folders(self) -> list[str]:
        """Name the folders, all of whose files have hashes in their names."""
        return sorted(entry.name for entry in self._root.iterdir() if entry.is_dir() and _ASSET.fullmatch(entry.name))

    async def index(self, request: web.Request) -> web.StreamResponse:
        return await self._revalidated(request, "index.html")

    async def file(self, request: web.Request) -> web.StreamResponse:
        return await self._revalidated(request, request.path.rsplit("/", 1)[1])

    async def asset(self, request: web.Request) -> web.StreamResponse:
        """Send a file whose name holds the hash of its content, compressed when the client takes that."""
        resource = request.match_info.route.resource
        assert resource is not None
        folder = resource.canonical.rsplit("/", 2)[1]
        path = await asyncio.to_thread(self._find_asset, folder, request.match_info["path"])
        if path is None:
            raise _not_found()
        headers = {
            **SECURITY_HEADERS,
            hdrs.CACHE_CONTROL: FOR_EVER,
            hdrs.CONTENT_TYPE: _CONTENT_TYPES[path.suffix],
            hdrs.VARY: hdrs.ACCEPT_ENCODING,
        }
        return _File(path, headers=headers)

    async def _revalidated(self, request: web.Request, name: str) -> web.StreamResponse:
        try:
            body = await asyncio.to_thread((self._root / name).read_bytes)
        except FileNotFoundError:
            # The build was removed under a running server (`make clean`).
            if name == "index.html":
                return await _not_built(request)
            raise _not_found() from None
        tag = ETag(hashlib.sha256(body).hexdigest()[:32])
        headers = {**SECURITY_HEADERS, hdrs.CACHE_CONTROL: REVALIDATE}
        if any(known.value in (tag.value, "*") for known in request.if_none_match or ()):
            response = web.Response(status=304, headers=headers)
        else:
            headers[hdrs.CONTENT_TYPE] = _CONTENT_TYPES[Path(name).suffix]
            response = web.Response(body=body, headers=headers)
        response.etag = tag
        return response

    def _find_asset(self, folder: str, path: str) -> Path | None:
        if not _ASSET.fullmatch(path):
            return None
        found = self._root / folder / path
        # A link in the build could lead out of it.
        inside = found.resolve().is_relative_to(self._root)
        return found if inside and found.suffix in _CONTENT_TYPES and found.is_file() else None


class _File(web.FileResponse):
    """A file, also on a connection that has no socket."""

    async def _sendfile(self, request: web.BaseRequest, fobj: IO[Any], offset: int, count: int) -> AbstractStreamWriter:
        transport = request.transport
        if transport is None or transport.get_extra_info("socket") is not None:
            return await super()._sendfile(request, fobj, offset, count)
        writer = await web.StreamResponse.prepare(self, request)
        assert writer is not None
        return await self._sendfile_fallback(writer, fobj, offset, count)


def _not_found() -> web.HTTPNotFound:
    headers = {**SECURITY_HEADERS, hdrs.CACHE_CONTROL: "no-store"}
    return web.HTTPNotFound(text=NOT_FOUND, headers=headers)
