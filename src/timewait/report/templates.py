"""Where the pages' templates are: everything they show is escaped, and `clean` bounds foreign text."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from timewait.report import words


def environment() -> Environment:
    """A fresh one; unknown names are errors."""
    made = Environment(
        loader=PackageLoader("timewait.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["clean"] = lambda text: words.clean(text, 2000)
    return made
