"""The examples as programs, beside published npm clients and in a real browser."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.browser.conftest import browser
from tests.interop.conftest import agent_of, hocuspocus, name, shared_server

ROOT = Path(__file__).resolve().parents[2]

__all__ = ["agent_of", "browser", "hocuspocus", "name", "run_example", "shared_server"]


async def run_example(program: str, *arguments: str) -> str:
    """Run a program of examples/ and return what it prints; it must end well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        str(ROOT / "examples" / program),
        *arguments,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (0, ""), out.decode()
    return out.decode()
