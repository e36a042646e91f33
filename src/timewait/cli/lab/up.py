"""`timewait lab up TOPOLOGY`: builds a network and keeps it until Ctrl-C."""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli.lab import lab, refusals

if TYPE_CHECKING:
    from timewait.lab.network import Network
    from timewait.lab.registry import Door, Lab
    from timewait.lab.topology import Topology

_LOOK = 0.25  # seconds between two looks at the processes


@lab.command()
def up(
    topology: Annotated[str, typer.Argument(metavar="TOPOLOGY", help="Its name, or a file of `show --json`.")],
    balancer: Annotated[
        str, typer.Option(help="timewait (unless said otherwise), nginx, haproxy, own or none.", metavar="PROGRAM")
    ] = "",
    sysctl: Annotated[
        list[str] | None,
        typer.Option("--set", help="client.tcp_tw_reuse=1; repeatable.", metavar="HOST.SYSCTL=VALUE"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Describe it in one line of JSON once it is up.")] = False,
) -> None:
    """Build a network and keep it until Ctrl-C.

    Servers and a balancer are started in it. `timewait lab shell`, `stress --in HOST` and `watch --in HOST` work
    inside. It needs no root, and nothing of it is left when it ends, however it ends.
    """
    from timewait.lab.files import load
    from timewait.lab.namespaces import enter
    from timewait.lab.registry import Door

    signal.signal(signal.SIGTERM, _interrupt)
    with refusals(), ExitStack() as stack:
        wished = _set(load(topology), sysctl or [])
        door = Door(wished.name)
        stack.callback(door.close)
        try:
            enter()
            _run(wished, balancer, door, stack, json)
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:  # `| head` has seen enough; what is buffered would raise again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _set(topology: Topology, words: list[str]) -> Topology:
    from timewait.lab.topology import TopologyError

    for word in words:
        name, equals, value = word.partition("=")
        host, dot, sysctl = name.partition(".")
        if not (equals and dot and sysctl):
            raise TopologyError(f"--set {word}: it is HOST.SYSCTL=VALUE, such as client.tcp_tw_reuse=1")
        full = sysctl if sysctl.startswith("net.") else f"net.ipv4.{sysctl}"
        topology = topology.changed(host, sysctls={full: value})
    return topology


def _run(topology: Topology, balancer: str, door: Door, stack: ExitStack, json: bool) -> None:
    from timewait.lab.furnish import furnish
    from timewait.lab.network import build
    from timewait.lab.registry import describe

    network = stack.enter_context(build(topology))
    played = furnish(network, balancer)
    description = describe(network, door.name)
    _tell(description, played, json)
    _keep(network, door, description)


def _tell(description: Lab, balancer: str, json: bool) -> None:
    import msgspec

    from timewait.cli.lab.show import drawing
    from timewait.lab.topology import Role

    if json:
        sys.stdout.write(msgspec.json.encode(description).decode() + "\n")
        sys.stdout.flush()
        return
    client = next((name for name, one in description.hosts.items() if one.role == Role.CLIENT), "")
    target = next((name for name, one in description.hosts.items() if one.role == Role.BALANCER), "")
    running = [f"{' '.join(one.programs)} on {name}" for name, one in description.hosts.items() if one.programs]
    if balancer == "kernel":
        running.insert(0, "the balancer is the kernel")
    if client:
        at = f"http://{target}/"
        hints = [
            (f"timewait lab shell {client}", f"a shell inside: curl {at}"),
            (f"timewait stress --in {client} {at} --rate 200cps --close client", "load from there"),
            (f"timewait watch --in {client}", "its sockets and ports"),
        ]
    else:
        hints = []
    print(drawing(description.topology))
    print(f"\n{description.name} is up" + (f": {', '.join(running)}." if running else "."))
    for command, meaning in hints:
        print(f"  {command}\n      {meaning}")
    print("Ctrl-C ends it, with everything in it.", flush=True)


def _keep(network: Network, door: Door, description: Lab) -> None:
    """Until interrupted: answers who asks for it, and tells of what died in it, once each."""
    told: set[str] = set()
    while True:
        asked, _, _ = select.select([door.socket], [], [], _LOOK)
        if asked:
            door.answer(description)
        for sentence in network.died():
            if sentence not in told:
                told.add(sentence)
                print(f"timewait: {sentence}; the network stays up", file=sys.stderr, flush=True)
