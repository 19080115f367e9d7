"""What importing the client loads."""

from __future__ import annotations

import pytest

from tests.packaging.test_imports import loaded_by


@pytest.mark.parametrize("module", ["collab.client", "collab.client.sync"])
def test_the_client_loads_no_server(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert {"collab.client.document", "pycrdt", "aiohttp"} <= loaded
    packages = {name.split(".")[1] for name in loaded if name.startswith("collab.")}
    assert packages == {"client", "content", "errors", "protocol", "update"}
    assert not {"sqlalchemy", "asyncpg", "alembic", "pydantic", "typer", "joserfc", "uvloop", "aiohttp.web"} & loaded
