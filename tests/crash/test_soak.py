"""A short form of the soak (:mod:`tests.crash.soak`), which is run for an hour in the nightly tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.soak import LEFT, STANDING, Result, Soak, enough_files, server_in
from tests.support.server import ServerProcess

WAVES, WAVE = 3, 300


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    enough_files(WAVE)
    with server_in(tmp_path) as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_three_waves(server: ServerProcess) -> None:
    said: list[str] = []
    result = await Soak(server, WAVE, 7, said.append).run(WAVES, None)
    assert not result.faults, result
    assert (len(said), result.connections, len(result.left)) == (WAVES, WAVES * WAVE, WAVES)
    assert min(result.standing) > 20, "MiB of a server, and not of something else"


@pytest.mark.parametrize(
    ("standing", "left", "faults"),
    [
        ([100.0] * 10, [90.0] * 10, 0),
        ([100.0, 100.0 * STANDING + 1] + [100.0] * 8, [90.0] * 10, 1),
        ([100.0] * 10, [90.0] * 8 + [90.0 * LEFT + 1] * 2, 1),
        ([100.0] * 10, [90.0] * 4 + [300.0] + [90.0] * 5, 0),
        ([100.0] * 9 + [200.0], [90.0 + 10.0 * number for number in range(10)], 2),
    ],
)
def test_what_grows_is_named(standing: list[float], left: list[float], faults: int) -> None:
    result = Result(standing, left)
    result.judge()
    assert len(result.faults) == faults
    assert f"{faults} faults" in str(result)
