"""The conformance suite of the store: every promise of its ports that can be seen from outside.

::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda: MyStore(tmp_path / "documents")

The function is called once for each store that a test needs, up to three at a time, and all of them are to share what
they store. The suite opens and closes them. It takes a store apart in no way: two stores on one storage, calls that
are cancelled in the middle, and what the port gives back. ``docs/adapters.md`` says what to test beside it.
"""

from __future__ import annotations

from collab.testing.attributions import AttributionsConformance
from collab.testing.authorship import AuthorshipConformance
from collab.testing.calls import CallsConformance
from collab.testing.catalogue import CatalogueConformance
from collab.testing.control import ControlConformance
from collab.testing.guests import GuestsConformance
from collab.testing.log import LogConformance
from collab.testing.membership import MembershipConformance
from collab.testing.pending import PendingConformance
from collab.testing.producers import ProducersConformance
from collab.testing.tenants import TenantsConformance
from collab.testing.timeline import TimelineConformance
from collab.testing.trash import TrashConformance
from collab.testing.versions import VersionsConformance
from collab.testing.webhooks import WebhooksConformance


class StoreConformance(
    LogConformance,
    PendingConformance,
    AuthorshipConformance,
    AttributionsConformance,
    GuestsConformance,
    ProducersConformance,
    CatalogueConformance,
    TrashConformance,
    CallsConformance,
    MembershipConformance,
    ControlConformance,
    WebhooksConformance,
    VersionsConformance,
    TimelineConformance,
    TenantsConformance,
):
    """Test a store; derive from this class and override the fixture ``make_store``."""
