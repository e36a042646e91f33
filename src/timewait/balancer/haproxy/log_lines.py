"""What HAProxy writes of each request, or of each connection at layer 4, and the access log's record of it. Pure.

A line begins with a quotation mark, which nothing else in it can be: in what clients send HAProxy writes such a byte
as `#XX` (configuration.txt, 8.6), and X-Forwarded-For is asked for in hexadecimal digits. The path is the last, so
that a line beyond HAProxy's longest loses the end of a path and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from timewait.balancer.config.model import Configuration, Listener, Protocol
from timewait.balancer.embedded.access_log import Record, endpoint
from timewait.balancer.haproxy.backends import sources_for
from timewait.balancer.haproxy.words import server

LONGEST = 65535  # bytes of a line: HAProxy's most
_HOST = 512  # bytes of a Host that are kept
_FORWARDED = 4  # addresses of X-Forwarded-For that are kept, from the last on
_L7 = (Protocol.HTTP, Protocol.HTTPS)

START = '"'
_WHO = "%f %[var(sess.connection)]"
_WHEN = "%[date(0,us)] %ci %cp"
_FORMATS = {
    True: f"{START}{_WHO} %[var(sess.requests)] {_WHEN} %ST %[var(txn.answered)] %ts %s %rc %U %B %Ta %Tc %Tr "
    "%[var(txn.forwarded)] %HM %hr %HU",
    False: f"{START}{_WHO} - {_WHEN} - - %ts %s %rc %U %B %Tt %Tc - -",
}
_FIELDS = 17  # before the method
_ERROR = "!"  # stands where `answered` does in other lines
_ERRORS = f"{START}{_WHO} %[var(sess.requests)] {_WHEN} %ST {_ERROR} %ts"

_CODED = re.compile(r"#([0-9A-F]{2})")
_CUT = re.compile(r"#[0-9A-F]?$")  # where a line that was too long ends within one
_CLIENT_GONE = 499
_NOBODY = "<NOSRV>"  # stands for a server that was not chosen

# Why the balancer answered, by HAProxy's termination state (configuration.txt, 8.5), then by what it answered.
_BY_STATE = {"sC": "connect-timeout", "sH": "read-timeout", "SH": "target-closed", "cR": "header-timeout"}
_BY_STATUS = {
    400: "malformed",
    403: "upgrade-refused",
    404: "no-rule",
    405: "connect-refused",
    408: "body-timeout",
    413: "body-too-large",
    414: "request-line-too-long",
    502: "malformed",
}
_RELAYED = {
    "sC": "connect-timed-out",
    "SC": "connect-failed",
    "RC": "connect-no-port",
    "KC": "cut",
    "DC": "cut",
    "CC": "client-gone",
}


def request_line(listeners: list[Listener]) -> Iterator[str]:
    """For `global`: how much of a request line HAProxy keeps for its log."""
    most = [one.limits.request_line for one in listeners if one.protocol in _L7]
    if most:
        yield f"tune.http.logurilen {max(most) + 1}"


def settings(listener: Listener, where: str) -> list[str]:
    """Lines of a frontend that have it log to `where`."""
    http = listener.protocol in _L7
    lines = [f"log {where} len {LONGEST} format raw local0", f"log-format '{_FORMATS[http]}'"]
    if not http:  # an error is a connection that never began: a failed handshake, a bad PROXY header
        return [*lines, f"error-log-format '{START}{_ERROR}'"]
    return [*lines, f"error-log-format '{_ERRORS}'", "option dontlognull", f"capture request header Host len {_HOST}"]


def at_connection() -> str:
    """The rule that gives a connection its number."""
    return "tcp-request connection set-var-fmt(sess.connection) %rt"


def at_request(listener: Listener) -> Iterator[str]:
    """Rules that keep what a request says until it is logged."""
    trusted = " ".join(listener.real_ip.trusted)
    if trusted:
        last = ",".join(f"%[req.hdr(x-forwarded-for,-{number}),hex]" for number in range(1, _FORWARDED + 1))
        found = "{ req.hdr(x-forwarded-for) -m found }"
        yield f"http-request set-var-fmt(txn.forwarded) {last} if {{ src {trusted} }} {found}"
    yield "http-response set-var(txn.answered) int(1)"


class Lines:
    """Reads them. `number` tells one HAProxy's connections from those of another."""

    def __init__(self, configuration: Configuration, number: int) -> None:
        self._first = (number << 32) + 1
        self._trusted = {
            one.name: [ip_network(network) for network in one.real_ip.trusted] for one in configuration.listener
        }
        self._targets: dict[str, str] = {}
        self.learn(configuration)

    def learn(self, configuration: Configuration) -> None:
        """Targets that may appear from now on: what HAProxy calls a server is a target and a source address."""
        for pool in configuration.pool:
            for target in pool.target:
                for listener in configuration.listener:
                    for source in range(len(sources_for(listener, target.addr))):
                        self._targets[server(target.addr, source)] = target.addr

    def record(self, line: str) -> Record | None:
        """None of what says nothing about a request. Raises ValueError where it is no line of ours."""
        if not line.startswith(START):
            return None  # a word of HAProxy's own about itself
        fields = line[1:].split(" ", _FIELDS)
        if fields[0] == _ERROR:
            return None
        if len(fields) > 8 and fields[7] == _ERROR:
            return self._error(fields)
        if len(fields) < _FIELDS:
            raise ValueError(line)
        return self._request(fields) if len(fields) > _FIELDS else self._stream(fields)

    def _request(self, fields: list[str]) -> Record:
        listener, connection, request, now, host, port, status, answered, state, name, retries = fields[:11]
        method, _, rest = fields[17].partition(" {")
        asked, _, path = rest.partition("} ")
        code, by_target = int(status), answered == "1"
        if not by_target and state[0] == "C":
            code = _CLIENT_GONE
        return Record(
            time=int(now) / 1e6,
            listener=listener,
            client=self._client(listener, host, port, fields[16]),
            connection=self._first + int(connection),
            request=int(request),
            method=_decoded(method),
            host=_decoded(asked),
            path=_decoded(path),
            status=max(0, code),
            made_by="target" if by_target else "balancer",
            reason=_cut_off(state, code) if by_target else _why(state, code, name),
            target=self._targets.get(name, ""),
            retries=int(retries.removeprefix("+")),
            bytes_in=int(fields[11]),
            bytes_out=int(fields[12]),
            seconds=_seconds(fields[13]),
            connect_seconds=_seconds(fields[14]),
            answer_seconds=_seconds(fields[15]),
        )

    def _stream(self, fields: list[str]) -> Record:
        listener, connection, _, now, host, port, _, _, state, name, retries = fields[:11]
        reason = "" if state[1] in "DL-" else _RELAYED.get(state, "connect-failed")
        if name == _NOBODY:
            reason = "no-target"
        return Record(
            time=int(now) / 1e6,
            listener=listener,
            client=self._client(listener, host, port),
            connection=self._first + int(connection),
            reason=reason,
            made_by="balancer" if reason else "target",
            target=self._targets.get(name, ""),
            retries=int(retries.removeprefix("+")),
            bytes_in=int(fields[11]),
            bytes_out=int(fields[12]),
            seconds=_seconds(fields[13]),
            connect_seconds=_seconds(fields[14]),
        )

    def _error(self, fields: list[str]) -> Record | None:
        """What was no request, and got an answer all the same."""
        listener, connection, request, now, host, port, status, _, state = fields[:9]
        if int(status) < 400 or state[0] == "C":
            return None
        return Record(
            time=int(now) / 1e6,
            listener=listener,
            client=self._client(listener, host, port),
            connection=self._first + int(connection),
            request=int(request.replace("-", "0")) + 1,
            status=int(status),
            made_by="balancer",
            reason=_why(state, int(status), _NOBODY),
        )

    def _client(self, listener: str, host: str, port: str, forwarded: str = "-") -> str:
        """Who asks: the last address that a trusted proxy did not vouch for, else the peer's own."""
        if host == "unix":
            return host
        if forwarded == "-":
            return endpoint(_unmapped(host), int(port))
        said = ""
        for word in forwarded.split(","):
            if word in ("", "-"):
                break  # there were fewer
            said = bytes.fromhex(word).decode("latin-1").strip()
            if not self._trusts(listener, said):
                break
        return said

    def _trusts(self, listener: str, text: str) -> bool:
        try:
            address = ip_address(_unmapped(text))
        except ValueError:
            return False
        return any(address in network for network in self._trusted[listener])


def _why(state: str, status: int, name: str) -> str:
    """Why the balancer made the answer."""
    if status == _CLIENT_GONE:
        return "client-gone"
    if state in ("SC", "RC"):
        return "no-target" if name == _NOBODY else "target-failed" if state == "SC" else "no-port"
    if state[0] in "KD":
        return "target-closed"
    return _BY_STATE.get(state) or _BY_STATUS.get(status, "")


def _cut_off(state: str, status: int) -> str:
    """Why the target's answer did not come to its end, if so."""
    if state[0] == "-" or status == 101:
        return ""
    return {"C": "client-gone", "c": "send-timeout"}.get(state[0], "answer-cut-off")


def _decoded(text: str) -> str:
    """As it came, a character for each byte."""
    if text == "<BADREQ>":
        return ""
    return _CODED.sub(lambda found: chr(int(found[1], 16)), _CUT.sub("", text)) if "#" in text else text


def _seconds(milliseconds: str) -> float:
    """-1 is what did not happen."""
    return max(0, int(milliseconds)) / 1000


def _unmapped(host: str) -> str:
    """An IPv4 client of a socket that takes both families."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host
