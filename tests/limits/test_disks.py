"""How much room is left on real disks, and when that is told."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from collab.limits import disks as module
from collab.limits.disks import AUDIT, DATABASE, Disks


async def test_what_is_free_is_that_of_the_disk(tmp_path: Path) -> None:
    disks = Disks({DATABASE: tmp_path})
    assert disks.rooms == {} and disks.state(DATABASE) == "ok"
    await disks.look()
    usage = shutil.disk_usage(tmp_path)
    assert disks.rooms[DATABASE].size == usage.total
    assert 0 < disks.rooms[DATABASE].free <= usage.total
    assert disks.state(DATABASE) == "ok" and disks.state(AUDIT) == "ok"


async def test_of_two_places_on_one_disk_the_first_is_told(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    disks = Disks({DATABASE: tmp_path, AUDIT: tmp_path / "audit"})
    await disks.look()
    assert list(disks.rooms) == [DATABASE]
    disks = Disks({DATABASE: tmp_path, AUDIT: Path("/proc")})
    await disks.look()
    assert list(disks.rooms) == [DATABASE, AUDIT]


async def test_little_room_is_told_once_until_there_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disks = Disks({DATABASE: tmp_path})
    caplog.set_level(logging.INFO, "collab.disks")

    async def look(little: int) -> list[str]:
        caplog.clear()
        monkeypatch.setattr(module, "LITTLE_DISK", little)
        await disks.look()
        return [record.levelname for record in caplog.records]

    free = shutil.disk_usage(tmp_path).free
    assert await look(1) == []
    assert await look(1 << 62) == ["WARNING"]
    assert disks.state(DATABASE).endswith(" MiB are free")
    assert await look(1 << 62) == []
    assert await look(free * 3 // 4) == [], "a little more than it was is not enough"
    assert disks.state(DATABASE) == "ok"
    assert await look(1) == ["INFO"]
    assert await look(1 << 62) == ["WARNING"]


async def test_a_place_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    disks = Disks({DATABASE: tmp_path, AUDIT: tmp_path / "gone"})
    await disks.look()
    assert disks.state(AUDIT) == "cannot be read: No such file or directory" and disks.state(DATABASE) == "ok"
    assert list(disks.rooms) == [DATABASE]
