"""What others test their part with: the conformance suites of the ports (``pip install 'collab-server[testing]'``).

Strategy: a suite is a class of pytest tests. Whoever has an adapter derives from it and gives it a fixture; nothing
of the server imports this package, and nothing here knows how an adapter works inside.
"""

import pytest

# Failed assertions then show their values, as those of a test module do.
pytest.register_assert_rewrite(
    "collab.testing.bus",
    "collab.testing.catalogue",
    "collab.testing.log",
    "collab.testing.storage",
    "collab.testing.store",
)
