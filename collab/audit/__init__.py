"""The audit: who came, who was refused what, who has deleted, shared, ended or read what; in a file, or in the log.

Strategy: ``entries`` has the kinds and what an entry says, ``audit`` decides which entries are written and keeps the
newest in memory, ``file`` appends to the file, ``writer`` does so in a thread, for a server.
"""

from __future__ import annotations

from collab.audit.audit import Audit
from collab.audit.entries import Act, Entry, Group, Kind, Outcome, Who, acting

__all__ = ["Act", "Audit", "Entry", "Group", "Kind", "Outcome", "Who", "acting"]
