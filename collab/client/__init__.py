"""A Python client: live Yjs documents, with edits that are known to be saved.

    async with connect("ws://127.0.0.1:1234", "notes", token=...) as document:
        text = document.doc.get("content", type=pycrdt.Text)
        text += "hello"
        await document.wait_saved()

Strategy: it speaks the Hocuspocus protocol, whose acknowledgements say what is committed, over the same code as the
server (``collab.protocol.hocuspocus``). Importing it loads no part of the server. From bottom to top:

=============  ===========================================================================
``backoff``    the pauses between two attempts
``awareness``  who is here, and what this client shows
``replica``    the ``pycrdt.Doc``: edits that are to be sent, updates that wait for others
``document``   one document over all the sockets of its connection
``connection`` the sockets, one after the other; ``connect``
``simple``     one thing with one document in one line
``http``       requests to the HTTP API
``documents``  which documents there are
``history``    versions, the timeline, who wrote what, and the way back
``sync``       all of it without asyncio, for scripts, Django and Celery
=============  ===========================================================================

docs/python-client.md is its guide.
"""

from __future__ import annotations

from collab.client.awareness import Awareness, Change
from collab.client.backoff import Backoff
from collab.client.connection import Connection, connect
from collab.client.document import Document, Status, Token
from collab.client.documents import DocumentPage, Documents, ListedDocument
from collab.client.history import (
    Attribution,
    Changes,
    Entry,
    History,
    Imported,
    Mark,
    OldVersion,
    Range,
    Rewound,
    Row,
    Run,
    Version,
)
from collab.client.replica import LockedDoc
from collab.client.simple import edit, read_json, read_text, replace_text
from collab.errors import (
    ClientClosed,
    ClientError,
    ConnectionRefused,
    DocumentRefused,
    EditRefused,
    NotAnswered,
    NotSaved,
    NotSynced,
    RequestRefused,
)

__all__ = [
    "Attribution",
    "Awareness",
    "Backoff",
    "Change",
    "Changes",
    "ClientClosed",
    "ClientError",
    "Connection",
    "ConnectionRefused",
    "Document",
    "DocumentPage",
    "DocumentRefused",
    "Documents",
    "EditRefused",
    "Entry",
    "History",
    "Imported",
    "ListedDocument",
    "LockedDoc",
    "Mark",
    "NotAnswered",
    "NotSaved",
    "NotSynced",
    "OldVersion",
    "Range",
    "RequestRefused",
    "Rewound",
    "Row",
    "Run",
    "Status",
    "Token",
    "Version",
    "connect",
    "edit",
    "read_json",
    "read_text",
    "replace_text",
]
