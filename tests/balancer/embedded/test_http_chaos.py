"""The embedded HTTP proxy among clients and targets that do anything at any moment: nothing is lost count of."""

from __future__ import annotations

import random
import threading

from kit.conversation import Conversation
from kit.one_worker import OneWorker, listener, pool
from kit.servers import EndedError, Peer, Server
from timewait.balancer.config.model import ClientSide, Reuse, UpstreamClose, UpstreamSide

REQUESTS = [
    b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"HEAD /%d HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%d HTTP/1.0\r\n\r\n",
    b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000),
    b"PUT /%d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /%d HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    b"BREW /%d HTTP/1.1\r\nHost : x\r\n\r\n",
]
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + bytes(400_000),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/9.1 garbage\r\n\r\n",
]


class Moody:
    """A target in any mood."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def __call__(self, peer: Peer) -> None:
        chance = self.chance
        while True:
            data = peer.receive()
            mood = chance.random()
            if mood < 0.05:
                peer.reset()
            if mood < 0.1:
                return
            if mood < 0.5:
                answer = ANSWERS[0] if b"GET" in data[:4] else chance.choice(ANSWERS)
            else:
                answer = chance.choice(ANSWERS)
            cut = chance.randrange(len(answer) + 1) if chance.random() < 0.3 else 0
            peer.send(answer[:cut])
            if cut and chance.random() < 0.2:
                return
            if cut:
                peer.wait(0.001)
            peer.send(answer[cut:])
            if answer in ANSWERS[5:7]:
                return


def wander(address: tuple[str, int], seed: int, errors: list[BaseException]) -> None:
    """A client in any mood."""
    chance = random.Random(seed)
    try:
        for number in range(25):
            with Conversation(address, receive_buffer=chance.choice((0, 0, 4096))) as client:
                client.sock.settimeout(0.3)
                try:
                    for _ in range(chance.randrange(1, 5)):
                        said = chance.choice(REQUESTS) % number
                        cut = chance.randrange(len(said)) if chance.random() < 0.3 else 0
                        client.say(said[:cut])
                        client.say(said[cut:])
                        if chance.random() < 0.7:
                            client.sock.recv(chance.choice((1, 1000, 1_000_000)))
                    mood = chance.random()
                    if mood < 0.3:
                        client.finish().rest()
                    elif mood < 0.5:
                        client.reset()
                except (OSError, EOFError, EndedError):
                    pass
    except BaseException as error:
        errors.append(error)
        raise


def test_everything_at_once_leaves_nothing_behind() -> None:
    settings = listener(
        upstream=UpstreamSide(
            reuse=Reuse.ALWAYS, read_timeout=0.3, idle=0.2, retries=2, close=UpstreamClose.RST, send_timeout=0.5
        ),
        client=ClientSide(keepalive=0.4, send_timeout=0.4, body_timeout=0.3, header_timeout=0.5, idle=1),
    )
    errors: list[BaseException] = []
    with Server(Moody(1)) as one, Server(Moody(2)) as two:
        with OneWorker(settings, pool(one.authority, two.authority)) as worker:
            clients = [threading.Thread(target=wander, args=(worker.address, seed, errors)) for seed in range(12)]
            for thread in clients:
                thread.start()
            for thread in clients:
                thread.join(100)
            # Some have left before they were accepted
            worker.until(lambda: worker.statistics.accepted == 300)
            worker.until_left()
            worker.until(lambda: sum(target.active for target in (worker.target(0), worker.target(1))) == 0)
            assert not [
                connection
                for target in worker.worker.pools["app"].targets.values()
                for connection in target.connections
            ]
            statistics = worker.statistics
            closes = statistics.closes
            assert (
                closes.balancer_fin + closes.balancer_rst + closes.peer_fin + closes.peer_rst
                == statistics.accepted
                == 300
            )
            answered = sum(statistics.made_by_balancer.values()) + sum(statistics.made_by_target.values())
            assert answered == statistics.requests
            assert errors == worker.errors == []
            site = next(iter(worker.proxy._sites.values()))
            assert (site.clients, site.tunnels) == (set(), set())
        for target in (worker.target(0), worker.target(1)):
            closes = target.closes
            assert closes.balancer_fin + closes.balancer_rst + closes.peer_fin + closes.peer_rst == target.connected
