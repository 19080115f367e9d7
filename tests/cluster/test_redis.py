"""The bus on Redis, on a real Valkey: it passes the suite alone, behind a Sentinel, and on a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest

from collab.cluster.redis import RedisBus, check_url
from collab.errors import ConfigurationError
from collab.testing.bus import BusConformance, Cluster, Listener, MakeBus
from tests.support.valkey import Valkey
from tests.support.waiting import happens
from tests.transports.test_tls import make_certificate


async def identity() -> str:
    return "one-database"


class TestRedis(BusConformance):
    @pytest.fixture(params=["tcp", "unix"])
    def make_bus(self, request: pytest.FixtureRequest, valkey: Valkey) -> MakeBus:
        url = valkey.url if request.param == "tcp" else valkey.unix_url
        return lambda: RedisBus(url, identity)


class Front:
    """A server that speaks TLS and passes on what it is told, as Valkey does that was built with TLS.

    The one of the tests was built without.
    """

    def __init__(self, directory: Path, target: int) -> None:
        self.certificate, key = make_certificate(directory, "redis")
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(self.certificate, key)
        self._target = target
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def url(self, host: str = "127.0.0.1") -> str:
        return f"rediss://{host}:{self.port}?ssl_ca_certs={self.certificate}"

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def front(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Front]:
    async with Front(tmp_path, valkey.port) as front:
        yield front


class TestTls(BusConformance):
    @pytest.fixture
    def make_bus(self, front: Front) -> MakeBus:
        return lambda: RedisBus(front.url(), identity)


@pytest.mark.parametrize("wrong", ["nobody vouches for it", "it is another server's"])
async def test_a_server_with_a_wrong_certificate_is_told_nothing(
    front: Front, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = front.url("localhost") if "another" in wrong else f"rediss://127.0.0.1:{front.port}"
    bus = RedisBus(url, identity)
    try:
        await bus.start(Listener(bus, BusConformance.PATIENCE, []))
        await happens(lambda: "certificate verify failed" in caplog.text, "it says what is wrong")
        assert not bus.steady and bus.trouble is not None
    finally:
        await bus.close()


class TestSentinel(BusConformance):
    @pytest.fixture
    def make_bus(self, valkey_sentinel: tuple[Valkey, Valkey, Valkey]) -> MakeBus:
        _, _, sentinel = valkey_sentinel
        return lambda: RedisBus(f"redis+sentinel://127.0.0.1:{sentinel.port}/main", identity)


class TestCluster(BusConformance):
    @pytest.fixture
    def make_bus(self, valkey_cluster: list[Valkey]) -> MakeBus:
        return lambda: RedisBus(f"redis+cluster://127.0.0.1:{valkey_cluster[1].port}", identity)


async def test_a_server_that_dies_and_comes_back_empty_costs_time_alone(
    quick: None, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    async with Cluster(lambda: RedisBus(valkey.url, identity), BusConformance.PATIENCE) as cluster:
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        for _ in range(3):
            one.met.clear()
            one.lost = two.lost = 0
            valkey.kill()
            await one.until(lambda: one.lost and two.lost and not one.bus.steady and not two.bus.steady, "they know")
            for _ in range(100):
                one.publish("t", b"lost")
            two.subscribe("u")
            one.subscribe("u")
            valkey.start()
            await one.until(lambda: one.bus.steady and two.bus.steady, "it is back")
            await one.until_met("t", two)
            await one.until_met("u", two)
            await cluster.meet("u")
            two.unsubscribe("u")
            one.unsubscribe("u")
        assert b"lost" not in two.payloads()
    assert "the bus on Redis is down" in caplog.text


async def test_a_server_that_stands_still_is_noticed(quick: None, valkey: Valkey) -> None:
    async with Cluster(lambda: RedisBus(valkey.url, identity), BusConformance.PATIENCE) as cluster:
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        one.lost = two.lost = 0
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            await one.until(lambda: one.lost and two.lost and not one.bus.steady, "nothing comes back")
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        await one.until(lambda: one.bus.steady and two.bus.steady, "it goes on")
        await cluster.meet("t")


async def test_a_node_starts_without_it_and_comes_in_later(quick: None, valkey: Valkey) -> None:
    valkey.kill()
    async with Cluster(lambda: RedisBus(valkey.url, identity), BusConformance.PATIENCE) as cluster:
        one = await cluster.start("t")
        assert not one.bus.steady
        valkey.start()
        await cluster.start("t")
        await cluster.meet("t")


async def test_a_sentinel_leads_to_the_new_primary(quick: None, valkey_sentinel: tuple[Valkey, Valkey, Valkey]) -> None:
    primary, replica, sentinel = valkey_sentinel
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main"
    async with Cluster(lambda: RedisBus(url, identity), 60.0) as cluster:
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        primary.kill()
        await one.until(lambda: not one.bus.steady and not two.bus.steady, "they know")
        await one.until(lambda: one.bus.steady and two.bus.steady, "another server is the primary")
        await cluster.meet("t")
        with replica.client() as client:
            assert len(client.pubsub_channels()) == 2


async def test_a_server_of_a_cluster_that_dies_does_not_end_the_others(
    quick: None, valkey_cluster: list[Valkey]
) -> None:
    url = f"redis+cluster://127.0.0.1:{valkey_cluster[0].port}"
    async with Cluster(lambda: RedisBus(url, identity), 60.0) as cluster:
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        one.lost = 0
        valkey_cluster[1].kill()
        await asyncio.sleep(0.5)
        valkey_cluster[1].start()
        await one.until(lambda: one.bus.steady and two.bus.steady, "all is well")
        for topic in ("t", *map(str, range(20))):
            one.subscribe(topic)
            two.subscribe(topic)
            await cluster.until_heard(one, two, topic=topic)


async def test_deployments_that_share_a_redis_do_not_hear_each_other(valkey: Valkey) -> None:
    names = iter(("one", "two"))

    def make() -> RedisBus:
        name = next(names)

        async def identity() -> str:
            return name

        return RedisBus(valkey.url, identity)

    async with Cluster(make, BusConformance.PATIENCE) as cluster:
        one, two = [await cluster.start("t") for _ in range(2)]
        one.publish("t", b"x")
        await one.until(lambda: one.bus.steady and two.bus.steady, "connected")
        await asyncio.sleep(0.5)
        assert one.bus.others == two.bus.others == 0 and not two.heard


async def test_a_node_listens_to_what_it_has_open_and_nothing_stays_in_redis(valkey: Valkey) -> None:
    async with Cluster(lambda: RedisBus(valkey.url, identity), BusConformance.PATIENCE) as cluster:
        one, two = await cluster.start("a", "b"), await cluster.start("b", "c")
        await one.until_met("b", two)

        def listening() -> list[int]:
            with valkey.client() as client:
                return sorted(count for _, count in client.pubsub_numsub(*client.pubsub_channels()))

        await one.until(lambda: listening() == [1, 1, 2, 2], "a, c, b and what all have in common")
        one.unsubscribe("b")
        await one.until(lambda: listening() == [1, 1, 1, 2], "b is left")
        with valkey.client() as client:
            assert client.dbsize() == 0
    await asyncio.sleep(0.1)
    with valkey.client() as client:
        assert client.pubsub_channels() == []


async def test_strangers_on_the_channels_harm_nobody(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    async with Cluster(lambda: RedisBus(valkey.url, identity), BusConformance.PATIENCE) as cluster:
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        with caplog.at_level(logging.WARNING, "collab.bus"), valkey.client() as client:
            channels: Any = client.pubsub_channels()
            for channel in channels:
                for payload in (b"", b"x", bytes(40), b"\x01" * 100_000) * 20:
                    client.publish(channel, payload)
        await cluster.meet("t")
        assert one.bus.others == two.bus.others == 1
        assert 1 <= len([record for record in caplog.records if "left out" in record.getMessage()]) <= 20


@pytest.mark.parametrize(
    "url",
    [
        *("redis://h", "redis://:p%40ss@h:6379/0", "rediss://user:p@h", "unix:///run/valkey.sock"),
        *("redis+sentinel://a,b:26380/main", "redis+sentinel://u:p@[::1]:1/main/2", "rediss+cluster://h:6379"),
    ],
)
def test_an_address_is_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:6379",
        "http://h",
        "redis://",
        "redis://h:port",
        "redis+sentinel://h",
        "unix://",
        "redis+x://h",
        "redis://[h",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_url(url + "?password=secret" if url else url)
    assert "secret" not in str(refused.value) and "redis+sentinel://" in str(refused.value)
