"""``/streams/docs/{name}``: a document as a stream, and its presence as streams beside it (``?awareness=``)."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web


class AwarenessStreams(Protocol):
    """Serve the awareness streams of documents."""

    async def handle(self, request: web.Request, name: str, stream: str) -> web.StreamResponse:
        """Answer a GET, HEAD, POST, PUT or DELETE for the awareness stream ``stream`` of the document ``name``.

        Both names were checked (``protocol.streams``); nothing else was: neither access nor whether the document is
        there. A live GET is served by ``LiveReaders.serve``, with a ``hub.readers.Cursor`` of the stream.

        Raises:
            Refusal, BadRequest, CollabError: nothing was answered; ``answering`` makes an error of it.
        """
        ...
