"""A place of one's own for every test: counters, ports and TIME_WAIT of the host or of another test never show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.certificates import Certificates
from kit.namespace import Namespace, needs_namespaces


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A namespace with the kernel's usual port range and tcp_tw_reuse 0."""
    needs_namespaces()
    with Namespace() as made:
        yield made


@pytest.fixture
def narrow() -> Iterator[Namespace]:
    """A namespace with 200 source ports, 40000-40199."""
    needs_namespaces()
    with Namespace((40000, 40199)) as made:
        yield made


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))
