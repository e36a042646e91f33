"""Who may import whom, read from the sources; and how long a file and a function may grow.

The rules are those of docs/architecture.md. A room is a folder under src/timewait, or a single file beside them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "timewait"

RULES = {"tcp"}
RECORDS = {"plan", "run", "histogram", "verdict", "toml_lines", "abstract_sockets", "durations", "port_use"}
ROOMS = {"stress", "observe", "lab", "simulate", "balancer", "capture"}  # siblings: they do not know each other
JOINS = {"experiment", "find_max", "demo", "doctor", "claims", "balance"}  # what puts rooms together

ALLOWED: dict[str, set[str]] = {
    "tcp": set(),
    "histogram": set(),
    "plan": RULES | {"durations"},
    "run": RULES | {"plan", "histogram", "port_use"},
    **dict.fromkeys(ROOMS, RULES | RECORDS),
    "diagnose": RULES | RECORDS,
    "report": RULES | RECORDS | {"diagnose"},
    "experiment": RULES | RECORDS | {"stress", "observe", "lab"},
    "find_max": RULES | RECORDS | {"diagnose", "experiment"},
    "demo": RULES | RECORDS | {"stress", "observe", "lab", "diagnose", "experiment"},
    "verdict": set(),
    "toml_lines": set(),
    "abstract_sockets": set(),
    "durations": set(),
    "port_use": set(),
    "claims": RULES | RECORDS | {"stress", "observe", "lab", "experiment"},
    "doctor": RULES | RECORDS | {"stress", "observe", "diagnose"},
    "balance": RULES | RECORDS | {"balancer", "observe", "diagnose"},
    "cli": RULES | RECORDS | ROOMS | JOINS | {"diagnose", "report"},
    "__main__": {"cli"},
}

LONGEST_FILE = 450
LONGEST_FUNCTION = 60
HOT_LOOP = "stress/loop.py"
"""The one exemption: the loop is written out for speed, and says so in its first lines."""


def room_of(path: Path) -> str:
    """src/timewait/tcp/ports.py -> "tcp"; src/timewait/plan.py -> "plan"."""
    return path.parts[0].removesuffix(".py")


def imported(source: str, path: Path) -> set[str]:
    """Rooms of timewait that a file imports, anywhere in it; `path` is relative to src/timewait."""
    package = ["timewait", *path.parent.parts]
    modules: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            # `from timewait import run` names a module or a value: both count as the room of that name.
            modules += [f"{base}.{name.name}" for name in node.names]
    split = (module.split(".") for module in modules)
    return {parts[1] for parts in split if parts[0] == "timewait" and len(parts) > 1} - {"__version__"}


def violations(source: str, path: Path) -> list[str]:
    """One line for each import that the rules forbid."""
    room = room_of(path)
    if path == Path("__init__.py"):
        wrong = imported(source, path)
    elif room not in ALLOWED:
        return [f"{path}: no rule says what {room!r} may import; add it to ALLOWED and to docs/architecture.md"]
    else:
        wrong = imported(source, path) - ALLOWED[room] - {room}
    return [f"{path}: {room} must not import {name}" for name in sorted(wrong)]


def too_long(source: str, path: Path) -> list[str]:
    """One line for a file and each function over the budget."""
    found = []
    lines = source.count("\n")
    if lines > LONGEST_FILE:
        found.append(f"{path}: {lines} lines, the budget is {LONGEST_FILE}")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # From the first statement on: a command's signature is the list of its options, not something to follow.
            length = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
            if length > LONGEST_FUNCTION:
                found.append(f"{path}: {node.name}() has {length} lines, the budget is {LONGEST_FUNCTION}")
    return found


def sources() -> list[Path]:
    return sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=str)
def test_imports_keep_to_the_layers(path: Path) -> None:
    assert violations((SOURCE / path).read_text(), path) == []


@pytest.mark.parametrize("path", [path for path in sources() if str(path) != HOT_LOOP], ids=str)
def test_files_and_functions_stay_small(path: Path) -> None:
    assert too_long((SOURCE / path).read_text(), path) == []


def test_the_hot_loop_says_why_it_is_long() -> None:
    path = SOURCE / HOT_LOOP
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert "speed" in docstring or "hot" in docstring


@pytest.mark.parametrize(
    ("path", "source", "names"),
    [
        ("tcp/ports.py", "from timewait.plan import Plan", {"plan"}),
        ("tcp/ports.py", "from timewait import run", {"run"}),
        ("tcp/ports.py", "from ..run import Tick", {"run"}),
        ("tcp/ports.py", "from .. import observe", {"observe"}),
        ("plan.py", "import timewait.stress.loop", {"stress"}),
        ("plan.py", "from .stress import loop", {"stress"}),
        ("stress/crew.py", "def start():\n    from timewait.observe import limits", {"observe"}),
        ("stress/crew.py", "import timewait.diagnose as d", {"diagnose"}),
        ("diagnose/ports.py", "if True:\n    import timewait.observe.host", {"observe"}),
        ("report/page.py", "from timewait.cli import app", {"cli"}),
        ("experiment.py", "from timewait.cli import app", {"cli"}),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str, names: set[str]) -> None:
    found = violations(source, Path(path))
    assert found == [f"{path}: {room_of(Path(path))} must not import {name}" for name in names]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tcp/ports.py", "import heapq\nfrom timewait.tcp.segment import older\nfrom . import kernels"),
        (
            "stress/crew.py",
            "from timewait import __version__\nfrom timewait.run import Tick\nfrom ..plan import Plan",
        ),
        ("experiment.py", "from timewait.observe import host\nfrom timewait.stress import crew"),
        ("cli/stress.py", "from timewait.report import terminal\nimport timewait.experiment"),
    ],
)
def test_an_allowed_import_passes(path: str, source: str) -> None:
    assert violations(source, Path(path)) == []


def test_a_new_room_needs_a_rule() -> None:
    assert "no rule" in violations("", Path("magic/wand.py"))[0]


def test_length_is_measured() -> None:
    long_function = "def f(\n    x: int,\n) -> None:\n" + "    x = 1\n" * (LONGEST_FUNCTION + 1)
    assert "f() has 61 lines" in too_long(long_function, Path("a.py"))[0]
    assert "451 lines" in too_long("#\n" * 451, Path("a.py"))[0]
    assert too_long("def f():\n    pass\n", Path("a.py")) == []


def test_help_imports_nothing_heavy() -> None:
    """`timewait --help` answers at once because commands import what they need when they run."""
    code = "import sys, timewait.cli.commands; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "typer" in loaded
    heavy = {"rich", "numpy", "bokeh", "pyroute2", "hdrh", "msgspec", "httptools", "numba", "asyncio"}
    assert loaded & heavy == set()
