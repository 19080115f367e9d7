"""The audit log: who was not let in, was not allowed something, or has passed a bound.

Strategy: one line for each refusal on the logger ``collab.audit``, of three kinds that a filter can tell
apart by how they begin. Anybody can cause such lines as often as he likes, so each sort of them has a rate
of its own, in which a flood of one drowns no other, and says how many were left out. A line holds what
the operator's log may hold of an error: its message, never a token or content; what a client has chosen
is quoted, escaped and cut.
"""

from __future__ import annotations

from collections import Counter

from collab.errors import (
    AccessDenied,
    AccessExpired,
    AccessNotYet,
    CollabError,
    DocumentNotFound,
    LimitExceeded,
    Unauthenticated,
)
from collab.telemetry import RateLimited, get_logger, shown_name, shown_user

_BURST = 20
_PER_SECOND = 1.0

SIGN_IN = "sign-in refused"
PERMISSION = "permission refused"
LIMIT = "limit"


class Audit:
    """Write the audit log, and count what clients were refused, whether or not the log has a line for it.

    Attributes:
        refusals: what was refused for another reason than a bound, by the name of the error, or a constant that says
            what was tried.
        limits: bounds that were passed, in the same way.
    """

    def __init__(self) -> None:
        self.refusals: Counter[str] = Counter()
        self.limits: Counter[str] = Counter()
        self._limited = RateLimited(get_logger("audit"), burst=_BURST, per_second=_PER_SECOND)

    def note(self, error: BaseException, address: str, document_name: str | None = None) -> None:
        """Note an error that a client was told, if it is one that an audit asks for."""
        kind, what = _kind(error), type(error).__name__
        (self.limits if kind is LIMIT else self.refusals)[what] += 1
        if kind is not None and isinstance(error, CollabError):
            self._write(kind, what, str(error) or error.public, address, document_name)

    def read_only(self, what: str, address: str, user: str | None, document_name: str, protocol: str) -> None:
        """Note what a client has tried that may only read: ``an edit``, say, for its ``document_name``."""
        reason = f"{what} by a client that may only read"
        self.write(PERMISSION, what, reason, address, document_name, user=user, protocol=protocol)

    def write(
        self,
        kind: str,
        what: str,
        reason: str,
        address: str,
        document_name: str | None = None,
        *,
        user: str | None = None,
        protocol: str | None = None,
    ) -> None:
        """Count a refusal of one of the three kinds and write its line; ``what``, a constant, has a rate of its own."""
        (self.limits if kind is LIMIT else self.refusals)[what] += 1
        self._write(kind, what, reason, address, document_name, user=user, protocol=protocol)

    def _write(
        self,
        kind: str,
        what: str,
        reason: str,
        address: str,
        document_name: str | None,
        *,
        user: str | None = None,
        protocol: str | None = None,
    ) -> None:
        where = f"address={address or 'none'}"
        if user is not None:
            where += f" user={shown_user(user)}"
        if document_name is not None:
            where += f" document={shown_name(document_name)}"
        if protocol is not None:
            where += f" protocol={protocol}"
        # Limits are what an operator may want to act on; the others happen every day.
        sort, extra = f"{kind}, {what}", {"peer": address, "user": user, "document_name": document_name}
        if kind is LIMIT:
            self._limited.warning(sort, "limit: %s (%s)", reason, where, extra=extra)
        else:
            self._limited.info(sort, "%s: %s (%s)", kind, reason, where, extra=extra)

    def flush(self) -> None:
        """Tell how many lines were left out."""
        self._limited.flush()


def _kind(error: BaseException) -> str | None:
    if isinstance(error, Unauthenticated | AccessExpired | AccessNotYet):
        return SIGN_IN
    if isinstance(error, AccessDenied | DocumentNotFound):
        return PERMISSION
    return LIMIT if isinstance(error, LimitExceeded) else None
