"""The certificate of the server's own: its files, its dates, its names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509

from collab.doctor.findings import Finding, failed, ok, skipped, warning
from collab.errors import ConfigurationError
from collab.settings import Settings
from collab.transports.guard.tls import Certificate

_SOON = timedelta(days=14)


def look_at_certificate(settings: Settings, now: float) -> Finding:
    """Look at the certificate, at ``now`` in Unix seconds."""
    if settings.tls_cert is None or settings.tls_key is None:
        if settings.on_loopback or settings.behind_proxy:
            return skipped("certificate", "there is none, and none is needed here: --url looks at the proxy's")
        return warning(
            "certificate", "there is none", "set --tls-cert and --tls-key, or put a proxy with TLS before it"
        )
    try:
        Certificate(settings.tls_cert, settings.tls_key)
        found = x509.load_pem_x509_certificates(settings.tls_cert.read_bytes())[0]
    except ConfigurationError as error:
        return failed("certificate", str(error), "give the certificate with its chain and its own key, both as PEM")
    except (OSError, ValueError) as error:
        return failed("certificate", f"{settings.tls_cert} cannot be read: {error}", "give it as PEM")
    at, begin, end = datetime.fromtimestamp(now, UTC), found.not_valid_before_utc, found.not_valid_after_utc
    if at >= end:
        return failed("certificate", f"it ran out at {end:%Y-%m-%d %H:%M} UTC", "renew it, then kill -HUP")
    if at < begin:
        return failed(
            "certificate", f"it is valid from {begin:%Y-%m-%d %H:%M} UTC on", "look at the clock, or use the one before"
        )
    if end - at < _SOON:
        return warning("certificate", f"it runs out at {end:%Y-%m-%d %H:%M} UTC", "renew it, then kill -HUP")
    return ok("certificate", f"it goes with its key, until {end:%Y-%m-%d} UTC, for {_names(found)}")


def _names(found: x509.Certificate) -> str:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no name at all, which browsers refuse"
    return ", ".join(str(name.value) for name in names)
