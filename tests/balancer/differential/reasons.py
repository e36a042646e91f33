"""Why the three answer differently, where they do."""

from __future__ import annotations

WHY: dict[str, tuple[str, tuple[str, ...]]] = {
    "Line feeds": (
        "RFC 9112, 2.2 allows a recipient to take a bare LF for the end of a line, and the other two do. Here it is "
        "refused: whoever does not take it so sees other fields, or another end of the message.",
        (
            "a bare LF first",
            "bare LF everywhere",
            "bare LF after a field",
            "bare LF after a chunk size",
            "bare LF after an extension",
            "bare LF after a chunk",
            "bare LF at the end",
        ),
    ),
    "Empty lines": (
        "One empty line before a request is skipped, as RFC 9112, 2.2 asks; the other two skip any number.",
        ("two empty lines first",),
    ),
    "Request lines": (
        "A request line is three words with one blank between them (RFC 9112, 3); nothing is made good.",
        ("two blanks", "a blank at the end", "a tab between"),
    ),
    "Methods": (
        "Any token is a method (RFC 9110, 9.1) and is passed on; nginx knows upper case only, and refuses TRACE and "
        '`OPTIONS *` on principle. CONNECT is 405 here unless the listener says `connect = "tunnel"`; HAProxy '
        "passes it on.",
        ("method in lower case", "method with odd characters", "TRACE", "OPTIONS *", "CONNECT"),
    ),
    "Versions": (
        "HTTP/1.0 and HTTP/1.1 are spoken, everything else is 505, and what is no version is 400. nginx takes "
        "HTTP/1.x for 1.1 whatever x is, and answers HTTP/0.9 (the target got its request with an empty host); "
        "HAProxy passes unknown versions on as HTTP/1.1, and understands the preface of HTTP/2.",
        ("HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/1.10", "HTTP/2 preface"),
    ),
    "Targets": (
        "A target has one of the four forms of RFC 9112, 3.2, in visible ASCII, without user and fragment. The "
        "absolute-form is passed on as origin-form with its host in Host (3.2.2), and a Host field that says "
        "something else is refused, as HAProxy does; nginx prefers the target's host.",
        (
            "GET *",
            "absolute-form",
            "absolute-form, another Host",
            "absolute-form, no Host",
            "absolute-form with a user",
            "no slash first",
            "a fragment",
            "a byte above 127 in the path",
        ),
    ),
    "Paths": (
        "Paths are compared as nginx compares them, so what has no normal form is refused as by nginx. HAProxy does "
        "not look into paths.",
        ("%00 in the path", "an incomplete % in the path", "above the root"),
    ),
    "Hosts": (
        "One Host, which is a name or an address with a port up to 65535 (RFC 9112, 3.2: else 400). HAProxy passes "
        "on what it is given, also none, and two that are equal; nginx looks less closely at names, and takes a tab "
        "before the value for a part of it.",
        (
            "names in any case, no blank, a tab",
            "no Host",
            "two equal Hosts",
            "an empty Host",
            "a Host with a path",
            "a Host with a user",
            "a Host with a blank",
            "a Host with port 99999",
        ),
    ),
    "Fields": (
        "A line that is no field is refused. nginx leaves such lines out (`ignore_invalid_headers`), HAProxy unfolds "
        "obs-fold and passes on NUL, and both pass on control characters in values.",
        ("obs-fold", "no colon", "brackets in a name", "a control character in a value", "NUL in a value"),
    ),
    "Lengths": (
        "Every message whose length could be read in two ways is refused (RFC 9112, 6.3 calls them errors, or lets a "
        "recipient choose): HAProxy merges equal lengths, lets Transfer-Encoding win over Content-Length, and takes "
        "it from HTTP/1.0. A length beyond all bounds is 413 here. `Content_Length` is one for CGI and WSGI.",
        (
            "two equal lengths",
            "a list of equal lengths",
            "2**64 + 5",
            "Content_Length",
            "both lengths",
            "both lengths, Content-Length first",
            "chunked in HTTP/1.0",
        ),
    ),
    "Codings": (
        "All three refuse every coding but `chunked`, with other numbers: here 501 where chunked comes last, as "
        "RFC 9112, 6.1 says, and 400 where the body would have no end; nginx always 501, HAProxy 422 or 400.",
        (
            "gzip, chunked",
            "chunked, gzip",
            "chunked, chunked",
            "identity",
            "identity and Content-Length",
            "an empty Transfer-Encoding",
            "xchunked",
        ),
    ),
    "Chunks": (
        "A chunk size is 1 to 16 hexadecimal digits without blanks, and trailers are fields.",
        ("a blank after a chunk size", "17 digits of chunk size", "a trailer without a colon"),
    ),
    "Expectations": (
        "nginx answers 100 itself at once. Here, as in HAProxy, it is the target's to say, and is left out once the "
        "body came. An expectation that nobody knows is 417 (RFC 9110, 10.1.1); the other two ignore it.",
        ("Expect", "Expect something else"),
    ),
    "Connection": (
        "HAProxy looks into a WebSocket's key, which here is the target's business. `Connection` must be a list of "
        "tokens, since what it names is taken off.",
        ("Upgrade: websocket without a key", "Connection with a list that is none"),
    ),
    "Ends": (
        "A client that leaves within its head gets no answer from this balancer and from nginx, 400 from HAProxy.",
        ("an unfinished head",),
    ),
}

EXPLAINED = {case: reason for reason, (_, cases) in WHY.items() for case in cases}

_REFUSED, _AS_LENGTH = "400", "200; POST / with 44 bytes"
_INNER_APART = "200 200 400; POST / with 4 bytes; GET /smuggled"

MUTATED: dict[tuple[str, ...], str] = {
    (_REFUSED, "400", "501"): "nginx says 501 to every value that is not exactly `chunked`.",
    (_REFUSED, "400", _AS_LENGTH): "nginx leaves out a field whose name is none, and Content-Length is left.",
    (_REFUSED, "400", _INNER_APART): "The same; what follows Content-Length is the next request, for the target too.",
    (_REFUSED, "422", "501"): "A coding before chunked: HAProxy says 422.",
    (_REFUSED, "422", "400"): "The same in two fields, of which nginx takes one.",
    (_REFUSED, "200; POST /", "400"): "HAProxy lets chunked win, and leaves out Content-Length (RFC 9112, 6.3).",
    (_REFUSED, "200; POST / with 39 bytes", "400"): "The same in the other direction.",
    (_REFUSED, "200; POST /", "501"): "The same; nginx takes a tab for a part of the value.",
    (_REFUSED, "200; POST / with 39 bytes", "501"): "The same in the other direction.",
    (_REFUSED, _AS_LENGTH, _AS_LENGTH): "`Transfer_Encoding` is refused here, for CGI and WSGI cannot tell it apart.",
    (_REFUSED, _INNER_APART, _INNER_APART): "The same in the other direction.",
    (
        _REFUSED,
        "400 400; unreadable",
        "400",
    ): "A bare LF first ends the head for HAProxy, and the target misses Host.",
}
"""(this balancer, HAProxy, nginx) -> why, for the mutations of Transfer-Encoding that end differently."""

ANSWER_WHY: dict[str, tuple[str, tuple[str, ...]]] = {
    "Answers that end with their connection": (
        "Here, as in nginx, they are chunked for a client of HTTP/1.1, whose connection stays; HAProxy closes it.",
        ("until the end", "HTTP/1.0, until the end"),
    ),
    "Answers without a body": (
        "A 204 that announces a body is refused: what follows would be that body, or the next answer.",
        ("204 with a length", "204 chunked"),
    ),
    "Answers to something else": (
        "101 where nothing asked for it is refused, as by HAProxy; nginx goes over to a tunnel. What does not begin "
        "with a status line is an answer of HTTP/0.9 for nginx, and reaches the client.",
        ("101 unasked", "garbage"),
    ),
    "Lengths of answers": (
        "As strict as toward requests. nginx takes the last of two lengths, and the end of the connection for one it "
        "cannot read.",
        (
            "both lengths",
            "two equal lengths",
            "two lengths",
            "a list of equal lengths",
            "an empty length",
            "-5",
            "chunked in HTTP/1.0",
            "gzip, chunked",
        ),
    ),
    "Heads of answers": (
        "Line ends, fields, versions and statuses (100 to 599) are held to the grammar. HAProxy and nginx pass on "
        "some that this client (h11) then cannot read (`bad`).",
        (
            "bare LF everywhere",
            "NUL in a value",
            "obs-fold",
            "no colon",
            "brackets in a name",
            "HTTP/1.2",
            "HTTP/2.0",
            "status 99",
            "status 999",
        ),
    ),
    "Chunks of answers": (
        "A chunk that is wrong before anything was passed on makes 502; nginx has sent the head by then, and breaks "
        "off.",
        (
            "chunk size 0x5",
            "a blank after a chunk size",
            "bare LF after a chunk size",
            "a chunk longer than its size",
        ),
    ),
}

ANSWERS_EXPLAINED = {case: reason for reason, (_, cases) in ANSWER_WHY.items() for case in cases}
