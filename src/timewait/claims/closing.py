"""Claims about who closes first, and who is left with TIME_WAIT."""

from __future__ import annotations

import socket
import time

from timewait.claims.claim import claim
from timewait.claims.places import PORTS, Pair, pair
from timewait.claims.stage import Stage
from timewait.plan import Closing
from timewait.tcp import length
from timewait.tcp.timewait import TCP_TIMEWAIT_LEN
from timewait.verdict import Measure, Outcome, between, exactly

MANY = 5_000  # five times as many connections as there are ports
AT_ONCE = 20
FEW = 200
SLACK = 1.0  # seconds between the first close and the last, and between two looks


@claim(
    "closer-holds",
    "The end that closes first holds TIME_WAIT, for about 60 s.",
    topology="direct",
    slow=True,
    limit=120.0,
)
def closer_holds(stage: Stage) -> Outcome:
    held = {}
    ends: dict[Closing, float] = {}
    # With the whole range of ports no five-tuple comes back meanwhile.
    with pair(stage, ports=None) as ours, pair(stage, ports=None) as theirs:
        for here, closing in ((ours, Closing.CLIENT), (theirs, Closing.SERVER)):
            stage.load(here.client, here.url, closing, count=FEW, at_once=AT_ONCE)
            held[closing] = (stage.time_wait(here.client), stage.time_wait(here.balancer, at=here.target))
        closed = time.monotonic()
        places = {Closing.CLIENT: ours.client, Closing.SERVER: theirs.balancer}
        while len(ends) < len(places) and time.monotonic() - closed < 90:
            for closing, host in places.items():
                if closing not in ends and stage.time_wait(host) == 0:
                    ends[closing] = time.monotonic() - closed
            stage.wait(0.25, f"{time.monotonic() - closed:.0f} s of 60 s, and the timers' slack")
    low, high = (ms / 1000 for ms in length.ends(stage.kernel.rules, TCP_TIMEWAIT_LEN)[:2])
    measures = [
        exactly("client closes first: TIME_WAIT at the client", FEW, held[Closing.CLIENT][0], "TIME_WAIT"),
        exactly("client closes first: TIME_WAIT at the balancer", 0, held[Closing.CLIENT][1]),
        exactly("balancer closes first: TIME_WAIT at the client", 0, held[Closing.SERVER][0]),
        exactly("balancer closes first: TIME_WAIT at the balancer", FEW, held[Closing.SERVER][1]),
    ]
    for closing, who in ((Closing.CLIENT, "client"), (Closing.SERVER, "balancer")):
        what = f"seconds until the last is gone at the {who}"
        if closing in ends:
            measures.append(between(what, low - SLACK, ends[closing], high + SLACK, " s"))
        else:
            measures.append(Measure(what, f"{low:g} to {high:g} s", "still there after 90 s", False))
    return Outcome(measures=tuple(measures))


@claim(
    "server-closes",
    "With `Connection: close` the balancer closes first, and the client keeps no TIME_WAIT.",
    topology="direct",
)
def server_closes(stage: Stage) -> Outcome:
    with pair(stage) as here:
        run = stage.load(here.client, here.url, Closing.SERVER, count=MANY, at_once=AT_ONCE)
        client = stage.time_wait(here.client)
        balancer = stage.time_wait(here.balancer)
        at_listener = stage.time_wait(here.balancer, at=here.target)
    return Outcome(
        measures=(
            exactly(f"failures of {MANY:,} connections through {PORTS:,} ports", 0, run.total.failed, "failures"),
            exactly("TIME_WAIT at the client", 0, client),
            # The client's ports come back before 60 s have passed, and its SYN takes the balancer's TIME_WAIT over.
            between("TIME_WAIT at the balancer", 1, balancer, PORTS),
            exactly("... of them not on its listening port, where they cost no port", 0, balancer - at_listener),
        ),
    )


@claim(
    "reset-closes",
    "SO_LINGER{1,0} closes with a reset: no TIME_WAIT, and the port is free at once.",
    topology="direct",
)
def reset_closes(stage: Stage) -> Outcome:
    with pair(stage) as here:
        run = stage.load(here.client, here.url, Closing.RESET, count=MANY, at_once=AT_ONCE)
        client, balancer = stage.time_wait(here.client), stage.time_wait(here.balancer)
        stage.say("1 MB sent, then a reset; and once more, then a FIN")
        after_reset, after_fin = _arrives(here, reset=True), _arrives(here, reset=False)
    return Outcome(
        measures=(
            exactly(f"failures of {MANY:,} connections through {PORTS:,} ports", 0, run.total.failed, "failures"),
            exactly("TIME_WAIT at the client", 0, client),
            exactly("TIME_WAIT at the balancer", 0, balancer),
            Measure(
                "the risk: of 1,000,000 bytes sent just before the reset, arrived",
                "less than all",
                f"{after_reset:,}",
                after_reset < _BODY,
            ),
            exactly("... before a FIN instead, arrived", _BODY, after_fin),
        ),
        notes=("A reset throws away what is not yet sent or not yet read: use it once the answer is complete.",),
    )


_BODY = 1_000_000


def _arrives(here: Pair, *, reset: bool) -> int:
    """Bytes a reader at the balancer's host gets of a body whose sender closes right after send()."""
    with here.balancer.entered():
        listener = socket.create_server((here.balancer.address, 0))
    with here.client.entered():
        sender = socket.create_connection(listener.getsockname(), 5)
    with listener, sender:
        reader, _ = listener.accept()
        with reader:
            reader.settimeout(5)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _BODY)  # send() takes it all at once
            sender.sendall(bytes(_BODY))
            if reset:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sender.close()
            arrived = 0
            try:
                while piece := reader.recv(65536):
                    arrived += len(piece)
            except ConnectionResetError:
                pass
            return arrived
