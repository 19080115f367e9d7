"""Cursors: what they show, who can make them, and who can read them."""

from __future__ import annotations

import base64
from random import Random

import pytest

from collab.transports.http.api.cursors import MAX_CURSOR, Cursors, decode_cursor, make_cursors
from collab.transports.problems import BadRequest

SECRET = "a secret of at least 32 characters"
PLACES = ["", "a", "ä/\U0001f600", "1764500000.25 " + "n" * 512, "\0"]


@pytest.fixture(params=["sealed", "one node", "open"])
def cursors(request: pytest.FixtureRequest) -> Cursors:
    made = {"sealed": (SECRET, None), "one node": (None, Random(1)), "open": (None, None)}
    return make_cursors(*made[request.param])


@pytest.mark.parametrize("place", PLACES)
def test_a_cursor_gives_the_place_back(cursors: Cursors, place: str) -> None:
    made = cursors.encode("n", place)
    assert len(made) <= MAX_CURSOR and made.replace("-", "").replace("_", "").isalnum()
    assert cursors.decode("n", made) == place
    with pytest.raises(BadRequest):
        cursors.decode("u", made)


@pytest.mark.parametrize("cursor", ["", "A", "AAAA", "A" * 22, "%", "\xe4", "n" * 2000, "dW5hbiBh"])
def test_what_was_never_given_is_refused(cursors: Cursors, cursor: str) -> None:
    with pytest.raises(BadRequest, match="the page before"):
        cursors.decode("n", cursor)


def test_a_sealed_cursor_shows_nothing_and_cannot_be_changed() -> None:
    sealed = make_cursors(SECRET, None)
    made = sealed.encode("n", "secret/plan")
    data = base64.urlsafe_b64decode(made + "==")
    assert b"plan" not in data
    # Nor does its length say anything: of no name, and of the longest with a time.
    assert {len(sealed.encode("n", place)) for place in ("", f"{-1 / 3e-300!r} " + "n" * 512)} == {len(made)}
    with pytest.raises(BadRequest):
        decode_cursor("n", made)
    for at in (*range(40), len(data) - 1):
        forged = bytearray(data)
        forged[at] ^= 1
        with pytest.raises(BadRequest):
            sealed.decode("n", base64.urlsafe_b64encode(bytes(forged)).decode().rstrip("="))


def test_nodes_with_one_secret_read_each_others_cursors_and_others_do_not() -> None:
    made = make_cursors(SECRET, None).encode("n", "a")
    assert make_cursors(SECRET, Random(1)).decode("n", made) == "a"
    for other in (make_cursors(SECRET + "!", None), make_cursors(None, Random(1)), make_cursors(None, None)):
        with pytest.raises(BadRequest):
            other.decode("n", made)
