"""`told`: what the scene of a test saw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from balancer.conformance.engines import Scene, Theatre
from kit.namespace import needs_namespaces


@pytest.fixture(scope="session")
def theatre(request: pytest.FixtureRequest) -> Iterator[Theatre]:
    """All scenes of the tests that were selected, begun in their order."""
    needs_namespaces()
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    made = Theatre(params["told"] for params in calls if isinstance(params.get("told"), Scene))
    yield made
    made.close()


@pytest.fixture
def told(request: pytest.FixtureRequest, theatre: Theatre) -> Any:
    return theatre.told(request.param)
