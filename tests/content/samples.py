"""Random content and random changes of it, drawn from whatever ``random`` they are given."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from collab.content.schema import MARKS
from collab.content.tree import Element, Node, Piece, TextNode, joined

SPECIAL = [*"ab c*_`[]()<>#-+1.!|~\\&;:'\"=😀é\u00a0", "\n", "&amp;", "**", "- ", "1. ", "<b>", "http://x"]


def words(random: Random, special: bool = False) -> str:
    """Return some characters, with ``special`` those that mean something in formats."""
    letters = SPECIAL if special else list("abc de")
    return "".join(random.choice(letters) for _ in range(random.randint(1, 12)))


def json_value(random: Random, depth: int = 0) -> Any:
    """Return any JSON."""
    kind = random.random()
    if depth > 3 or kind < 0.5:
        return random.choice([1, 2.5, "a", "b😀", True, False, None, 0, -1, "", 1e300, 12345678901, "long text here"])
    if kind < 0.75:
        return [json_value(random, depth + 1) for _ in range(random.randint(0, 5))]
    value = {random.choice("abcdef"): json_value(random, depth + 1) for _ in range(random.randint(0, 4))}
    return {"id": random.choice(["x", "y", "z", 1]), **value} if random.random() < 0.3 else value


def changed_json(random: Random, value: Any) -> Any:
    """Return JSON that has something in common with a value."""
    if random.random() < 0.2:
        return json_value(random, 1)
    if isinstance(value, list):
        result = [changed_json(random, one) if random.random() < 0.4 else one for one in value]
        if random.random() < 0.4:
            result.insert(random.randint(0, len(result)), json_value(random, 1))
        if result and random.random() < 0.3:
            result.pop(random.randrange(len(result)))
        return result
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if random.random() < 0.85}
        kept = {key: changed_json(random, one) if random.random() < 0.4 else one for key, one in kept.items()}
        if random.random() < 0.4:
            kept[random.choice("abcdefgh")] = json_value(random, 1)
        return kept
    if isinstance(value, str):
        return changed_text(random, value)
    return value


def changed_text(random: Random, text: str) -> str:
    """Return a text with a few characters more or less."""
    at = random.randint(0, len(text))
    return text[:at] + random.choice(["NEW", "😀", ""]) + text[at + random.randint(0, 2) :]


def delta(random: Random) -> list[dict[str, Any]]:
    """Return a formatted text with embeds, as Quill's delta."""
    return as_delta([_delta_piece(random) for _ in range(random.randint(0, 5))])


def _delta_piece(random: Random) -> Piece:
    names = [name for name in ("bold", "link", "c") if random.random() < 0.3]
    formats = {name: random.choice([True, {"a": 1}, "x", 2]) for name in names}
    if random.random() < 0.15:
        return Piece({"img": random.randint(0, 2)}, formats, False)
    letters = ["a", "b", "😀", " ", "é", "word ", "\n"]
    return Piece("".join(random.choice(letters) for _ in range(random.randint(1, 6))), formats)


def as_delta(pieces: list[Piece]) -> list[dict[str, Any]]:
    """Return pieces as a delta, neighbours with the same formats joined."""
    return [
        {"insert": piece.content, **({"attributes": piece.attributes} if piece.attributes else {})}
        for piece in joined(pieces)
    ]


def joined_delta(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a delta with neighbours joined: texts hold marks that say nothing, at which they are split."""
    return as_delta(
        [Piece(one["insert"], one.get("attributes") or {}, isinstance(one["insert"], str)) for one in given]
    )


def changed_delta(random: Random, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a delta that has something in common with another one."""
    pieces: list[Piece] = []
    for one in given:
        content, formats = one["insert"], one.get("attributes", {})
        if isinstance(content, str) and random.random() < 0.5:
            content = changed_text(random, content)
        if random.random() < 0.2:
            formats = random.choice([{}, {**formats, "bold": True}])
        if random.random() < 0.85:
            pieces.append(Piece(content, formats, isinstance(content, str)))
    return as_delta(pieces)


def line(random: Random, special: bool, marks: tuple[str, ...]) -> list[Node]:
    """Return what stands in a paragraph."""
    nodes: list[Node] = []
    for _ in range(random.randint(0, 3)):
        if nodes and isinstance(nodes[-1], TextNode):
            nodes.append(Element("hardBreak"))
            continue
        pieces = []
        for _ in range(random.randint(1, 4)):
            held: dict[str, Any] = {mark: {} for mark in marks if random.random() < 0.2}
            if "link" in held:
                held["link"] = {"href": random.choice(["https://a.b/c?d=e&f", "#x", "mailto:a@b"])}
                if random.random() < 0.3:
                    held["link"]["title"] = words(random, special)
            pieces.append(Piece(words(random, special), held))
        nodes.append(TextNode(joined(pieces)))
    return nodes


def block(random: Random, depth: int, special: bool, marks: tuple[str, ...]) -> Node:
    """Return a block of rich text, in Tiptap's names, that fits its schema."""
    kind = random.random()
    if depth > 2 or kind < 0.4:
        return Element("paragraph", {}, line(random, special, marks))
    if kind < 0.5:
        return Element("heading", {"level": random.randint(1, 6)}, line(random, special, marks))
    if kind < 0.58:
        text = words(random, special) + random.choice(["", "\n x", "```"])
        return Element("codeBlock", random.choice([{}, {"language": "js"}]), [TextNode([Piece(text)])])
    if kind < 0.62:
        return Element("horizontalRule")
    if kind < 0.7:
        return Element("blockquote", {}, blocks(random, depth + 1, special, marks) or [Element("paragraph")])
    if kind < 0.9:
        name = random.choice(["bulletList", "orderedList", "taskList"])
        items: list[Node] = []
        for _ in range(random.randint(1, 3)):
            attributes = {"checked": True} if name == "taskList" and random.random() < 0.5 else {}
            first = Element("paragraph", {}, line(random, special, marks))
            inner = [first, *blocks(random, depth + 1, special, marks)]
            items.append(Element("taskItem" if name == "taskList" else "listItem", attributes, inner))
        start = {"start": random.randint(2, 9)} if name == "orderedList" and random.random() < 0.3 else {}
        return Element(name, start, items)
    width = random.randint(1, 3)
    rows: list[Node] = []
    for number in range(random.randint(1, 3)):
        cell = "tableCell" if number else "tableHeader"
        cells: list[Node] = [
            Element(cell, {}, [Element("paragraph", {}, line(random, special, marks))]) for _ in range(width)
        ]
        rows.append(Element("tableRow", {}, cells))
    return Element("table", {}, rows)


def blocks(random: Random, depth: int = 0, special: bool = False, marks: tuple[str, ...] = MARKS) -> list[Node]:
    """Return blocks of rich text."""
    return [block(random, depth, special, marks) for _ in range(random.randint(0 if depth else 1, 3))]


def changed_prosemirror(random: Random, given: dict[str, Any]) -> dict[str, Any]:
    """Return ProseMirror JSON that has something in common with another one."""
    value = copy.deepcopy(given)
    _change(random, value)
    value.setdefault("content", [])
    return value


def _change(random: Random, node: dict[str, Any]) -> None:
    content = node.get("content")
    if content:
        for child in list(content):
            if child["type"] != "text":
                _change(random, child)
            elif random.random() < 0.3:
                child["text"] = changed_text(random, child["text"]) or "z"
            elif random.random() < 0.1:
                child["marks"] = [{"type": "bold", "attrs": {}}]
        if random.random() < 0.15:
            content.pop(random.randrange(len(content)))
        if random.random() < 0.15 and node["type"] in ("doc", "blockquote"):
            new = {"type": "paragraph", "content": [{"type": "text", "text": "inserted"}]}
            content.insert(random.randint(0, len(content)), new)
    if node["type"] == "heading" and random.random() < 0.3:
        node["attrs"] = {"level": random.randint(1, 6)}
    if not node.get("content"):
        node.pop("content", None)
