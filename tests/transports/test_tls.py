"""TLS of the server's own, with a certificate made here and clients that check it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from collab.errors import ConfigurationError
from collab.transports.guard.tls import Certificate
from tests.support.server import ServerProcess
from tests.support.waiting import happens
from tests.support.wsclient import LiveClient, converge


def make_certificate(directory: Path, name: str, password: str | None = None, serial: int = 1) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"collab test {serial}")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encryption: KeySerializationEncryption = (
        NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    )
    cert_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    cert_file.write_bytes(made.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    key_file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return cert_file, key_file


def test_files_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "one")
    _, other = make_certificate(tmp_path, "two")
    _, locked = make_certificate(tmp_path, "three", password="hunter2")
    junk = tmp_path / "junk.pem"
    junk.write_text("no PEM")
    Certificate(cert, key)
    for pair, expected in (
        ((cert, other), "key values mismatch"),
        ((junk, key), "cannot use the certificate"),
        ((cert, tmp_path / "none.key"), "cannot read .*No such file"),
        ((cert, locked), "has a password"),
    ):
        with pytest.raises(ConfigurationError, match=expected) as caught:
            Certificate(*pair)
        assert "\n" not in str(caught.value)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path, "server", serial=1001)


@pytest.fixture
def tls_server(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[ServerProcess]:
    options = ("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    with ServerProcess(tmp_path / "data", *options) as server:
        yield server


async def all_closed(server: ServerProcess) -> None:
    """Wait until no connection of this process to the server is left: TLS takes its leave after ``close``."""
    own = psutil.Process()
    await happens(
        lambda: not any(found.raddr and found.raddr[1] == server.port for found in own.net_connections("tcp4")),
        "all connections closed",
    )


async def serial_of(server: ServerProcess, context: ssl.SSLContext) -> int:
    """Say which certificate a new connection gets."""
    _, writer = await asyncio.open_connection(server.host, server.port, ssl=context)
    try:
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found).serial_number
    finally:
        writer.close()
        await writer.wait_closed()


async def test_clients_that_check_the_certificate_edit_together_and_none_is_dropped_for_a_new_one(
    tls_server: ServerProcess, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    assert tls_server.url.startswith("https://")
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    ada, bob = (LiveClient(tls_server.document_url("d"), tls=trusting) for _ in range(2))
    async with ada, bob:
        await ada.until_synced()
        ada.text().insert(0, "x" * 600_000)  # more than one portion goes out at once
        await converge([bob], lambda client: len(str(client.text())), 600_000)
        assert await serial_of(tls_server, trusting) == 1001

        fresh = make_certificate(tmp_path, "fresh", serial=1002)
        trusting.load_verify_locations(fresh[0])
        os.replace(fresh[0], certificate[0])
        os.kill(tls_server.pid, signal.SIGHUP)  # the key is still the old one
        await asyncio.to_thread(tls_server.wait_for_log, lambda line: "the certificate stays as it was" in line)
        assert await serial_of(tls_server, trusting) == 1001, "half of a new pair must not be used"

        os.replace(fresh[1], certificate[1])
        os.kill(tls_server.pid, signal.SIGHUP)
        await asyncio.to_thread(tls_server.wait_for_log, lambda line: "get the certificate as it is now" in line)
        assert await serial_of(tls_server, trusting) == 1002

        bob.text().insert(0, "still here ")
        await converge([ada], lambda client: str(client.text())[:11], "still here ")
        assert (ada.connects, bob.connects) == (1, 1)
        async with LiveClient(tls_server.document_url("d"), tls=trusting) as newcomer:
            await converge([newcomer], lambda client: len(str(client.text())), 600_011)
    await all_closed(tls_server)


async def test_old_protocols_and_plain_http_get_nowhere(tls_server: ServerProcess) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.options &= ~(ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1)
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(tls_server.host, tls_server.port, ssl=context)

    reader, writer = await asyncio.open_connection(tls_server.host, tls_server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await reader.read()
    assert b"HTTP/1.1" not in answer
    writer.close()
    await all_closed(tls_server)


@pytest.mark.server
async def test_sighup_without_a_certificate_ends_nothing(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        async with LiveClient(server.document_url("d")) as client:
            await client.until_synced()
            os.kill(server.pid, signal.SIGHUP)
            await asyncio.to_thread(server.wait_for_log, lambda line: "no certificate to read again" in line)
            await client.barrier()
