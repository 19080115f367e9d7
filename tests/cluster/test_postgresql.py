"""The bus on PostgreSQL, on a real one: it passes the suite, and whatever happens to it costs time alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from collab.adapters import make_bus
from collab.errors import ConfigurationError
from collab.storage.urls import parse_database_url
from collab.testing.bus import BusConformance, Cluster, MakeBus
from tests.support.postgres import PostgresServer


class TestPostgresql(BusConformance):
    @pytest.fixture
    def make_bus(self, postgres_url: str) -> MakeBus:
        url = parse_database_url(postgres_url)
        return lambda: make_bus(url)


@pytest.fixture
async def cluster(quick: None, postgres_url: str) -> AsyncIterator[Cluster]:
    url = parse_database_url(postgres_url)
    async with Cluster(lambda: make_bus(url), BusConformance.PATIENCE) as cluster:
        yield cluster


async def ask(url: str, question: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(question)]
    finally:
        await connection.close()


async def test_connections_that_are_cut_come_back_and_everybody_is_told_again(
    cluster: Cluster, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = [await cluster.start("t") for _ in range(2)]
    await cluster.meet("t")
    for _ in range(3):
        for node in (one, two):
            node.met.clear()
            node.lost = 0
        cut = await ask(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert len(cut) == 2
        await one.until(lambda: one.lost and two.lost, "both know that they may have missed something")
        await one.until_met("t", two)
        await two.until_met("t", one)
        await cluster.meet("t")
        await one.until(lambda: one.bus.steady and two.bus.steady, "all is well")
    assert "is down" in caplog.text


async def test_what_was_published_while_it_is_away_is_lost_and_nothing_waits(
    quick: None, private_postgres: PostgresServer
) -> None:
    url = parse_database_url(private_postgres.url(private_postgres.create_database()))
    async with Cluster(lambda: make_bus(url), BusConformance.PATIENCE) as cluster:
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        private_postgres.kill()
        await one.until(lambda: not one.bus.steady and not two.bus.steady, "they know")
        for _ in range(1_000):
            one.publish("t", b"lost")
        one.subscribe("u")
        two.subscribe("u")
        private_postgres.start()
        await one.until(lambda: one.bus.steady and two.bus.steady, "it is back")
        await one.until_met("u", two)
        await two.until_met("u", one)
        await cluster.meet("u")
        assert b"lost" not in two.payloads()


async def test_a_node_starts_without_it_and_comes_in_later(quick: None, private_postgres: PostgresServer) -> None:
    url = parse_database_url(private_postgres.url(private_postgres.create_database()))
    private_postgres.stop()
    async with Cluster(lambda: make_bus(url), BusConformance.PATIENCE) as cluster:
        one = await cluster.start("t")
        assert not one.bus.steady and one.bus.others == 0
        private_postgres.start()
        await cluster.start("t")
        await cluster.meet("t")


async def test_databases_and_schemas_of_one_server_do_not_hear_each_other(
    postgres_url: str, empty_postgres_url: str
) -> None:
    await ask(postgres_url, "CREATE SCHEMA other")
    urls = [
        parse_database_url(text)
        for text in (
            postgres_url,
            empty_postgres_url,
            postgres_url + ("&" if "?" in postgres_url else "?") + "options=-csearch_path%3Dother",
        )
    ]
    made = iter(urls)
    async with Cluster(lambda: make_bus(next(made)), BusConformance.PATIENCE) as cluster:
        nodes = [await cluster.start("t") for _ in urls]
        for node in nodes:
            node.publish("t", b"x")
            await node.until(lambda node=node: node.bus.steady, "connected")  # type: ignore[misc]
        await asyncio.sleep(0.5)
        assert [node.bus.others for node in nodes] == [0, 0, 0] and not any(node.heard for node in nodes)


async def test_behind_a_pooler_it_says_what_to_do_and_a_direct_address_helps(
    quick: None,
    pooled_url: str,
    postgres_server: PostgresServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pooled = parse_database_url(pooled_url)
    with caplog.at_level(logging.WARNING, "collab.bus"):
        async with Cluster(lambda: make_bus(pooled), BusConformance.PATIENCE) as cluster:
            node = await cluster.start("t")
            assert not node.bus.steady and "--listen-url" in caplog.text
    direct = postgres_server.url(pooled_url.partition("@/")[2].partition("?")[0])
    async with Cluster(lambda: make_bus(pooled, direct), BusConformance.PATIENCE) as cluster:
        await cluster.start("t")
        await cluster.start("t")
        await cluster.meet("t")


def test_addresses_that_do_not_fit_are_refused(postgres_url: str) -> None:
    url = parse_database_url(postgres_url)
    with pytest.raises(ConfigurationError, match="--listen-url begins with postgresql"):
        make_bus(url, "sqlite:///x.db")
    with pytest.raises(ConfigurationError, match="several nodes"):
        make_bus(parse_database_url(None), postgres_url)
    with pytest.raises(ConfigurationError, match="several nodes"):
        make_bus(None, None, "redis://h")
    with pytest.raises(ConfigurationError, match="the Redis URL is"):
        make_bus(url, None, "http://h")


async def test_strangers_on_the_channel_harm_nobody(
    cluster: Cluster, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = [await cluster.start("t") for _ in range(2)]
    await cluster.meet("t")
    bus: Any = one.bus
    connection = await asyncpg.connect(postgres_url)
    try:
        for payload in ("", "x", "AAAA", "é", "A" * 7_000, "====") * 20:
            await connection.execute("SELECT pg_notify($1, $2)", bus._channel, payload)
    finally:
        await connection.close()
    await cluster.meet("t")
    assert one.bus.others == two.bus.others == 1
    lines = [record for record in caplog.records if "left out" in record.getMessage()]
    assert 1 <= len(lines) <= 20, "at a bounded rate"


async def test_a_listener_that_raises_ends_nothing(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    one, two = [await cluster.start("t") for _ in range(2)]
    await cluster.meet("t")

    def raise_it(*_: object) -> None:
        raise RuntimeError("a defect")

    two.answering = raise_it
    joined, two.joined = two.joined, raise_it  # type: ignore[method-assign]
    one.publish("t", b"x", b"y")
    one.subscribe("u")
    two.subscribe("u")
    await two.until(lambda: two.payloads() == [b"x", b"y"], "both were told")
    await one.until_met("u", two)
    two.answering, two.joined = None, joined  # type: ignore[method-assign]
    await cluster.meet("u")
    assert one.bus.steady and two.bus.steady
    assert 1 <= len([record for record in caplog.records if record.exc_info]) <= 20
