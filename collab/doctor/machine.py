"""The machine: limits of the system, memory, disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from collab.app import OTHER_FILES
from collab.doctor.findings import Finding, failed, ok, skipped, warning
from collab.limits.memory import machine_memory
from collab.settings import GIB, MIB, Settings
from collab.storage.urls import DatabaseUrl
from collab.transports.guard.listening import BACKLOG

# Less than this is left to the system for connections that wait to be taken.
_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
_MOUNTS = Path("/proc/self/mounts")

_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "fuse.sshfs")

_LITTLE_DISK = GIB
_NO_DISK = 100 * MIB
_LITTLE_MEMORY = 256 * MIB


def look_at_machine(settings: Settings, url: DatabaseUrl) -> Iterator[Finding]:
    """Look at this machine."""
    yield _open_files(settings)
    yield _waiting_connections()
    yield _memory(settings)
    yield _disk(url)


def _open_files(settings: Settings) -> Finding:
    try:
        import resource
    except ImportError:
        return skipped("open files", "this system has no such limit")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return failed(
            "open files",
            f"at most {hard}, and --max-connections {settings.max_connections} needs {wanted}",
            "raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd), or lower --max-connections",
        )
    return ok("open files", f"at most {'any number' if hard == resource.RLIM_INFINITY else hard}, {wanted} are needed")


def _waiting_connections() -> Finding:
    try:
        there_is = int(_SOMAXCONN.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return skipped("somaxconn", "this system does not tell")
    if there_is < BACKLOG:
        return warning(
            "somaxconn",
            f"{there_is} new connections may wait, a server wants {BACKLOG}: more who come back at once are refused",
            f"sysctl -w net.core.somaxconn={BACKLOG}, in a container too",
        )
    return ok("somaxconn", f"{there_is} new connections may wait")


def _memory(settings: Settings) -> Finding:
    there_is, free = machine_memory() // settings.workers, int(psutil.virtual_memory().available)
    for name in ("memory_mark_bytes", "memory_limit_bytes"):
        if (bound := getattr(settings, name)) is not None and bound > there_is:
            return failed(
                "memory",
                f"--{name.replace('_', '-')} is {bound >> 20} MiB, and a worker has {there_is >> 20} MiB",
                "lower it, or leave it out: the system would end the process first",
            )
    if free < _LITTLE_MEMORY:
        return warning(
            "memory",
            f"{free >> 20} MiB of the machine are free",
            "end what needs memory beside the server, or give the machine more",
        )
    return ok(
        "memory", f"{there_is >> 20} MiB for each of {settings.workers}, {free >> 20} MiB of the machine are free"
    )


def _disk(url: DatabaseUrl) -> Finding:
    if url.path is None:
        return skipped("disk", "the documents are on the disk of the database's own machine: look there")
    place = _existing(url.path.absolute().parent)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return failed(
            "disk", f"{place} cannot be read: {error.strerror}", "mend the disk, or choose another --data-dir"
        )
    text = f"{free >> 20} MiB are free at {place}"
    if free < _NO_DISK:
        return failed("disk", text, "make room now: nothing is called saved on a full disk")
    if free < _LITTLE_DISK:
        return warning("disk", text, "make room, or move the data directory to a larger disk")
    if kind := _network(place):
        return warning(
            "disk", f"{place} is on a network file system ({kind})", "SQLite is not safe there: use a local disk"
        )
    return ok("disk", text)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _network(place: Path) -> str | None:
    """Name the kind of the file system that a directory is on, if it is one of a network."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = "", ""
    for line in lines:
        _, mounted, found, *_ = line.split(" ")
        mounted = mounted.replace("\\040", " ")
        inside = str(place) == mounted or str(place).startswith(mounted.rstrip("/") + os.sep)
        if inside and len(mounted) >= len(best):
            best, kind = mounted, found
    return kind if kind.startswith(_NETWORK) else None
