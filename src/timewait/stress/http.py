"""HTTP/1.1 as a client sees it: request bytes made once, answers checked for complete framing.

llhttp (httptools) parses; what it cannot know stands here: that a HEAD has no body, that an answer without length
ends with the connection, that a 1xx is not yet the answer. RFC 9112 section 6.3 has the rules.
"""

from __future__ import annotations

import httptools

from timewait.plan import Plan, Request


def request_bytes(plan: Plan, request: Request, *, last: bool) -> bytes:
    """The request as it goes onto the wire; `last`: with `Connection: close`. For tcp:// the payload as it is.

    A Host, Connection or Content-Length given with --header replaces ours.
    """
    if request.scheme == "tcp":
        return plan.body
    given = {name.lower() for name, _ in plan.headers}
    lines = [f"{request.method} {request.path} HTTP/1.1"]
    if "host" not in given:
        host = f"[{request.host}]" if ":" in request.host else request.host
        standard = request.port == (443 if request.scheme == "https" else 80)
        lines.append(f"Host: {host}" if standard else f"Host: {host}:{request.port}")
    if "user-agent" not in given:
        lines.append("User-Agent: timewait")
    if "accept" not in given:
        lines.append("Accept: */*")
    lines += [f"{name}: {value}" for name, value in plan.headers]
    if not given & {"content-length", "transfer-encoding"} and (
        plan.body or request.method in ("POST", "PUT", "PATCH")
    ):
        lines.append(f"Content-Length: {len(plan.body)}")
    if last and "connection" not in given:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + plan.body


class BadResponseError(ValueError):
    """The answer is not well-formed HTTP/1.x: the reason in a few words."""


class Answer:
    """Reads one answer in pieces. After each `feed`: `complete`, and then `status`, `closes`."""

    __slots__ = (
        "_framed", "_head", "_parser", "_says_close", "_says_keep", "_until_close", "closes", "complete", "status",
    )  # fmt: skip

    def __init__(self, *, head: bool) -> None:
        self._head = head
        self._until_close = False  # known once the head is complete: a FIN inside it completes nothing
        self._framed = False
        self._says_close = self._says_keep = False
        self.complete = False
        self.closes = False  # the peer will close: announced, HTTP/1.0, or the body ends with the connection
        self.status = 0
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Raises BadResponseError on broken framing and on bytes after the end."""
        if self.complete and data.strip(b"\r\n"):  # llhttp, too, passes over empty lines between messages
            raise BadResponseError("data after the end of the answer")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.complete = True
        except httptools.HttpParserError as error:
            # httptools hides what a callback raised behind its own error.
            cause = error.__context__
            raise BadResponseError(str(cause) if isinstance(cause, BadResponseError) else str(error)) from None

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the peer's FIN tells where this answer ends."""
        return self._until_close

    def eof(self) -> bool:
        """The peer has closed: whether that completes the answer."""
        if self._until_close:
            self.complete = True
        return self.complete

    # llhttp calls these -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise BadResponseError("data after the end of the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif name.lower() == b"connection":
            tokens = {token.strip() for token in value.lower().split(b",")}
            self._says_close |= b"close" in tokens
            self._says_keep |= b"keep-alive" in tokens

    def on_status(self, status: bytes) -> None:
        self._framed = False  # a new message; the one before was a 1xx

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.closes = not self._parser.should_keep_alive()
        if self._head and self.status >= 200:
            # llhttp waits for the body the Content-Length announces; a HEAD never has one (RFC 9110 9.3.2).
            self.complete = True
            # ... nor does it need the connection's end, which llhttp takes a missing length for.
            self.closes = self._says_close or (self._parser.get_http_version() == "1.0" and not self._says_keep)
        else:
            self._until_close = not (self._framed or self.status < 200 or self.status in (204, 304))

    def on_body(self, body: bytes) -> None:
        if self._head:
            raise BadResponseError("a body in the answer to HEAD")

    def on_message_complete(self) -> None:
        if self._head and self.status >= 200:
            return
        if self.status >= 200 or self.status == 101:
            self.complete = True
