"""What is sent to others goes to public addresses alone, where that is wanted. tests/webhooks has the rest."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
import pytest

from collab.errors import ConfigurationError
from collab.net import is_public
from collab.outbound import NoAnswer, Outbound
from tests.support.webhooks import Receiver


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("[::1]", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("localhost", False),
        ("app.example", None),
    ],
)
def test_public_addresses_are_told_from_all_others(host: str, public: bool | None) -> None:
    assert is_public(host) is public


def outbound(url: str, *, public_only: bool = True) -> Outbound:
    return Outbound(
        url, option="it", danger="read", timeout=20.0, max_bytes=100, allow_http=True, public_only=public_only
    )


def test_a_private_address_is_refused_when_it_is_configured() -> None:
    for url in ("http://127.0.0.1/", "https://10.0.0.1/", "https://[fd00::1]/", "http://localhost/"):
        with pytest.raises(ConfigurationError, match="private address"):
            outbound(url)
        outbound(url, public_only=False)


async def test_a_name_with_a_private_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def resolve(self: Any, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        asked.append(host)
        found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 6, "flags": 0}
        return [found]

    for resolver in (aiohttp.ThreadedResolver, aiohttp.DefaultResolver):
        monkeypatch.setattr(resolver, "resolve", resolve)
    async with Receiver() as receiver:
        url = receiver.url.replace("127.0.0.1", "app.example")
        refusing, taking = outbound(url), outbound(url, public_only=False)
        for each in (refusing, taking):
            await each.start()
        with pytest.raises(NoAnswer, match="did not answer: ClientConnector"):
            await refusing.send("POST", b"{}")
        assert asked == ["app.example"]
        # The same name where private addresses are allowed: the request arrives, and lacks a signature.
        assert (await taking.send("POST", b"{}")).status == 500
        for each in (refusing, taking):
            await each.close()
            with pytest.raises(NoAnswer, match="before start and after close"):
                await each.send("GET")
