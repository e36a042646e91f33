"""Rules chosen by chance, as `location` and `server_name` of a real nginx and as ours: both choose the same."""

from __future__ import annotations

import http.client
import random
from pathlib import Path

from balancer.differential.fronts import NGINX_HEAD, nginx
from kit.ports import free_port
from timewait.balancer.config.model import Limits, Rule
from timewait.balancer.http.grammar import Refusal
from timewait.balancer.http.request import request_head
from timewait.balancer.routing.router import Redirect, Route, Router

SETS = 24
PREFIXES = ["/", "/a", "/a/", "/a/b", "/a/b/", "/ab/", "/a/b/c/", "/A/", "/a b/", "/x.php/"]
EXPRESSIONS = ["\\.php$", "^/a/", "^/a/.*c$", "b", "(a|c)+/$", "^/[^/]+$", "\\.(gif|jpe?g)$"]
PLAIN = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/",
    "/a/b/c",
    "/ab",
    "/ab/",
    "/abc",
    "/A",
    "/A/x",
    "/...",
    "/x.php",
    "/x.php/",
]
ODD = ["//a//b", "/a/./b", "/a/b/../c", "/a/../x.php", "/a/..", "/a/b/.", "/c/../../a", "/a?q=/b", "/a/b/c?x=%zz"]
ENCODED = ["/a%20b", "/a%20b/c", "/%61/", "/a%2fb", "/a%3fb", "/%00", "/%zz", "/a/x.PHP", "/a/b/c/d.jpeg"]
PATHS = [*PLAIN, *ODD, *ENCODED]
NAMES = ["a.x", "*.x", "*.b.x", "w.*", "w.a.*", "~^v\\d+\\.", "~c", "a.b.x"]
HOSTS = [
    "a.x",
    "A.X",
    "b.x",
    "c.b.x",
    "x",
    "w.a",
    "w.a.q",
    "w.b.q",
    "w.x",
    "v1.q",
    "v.q",
    "qcq",
    "q",
    "a.b.x:99",
    "a.x.",
]


def rules_of(chance: random.Random) -> list[str]:
    """Paths of rules, each only once, as nginx wants it."""
    chosen = [
        chance.choice(["", "", "^~ ", "= "]) + prefix for prefix in chance.sample(PREFIXES, chance.randint(1, 6))
    ]
    kinds = ["~ ", "~* "]
    expressions = chance.sample(EXPRESSIONS, chance.randint(0, 3))
    chosen += [chance.choice(kinds) + expression for expression in expressions]
    chance.shuffle(chosen)
    return chosen


def location(rule: str, answer: str) -> str:
    """One of nginx's, that passes on and says by which rule."""
    kind = rule.split(" ")[0] if rule[0] in "=^~" else ""
    path = rule[len(kind) :].lstrip()
    return f'location {kind} "{path}" {{ proxy_pass http://127.0.0.1:TARGET; proxy_set_header X-Rule "{answer}"; }}'


def nginx_says(port: int, requests: list[tuple[str, str]]) -> list[str]:
    """The rule, the redirect or the status for each (host, path)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    said = []
    for host, path in requests:
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read().decode()
        place = "/" + answer.getheader("Location", "").partition("//")[2].partition("/")[2]
        said.append({200: body, 301: f"to {place}"}.get(answer.status, str(answer.status)))
        if answer.status >= 400:
            connection.close()  # and opened again by the next request
    connection.close()
    return said


def we_say(router: Router, host: str, path: str) -> str:
    """The same of ours."""
    head = request_head(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), Limits())
    assert head is not None
    if isinstance(head, Refusal):
        return str(head.status)
    found = router.find(head.host, head.path, head.query)
    if isinstance(found, Route):
        return found.pool
    return f"to {found.location.decode()}" if isinstance(found, Redirect) else "404"


def configuration(sets: list[list[str]]) -> str:
    """nginx with one server that answers what X-Rule says, one for each set of rules, and one for each of NAMES."""
    text = ['server { listen 127.0.0.1:TARGET; location / { return 200 "$http_x_rule"; } }']
    for number, rules in enumerate(sets):
        places = " ".join(location(rule, str(index)) for index, rule in enumerate(rules))
        text.append(f"server {{ listen 127.0.0.1:PORT; server_name set{number}; root /nowhere; {places} }}")
    for index, name in enumerate(NAMES):
        text.append(f'server {{ listen 127.0.0.1:PORT; server_name "{name}"; {location("/", str(index))} }}')
    text.append("server { listen 127.0.0.1:PORT default_server; return 404; }")
    servers = "\n".join(text).replace("{", "{{").replace("}", "}}")
    return NGINX_HEAD + servers.replace("PORT", "{port}").replace("TARGET", "{target}") + "\n}}\n"


def test_nginx_chooses_the_same(tmp_path: Path) -> None:
    chance = random.Random(4)
    sets = [rules_of(chance) for _ in range(SETS)]
    requests = [(f"set{number}", path) for number in range(SETS) for path in PATHS]
    rules = [
        Rule(pool=str(index), domain=f"set{number}", path=path)
        for number, paths in enumerate(sets)
        for index, path in enumerate(paths)
    ]
    requests += [(host, "/") for host in HOSTS]
    rules += [Rule(pool=str(index), domain=name) for index, name in enumerate(NAMES)]
    router = Router(rules)
    with nginx(free_port(), tmp_path, configuration(sets)) as port:
        said = nginx_says(port, requests)
    differing = {
        (host, path): (theirs, ours)
        for (host, path), theirs in zip(requests, said, strict=True)
        if theirs != (ours := we_say(router, host, path))
    }
    assert differing == {}, sets
