"""Options that end in an authenticator, in open access, or in a complaint; never in open access by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collab.auth.factory import AuthOptions, make_authenticator
from collab.auth.remote import RemoteAuthenticator
from collab.auth.tokens import TokenAuthenticator
from collab.errors import ConfigurationError
from tests.auth.makers import SECRET, pair, write


def test_nothing_given_is_open_access() -> None:
    assert make_authenticator(AuthOptions()) is None
    assert make_authenticator(AuthOptions(jwks_url="", auth_url="", issuer="", audience="", timeout=1)) is None


def test_each_way_ends_in_an_authenticator(tmp_path: Path) -> None:
    key = write(tmp_path / "key", pair("EdDSA").public_pem)
    jwks = write(tmp_path / "jwks", {"keys": [pair("EdDSA").jwk()]})
    ways: list[dict[str, Any]] = [
        {"secret": SECRET},
        {"key_files": (key,)},
        {"jwks_file": jwks},
        {"jwks_url": "https://keys.example/jwks"},
        {"secret": SECRET, "key_files": (key, key), "jwks_file": jwks, "issuer": "i", "audience": "a"},
    ]
    for way in ways:
        assert isinstance(make_authenticator(AuthOptions(**way)), TokenAuthenticator)
    assert isinstance(make_authenticator(AuthOptions(auth_url="https://app.example/")), RemoteAuthenticator)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"secret": ""}, "the secret is empty"),
        ({"secret": "short"}, "5 bytes"),
        ({"issuer": "https://app.example"}, "issuer without a key"),
        ({"audience": "collab"}, "audience without a key"),
        ({"auth_url": "https://app.example/", "secret": SECRET}, "without secret"),
        ({"auth_url": "https://app.example/", "jwks_url": "https://k.example/"}, "without jwks_url"),
        ({"auth_url": "https://app.example/", "audience": "collab"}, "without audience"),
        ({"secret": SECRET, "leeway": -1}, "leeway"),
        ({"secret": SECRET, "leeway": 301}, "leeway"),
        ({"secret": SECRET, "leeway": float("nan")}, "leeway"),
        ({"key_files": (Path("/nowhere/key.pem"),)}, "No such file"),
    ],
)
def test_what_is_half_said_stops_the_server(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make_authenticator(AuthOptions(**given))
    assert told in str(refused.value)
    assert SECRET not in str(refused.value)
