"""A server whose tokens say how their bearer is treated: ``python tests/support/token_server.py --port N ...``.

Strategy: this embeds the server as an application of its own would, with ``create_app`` and an authenticator,
and takes the options of ``collab serve``. A token is a list of words, done one after the other:

    wait=FILE   nothing is decided until FILE is in the data directory
    down=FILE   until then it is said that this cannot be decided now
    deny=FILE   until then, or for ever without a FILE, access is denied
    fail        the authenticator itself breaks
    read        the answer: may read
    write       the answer: may read and write

A token without an answer, the empty one too, is refused as no token at all.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from collab.app import create_app
from collab.auth.access import AccessRequest, Grant
from collab.errors import AccessUnavailable, Forbidden, Unauthenticated
from collab.protocol.session import Access
from collab.settings import Settings

DENIED = "this document is not for you"


class TokenAuthenticator:
    """Does as the token says."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def authenticate(self, request: AccessRequest) -> Grant:
        for word in request.token.split():
            kind, _, file = word.partition("=")
            there = bool(file) and (self._directory / file).exists()
            if kind == "wait":
                # Another process makes the file, so there is nothing to wait for but the look.
                while not (self._directory / file).exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            elif kind == "down" and not there:
                raise AccessUnavailable("down, as the token says")
            elif kind == "deny" and not there:
                raise Forbidden("denied, as the token says", public=DENIED)
            elif kind == "fail":
                raise RuntimeError("broken, as the token says")
            elif kind in ("read", "write"):
                return Grant(Access.READ if kind == "read" else Access.WRITE)
        raise Unauthenticated("a token without an answer")


async def main(options: dict[str, str]) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = Settings.model_validate(options)
    runner = web.AppRunner(create_app(settings, TokenAuthenticator(settings.data_dir)), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", settings.port).start()
        print(f"collab listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    flags = sys.argv[1::2]
    uvloop.run(main(dict(zip((flag[2:].replace("-", "_") for flag in flags), sys.argv[2::2], strict=True))))
