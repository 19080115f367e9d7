"""Tokens for guests: what they allow, whose they are, and what nobody gets one for."""

from __future__ import annotations

import pytest

from collab.auth.access import AccessRequest, Grant
from collab.auth.factory import AuthOptions, make_authenticator, make_guest_tokens
from collab.auth.guests import GUEST, GuestTokens, NameIsPattern
from collab.errors import AccessDenied, Forbidden
from collab.protocol.session import Access
from tests.auth.makers import NOW, SECRET, Clock, pair, write

ADA = Grant(Access.WRITE, "u-17", "Ada", NOW + 60)
DAY = 86_400


def guests(**options: str) -> GuestTokens:
    made = make_guest_tokens(AuthOptions(secret=SECRET, **options), 7 * DAY)  # type: ignore[arg-type]
    assert made is not None
    made._clock = Clock()
    return made


async def granted(token: str, document: str, after: float = 0.0, **options: str) -> Grant:
    authenticator = make_authenticator(AuthOptions(secret=SECRET, **options), clock=Clock(NOW + after))  # type: ignore[arg-type]
    assert authenticator is not None
    return await authenticator.authenticate(AccessRequest(token, document, "127.0.0.1"))


@pytest.mark.parametrize("access", [Access.READ, Access.WRITE])
async def test_a_guest_opens_this_document_alone_for_so_long(access: Access) -> None:
    made = guests().issue("notes/plan", access, DAY, ADA)
    assert made.expires_at == NOW + DAY, "longer than the sharer's own token, which is what a link is for"
    grant = await granted(made.token, "notes/plan")
    assert (grant.access, grant.user, grant.name) == (access, made.user, "Guest of Ada")
    assert grant.invited_by == ADA.user
    for other in ("notes/plan2", "notes/plan/", "notes/", "*"):
        with pytest.raises(Forbidden):
            await granted(made.token, other)
    with pytest.raises(AccessDenied, match="expired"):
        await granted(made.token, "notes/plan", after=DAY + 71)


async def test_a_guest_is_nobody_else() -> None:
    tokens = guests()
    made = [tokens.issue("notes", Access.READ, 60, ADA) for _ in range(20)]
    assert len({one.user for one in made}) == 20, "links can be told apart"
    assert all(one.user.startswith(GUEST) and len(one.user) == len(GUEST) + 16 for one in made)
    assert made[0].token not in repr(made[0])
    nameless = tokens.issue("notes", Access.READ, 60, Grant(Access.ADMIN, "u-17"))
    assert (await granted(nameless.token, "notes")).name == "Guest", "the user's ID stays the server's"
    long = tokens.issue("notes", Access.READ, 60, Grant(Access.WRITE, "u", "x" * 256))
    assert (await granted(long.token, "notes")).name == ("Guest of " + "x" * 256)[:256]


async def test_a_guest_token_says_who_it_is_from_and_for() -> None:
    both = {"issuer": "https://app.example", "audience": "collab"}
    made = guests(**both).issue("notes", Access.READ, 60, ADA)
    assert (await granted(made.token, "notes", **both)).user == made.user
    with pytest.raises(AccessDenied):
        await granted(made.token, "notes", issuer="https://other.example")


@pytest.mark.parametrize("name", ["notes/*", "*", "a*b", "line\nbreak", "nul\x01", "\x85"])
def test_a_name_that_would_be_a_pattern_or_cannot_be_said_gets_no_token(name: str) -> None:
    with pytest.raises(NameIsPattern):
        guests().issue(name, Access.READ, 60, ADA)


@pytest.mark.parametrize("name", ["a b", "ä/2026?", "%2a", "constructor", " ", "$\u202e"])
async def test_other_names_are_taken_as_they_are(name: str) -> None:
    made = guests().issue(name, Access.READ, 60, ADA)
    assert (await granted(made.token, name)).access is Access.READ


async def test_readers_and_guests_share_nothing() -> None:
    tokens = guests()
    with pytest.raises(Forbidden) as refused:
        tokens.issue("notes", Access.READ, 60, Grant(Access.READ, "u-1", "Eve"))
    assert refused.value.public == "this needs write access"
    guest = await granted(tokens.issue("notes", Access.WRITE, 60, ADA).token, "notes")
    for nobody in (guest, Grant(Access.WRITE)):
        with pytest.raises(Forbidden) as refused:
            tokens.issue("notes", Access.READ, 60, nobody)
        assert "pass on the link" in refused.value.public


def test_without_a_secret_nothing_is_signed(tmp_path_factory: pytest.TempPathFactory) -> None:
    key = write(tmp_path_factory.mktemp("keys") / "key.pem", pair("EdDSA").public_pem)
    assert make_guest_tokens(AuthOptions(key_files=(key,)), DAY) is None
    assert make_guest_tokens(AuthOptions(), DAY) is None
