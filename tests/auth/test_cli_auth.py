"""The commands that make tokens and keys: what they make is what a server takes."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import typer

from collab.auth.access import AccessRequest, Grant
from collab.auth.factory import AuthOptions, make_authenticator
from collab.cli.auth import SECRET_ENV, register
from collab.errors import AccessDenied, CollabError, ConfigurationError, Unauthenticated
from collab.protocol.session import Access
from tests.auth.makers import SECRET, pair, write

Command = Callable[..., str]


@pytest.fixture
def collab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command and give what it printed."""
    monkeypatch.delenv(SECRET_ENV, raising=False)
    app = typer.Typer()
    register(app)
    command = typer.main.get_command(app)

    def run(*arguments: str) -> str:
        capsys.readouterr()
        command.main(list(arguments), prog_name="collab", standalone_mode=False)
        return capsys.readouterr().out

    return run


async def grant_of(token: str, document: str = "notes/1", **options: Any) -> Grant:
    made = make_authenticator(AuthOptions(**options))
    assert made is not None
    return await made.authenticate(AccessRequest(token.strip(), document, "127.0.0.1"))


FOR_ADA = ("token", "--user", "u-17", "--document", "notes/*=write")


async def test_a_token_of_a_secret(collab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = collab(*FOR_ADA, "--secret", SECRET, "--name", "Ada", "--document", "a=b=read", "--expires", "90s")
    assert printed.count("\n") == 1
    grant = await grant_of(printed, secret=SECRET)
    assert (grant.access, grant.user, grant.name) == (Access.WRITE, "u-17", "Ada")
    assert grant.expires_at is not None and 0 < grant.expires_at - time.time() <= 100
    assert (await grant_of(printed, "a=b", secret=SECRET)).access is Access.READ
    with pytest.raises(AccessDenied):
        await grant_of(printed, "letters/1", secret=SECRET)
    monkeypatch.setenv(SECRET_ENV, SECRET)
    assert (await grant_of(collab(*FOR_ADA), secret=SECRET)).name is None


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
@pytest.mark.parametrize("form", ["pem", "jwk"])
async def test_a_key_that_is_made_signs_what_its_public_part_verifies(
    algorithm: str, form: str, collab: Command, tmp_path: Path
) -> None:
    out = tmp_path / "key"
    printed = collab("keygen", "--algorithm", algorithm, "--out", str(out), *(["--jwk"] if form == "jwk" else []))
    private, public = (Path(line) for line in printed.splitlines())
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    token = collab(*FOR_ADA, "--key", str(private))
    options = {"key_files": (public,)} if form == "pem" else {"jwks_file": public}
    assert (await grant_of(token, **options)).user == "u-17"
    header = jwt.get_unverified_header(token.strip())
    assert header["alg"] == algorithm
    assert ("kid" in header) == (form == "jwk")
    if form == "jwk":
        assert header["kid"] == json.loads(public.read_text())["keys"][0]["kid"]
    # Neither half is taken for the other.
    with pytest.raises(ConfigurationError, match="private key"):
        make_authenticator(AuthOptions(key_files=(private,)))
    with pytest.raises(ConfigurationError, match="public key|neither|holds no"):
        collab(*FOR_ADA, "--key", str(public))
    with pytest.raises(CollabError, match="there already"):
        collab("keygen", "--algorithm", algorithm, "--out", str(out), *(["--jwk"] if form == "jwk" else []))


def test_a_secret_is_written_for_its_owner_alone(collab: Command, tmp_path: Path) -> None:
    path = Path(collab("keygen", "--algorithm", "HS256", "--out", str(tmp_path / "s")).strip())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(path.read_text().strip()) == 43


async def test_a_secret_that_is_made_is_strong_enough_as_it_stands(collab: Command) -> None:
    first, second = (collab("keygen", "--algorithm", "HS256").strip() for _ in range(2))
    assert first != second
    assert (await grant_of(collab(*FOR_ADA, "--secret", first), secret=first)).user == "u-17"


def test_keys_are_printed_if_no_file_is_named(collab: Command) -> None:
    printed = collab("keygen")
    assert printed.index("BEGIN PRIVATE KEY") < printed.index("BEGIN PUBLIC KEY")


async def test_claims_of_a_server_that_wants_more(collab: Command) -> None:
    token = collab(*FOR_ADA, "--secret", SECRET, "--issuer", "me", "--audience", "collab", "--kid", "k1")
    assert jwt.get_unverified_header(token.strip())["kid"] == "k1"
    assert (await grant_of(token, secret=SECRET, issuer="me", audience="collab")).user == "u-17"
    with pytest.raises(Unauthenticated):
        await grant_of(token, secret=SECRET, issuer="you", audience="collab")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--document", "notes"), "NAME=ACCESS"),
        (("--document", "=read"), "NAME=ACCESS"),
        (("--document", "notes="), "NAME=ACCESS"),
        (("--document", "notes=owner"), "read, write, admin"),
        (("--document", "*/notes=read"), "end of a name"),
        (("--name", "a\nb"), "the claim name"),
        (("--expires", "soon"), "--expires"),
        (("--expires", "0"), "--expires"),
        (("--expires", "-1h"), "--expires"),
        (("--expires", "999999999d"), "milliseconds"),
        (("--secret", "short"), "5 bytes"),
        (("--key", "nowhere.pem"), "cannot read"),
    ],
)
def test_a_mistake_is_said_in_one_line(arguments: tuple[str, ...], told: str, collab: Command) -> None:
    with pytest.raises(ConfigurationError) as refused:
        collab(*FOR_ADA, "--secret", SECRET, *arguments)
    assert told in str(refused.value) and "\n" not in str(refused.value).replace("\\n", "")


def test_a_token_needs_a_key_that_signs(collab: Command, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=SECRET_ENV):
        collab(*FOR_ADA)
    for content in (pair("RS256").public_pem, pair("EdDSA").jwk("k"), "{}", "[]", "-----BEGIN"):
        with pytest.raises(ConfigurationError):
            collab(*FOR_ADA, "--key", str(write(tmp_path / "key", content)))
    with pytest.raises(ConfigurationError, match="leave out --jwk"):
        collab("keygen", "--algorithm", "HS256", "--jwk")
