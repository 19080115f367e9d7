"""Defects that are put in the place of calls on the way of an edit, one at a time.

A profiler counts the calls that the server's own code makes in one part of that way, those of C functions too, and
raises in the place of one of them.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from collab.hub.persistence import Persistence
from collab.hub.room import LiveRoom
from collab.storage.journal import Journal

# Parts of the way of an edit, by what happens there.
PARTS = {
    "taking": (LiveRoom, "receive"),
    "ending the turn": (LiveRoom, "end_turn"),
    "the commit's callback": (Persistence, "_committed"),
    "the journal's report": (Journal, "_report"),
}


class Fault:
    """Raises in the place of the ``number``-th call that code of the server makes within ``method`` of ``owner``.

    Attributes:
        hit: whether there was such a call.
    """

    def __init__(self, owner: type, method: str, number: int, error: type[Exception]) -> None:
        self.hit = False
        self._owner, self._method, self._number, self._error = owner, method, number, error
        self._original = getattr(owner, method)
        self._left = number
        self.only: Callable[[tuple[Any, ...]], bool] = lambda arguments: True

    def __enter__(self) -> Fault:
        original = self._original

        def watched(*arguments: Any, **options: Any) -> Any:
            if self.hit or not self.only(arguments):
                return original(*arguments, **options)
            self._left = self._number
            gc.disable()  # what others have asked it to call is no call of the server's
            sys.setprofile(self._count)
            try:
                return original(*arguments, **options)
            finally:
                sys.setprofile(None)
                gc.enable()

        setattr(self._owner, self._method, watched)
        return self

    def __exit__(self, *exception: object) -> None:
        setattr(self._owner, self._method, self._original)

    def _count(self, frame: FrameType, event: str, _: object) -> None:
        caller = frame if event == "c_call" else frame.f_back
        if event not in ("call", "c_call") or frame.f_code is self._original.__code__ and event == "call":
            return
        if frame.f_code.co_filename.endswith("_weakrefset.py"):
            return  # called back when something has gone: Python takes no error from there
        if caller is None or "/collab/" not in caller.f_code.co_filename or "/tests/" in caller.f_code.co_filename:
            return
        self._left -= 1
        if self._left < 0 and not self.hit:
            self.hit = True
            sys.setprofile(None)
            raise self._error("injected")
