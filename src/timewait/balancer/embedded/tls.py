"""TLS toward clients: one context for each certificate, chosen by the server name that a client asks for.

Contexts are made while the process may still read the keys, and never again: a certificate is renewed by a reload,
which starts new workers. Only http/1.1 is offered (ALPN, RFC 7301): what is not offered is not spoken, and a client
that offers only h2 gets no protocol chosen rather than a wrong one.
"""

from __future__ import annotations

import ssl

from timewait.balancer.config.model import Protocol, Tls
from timewait.balancer.embedded.certificates import ByName
from timewait.balancer.engine import BalancerError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context(tls: Tls, names: tuple[tuple[str, ...], ...], protocol: Protocol) -> ssl.SSLContext:
    """For a listener; `names` are those of each of its certificates. Raises BalancerError."""
    contexts = [_one(pair.certificate, pair.key, tls.min_version, protocol) for pair in tls.certificate]
    first, by_name = contexts[0], ByName(names)

    def choose(sock: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        index = by_name.find(name) if name else None
        if index:
            sock.context = contexts[index]

    if len(contexts) > 1:
        first.sni_callback = choose
    return first


def _one(certificate: str, key: str, min_version: str, protocol: Protocol) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = _VERSIONS[min_version]
    # No renegotiation: a client could make the server work for nothing (CVE-2011-1473); TLS 1.3 has none.
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if protocol is Protocol.HTTPS:
        made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(certificate, key, lambda: b"")
    except (OSError, ValueError) as error:
        raise BalancerError(f"certificate {certificate} cannot be used with key {key}: {error}") from None
    return made
