"""Signals that the server process sends."""

from __future__ import annotations

from django.dispatch import Signal

document_changed = Signal()
"""A document has changed; sent by ``collab_serve`` after the commit, at most once in ``HOOK_INTERVAL_SECONDS``.

Receivers get ``document`` (its name), ``authors`` (keys of the users who have edited, as texts), ``first`` and ``last``
(the numbers of the rows in the log) and ``number`` (of the document: another one when it is created anew). The sender
is the application's configuration. They run in a thread of the server process, one call for a document at a time. One
that raises is logged and harms nothing. A change is told **once at best**: webhooks tell it at least once
(docs/webhooks.md).
"""
