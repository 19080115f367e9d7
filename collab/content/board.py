"""Drawings as files of Excalidraw.

Strategy: the document holds a drawing as the demo does, and as a file of Excalidraw does: an array of elements, plain
JSON, in no order; and a map of pictures by the id of their file. An edit of an element is a new entry, and the one that
it replaces goes. So several entries may have one id: the one with the highest version counts, of equal ones the one
with the lowest nonce, as Excalidraw decides. What is written has a version above the one that it replaces, else
clients that draw meanwhile would take theirs for the newer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from collab.content.values import check_name, clean, same
from collab.errors import InvalidEdit

ELEMENTS: Final = "elements"
"""The root that holds the elements, unless another one is named: an array."""
FILES: Final = "images"
"""The root that holds the pictures: a map."""

_LARGEST_VERSION: Final = (1 << 53) - 2


def scene(elements: Iterable[Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """Return a drawing as a file of Excalidraw holds it, from the JSON of both roots."""
    shown = sorted(
        (one for one in winners(elements).values() if one.get("isDeleted") is not True),
        key=lambda one: (one["index"] if isinstance(one.get("index"), str) else "", one["id"]),
    )
    return {
        "type": "excalidraw",
        "version": 2,
        "source": "collab",
        "elements": shown,
        "appState": {},
        "files": {name: _file(name, file) for name, file in files.items() if _is_file(file)},
    }


def winners(elements: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Return the entry that counts of each element."""
    found: dict[str, dict[str, Any]] = {}
    for entry in elements:
        if not is_element(entry):
            continue
        other = found.get(entry["id"])
        if other is None or _rank(entry) > _rank(other):
            found[entry["id"]] = entry
    return found


def is_element(entry: Any) -> bool:
    """Tell whether an entry is an element: an object with an id."""
    return isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"] != ""


def _number(entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _rank(entry: Mapping[str, Any]) -> tuple[float, float]:
    return _number(entry, "version"), -_number(entry, "versionNonce")


def _is_file(file: Any) -> bool:
    return isinstance(file, dict) and isinstance(file.get("dataURL"), str) and file["dataURL"].startswith("data:image/")


def _file(name: str, file: Mapping[str, Any]) -> dict[str, Any]:
    url = file["dataURL"]
    created = file.get("created")
    return {
        "id": name,
        "mimeType": url[len("data:") : min(at for at in (url.find(";"), url.find(","), len(url)) if at >= 0)],
        "dataURL": url,
        "created": created if type(created) is int else 0,
    }


def read_scene(value: Any) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return the elements and pictures of a file of Excalidraw; None for pictures when it does not speak of them.

    Raises InvalidEdit when it is no such file.
    """
    value = clean(value, "the drawing")
    if not isinstance(value, dict) or value.get("type") not in ("excalidraw", "excalidraw/clipboard"):
        raise InvalidEdit('a drawing is an object {"type": "excalidraw", "elements": [...]}')
    elements = value.get("elements")
    if not isinstance(elements, list):
        raise InvalidEdit("a drawing has a list of elements")
    seen: set[str] = set()
    for element in elements:
        if not is_element(element):
            raise InvalidEdit("an element of the drawing is no object with an id")
        if element["id"] in seen:
            raise InvalidEdit("two elements of the drawing have the same id")
        seen.add(element["id"])
    files = value.get("files")
    if files is None:
        return elements, None
    if not isinstance(files, dict):
        raise InvalidEdit("the files of a drawing are no object")
    kept: dict[str, Any] = {}
    for name, file in files.items():
        if not _is_file(file):
            raise InvalidEdit("a file of the drawing has no dataURL of an image")
        created = file.get("created")
        kept[check_name(name, "the id of a file")] = {
            "dataURL": file["dataURL"],
            "created": created if type(created) is int else 0,
        }
    return elements, kept


def plan(entries: Sequence[Any], target: Sequence[dict[str, Any]]) -> tuple[list[int], list[dict[str, Any]]]:
    """Return which entries go, ascending, and which are to be added, so that a drawing shows ``target``."""
    wanted = {element["id"]: element for element in target if element.get("isDeleted") is not True}
    counts = winners(entries)
    kept: set[str] = set()
    gone: list[int] = []
    for at, entry in enumerate(entries):
        if not is_element(entry):
            continue  # not ours to judge
        identity = entry["id"]
        if identity in wanted and identity not in kept and same(entry, wanted[identity]):
            kept.add(identity)
        else:
            gone.append(at)
    added: list[dict[str, Any]] = []
    for identity, element in wanted.items():
        if identity in kept:
            continue
        before = counts.get(identity)
        if before is not None and _rank(element)[0] <= _rank(before)[0] < _LARGEST_VERSION:
            element = {**element, "version": int(_rank(before)[0]) + 1}
        added.append(element)
    return gone, added
