"""What the published clients make of document names: the documentation says what they really do."""

from __future__ import annotations

from tests.interop import names_table
from tests.support.server import ServerProcess


async def test_the_table_of_names_is_what_the_clients_do(own_server: ServerProcess) -> None:
    text = names_table.DOCUMENT.read_text(encoding="utf-8")
    written = text.partition(names_table.START)[2].partition(names_table.END)[0]
    seen = names_table.render(await names_table.observe(own_server))
    assert written.strip() == seen.strip(), "stale: python -m tests.interop.names_table"
