"""Which server names a certificate is for: what a client's SNI is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from timewait.balancer.engine import BalancerError


def names(path: str) -> tuple[str, ...]:
    """DNS names of the first certificate in a PEM file, in lower case: the subject's alternative names (RFC 6125
    section 6.4.4), and its common name where it has none of these. Raises BalancerError."""
    from cryptography import x509  # heavy, and only the supervisor needs it

    try:
        certificate = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]
    except OSError as error:
        raise BalancerError(f"certificate {path} cannot be read: {error.strerror}") from None
    except (ValueError, IndexError):
        raise BalancerError(f"certificate {path} has no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found = extension.value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        found = []
    if not found:
        found = [str(part.value) for part in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return tuple(name.lower().removesuffix(".") for name in found)


class ByName:
    """Which of several certificates a server name gets: an exact name, then a wildcard (`*.x`, one label), the first
    certificate of the file for each; `None` for a name that no certificate has."""

    def __init__(self, certificates: Iterable[Iterable[str]]) -> None:
        self._exact: dict[str, int] = {}
        for index, known in enumerate(certificates):
            for name in known:
                self._exact.setdefault(name, index)

    def find(self, name: str) -> int | None:
        """The number of the certificate."""
        name = name.lower().removesuffix(".")
        found = self._exact.get(name)
        return self._exact.get(f"*.{name.partition('.')[2]}") if found is None else found
