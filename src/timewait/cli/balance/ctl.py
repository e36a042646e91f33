"""`timewait balance ctl ...`: asks a balancer that runs, and changes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timewait.cli import INTERRUPTED, USAGE
from timewait.cli.balance import balance
from timewait.cli.pipes import quiet_pipe

if TYPE_CHECKING:
    from timewait.balancer.control.client import Client

ctl = typer.Typer(
    help="Ask a balancer that runs, and change it: weights, targets, drains, reloads.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
balance.add_typer(ctl, name="ctl")

Socket = Annotated[
    str | None, typer.Option("--socket", help="Its admin socket; not needed where only one runs.", metavar="PATH")
]
Json = Annotated[bool, typer.Option("--json", help="The API's answer as it is.")]
Pool = Annotated[str, typer.Argument(metavar="POOL")]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="Its address: 10.0.1.11:8080.")]


@contextmanager
def refusals() -> Iterator[None]:
    """What the balancer refuses, or that there is none, becomes a sentence and an exit code."""
    import msgspec

    from timewait.balancer.engine import BalancerError

    try:
        with quiet_pipe():
            yield
    except msgspec.DecodeError:
        sentence = "what answers there is no balancer, or one of another version; --socket names another socket"
        print(f"timewait: {sentence}", file=sys.stderr)
        raise typer.Exit(USAGE) from None
    except BalancerError as error:
        for line in str(error).split("\n"):
            print(f"timewait: {line}", file=sys.stderr)
        raise typer.Exit(USAGE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def client(path: str | None) -> Client:
    """The balancer at that socket, or the only one. Raises BalancerError."""
    from timewait.balancer.control.beacon import only
    from timewait.balancer.control.client import Client

    return Client(path or only().socket)


def _put(answer: bytes) -> None:
    sys.stdout.write(answer.decode().rstrip("\n") + "\n")


def _record(answer: bytes, kind: Any = None) -> Any:
    import msgspec

    return msgspec.json.decode(answer) if kind is None else msgspec.json.decode(answer, type=kind)


@ctl.command()
def config(socket: Socket = None, json: Json = False) -> None:
    """Print the configuration in force: every default, and what was changed at runtime."""
    with refusals():
        asked = client(socket)
        _put(asked.get("/v1/config" if json else "/v1/config?as=toml"))
        if not json:
            for line in _record(asked.get("/v1/config"))["by_hand"]:
                print(f"# changed at runtime: {line}")


@ctl.command()
def stats(socket: Socket = None, json: Json = False) -> None:
    """Print what was counted since the start, by listener and by target, with ports and TIME_WAIT."""
    from timewait.balancer.views import Stats

    with refusals():
        answer = client(socket).get("/v1/stats")
        if json:
            return _put(answer)
        from timewait.cli.balance.shown import stats_text

        return print(stats_text(_record(answer, Stats)))


@ctl.command()
def health(socket: Socket = None, json: Json = False) -> None:
    """Print every target: state, weight, what its last checks said."""
    from timewait.balancer.views import TargetHealth

    with refusals():
        answer = client(socket).get("/v1/health")
        if json:
            return _put(answer)
        from timewait.cli.balance.shown import health_text

        return print(health_text(_record(answer, dict[str, list[TargetHealth]])["targets"]))


@ctl.command()
def weight(
    pool: Pool,
    target: Target,
    weight: Annotated[int, typer.Argument(metavar="N", help="0 to 100; 0 drains.", min=0, max=100)],
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Give a target another weight; with 0 it gets nothing new, and what is open is drained as its pool says.

    It stays over a reload, until the file says another weight for this target than it did.
    """
    from timewait.balancer.control.client import target_path

    with refusals():
        answer = client(socket).ask("PUT", target_path(pool, target), {"weight": weight})
        if json:
            return _put(answer)
        told = _record(answer)
        what = ", drains" if told["draining"] else "" if told["effective"] or not weight else ", not in traffic yet"
        return print(f"{pool} {target}: weight {told['was']} -> {told['weight']}{what}")


@ctl.command()
def drain(
    pool: Pool,
    target: Target,
    timeout: Annotated[str | None, typer.Option(help="How long: 30s; the pool's own unless given.")] = None,
    then: Annotated[str | None, typer.Option(help="What becomes of the rest: rst, fin or leave.")] = None,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Give a target weight 0, and wait until nothing is open toward it any more, or until the rest was cut."""
    from timewait.balancer.control.client import target_path

    with refusals():
        wish = {name: value for name, value in (("timeout", timeout), ("then", then)) if value is not None}
        answer = client(socket).ask("POST", f"{target_path(pool, target)}/drain", wish, timeout=None)
        if json:
            return _put(answer)
        told = _record(answer)
        how = {
            "idle": "nothing is open any more",
            "cut": f"{told['cut']} of {told['connections']} connections were cut",
            "left": "what is open was left open",
            "cancelled": "it got traffic again, or another drain took this one's place",
        }[told["ended"]]
        return print(f"{pool} {target}: {how} ({told['seconds']:.1f} s)")


@ctl.command()
def add(
    pool: Pool,
    target: Target,
    weight: Annotated[int, typer.Option(help="0 to 100.", min=0, max=100)] = 10,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Add a target; it gets traffic once it was found healthy. It stays over reloads until removed."""
    from timewait.balancer.control.client import target_path

    with refusals():
        answer = client(socket).ask("POST", target_path(pool), {"addr": target, "weight": weight})
        _put(answer) if json else print(f"{pool} {target}: added with weight {weight}")


@ctl.command()
def remove(pool: Pool, target: Target, socket: Socket = None, json: Json = False) -> None:
    """Take a target away: nothing new, what is open may end for as long as its pool's drain says."""
    from timewait.balancer.control.client import target_path

    with refusals():
        answer = client(socket).ask("DELETE", target_path(pool, target))
        if json:
            return _put(answer)
        return print(f"{pool} {target}: removed; what is open may end within {_record(answer)['drains_for']:g} s")


@ctl.command()
def check(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", help="The balancer's own unless given.")] = None,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Say what a reload would change, and change nothing."""
    from timewait.balancer.source import content

    with refusals():
        body = {} if file is None else {"text": content(file), "name": str(Path(file).absolute())}
        answer = client(socket).ask("POST", "/v1/check", body)
        if json:
            return _put(answer)
        told = _record(answer)
        for warning in told["warnings"]:
            print(f"timewait: warning: {warning}", file=sys.stderr)
        return print("\n".join(told["lines"]) or "nothing would change")


@ctl.command()
def reload(
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was changed at runtime.")] = False,
    socket: Socket = None,
    json: Json = False,
) -> None:
    """Read the file again. A bad one is refused, and the old configuration goes on (exit code 2)."""
    with refusals():
        answer = client(socket).ask("POST", "/v1/reload", {"reset": reset}, timeout=120)
        if json:
            return _put(answer)
        return print("\n".join(_record(answer)["lines"]) or "nothing changed")
