"""Fixtures of the kit's own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.namespace import Namespace, needs_namespaces


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A namespace with 200 source ports."""
    needs_namespaces()
    with Namespace((40000, 40199)) as made:
        yield made
