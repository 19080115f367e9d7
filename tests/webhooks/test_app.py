"""Webhooks of the whole application, on each database, with real clients and a real receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from collab.app import HUB, create_app
from collab.auth.access import AccessRequest, Grant
from collab.errors import ConfigurationError, Forbidden
from collab.protocol.session import Access
from collab.settings import Settings
from collab.storage.webhooks import CHANGED, CREATED, DELETED, ERASED, JOINED, LEFT, RENAMED, RESET, RESTORED
from tests.support.waiting import eventually
from tests.support.webhooks import SECRET, Receiver
from tests.support.wsclient import LiveClient
from tests.transports.conftest import Serve, Served, below, serve

__all__ = ["below", "serve"]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "sqlite":
        return {}
    return {"database_url": request.getfixturevalue("postgres_url")}


def write(directory: Path, receiver: Receiver, **given: str) -> Path:
    """Write a file with one receiver."""
    values = {"name": '"app"', "url": f'"{receiver.url}"', "secrets": f'["{SECRET}"]', **given}
    path = directory / "receivers.toml"
    path.write_text("[[receiver]]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
    return path


class Api:
    """A client of the API that gives status and body."""

    def __init__(self, http: aiohttp.ClientSession, served: Served) -> None:
        self._http, self._url = http, served.url

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        if body is not None:
            options["json"] = body
        async with self._http.request(method, f"{self._url}/api/v1{path}", **options) as response:
            return response.status, await response.json()


async def delivers(served: Served) -> None:
    """Wait until this server delivers."""

    async def look() -> bool:
        watcher: Any = served.app[HUB].watcher
        return bool(watcher.counts.delivering)

    await eventually(look, "it delivers")


async def test_what_happens_to_a_document_is_told_in_order(
    serve: Serve, receiver: Receiver, http: aiohttp.ClientSession, database: dict[str, Any], tmp_path: Path
) -> None:
    file = write(tmp_path, receiver, content='"text"')
    served = await serve(webhooks_file=file, webhook_interval_seconds=0.2, **database)
    await delivers(served)
    api = Api(http, served)
    async with LiveClient(served.ws("notes/d")) as ada:
        await ada.until_synced()
        ada.text().insert(0, "hello")
        await receiver.until(lambda: receiver.of("notes/d", CHANGED), "the edit")
    (created,) = receiver.of("notes/d", CREATED)
    changed = receiver.of("notes/d", CHANGED)[-1]
    assert changed.data["content"]["value"] == "hello" and changed.data["content"]["etag"]
    assert created.data["document_id"] == changed.data["document_id"] and changed.data["authors"] == []
    status, said = await api("POST", "/reset/notes/d", {})
    assert status == 200, said
    await receiver.until(lambda: receiver.of("notes/d", RESET), "the reset")
    assert (await http.delete(f"{served.url}/api/v1/documents/notes/d")).status == 204
    assert (await api("POST", "/trash/notes/d", {"name": "notes/f"}))[0] == 200
    assert (await http.delete(f"{served.url}/api/v1/documents/notes/f")).status == 204
    await receiver.until(lambda: receiver.of("notes/f", DELETED), "what is before its end")
    assert (await api("DELETE", "/trash/notes/f"))[0] == 200
    await receiver.until(lambda: receiver.of("notes/f", ERASED), "all of it")
    seen = [message for message in receiver.taken if not message.type.startswith("user.")]
    assert [message.about for message in seen if message.type != CHANGED] == [
        (CREATED, "notes/d"),
        (RESET, "notes/d"),
        (DELETED, "notes/d"),
        (RESTORED, "notes/f"),
        (DELETED, "notes/f"),
        (ERASED, "notes/f"),
    ]
    assert {message.data["document_id"] for message in seen} == {created.data["document_id"]}
    # Nothing of what is kept shows what was erased, but its name.
    _, kept = await api("GET", "/webhooks/deliveries")
    assert {each["type"] for each in kept["deliveries"] if each["document_id"]} <= {DELETED, ERASED, JOINED, LEFT}


async def test_a_document_that_is_renamed_is_told_to_who_wants_either_name(
    serve: Serve, receiver: Receiver, database: dict[str, Any], tmp_path: Path
) -> None:
    file = write(tmp_path, receiver, prefix='"notes/"', events=f'["{RENAMED}"]')
    served = await serve(webhooks_file=file, **database)
    await delivers(served)
    store = served.app[HUB].store
    await store.create("else/a")
    for new in ("notes/a", "notes/b", "else/b", "else/c"):
        old = (await store.list_documents())[0].document.name
        await store.rename(old, new, 1.0)
    await receiver.until(lambda: len(receiver.taken) == 3, "the renames")
    assert [message.data["document"] for message in receiver.taken] == ["notes/a", "notes/b", "else/b"]
    assert [message.data["previous"] for message in receiver.taken] == ["else/a", "notes/a", "notes/b"]


class Users:
    """Everybody is who its token says; root may do everything."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        if request.document_name == "*" and request.token != "root":
            raise Forbidden("no")
        return Grant(Access.ADMIN, request.token, request.token.title(), None)


async def test_who_comes_and_leaves_is_told_once_for_all_tabs(
    serve: Serve, receiver: Receiver, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.webhooks.people.LEFT_SECONDS", 0.2)
    file = write(tmp_path, receiver, events=f'["{JOINED}", "{LEFT}", "{CHANGED}"]')
    served = await serve(authenticator=Users(), webhooks_file=file, webhook_interval_seconds=0.2)
    await delivers(served)
    async with LiveClient(served.ws("d?token=ada")) as first, LiveClient(served.ws("d?token=ada")) as second:
        await first.until_synced()
        await second.until_synced()
        async with LiveClient(served.ws("d?token=bob")) as bob:
            await bob.until_synced()
            bob.text().insert(0, "x")
            await receiver.until(lambda: receiver.of("d", CHANGED), "the edit")
        await receiver.until(lambda: receiver.of("d", LEFT), "bob has left")
        assert receiver.of("d", CHANGED)[0].data["authors"] == ["bob"]
    await receiver.until(lambda: len(receiver.of("d", LEFT)) == 2, "ada has left")
    assert [message.data["user"] for message in receiver.of("d", JOINED)] == ["ada", "bob"]
    assert [message.data["user"] for message in receiver.of("d", LEFT)] == ["bob", "ada"]
    assert receiver.of("d", JOINED)[0].data["name"] == "Ada"


async def test_operators_see_and_repair_deliveries_over_http(
    serve: Serve, receiver: Receiver, http: aiohttp.ClientSession, database: dict[str, Any]
) -> None:
    told_to = {"webhook_url": receiver.url, "webhook_secrets": (SECRET,), "webhook_interval_seconds": 0.2}
    served = await serve(authenticator=Users(), **told_to, **database)
    await delivers(served)
    api = Api(http, served)
    root, ada = {"headers": {"Authorization": "Bearer root"}}, {"headers": {"Authorization": "Bearer ada"}}
    receiver.always = 410
    for name in ("a", "b", "c"):
        status, made = await api("POST", "/documents", {"name": name}, **ada)
        assert status == 201, made

    async def disabled() -> Any:
        _, found = await api("GET", "/webhooks", **root)
        return found["receivers"][0] if found["receivers"][0]["state"] == "disabled" else None

    state = await eventually(disabled, "it is disabled")
    assert (state["name"], state["prefix"], state["pending"] >= 1, state["dropped"]) == ("default", "", True, 0)
    assert state["since"] and state["oldest"] and state["delivered"] == state["failed"] == 0
    receiver.always = 200
    status, state = await api("POST", "/webhooks/enable", {"receiver": "default"}, **root)
    assert (status, state["state"], state["since"]) == (200, "working", None)
    await receiver.until(lambda: (CREATED, "a") in receiver.abouts(), "what waited")

    async def delivered() -> Any:
        _, page = await api("GET", "/webhooks/deliveries?state=delivered&receiver=default&limit=1", **root)
        return page if page["deliveries"] else None

    page = await eventually(delivered, "it is noted")
    (one,) = page["deliveries"]
    assert (one["receiver"], one["type"], one["status"], one["error"], one["next_at"]) == (
        "default",
        CREATED,
        200,
        None,
        None,
    )
    assert await api("POST", "/webhooks/resend", {"id": one["id"]}, **root) == (202, {"resent": 1})
    await receiver.until(lambda: receiver.asked.count(one["event"]) >= 2, "under the same id")
    assert await api("POST", "/webhooks/resend", {"receiver": "default", "since": 0}, **root) == (202, {"resent": 0})
    seen, cursor = [], ""
    while True:
        _, page = await api("GET", f"/webhooks/deliveries?limit=1{cursor}", **root)
        seen += [each["id"] for each in page["deliveries"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == sorted(seen, reverse=True) and len(seen) == len(set(seen)) >= 1

    for method, path, body, expected, code in (
        ("POST", "/webhooks/resend", {"id": 10**9}, 404, "webhook_not_found"),
        ("POST", "/webhooks/resend", {"receiver": "none"}, 404, "webhook_not_found"),
        ("POST", "/webhooks/enable", {"receiver": "none"}, 404, "webhook_not_found"),
        ("POST", "/webhooks/resend", {}, 400, "invalid_request"),
        ("POST", "/webhooks/resend", {"id": 1, "receiver": "default"}, 400, "invalid_request"),
        ("POST", "/webhooks/resend", {"id": 1, "since": 1}, 400, "invalid_request"),
        ("GET", "/webhooks/deliveries?cursor=x", None, 400, "invalid_request"),
        ("GET", "/webhooks/deliveries?state=lost", None, 400, "invalid_request"),
    ):
        status, said = await api(method, path, body, **root)
        assert (status, said["code"]) == (expected, code), path
        assert (await api(method, path, body, **ada))[0] in (400, 403)
    for method, path, body in (
        ("GET", "/webhooks", None),
        ("GET", "/webhooks/deliveries", None),
        ("POST", "/webhooks/resend", {"id": 1}),
        ("POST", "/webhooks/enable", {"receiver": "default"}),
    ):
        assert (await api(method, path, body, **ada))[0] == 403


async def test_two_servers_on_one_database_deliver_each_event_once(
    serve: Serve, receiver: Receiver, postgres_url: str
) -> None:
    options = {"webhook_url": receiver.url, "webhook_secrets": (SECRET,), "webhook_interval_seconds": 0.2}
    one = await serve(database_url=postgres_url, **options)
    await delivers(one)
    two = await serve(database_url=postgres_url, **options)
    async with LiveClient(one.ws("d")) as ada, LiveClient(two.ws("d")) as bob, LiveClient(two.ws("e")) as cy:
        for client in (ada, bob, cy):
            await client.until_synced()
        ada.text().insert(0, "a")
        bob.text().insert(0, "b")
        cy.text().insert(0, "c")

        def rows(name: str) -> int:
            return sum([each.data["to"] - each.data["from"] + 1 for each in receiver.of(name, CHANGED)])

        await receiver.until(lambda: rows("d") == 2 and rows("e") == 1, "all edits")
    assert not two.app[HUB].watcher.counts.delivering  # type: ignore[union-attr]
    assert len(receiver.asked) == len(set(receiver.asked))


async def test_nothing_is_done_without_receivers(serve: Serve) -> None:
    served = await serve()
    assert served.app[HUB].watcher is None
    await served.app[HUB].store.create("d")
    assert await served.app[HUB].store.deliveries() == []


def test_receivers_that_cannot_be_used_keep_the_server_from_starting(tmp_path: Path) -> None:
    for options, what in (
        ({"webhook_url": "http://app.example/"}, "receiver 'default' must begin with https://"),
        ({"webhook_url": "https://10.0.0.1/", "webhook_public_only": True}, "private address"),
    ):
        with pytest.raises(ConfigurationError, match=what):
            create_app(Settings(data_dir=tmp_path, webhook_secrets=(SECRET,), **options))
    allowed = {"webhook_url": "http://app.example/", "webhook_allow_http": True}
    create_app(Settings(data_dir=tmp_path, webhook_secrets=(SECRET,), **allowed))
