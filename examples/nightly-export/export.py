"""Write every document of a server into a directory: rich text as Markdown, everything as JSON.

    python export.py http://127.0.0.1:1234 backup/

Run it by cron or a timer. Only files whose content has changed are written, so the directory can be a Git repository.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import aiohttp

from collab.client import ClientError, Connection
from collab.errors import ContentError

AT_A_TIME = 8


async def names(http: aiohttp.ClientSession, url: str) -> AsyncIterator[str]:
    """Give the names of all documents that the token may read, page by page."""
    cursor = None
    while True:
        parameters = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
        async with http.get(f"{url}/api/v1/documents", params=parameters, raise_for_status=True) as answer:
            page = await answer.json()
        for document in page["documents"]:
            yield document["name"]
        cursor = page["next"]
        if cursor is None:
            return


def file_name(name: str) -> str:
    """Return a name for the files of a document: slashes and dots in it are written as %2F and %2E."""
    quoted = quote(name, safe="").replace(".", "%2E")
    if len(quoted) <= 200:
        return quoted
    return f"{quoted[:150]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"  # file systems take 255 bytes


def write(file: Path, text: str) -> bool:
    """Put a text into a file, whole or not at all; return whether it is another one than before."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return False
    new = file.with_name(file.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)
    return True


async def export(connection: Connection, name: str, directory: Path) -> bool:
    """Write one document; return whether anything has changed since the last time."""
    document = await connection.open(name)
    try:
        file = directory / file_name(name)
        content = json.dumps(document.read_json(), ensure_ascii=False, indent=2, sort_keys=True)
        changed = write(file.with_suffix(".json"), content + "\n")
        try:
            markdown = document.read("markdown")
        except ContentError:
            return changed  # it has no rich text, or several
        return write(file.with_suffix(".md"), markdown) or changed
    finally:
        await document.close()


async def work(url: str, directory: Path, token: str | None) -> int:
    """Export all documents, and return how many could not be."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    written = same = failed = 0
    free = asyncio.Semaphore(AT_A_TIME)

    async def one(name: str) -> None:
        nonlocal written, same, failed
        try:
            if await export(connection, name, directory):
                written += 1
            else:
                same += 1
        except (ClientError, ContentError) as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr)
        finally:
            free.release()

    async with (
        aiohttp.ClientSession(headers=headers) as http,
        Connection(url, token=token) as connection,
        asyncio.TaskGroup() as tasks,
    ):
        async for name in names(http, url):
            await free.acquire()  # so that not all names are in memory
            tasks.create_task(one(name))
    print(f"{written} written, {same} as before, {failed} failed")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Write every document into a directory.")
    parser.add_argument("url", help="of the server, as in http://127.0.0.1:1234")
    parser.add_argument("directory", type=Path)
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    return 1 if asyncio.run(work(given.url.rstrip("/"), given.directory, os.environ.get("COLLAB_TOKEN"))) else 0


if __name__ == "__main__":
    sys.exit(main())
