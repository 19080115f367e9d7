"""``/import-versions``: many versions of one document as one stream, from another system.

Strategy: one version is in memory at a time (``collab.transports.http.api.importing_versions``), and who asks for it is
told meanwhile how far it has come (``collab.transports.http.api.progress``).
"""

from __future__ import annotations

from aiohttp import web

from collab.audit import Act, Kind
from collab.protocol.session import Access
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import Permission
from collab.transports.http.api.creation import check_memory
from collab.transports.http.api.importing_versions import VersionImport, Versions
from collab.transports.http.api.progress import ACCEPTS, IMPORTED, answer_import
from collab.transports.http.api.route import NDJSON, AnyRoute, Call, NoBody, NoQuery, Raw, Route
from collab.transports.http.api.versions import TAG
from collab.transports.http.bodies import check_media


class VersionImportRoutes:
    """The handler.

    Args:
        versions: keeps them.
        permission: knows who asks.
        guard: counts bodies that are on their way.
        max_document_bytes: how large a version may be.
    """

    def __init__(self, versions: Versions, permission: Permission, guard: Guard, max_document_bytes: int) -> None:
        self._versions = versions
        self._permission = permission
        self._guard = guard
        self._max_document_bytes = max_document_bytes

    def routes(self) -> list[AnyRoute]:
        """Give the route."""
        return [
            Route(
                "POST",
                "/import-versions/{name}",
                self.import_,
                "import_versions",
                TAG,
                "Import versions of another system from lines of JSON.",
                [IMPORTED],
                raw=Raw(
                    NDJSON,
                    description='Each line is `{"name", "update", "at", "author"?, "description"?}`, as for '
                    "`POST /versions/{name}`. The lines have no bound together. A version of the same name and time "
                    "that was imported before is left as it is, so the same may be sent again.",
                ),
                access="admin",
                problems=("document_not_found", "document_deleted"),
                headers=ACCEPTS,
            )
        ]

    async def import_(self, call: Call[NoQuery, NoBody]) -> web.StreamResponse:
        """Keep the versions of the body."""
        request = call.request
        check_media(request, (NDJSON,))
        grant = await self._permission.require(request, call.name, Access.ADMIN)
        done = VersionImport(self._versions, call.name, self._max_document_bytes, lambda: check_memory(self._guard))
        await done.begin()
        act = Act(Kind.VERSIONS_IMPORTED, call.name)
        with self._guard.long_body(request), self._permission.acting(request, act, grant):
            answer = await answer_import(request, done)
            act.detail = f"{done.created} versions"
            return answer
