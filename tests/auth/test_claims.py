"""What the claims of a good signature allow, and how each bad one is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.auth.claims import ClaimRules, read_claims, read_documents
from collab.errors import AccessExpired, AccessNotYet, Unauthenticated
from collab.protocol.session import Access
from tests.auth.makers import NOW, claims

READ, WRITE, ADMIN = Access.READ, Access.WRITE, Access.ADMIN


@pytest.mark.parametrize(
    ("documents", "name", "expected"),
    [
        ({"notes": "read"}, "notes", READ),
        ({"notes": "read"}, "notes/a", None),
        ({"notes": "read"}, "Notes", None),
        ({"*": "admin"}, "anything/at all", ADMIN),
        ({"team-a/*": "write"}, "team-a/plan", WRITE),
        ({"team-a/*": "write"}, "team-a/2026/plan", WRITE),
        ({"team-a/*": "write"}, "team-a/", WRITE),
        ({"team-a/*": "write"}, "team-a", None),
        ({"team-a/*": "write"}, "team-ab", None),
        ({"team*": "write"}, "team-b", WRITE),
        # The more specific entry wins, also when it allows less.
        ({"*": "write", "rules/*": "read"}, "rules/1", READ),
        ({"rules/*": "read", "*": "write"}, "rules/1", READ),
        ({"*": "write", "rules/*": "read"}, "other", WRITE),
        ({"a/*": "read", "a/b/*": "admin", "a/b/c": "write"}, "a/b/c", WRITE),
        ({"a/*": "read", "a/b/*": "admin", "a/b/c": "write"}, "a/b/d", ADMIN),
        ({"a/*": "read", "a/b/*": "admin", "a/b/c": "write"}, "a/c", READ),
        # A name that is itself written like a pattern is covered by that pattern.
        ({"a/*": "read"}, "a/*", READ),
        # Code points as they are: composed and decomposed are two names.
        ({"caf\u00e9": "read"}, "cafe\u0301", None),
        ({}, "notes", None),
    ],
)
def test_the_most_specific_entry_decides(documents: dict[str, str], name: str, expected: Access | None) -> None:
    assert read_documents(documents).to(name) is expected


_NAMES = st.text("ab/", min_size=1, max_size=5)
_ENTRIES = st.dictionaries(
    st.one_of(_NAMES, st.text("ab/", max_size=4).map(lambda prefix: prefix + "*")),
    st.sampled_from(["read", "write", "admin"]),
    max_size=8,
)


def plainly(documents: dict[str, str], name: str) -> str | None:
    """The rule as the documentation states it, by looking at every entry."""
    if name in documents:
        return documents[name]
    covering = [key for key in documents if key.endswith("*") and name.startswith(key[:-1])]
    return documents[max(covering, key=len)] if covering else None


@given(st.data())
def test_no_order_of_the_entries_changes_an_answer(data: st.DataObject) -> None:
    documents = data.draw(_ENTRIES)
    shuffled = dict(data.draw(st.permutations(list(documents.items()))))
    name = data.draw(_NAMES)
    expected = plainly(documents, name)
    for written in (documents, shuffled):
        access = read_documents(written).to(name)
        assert (access.value if access else None) == expected


@given(_ENTRIES, _NAMES, st.sampled_from(["read", "write", "admin"]))
def test_an_entry_that_does_not_cover_a_name_changes_nothing_for_it(
    documents: dict[str, str], name: str, access: str
) -> None:
    before = read_documents(documents).to(name)
    assert read_documents({**documents, f"{name}/deeper*": access, f"x{name}": access}).to(name) is before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"exp": None}, "the token has no claim exp"),
        ({"exp": NOW - 70}, "the token has expired"),
        ({"exp": NOW * 1000}, "exp must be in seconds since 1970, not in milliseconds"),
        ({"exp": 10**400}, "exp must be in seconds"),
        ({"exp": float("inf")}, "exp must be in seconds"),
        ({"exp": float("nan")}, "exp must be a number"),
        ({"exp": -1}, "exp must be a number"),
        ({"exp": "tomorrow"}, "exp must be a number"),
        ({"exp": True}, "exp must be a number"),
        ({"exp": [NOW + 60]}, "exp must be a number"),
        ({"nbf": NOW + 80, "exp": NOW + 60}, "never valid"),
        ({"nbf": "now"}, "nbf must be a number"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"iss": ["https://app.example"]}, "another issuer"),
        ({"aud": "billing"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": ["billing", 7]}, "another audience"),
        ({"aud": {"collab": 1}}, "another audience"),
        ({"sub": None}, "the token has no claim sub"),
        ({"sub": ""}, "the claim sub"),
        ({"sub": 17}, "the claim sub"),
        ({"sub": "a\nb"}, "the claim sub"),
        ({"sub": "\ud800"}, "the claim sub"),
        ({"sub": "u" * 257}, "the claim sub"),
        ({"name": ["Ada"]}, "the claim name"),
        ({"name": "\x1b[2J"}, "the claim name"),
        ({"documents": None}, "the token has no claim documents"),
        ({"documents": "*"}, "the claim documents must map"),
        ({"documents": ["*"]}, "the claim documents must map"),
        ({"documents": {"*": "owner"}}, "must be read, write, admin"),
        ({"documents": {"*": ["read"]}}, "must be read, write, admin"),
        ({"documents": {"*": None}}, "must be read, write, admin"),
        ({"documents": {"*": "read", "*/public": "read"}}, "only stand at the end"),
        ({"documents": {"a**": "read"}}, "only stand at the end"),
        ({"documents": {"": "read"}}, "empty"),
        ({"documents": {"a\0b": "read"}}, "control characters"),
    ],
)
def test_a_bad_claim_is_refused_by_its_name(change: dict[str, Any], told: str) -> None:
    rules = ClaimRules(issuer="https://app.example", audience="collab", leeway=10)
    good = {"iss": "https://app.example", "aud": "collab"}
    read_claims(claims(**good), rules, NOW)
    with pytest.raises(Unauthenticated) as refused:
        read_claims(claims(**{**good, **change}), rules, NOW)
    assert told in refused.value.public
    assert refused.value.public == str(refused.value)


def test_what_is_read_from_good_claims() -> None:
    read = read_claims(claims(aud=["billing", "collab"]), ClaimRules(audience="collab", leeway=0), NOW)
    assert (read.user, read.name, read.expires_at) == ("u-17", "Ada", NOW + 3600)
    assert read.documents.to("notes/1") is WRITE
    # Zero-width joiners hold emoji and Persian together: they are no control characters.
    assert read_claims(claims(name="👩\u200d💻 نمی\u200cدانم"), ClaimRules(), NOW).name == "👩\u200d💻 نمی\u200cدانم"
    assert read_claims(claims(name=None), ClaimRules(), NOW).name is None


def test_leeway_is_for_both_ends_and_belongs_to_the_access() -> None:
    rules = ClaimRules(leeway=10)
    assert read_claims(claims(exp=NOW - 9.5), rules, NOW).expires_at == NOW + 0.5
    read_claims(claims(nbf=NOW + 10), rules, NOW)
    with pytest.raises(AccessExpired):
        read_claims(claims(exp=NOW), ClaimRules(leeway=0), NOW)


def test_what_time_mends_is_no_refusal_for_good() -> None:
    """Its client comes back: with another token, or with this one when its time has come."""
    rules = ClaimRules(leeway=10)
    for ago in (10, 69.9):
        with pytest.raises(AccessExpired) as expired:
            read_claims(claims(exp=NOW - ago), rules, NOW)
        assert expired.value.retryable and "expired" in expired.value.public
    for ahead in (10.1, 3_000):
        with pytest.raises(AccessNotYet) as early:
            read_claims(claims(nbf=NOW + ahead, exp=NOW + 9_000), rules, NOW)
        assert early.value.retryable
    # A minute later nobody is fetching another one; and what is wrong besides stays wrong.
    with pytest.raises(Unauthenticated, match="expired"):
        read_claims(claims(exp=NOW - 70), rules, NOW)
    for time in ({"exp": NOW - 11}, {"nbf": NOW + 11}):
        with pytest.raises(Unauthenticated, match="sub"):
            read_claims(claims(sub=None, **time), rules, NOW)


def test_a_token_for_somebody_is_not_for_a_server_that_is_nobody() -> None:
    with pytest.raises(Unauthenticated) as refused:
        read_claims(claims(aud="collab"), ClaimRules(), NOW)
    assert "set up for none" in refused.value.public
