"""TLS over a non-blocking socket: the ssl module does the cryptography on memory, the loop keeps the socket."""

from __future__ import annotations

import ssl

from timewait.plan import PlanError, Tls
from timewait.run import Cause


def context(tls: Tls) -> ssl.SSLContext:
    """A client context for the whole worker. Raises PlanError for a CA file that cannot be used."""
    found = ssl.create_default_context()
    if tls.cacert:
        try:
            found.load_verify_locations(tls.cacert)
        except (OSError, ssl.SSLError) as error:
            raise PlanError(f"--cacert {tls.cacert}: {error.strerror or error}; give a PEM file") from None
    if not tls.verify:
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    found.set_alpn_protocols(["http/1.1"])
    return found


class Channel:
    """One connection's TLS state: bytes from the wire in, plain bytes out, and the other way round."""

    __slots__ = ("_in", "_out", "_ssl", "shaken")

    def __init__(self, ctx: ssl.SSLContext, name: str, session: ssl.SSLSession | None) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = ctx.wrap_bio(self._in, self._out, server_hostname=name, session=session)
        self.shaken = False

    def hello(self) -> bytes:
        """The first flight."""
        self.handshake(b"")
        return self._out.read()

    def handshake(self, data: bytes) -> bool:
        """Feeds bytes from the peer; True when the handshake is complete. Raises ssl.SSLError."""
        if data:
            self._in.write(data)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.shaken = True
        return True

    def pending(self) -> bytes:
        """What must be sent now."""
        return self._out.read() if self._out.pending else b""

    def seal(self, data: bytes) -> bytes:
        """Plain bytes -> records to send."""
        self._ssl.write(data)
        return self._out.read()

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """Records from the peer -> (plain bytes, whether the peer said close_notify). Raises ssl.SSLError."""
        if data:
            self._in.write(data)
        pieces = []
        try:
            while piece := self._ssl.read(65536):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            return b"".join(pieces), False
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        return b"".join(pieces), True

    def farewell(self) -> bytes:
        """close_notify, to be sent before our FIN (RFC 8446 section 6.1)."""
        try:
            self._ssl.unwrap()
        except ssl.SSLError:
            pass
        return self._out.read()

    @property
    def session(self) -> ssl.SSLSession | None:
        return self._ssl.session

    @property
    def resumed(self) -> bool:
        return bool(self._ssl.session_reused)


def why(error: ssl.SSLError) -> tuple[Cause, str]:
    """An SSLError in the terms of the report: its kind, and the reason in OpenSSL's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Cause.TLS_CERTIFICATE, error.verify_message or str(error)
    reason = (error.reason or error.strerror or str(error)).replace("_", " ").lower()
    return Cause.TLS_PROTOCOL, reason
