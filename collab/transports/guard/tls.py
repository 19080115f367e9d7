"""TLS of the server's own: the certificate, and how it is renewed while connections stand.

Strategy: one context for the life of the process. A handshake takes the certificate that the context
holds at that moment, and a connection that stands needs it no more, so a new certificate is loaded into
the same context and nobody notices. It is loaded into a context of its own first: a file that is half
written, or a key that does not fit, must not leave the server with half of each.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from collab.errors import ConfigurationError


class Certificate:
    """A certificate with its key, in PEM files.

    Attributes:
        context: for the listening socket.

    Raises:
        ConfigurationError: the files cannot be read or do not belong together.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self.context = self._load(_context())

    def reload(self) -> None:
        """Read the files again, for handshakes from now on.

        Raises:
            ConfigurationError: they cannot be used; what was there before stays.
        """
        self._load(_context())
        self._load(self.context)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        # Without this a key with a password would be asked for on the terminal, for ever.
        def no_password() -> str:
            raise ConfigurationError(f"the key {self._key} has a password: give the server one without")

        try:
            context.load_cert_chain(self._cert, self._key, no_password)
        except ssl.SSLError as error:
            reason = (error.reason or "not PEM").replace("_", " ").lower()
            raise ConfigurationError(f"cannot use the certificate {self._cert} with {self._key}: {reason}") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigurationError(f"cannot read {self._cert} or {self._key}: {reason}") from None
        return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # WebSockets begin with a request of HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    # A client could make the server do the work of handshakes on one connection, for nothing.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context
