"""What docs/webhooks.md shows: receivers that take real messages, a file that is read, a message as ours are."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from collab.content.edits import Format
from collab.storage.webhooks import Delivery
from collab.webhooks.messages import encode_message
from collab.webhooks.receivers import read_receivers
from collab.webhooks.signing import read_secret, sign
from tests.docs.test_python import run
from tests.docs.test_shell import Shell
from tests.support.django import configure
from tests.support.server import ServerProcess
from tests.support.snippets import snippet
from tests.support.sqlite import migrated
from tests.support.webhooks import OTHER, SECRET, Receiver
from tests.support.wsclient import LiveClient


def delivery(kind: str = "document.changed") -> Delivery:
    """Give the delivery that the page shows the message of."""
    data = {"from": 41, "to": 57, "authors": ["u-17"], "on_behalf_of": [], "more_authors": False}
    return Delivery(1, "app", "evt_1", kind, 12, "notes/plan", data, 1796031000.25, 0, 0.0, None, False, None, None)


def signed(secret: str, body: bytes) -> dict[str, str]:
    return sign([read_secret(secret)], "evt_1", int(time.time()), body)


def test_the_message_is_one_of_ours() -> None:
    assert json.loads(snippet("docs/webhooks.md", "Messages", "json")) == json.loads(encode_message(delivery()))


def test_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "receivers.toml"
    path.write_text(snippet("docs/webhooks.md", "Several receivers", "toml"))
    search, audit = read_receivers(None, (), path)
    assert (search.name, search.prefix, search.content) == ("search", "notes/", Format.MARKDOWN)
    assert len(search.kinds) == 3 and len(audit.keys) == 2


async def test_the_receiver_of_aiohttp_takes_what_a_server_sends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLLAB_WEBHOOK_SECRET", SECRET)
    module = run(snippet("docs/webhooks.md", "In five minutes", "python"))
    body = encode_message(delivery())
    async with TestServer(module["app"]) as server, aiohttp.ClientSession() as http:
        url = server.make_url("/hooks/collab")
        for secret, status in ((SECRET, 204), (SECRET, 204), (OTHER, 401)):
            async with http.post(url, data=body, headers=signed(secret, body)) as response:
                assert response.status == status
        async with http.post(url, data=body) as response:
            assert response.status == 401
    assert capsys.readouterr().out == "document.changed notes/plan\n"


def test_the_view_of_django_takes_what_a_server_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAB_WEBHOOK_SECRET", SECRET)
    indexed: list[str] = []
    for name, values in (("search", {}), ("search.tasks", {"index": indexed.append})):
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    configure()
    from django.test import RequestFactory

    view = run(snippet("docs/webhooks.md", "In five minutes", "python", 2))["collab"]

    def post(secret: str, kind: str) -> int:
        body = encode_message(delivery(kind))
        headers: dict[str, Any] = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in signed(secret, body).items()}
        request = RequestFactory().post("/hooks", data=body, content_type="application/json", **headers)
        status: int = view(request).status_code
        return status

    assert post(SECRET, "document.changed") == 204 and indexed == ["notes/plan"]
    assert post(SECRET, "document.deleted") == 204 and post(OTHER, "document.changed") == 401
    assert indexed == ["notes/plan"]
    assert view(RequestFactory().get("/hooks")).status_code == 405


@pytest.mark.server
@pytest.mark.slow
async def test_the_commands_work_beside_a_server(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    (secret,) = shell.run(snippet("docs/webhooks.md", "In five minutes", "sh"))
    assert len(read_secret(secret.strip())) == 32
    migrated(tmp_path / "data")
    async with Receiver(secret.strip()) as receiver:
        options = ("--webhook-url", receiver.url, "--webhook-interval-seconds", "0.2")
        environment = {"COLLAB_WEBHOOK_SECRETS": secret.strip()}
        async with (
            ServerProcess(tmp_path / "data", *options, environment=environment) as server,
            LiveClient(server.document_url("d")) as ada,
        ):
            await ada.until_synced()
            ada.text().insert(0, "x")
            await receiver.until(lambda: receiver.of("d"), "it is told")
            lines = snippet("docs/webhooks.md", "When a receiver does not answer", "sh")
            listed, enabled, resent = await asyncio.to_thread(shell.run, lines)
            assert "working" in listed and "default" in listed and enabled == resent == ""
