"""The commands for webhooks, on a database that no server uses."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from collab.adapters import make_store
from collab.cli import run
from collab.storage.webhooks import CREATED, KINDS, Attempt, Subscription
from collab.webhooks.signing import read_secret
from tests.auth.makers import pair, write
from tests.support.sqlite import migrated


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A database with a receiver that has three deliveries: one was taken, one is tried again, one was given up."""

    async def fill() -> None:
        store = make_store(migrated(tmp_path))
        await store.open()
        await store.claim_delivery("node", 60.0)
        await store.subscribe("node", [Subscription("app", KINDS, "n"), Subscription("idle", (CREATED,), "x")])
        for name in ("n1", "n2\u202e", "n3"):
            await store.create(name)
        first, second, _ = await store.due("app", 10, ())
        await store.settle("node", [Attempt(first.number, True, 204), Attempt(second.number, False, 500, "no", 60.0)])
        await store.settle("node", (), ["idle"])
        await store.close()

    asyncio.run(fill())
    return tmp_path


def command(directory: Path, *arguments: str) -> int:
    return run(["webhooks", *arguments, "--data-dir", str(directory)])


def test_receivers_are_listed(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "list") == 0
    head, app, idle = capsys.readouterr().out.splitlines()
    assert head.split() == ["STATE", "SINCE", "PENDING", "FAILED", "DROPPED", "NAME"]
    assert app.split() == ["working", "-", "2", "0", "0", "app"] and idle.split()[0] == "disabled"
    assert command(directory, "list", "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["name"], each["state"], each["pending"]) for each in found] == [
        ("app", "working", 2),
        ("idle", "disabled", 0),
    ]
    assert found[0]["events"] == list(KINDS) and found[0]["oldest"] and found[1]["since"]


def test_deliveries_are_listed(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "deliveries") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "\u202e" not in "".join(lines) and "n3" in lines[1]
    assert command(directory, "deliveries", "--state", "delivered", "--receiver", "app", "--json") == 0
    (one,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (one["document"], one["status"], one["state"]) == ("n1", 204, "delivered")
    assert command(directory, "deliveries", "--limit", "1", "--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert command(directory, "deliveries", "--state", "lost") == 2
    assert "--state is one of" in capsys.readouterr().err


def test_deliveries_are_sent_again_and_receivers_enabled(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "resend", "1", "2") == 0
    assert "2 deliveries wait" in capsys.readouterr().err
    assert command(directory, "resend", "--failed", "app", "--hours", "1") == 0
    assert "0 deliveries wait" in capsys.readouterr().err
    assert command(directory, "enable", "idle") == 0
    assert command(directory, "list") == 0
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "working"
    for wrong, code, what in (
        (("resend",), 2, "give the numbers"),
        (("resend", "1", "--failed", "app"), 2, "give the numbers"),
        (("resend", "1", "--hours", "1"), 2, "give the numbers"),
        (("resend", "99"), 1, "no delivery 99"),
        (("resend", "--failed", "none"), 1, "no receiver 'none'"),
        (("enable", "none"), 1, "no receiver 'none'"),
    ):
        assert command(directory, *wrong) == code
        assert what in capsys.readouterr().err


def test_public_keys_are_printed_as_libraries_take_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = write(
        tmp_path / "keys", {"keys": [pair("EdDSA", 0).private_jwk(), pair("EdDSA", 1).jwk(), pair("ES256").jwk()]}
    )
    assert run(["webhooks", "public-keys", "--signing-keys", str(keys)]) == 0
    raw = [pair("EdDSA", number).private.public_key().public_bytes_raw() for number in range(2)]
    assert capsys.readouterr().out.splitlines() == ["whpk_" + base64.b64encode(key).decode() for key in raw]
    other = write(tmp_path / "other", pair("ES256").private_pem)
    assert run(["webhooks", "public-keys", "--signing-keys", str(other)]) == 0
    assert capsys.readouterr() == ("", "none of the keys is an Ed25519 key, the one type that these libraries know\n")
    assert run(["webhooks", "public-keys"]) == 2
    assert "--signing-keys" in capsys.readouterr().err


def test_a_secret_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["webhooks", "secret"]) == 0
    assert len(read_secret(capsys.readouterr().out.strip())) == 32
