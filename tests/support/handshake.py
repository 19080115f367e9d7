"""The handshake of a WebSocket, for those who write the bytes themselves."""

from __future__ import annotations

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The headers, with the key of RFC 6455, section 1.3."""


def upgrade(path: str) -> bytes:
    """Give the whole request for a WebSocket at ``path``."""
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in UPGRADE.items())]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()
