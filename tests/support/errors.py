"""All errors that the server may tell a client, for tests of what each one becomes.

Strategy: the classes are found, not listed, so a new error is tested without anybody thinking of it. Only those of
``collab.errors`` count: modules that other tests load may have errors of their own, which their callers catch. Those of
the Python client are raised in the client, and no server tells them.
"""

from __future__ import annotations

from collab import errors
from collab.errors import ClientError, CollabError


def every_error(kind: type[CollabError] = CollabError) -> list[type[CollabError]]:
    """The classes of ``collab.errors`` that are an error of this kind."""
    below = [
        child for child in kind.__subclasses__() if child.__module__ == errors.__name__ and child is not ClientError
    ]
    return [kind, *(one for child in below for one in every_error(child))]
