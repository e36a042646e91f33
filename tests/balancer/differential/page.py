"""docs/http-differences.md, from what the three did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from balancer.differential.cases import CASES
from balancer.differential.compare import Result
from balancer.differential.reasons import ANSWER_WHY, MUTATED, WHY
from balancer.http.mutations import MUTATIONS, request

MUTATED_CASES = {
    f"{direction} {name}": request(line, direction)
    for direction in ("CL.TE", "TE.CL")
    for name, line in MUTATIONS.items()
}
MOST_EXAMPLES = 3

HEAD = """# HTTP: where this balancer, HAProxy and nginx differ

Written by `make docs-http`, which sends the same bytes to all three, each in front of a target of its own that
records what it gets; `tests/balancer/differential` does so again and holds this page against it. A cell says what
the client got, then what reached the target. HAProxy {HAProxy} and nginx {nginx} run with their defaults but for
forwarding (X-Forwarded-For; nginx with `proxy_http_version 1.1`, `$host`, and without buffering requests).

This balancer is the strictest of the three nearly everywhere. That is meant: it does not know which target stands
behind it, so it lets through only what has one meaning for all of them.

`unreadable` is a request that reached a target which could not read it (h11).
"""

MUTATED_HEAD = """## Transfer-Encoding, written in 668 ways

The mutations of defparam/smuggler's exhaustive list, each with a Content-Length to disagree with it, in both
directions: chunked ends before Content-Length (CL.TE), or after it (TE.CL). One of them means nothing for the
transfer (`Content-Encoding`); all others are refused.

"""

ANSWERS_HEAD = """## What targets say

Each answer is one to a GET, and the end of the target's connection comes right behind it; then the client asks for
something else on its connection. A cell says what the client got: statuses and body, `cut` where it breaks off.
"""


def groups(result: Result) -> dict[tuple[str, ...], list[str]]:
    """The mutations by what the three did, in the order of the reasons; where they did the same, last."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for case in MUTATED_CASES:
        found[result.said(case)].append(case)
    order = {said: number for number, said in enumerate(MUTATED)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def page(cases: Result, mutated: Result, answers: Mapping[str, tuple[str, ...]], versions: Mapping[str, str]) -> str:
    """The whole page."""
    parts = [HEAD.format(**versions)]
    names = f"timewait | HAProxy {versions['HAProxy']} | nginx {versions['nginx']}"
    for title, (why, members) in WHY.items():
        rows = ((case, *cases.said(case)) for case in members)
        parts.append(f"## {title}\n\n{why}\n\n" + table(f"what was sent | {names}", rows))
    parts.append(MUTATED_HEAD + table(f"how many | {names} | for example | why", _mutated_rows(mutated)))
    parts.append(ANSWERS_HEAD)
    for title, (why, members) in ANSWER_WHY.items():
        rows = ((case, *answers[case]) for case in members)
        parts.append(f"### {title}\n\n{why}\n\n" + table(f"what the target said | {names}", rows))
    same = ((answer, said[0]) for answer, said in answers.items() if len(set(said)) == 1)
    alike = ((case, cases.said(case)[0]) for case in CASES if not cases.differ(case))
    parts.append("## All three alike\n\n" + table("what was sent | all three", alike))
    parts.append(table("what the target said | all three", same))
    return "\n".join(parts)


def _mutated_rows(result: Result) -> Iterable[tuple[object, ...]]:
    for said, members in groups(result).items():
        reason = MUTATED.get(said, "Alike.")
        yield (len(members), *said, ", ".join(members[:MOST_EXAMPLES]), reason)


def table(head: str, rows: Iterable[tuple[object, ...]]) -> str:
    """A table of Markdown."""
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1), *map(line, rows)]
    return "\n".join(lines) + "\n"


def line(cells: Iterable[object]) -> str:
    """A line of such a table."""
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("*", "\\*") for cell in cells) + " |"
