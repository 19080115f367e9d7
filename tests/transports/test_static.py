from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from yarl import URL

import collab.transports.http.static as static
from collab.transports.http.static import CONTENT_SECURITY_POLICY, add_static_routes, find_web_root

Client = TestClient[web.Request, web.Application]
Connect = Callable[[web.Application], Awaitable[Client]]

SCRIPT = b"console.log('a build');\n" * 200


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A build as Vite leaves it, with a file beside it that nobody may read."""
    (tmp_path / "secret.txt").write_text("not yours")
    dist = tmp_path / "dist"
    (dist / "assets" / "fonts").mkdir(parents=True)
    (dist / "index.html").write_text("<!doctype html><title>first</title>")
    (dist / "favicon.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (dist / "assets" / "index-abc123.js").write_bytes(SCRIPT)
    (dist / "assets" / "index-abc123.js.gz").write_bytes(gzip.compress(SCRIPT))
    (dist / "assets" / "index-abc123.js.br").write_bytes(b"packed by the build")
    (dist / "assets" / "index-abc123.css").write_text("body {}")
    (dist / "assets" / "fonts" / "inter-abc123.woff2").write_bytes(b"wOF2")
    (dist / "board" / "fonts").mkdir(parents=True)
    (dist / "board" / "fonts" / "hand-abc123.woff2").write_bytes(b"wOF2")
    (dist / "assets" / ".hidden.js").write_text("hidden")
    (dist / "assets" / "link.txt").symlink_to(tmp_path / "secret.txt")
    return dist


@pytest.fixture
async def client(root: Path, aiohttp_client: Connect) -> Client:
    return await aiohttp_client(application(root))


def application(root: Path | None) -> web.Application:
    app = web.Application()
    add_static_routes(app, root)
    return app


async def test_the_page_is_asked_for_anew_each_time(client: Client) -> None:
    response = await client.get("/")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    assert "first" in await response.text()


async def test_the_page_is_not_sent_again_while_it_is_the_same(client: Client, root: Path) -> None:
    tag = (await client.get("/")).headers["ETag"]
    again = await client.get("/", headers={"If-None-Match": tag})
    assert again.status == 304
    assert again.headers["ETag"] == tag
    assert again.headers["Cache-Control"] == "no-cache"
    assert await again.read() == b""


async def test_a_new_build_of_the_same_size_and_date_is_sent(client: Client, root: Path) -> None:
    """As after an upgrade of the wheel, whose files all bear one date."""
    index = root / "index.html"
    before = index.stat()
    first = await client.get("/")
    index.write_text(index.read_text().replace("first", "other"))
    os.utime(index, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index.stat().st_size == before.st_size
    headers = {"If-None-Match": first.headers["ETag"], "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
    second = await client.get("/", headers=headers)
    assert second.status == 200
    assert "other" in await second.text()


async def test_assets_are_kept_for_ever_and_travel_compressed(client: Client) -> None:
    async with client.get("/assets/index-abc123.js", headers={"Accept-Encoding": "gzip"}) as response:
        assert response.status == 200
        assert response.headers["Content-Encoding"] == "gzip"
        assert int(response.headers["Content-Length"]) < len(SCRIPT) / 10
        assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert response.headers["Vary"] == "Accept-Encoding"
        assert await response.read() == SCRIPT


async def test_the_smallest_packing_goes_to_a_client_that_takes_it(client: Client) -> None:
    # Sent as it is: unpacking would need a library that the server does without.
    headers = {"Accept-Encoding": "gzip, deflate, br"}
    async with client.get("/assets/index-abc123.js", headers=headers, auto_decompress=False) as response:
        assert response.headers["Content-Encoding"] == "br"
        assert await response.read() == b"packed by the build"


async def test_the_page_is_what_the_split_view_loads_too(client: Client) -> None:
    response = await client.get("/split?doc=x")
    assert response.headers["Cache-Control"] == "no-cache"
    assert "first" in await response.text()


async def test_assets_go_plain_to_a_client_that_takes_no_gzip(client: Client) -> None:
    async with client.get("/assets/index-abc123.js", headers={"Accept-Encoding": "identity"}) as response:
        assert "Content-Encoding" not in response.headers
        # A cache in between must not hand this copy to everybody.
        assert response.headers["Vary"] == "Accept-Encoding"
        assert await response.read() == SCRIPT


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/assets/index-abc123.css", "text/css; charset=utf-8"),
        ("/assets/fonts/inter-abc123.woff2", "font/woff2"),
        ("/board/fonts/hand-abc123.woff2", "font/woff2"),
        ("/favicon.svg", "image/svg+xml"),
    ],
)
async def test_every_file_has_the_type_that_browsers_insist_on(client: Client, path: str, content_type: str) -> None:
    response = await client.get(path)
    assert response.status == 200
    assert response.headers["Content-Type"] == content_type


async def test_files_beside_the_page_are_revalidated(client: Client) -> None:
    response = await client.get("/favicon.svg")
    assert response.headers["Cache-Control"] == "no-cache"
    again = await client.get("/favicon.svg", headers={"If-None-Match": response.headers["ETag"]})
    assert again.status == 304


@pytest.mark.parametrize("path", ["/", "/favicon.svg", "/assets/index-abc123.js", "/assets/gone.js"])
async def test_every_answer_carries_the_security_headers(client: Client, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_the_policy_lets_no_foreign_and_no_inline_script_run() -> None:
    policy = {key: set(values) for key, *values in (rule.split() for rule in CONTENT_SECURITY_POLICY.split("; "))}
    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == {"'self'"}
    assert policy["connect-src"] == {"'self'", "data:"}
    assert policy["frame-ancestors"] == policy["frame-src"] == {"'self'"}
    assert policy["base-uri"] == {"'none'"}


@pytest.mark.parametrize(
    "path",
    [
        "/assets/gone.js",
        "/assets/",
        "/assets/fonts",
        "/assets/.hidden.js",
        "/assets/link.txt",
        "/assets/index-abc123.js.gz",
        "/assets/..%2f..%2fsecret.txt",
        "/assets/%2e%2e/%2e%2e/secret.txt",
        "/assets/fonts/..%2f..%2findex.html",
        "/assets/index-abc123.js%00.css",
        "/secret.txt",
        "/index-abc123.js",
    ],
)
async def test_what_is_no_file_of_the_build_is_not_found_and_not_remembered(client: Client, path: str) -> None:
    # Encoded already: the client library would tidy the path up before it goes out.
    response = await client.session.get(URL(f"{client.make_url('/')}{path.lstrip('/')}", encoded=True))
    assert response.status == 404
    assert response.headers["Content-Type"].startswith("text/plain")
    assert "immutable" not in response.headers.get("Cache-Control", "")
    assert "not yours" not in await response.text()


async def test_head_gives_the_headers_alone(client: Client) -> None:
    for path in ("/", "/assets/index-abc123.js"):
        response = await client.head(path)
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert await response.read() == b""


async def test_other_methods_are_refused(client: Client) -> None:
    for path in ("/", "/assets/index-abc123.js", "/favicon.svg"):
        assert (await client.post(path)).status == 405


async def test_without_a_build_the_answer_names_the_command(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(application(None))
    response = await client.get("/")
    assert response.status == 503
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"].startswith("text/plain")
    assert "make web" in await response.text()


async def test_a_build_removed_under_a_running_server_is_said_too(client: Client, root: Path) -> None:
    shutil.rmtree(root)
    assert (await client.get("/")).status == 503
    assert (await client.get("/favicon.svg")).status == 404
    assert (await client.get("/assets/index-abc123.js")).status == 404


async def test_the_page_works_below_a_path(root: Path, aiohttp_client: Connect) -> None:
    parent = web.Application()
    parent.add_subapp("/notes/", application(root))
    client = await aiohttp_client(parent)
    for path in ("/notes/", "/notes/favicon.svg", "/notes/assets/index-abc123.js"):
        assert (await client.get(path)).status == 200


def test_the_build_in_the_package_comes_before_that_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "__file__", str(tmp_path / "collab" / "transports" / "http" / "static.py"))
    assert find_web_root() is None
    checkout = tmp_path / "web_demo" / "dist"
    checkout.mkdir(parents=True)
    assert find_web_root() is None, "a directory without index.html is no build"
    (checkout / "index.html").touch()
    assert find_web_root() == checkout
    package = tmp_path / "collab" / "_web"
    package.mkdir(parents=True)
    (package / "index.html").touch()
    assert find_web_root() == package
