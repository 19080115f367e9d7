"""The fixtures of a real PostgreSQL."""

from __future__ import annotations

from tests.support.postgres import postgres_server, postgres_url, private_postgres

__all__ = ["postgres_server", "postgres_url", "private_postgres"]
