"""Would ``JSON.parse`` take this text? The check for embeds and formats.

Strategy: yjs parses these texts while it reads an update and throws if it cannot, so a text that
does not parse must never reach the log. Nothing is built from it. Short texts go through the C
scanner of ``json`` with its extensions (NaN, Infinity) refused; long or deeply nested ones go
through a tokenizer that keeps one stack of open brackets, so that neither a million empty lists
nor a thousand nested ones cost more than their own bytes, and that can be left and resumed, so
that no single text holds up the event loop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, NoReturn

from collab.errors import UpdateError

# Embeds nest as deeply as their editor makes them, which is a few levels; the parsers of other
# implementations recurse (yrs dies at 26,000 levels: C1 in docs/decisions/0002).
MAX_DEPTH: Final = 64
# Up to here the C scanner builds at most some 100 KB of throw-away objects.
_SHORT: Final = 4096
# Tokens between two yields: about a millisecond.
_SLICE: Final = 1000

_COMMON: Final = frozenset(("true", "false", "null", '""', "{}", "1", "0"))


def _refuse(_text: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _ignore(_text: str) -> None:
    """Leave a number unread: reading one of 4,300 digits raises, and costs the square of its length."""


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse, parse_int=_ignore, parse_float=_ignore)

# Possessive, so that nothing needs memory to go back. Scalars last; of a string only the quote.
_TOKEN: Final = re.compile(
    r"[ \t\n\r]*+(?:([\[{])|([\]}])|([:,])|"
    r'(")|'
    r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null)"
)
# Escapes cost 25 ns each: 10,000 of them are 0.3 ms.
_STRING: Final = re.compile(r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){0,10000}+')
_BLANK: Final = re.compile(r"[ \t\n\r]*+")
_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END, _COLON, _AFTER = range(6)


def is_short_json(text: str) -> bool:
    """Tell whether ``text`` is short and flat enough for `check_short_json`."""
    return len(text) <= _SHORT and text.count("[") + text.count("{") <= MAX_DEPTH


def check_short_json(text: str) -> None:
    """Check a text for which `is_short_json` holds.

    Raises UpdateError when JavaScript's ``JSON.parse`` would throw on it.
    """
    if text in _COMMON:
        return
    try:
        _DECODER.decode(text)
    except ValueError as error:
        raise UpdateError(f"an embed or format is not JSON: {error}") from None


def check_json(text: str) -> Iterator[None]:
    """Check a text of any size, yielding about every millisecond.

    Raises UpdateError when JavaScript's ``JSON.parse`` would throw on it or when it nests more than
    64 deep.
    """
    opened: list[bool] = []  # of each open bracket: is it an object
    expected = _VALUE
    pos = 0
    tokens = 0
    end = len(text)
    match_token, match_string = _TOKEN.match, _STRING.match
    while True:
        tokens += 1
        if tokens % _SLICE == 0:
            yield
        if expected == _AFTER and not opened:
            match_blank = _BLANK.match(text, pos)
            if match_blank is None or match_blank.end() != end:
                raise UpdateError("an embed or format has text behind its JSON")
            return
        match = match_token(text, pos)
        if match is None:
            raise UpdateError(f"an embed or format is not JSON at character {pos}")
        pos = match.end()
        opening, closing, mark, string = match.groups()
        if string is not None:
            while True:
                part = match_string(text, pos)
                behind = pos if part is None else part.end()
                if text.startswith('"', behind):
                    pos = behind + 1
                    break
                if behind == pos:
                    raise UpdateError(f"an embed or format is not JSON at character {pos}")
                pos = behind
                yield
        if closing is not None:
            if (
                not opened
                or (closing == "}") is not opened.pop()
                or expected not in (_AFTER, _KEY_OR_END if closing == "}" else _VALUE_OR_END)
            ):
                raise UpdateError("a bracket in an embed or format closes nothing")
            expected = _AFTER
        elif mark is not None:
            if mark == ":" and expected == _COLON:
                expected = _VALUE
            elif mark == "," and expected == _AFTER:
                expected = _KEY if opened[-1] else _VALUE
            else:
                raise UpdateError(f"an embed or format has a {mark!r} out of place")
        elif expected in (_KEY, _KEY_OR_END):
            if string is None:
                raise UpdateError("a key in an embed or format is not a string")
            expected = _COLON
        elif expected not in (_VALUE, _VALUE_OR_END):
            raise UpdateError("an embed or format has a value out of place")
        elif opening is not None:
            opened.append(opening == "{")
            if len(opened) > MAX_DEPTH:
                raise UpdateError(f"an embed or format nests more than {MAX_DEPTH} deep")
            expected = _KEY_OR_END if opened[-1] else _VALUE_OR_END
        else:
            expected = _AFTER
