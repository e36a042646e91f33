"""A certificate authority for one test session: good server certificates and bad ones."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Files:
    """PEM files of one certificate."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For a server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Certificates:
    """`cacert` is what a client must trust; `good` is for localhost, 127.0.0.1 and ::1."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.cacert = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.cacert))
        self.good = self._issue("good", "localhost", "127.0.0.1", "::1")
        self.other_name = self._issue("other", "somebody.else.test")
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        self.expired = self._issue("expired", "localhost", "127.0.0.1", expires=yesterday)

    def _issue(self, file: str, *names: str, expires: datetime.datetime | None = None) -> Files:
        issued = self._authority.issue_cert(*names, not_after=expires)
        found = Files(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        for index, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(str(found.certificate), append=index > 0)
        issued.private_key_pem.write_to_path(str(found.key))
        return found
