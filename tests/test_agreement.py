"""What a node says of its settings to the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from collab.agreement import node_facts
from collab.auth.signing import Signer
from collab.hooks import Hooks
from collab.hub.membership import WHY
from collab.settings import Settings
from tests.auth.makers import pair, write

SECRET = "a secret of thirty-two characters"


def said(
    *, authenticated: bool = True, shared: bool = True, hooks: Sequence[Hooks] = (), **settings: Any
) -> dict[str, str]:
    return dict(node_facts(Settings(**settings), authenticated=authenticated, shared=shared, hooks=hooks).settings)


def test_everything_that_is_said_has_a_reason() -> None:
    assert said(jwt_secret=SECRET).keys() == WHY.keys()
    assert said(authenticated=False).keys() == WHY.keys() - {"tokens", "cursor_secret"}
    facts = node_facts(Settings(), authenticated=False, shared=True)
    assert facts.version and facts.bus == "postgresql" and facts.address == ""


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({"max_document_bytes": 2048}, "max_document_bytes", "2048"),
        ({"history_days": 0.5}, "history_days", "0.5"),
        ({"keep_deleted": ("b/*", "a")}, "keep_deleted", "a,b/*"),
        ({"stamp_users": False}, "stamp_users", "False"),
        ({"jwt_secret": SECRET}, "authentication", "tokens"),
        ({"jwks_url": "https://issuer/keys"}, "authentication", "tokens"),
        ({"auth_url": "https://app/ask"}, "authentication", "endpoint"),
        ({"jwt_secret": SECRET}, "cursor_secret", "none"),
        ({}, "authentication", "function"),
        ({"redis_url": "redis://user:geheim@cache:6379/0"}, "bus", "redis cache:6379/0"),
        ({"redis_url": "redis+sentinel://:geheim@a,b/main"}, "bus", "redis a,b/main"),
    ],
)
def test_a_setting_is_said(settings: dict[str, Any], name: str, value: str) -> None:
    assert said(**settings)[name] == value
    assert "geheim" not in str(said(**settings))


def test_hooks_are_said_by_their_classes() -> None:
    assert said()["hooks"] == "none"
    assert said(hooks=[Hooks(), Hooks()])["hooks"] == "collab.hooks:Hooks,collab.hooks:Hooks"


def test_of_signing_keys_the_published_ones_are_said_in_any_order(tmp_path: Path) -> None:
    one, other, third = (write(tmp_path / name, pair(name).private_pem) for name in ("EdDSA", "ES256", "RS256"))

    def keys(*files: Path, issuer: str = "collab") -> str:
        signer = Signer(files, issuer)
        return node_facts(Settings(), authenticated=False, shared=True, signer=signer).settings["signing_keys"]

    assert said()["signing_keys"] == "none"
    assert keys(one, other) == keys(other, one) and len(keys(one)) == 8
    assert len({keys(one), keys(other), keys(one, other), keys(one, third), keys(one, issuer="x")}) == 5


def test_who_is_alone_has_no_bus() -> None:
    assert said(shared=False)["bus"] == "process"
    assert said(authenticated=False)["authentication"] == "none"


def test_of_the_secret_of_cursors_a_hash_is_said() -> None:
    one, other = (said(cursor_secret=f"geheim {number} " + "x" * 32)["cursor_secret"] for number in range(2))
    assert one != other and len(one) == len(other) == 8


def test_of_secrets_a_hash_is_said_that_changes_with_each_of_them(tmp_path: Path) -> None:
    key, other = tmp_path / "a.pem", tmp_path / "b.pem"
    key.write_text("one key")
    other.write_text("another key")
    ways: list[dict[str, Any]] = [
        {"jwt_secret": SECRET},
        {"jwt_secret": SECRET + "!"},
        {"jwt_secret": SECRET, "jwt_issuer": "issuer"},
        {"jwt_secret": SECRET, "jwt_audience": "issuer"},
        {"jwt_keys": (key,)},
        {"jwt_keys": (other,)},
        {"jwt_keys": (key, other)},
        {"jwks_file": key},
        {"jwks_url": "https://issuer/keys"},
        {"auth_url": "https://issuer/keys"},
    ]
    hashes = [said(**way)["tokens"] for way in ways]
    assert len(set(hashes)) == len(ways) and all(len(each) == 8 for each in hashes)
    assert SECRET not in str(said(jwt_secret=SECRET))
    # The same keys in another order, or under other names, let the same tokens in.
    (tmp_path / "z.pem").write_text("one key")
    assert said(jwt_keys=(other, key))["tokens"] == said(jwt_keys=(key, other))["tokens"]
    assert said(jwt_keys=(tmp_path / "missing",))["tokens"] != said(jwt_keys=(key,))["tokens"]
