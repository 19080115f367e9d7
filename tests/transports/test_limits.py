"""Buckets, counts and meters, with a clock of the test's own; tests/transports/test_guard.py has them over sockets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DocumentBusy, DocumentExists, Overloaded
from collab.limits import limits as limits_module
from collab.limits.limits import MAX_BODIES, Bounds, Limits, Meter, Ticket, TokenBucket
from collab.net import Peer
from collab.settings import options


def test_every_bound_stands_in_the_table_of_limits() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.partition("## Limits")[2].partition("## ")[0]
    bounds = [option.name for option in options() if option.name.startswith(("max_", "memory_"))]
    assert len(bounds) > 20
    assert [name for name in bounds if f"`{name}`" not in table] == []


def test_a_burst_is_free_and_what_follows_is_paid_by_waiting() -> None:
    bucket = TokenBucket(rate=10.0, burst=3.0, now=100.0)
    assert [bucket.consume(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.consume(100.0) == pytest.approx(0.1)
    assert bucket.consume(100.0) == pytest.approx(0.2)
    assert bucket.consume(100.31) == 0.0, "the debt is paid and one token is there"
    assert bucket.consume(1_000.0) == 0.0 == bucket.consume(1_000.0) == bucket.consume(1_000.0)
    assert bucket.consume(1_000.0) > 0, "no more than a burst is ever saved"


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60))
def test_who_waits_as_told_never_passes_the_rate(pauses: list[float]) -> None:
    now = 0.0
    bucket = TokenBucket(rate=5.0, burst=5.0, now=now)
    for taken, pause in enumerate(pauses, 1):
        now += pause
        now += bucket.consume(now)
        assert taken <= 5.0 * now + 5.0 + 1e-6


def peer(address: str = "203.0.113.7", *, counted: bool = True, local: bool = False) -> Peer:
    return Peer(address, address, counted, local, False, "collab.example")


def test_an_attempt_without_a_token_takes_none() -> None:
    bucket = TokenBucket(rate=1.0, burst=1.0, now=0.0)
    assert bucket.try_consume(0.0)
    assert not any(bucket.try_consume(now / 100) for now in range(1, 100))
    assert bucket.try_consume(1.0)


def test_nothing_is_bounded_where_the_bound_is_0() -> None:
    limits = Limits(Bounds())
    tickets = [limits.add_connection(peer(), 0.0) for _ in range(3_000)]
    for ticket in tickets:
        limits.add_user(ticket, "ada", 0.0)
        limits.check_join(ticket, "ada", 10**6, True, 0.0)
    assert all(limits.allow_request(peer(), 0.0) for _ in range(3_000))
    assert all(limits.add_pending(number, lambda: None, 0.0) for number in range(3_000))
    assert Meter(Bounds(), 0.0).count(0.0, 10**6, 10**9, 10**6) == 0.0


def test_what_is_left_is_forgotten_in_time_and_not_before_a_bucket_is_full_again() -> None:
    limits = Limits(Bounds(new_documents=1, connections_per_user=5))
    ticket = limits.add_connection(peer(), 0.0)
    limits.add_user(ticket, "ada", 0.0)
    limits.check_join(ticket, "ada", 0, True, 0.0)
    limits.remove_connection(ticket, 1.0)
    for now in (10.0, 30.0, 59.0):
        limits.sweep(now)
        again = limits.add_connection(peer(), now)
        with pytest.raises(DocumentBusy):  # going and coming back gives nobody a new bucket
            limits.check_join(again, "ada", 0, True, now)
        limits.remove_connection(again, now)
    limits.sweep(200.0)
    assert limits._addresses == {} == limits._users
    assert limits.connections == 0


def test_a_new_document_that_could_not_be_made_is_not_counted() -> None:
    limits = Limits(Bounds(new_documents=2))
    for _ in range(5):
        with pytest.raises(DocumentExists), limits.creating(peer(), "ada", 0.0):
            raise DocumentExists("it is there")
    for _ in range(2):
        with limits.creating(peer(), "ada", 0.0):
            pass
    with pytest.raises(DocumentBusy), limits.creating(peer(), "ada", limits.creation_pause - 1.0):
        pytest.fail("it was made")
    with limits.creating(peer(), "ada", limits.creation_pause), limits.creating(peer(), "bob", 0.0):
        pass


def test_the_table_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "_MAX_ACCOUNTS", 10)
    limits = Limits(Bounds(connections_per_address=1))
    stays = limits.add_connection(peer("192.0.2.1"), 0.0)
    for number in range(200):
        limits.remove_connection(limits.add_connection(peer(f"198.51.100.{number}"), 0.0), 0.0)
        assert len(limits._addresses) <= 11
    with pytest.raises(Overloaded):  # who is here is not forgotten
        limits.add_connection(peer("192.0.2.1"), 0.0)
    limits.remove_connection(stays, 0.0)


def test_a_refused_connection_takes_no_place() -> None:
    limits = Limits(Bounds(connections=2, connections_per_address=1))
    limits.add_connection(peer("192.0.2.1"), 0.0)
    for _ in range(5):
        with pytest.raises(Overloaded):
            limits.add_connection(peer("192.0.2.1"), 0.0)
    limits.add_connection(peer("192.0.2.2"), 0.0)
    assert limits.connections == 2


def test_a_shared_address_is_not_counted() -> None:
    limits = Limits(Bounds(connections_per_address=1, new_connections=0.01, requests=0.01, new_documents=0.01))
    for _ in range(50):
        ticket = limits.add_connection(peer("127.0.0.1", counted=False, local=True), 0.0)
        limits.check_join(ticket, None, 0, True, 0.0)
        assert limits.allow_request(ticket.peer, 0.0)


def test_only_clients_of_this_machine_are_spared_and_only_where_they_are_alone() -> None:
    here, proxied = peer("127.0.0.1", counted=False, local=True), peer("127.0.0.1", counted=False)
    assert Limits(Bounds(exempt_local=True)).exempts(here)
    assert not Limits(Bounds(exempt_local=True)).exempts(proxied)
    assert not Limits(Bounds(exempt_local=False)).exempts(here)


def test_who_settles_is_not_cut() -> None:
    cut: list[int] = []
    limits = Limits(Bounds(unauthenticated=2))
    for number in range(5):
        limits.add_pending(number, lambda number=number: cut.append(number), 0.0)
        limits.remove_pending(1)
    assert cut == [0, 2]
    assert limits.pending == 2


def test_a_meter_holds_back_what_is_too_much_and_ends_only_what_never_pauses() -> None:
    bounds = Bounds(messages=10, flood_seconds=5)
    meter = Meter(bounds, 0.0)
    assert meter.count(0.0, 100, 0, 0) == 0.0, "ten seconds' worth at once"
    assert meter.count(0.0, 10, 0, 0) == pytest.approx(1.0)
    assert meter.count(2.0, 1, 0, 0) == 0.0, "a pause"
    now, read = 2.0, 0
    with pytest.raises(Overloaded, match="flood of messages for [56] s"):
        while True:
            now += meter.count(now, 16, 0, 0)
            read += 16
    assert 5.0 <= now - 2.0 <= 8.0 and read <= 100 + 10 * (now - 2.0) + 16


def test_nobody_is_held_for_ever_by_one_message() -> None:
    assert Meter(Bounds(bytes=1), 0.0).count(0.0, 1, 10**9, 0) == 5.0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=80))
def test_places_are_given_back_exactly(steps: list[tuple[int, bool]]) -> None:
    limits = Limits(Bounds(connections=6, connections_per_address=3, connections_per_user=2))
    taken: list[Ticket] = []
    for number, arrive in steps:
        if arrive or not taken:
            try:
                ticket = limits.add_connection(peer(f"192.0.2.{number}"), 0.0)
            except Overloaded:
                continue
            taken.append(ticket)
            try:
                limits.add_user(ticket, f"user {number % 2}", 0.0)
            except Overloaded:
                continue
        else:
            limits.remove_connection(taken.pop(number % len(taken)), 0.0)
    for ticket in taken:
        limits.remove_connection(ticket, 0.0)
    left = [account.connections for accounts in (limits._addresses, limits._users) for account in accounts.values()]
    assert limits.connections == 0 == sum(left)


def test_bytes_of_one_message_are_slowed_and_are_no_flood() -> None:
    meter = Meter(Bounds(bytes=1_000, messages=10, flood_seconds=1.0), 0.0)
    assert meter.slow(0.0, 4_000) == 0.0
    for second in range(100):
        assert meter.slow(float(second), 1_000) > 0.0, "for longer than a flood may last"
    assert meter.slow(1_000.0, 0, 101) == pytest.approx(0.1), "so are messages of a socket that is being closed"
    assert Meter(Bounds(), 0.0).slow(0.0, 10**9, 10**9) == 0.0
    # What was slowed is owed by the messages that follow.
    meter = Meter(Bounds(bytes=1_000), 0.0)
    meter.slow(0.0, 6_000)
    assert meter.count(0.0, 1, 0, 0) == pytest.approx(2.0)


def test_bodies_of_one_address_are_counted_until_they_end() -> None:
    limits, ada = Limits(Bounds()), peer("192.0.2.1")
    assert all(limits.add_body(ada, 0.0) for _ in range(MAX_BODIES))
    assert not limits.add_body(ada, 0.0)
    limits.sweep(1_000.0)
    assert not limits.add_body(ada, 1_000.0), "it is not forgotten while it waits"
    limits.remove_body(ada, 1_000.0)
    assert limits.add_body(ada, 1_000.0)
    local = Peer("127.0.0.1", "127.0.0.1", False, True, False, "")
    assert all(limits.add_body(local, 0.0) for _ in range(100))
    limits.remove_body(local, 0.0)
