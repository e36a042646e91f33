"""What an experiment may use: networks, loads, counts. Everything it starts ends with it.

The load comes from the stress engine, the counts from the observers; an experiment only says which and compares.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from timewait import experiment
from timewait.histogram import quantiles
from timewait.lab.processes import MissingProgramError, ProgramError
from timewait.lab.programs import BALANCERS, Settings
from timewait.observe.counters import moved, read_counters
from timewait.observe.sock_diag import SockDiag, held_at, toward
from timewait.plan import Closing, Plan, Ports, Rate, RateUnit, parse_url
from timewait.run import Run, Snapshot, Tick
from timewait.tcp.kernels import Kernel, running
from timewait.tcp.syn import Schedule, schedule

if TYPE_CHECKING:
    from timewait.lab.network import LabHost, Network
    from timewait.lab.recorder import Recorder
    from timewait.lab.topology import Topology

Target = tuple[str, int]  # numeric address and port
PATIENCE = 5.0  # seconds for what takes none on an idle machine: a connect, the peer's FIN


class InconclusiveError(Exception):
    """The experiment cannot say anything; the text is the reason."""


class Stage:
    """`with Stage(...) as stage:` around one experiment. `say` gets one line of progress at a time."""

    def __init__(self, claim: str, balancer: str, pcap: str | None, say: Callable[[str], None]) -> None:
        self.claim = claim
        self.balancer = balancer  # "timewait", "nginx" or "haproxy"
        self.notes: list[str] = []  # what goes wrong beside the experiment: a capture that could not be written
        self._pcap = pcap
        self._say = say
        self._networks: list[Network] = []
        self._built = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._networks.clear()

    @property
    def kernel(self) -> Kernel:
        """The rules that stand for the kernel that runs here: what predictions are made with."""
        return running(os.uname().release)

    @property
    def syn_schedule(self) -> Schedule:
        """When this kernel sends a SYN again."""
        return schedule(self.kernel)

    def say(self, text: str) -> None:
        self._say(text)

    @contextmanager
    def network(self, topology: Topology) -> Iterator[Network]:
        """The topology, built; recorded when the user asked for captures. Raises InconclusiveError when a process
        in it has died: then nothing that was measured there means what it should."""
        from timewait.lab.network import build

        with ExitStack() as stack:
            try:
                network = stack.enter_context(build(topology))
            except (MissingProgramError, ProgramError) as error:
                raise InconclusiveError(str(error)) from None
            self._networks.append(network)
            self._built += 1
            with self._recorded(network):
                yield network
            dead = network.died()
            self._networks.remove(network)
            if dead:
                raise InconclusiveError("; ".join(dead))

    def answering(self, host: LabHost) -> None:
        """Starts the chosen balancer on a host, answering by itself at port 80."""
        self.start(self.balancer, host, Settings())

    def start(self, program: str, host: LabHost, settings: Settings) -> None:
        """Starts one of BALANCERS on a host. Raises InconclusiveError when it is missing or does not come up."""
        try:
            BALANCERS[program](host, settings)
        except (MissingProgramError, ProgramError) as error:
            raise InconclusiveError(str(error)) from None

    def died(self) -> list[str]:
        """Sentences about processes of the networks that stand which ended on their own."""
        return [sentence for network in self._networks for sentence in network.died()]

    @contextmanager
    def _recorded(self, network: Network) -> Iterator[None]:
        if self._pcap is None:
            yield
            return
        folder = Path(self._pcap)
        ends = [link.ends[0] for link in network.topology.links]
        names = [f"{self.claim}-{self._built}-{end.host}-{end.interface}.pcap" for end in ends]
        recorders: list[Recorder] = []
        try:
            for end, name in zip(ends, names, strict=True):
                recorders.append(self._recorder(network[end.host], end.interface, folder / name))
            yield
        finally:
            for recorder in recorders:
                recorder.stop()
                if recorder.error:
                    self.notes.append(recorder.error)

    def _recorder(self, host: LabHost, interface: str, file: Path) -> Recorder:
        from timewait.lab.recorder import Recorder

        try:
            return Recorder(host.namespace, interface, file)
        except OSError as error:
            raise InconclusiveError(f"{file} cannot be recorded to: {error.strerror or error}") from None

    def load(
        self, host: LabHost, url: str, closing: Closing, *, rate: float | None = None, seconds: float | None = None,
        count: int | None = None, at_once: int | None = None, per_connection: int = 1, ports: Ports | None = None,
        connect_timeout: float = PATIENCE, sources: tuple[str, ...] = (), say: str = "",
    ) -> Run:  # fmt: skip
        """Drives connections from a host and returns the record. `rate` in new connections a second (open loop),
        else `at_once` connections in the closed loop. `count` in requests: all of them, however late a busy machine
        makes them; `seconds` ends it, and what is late is not sent. Raises
        InconclusiveError when a process of the load has died: the others' counts are not those of this load."""
        wish = Plan(
            requests_list=(parse_url(url),), closing=closing, requests=count, duration=seconds, connections=at_once,
            rate=Rate(rate, RateUnit.CONNECTIONS) if rate else None, requests_per_connection=per_connection,
            ports=ports or Ports(), connect_timeout=connect_timeout, close_timeout=PATIENCE, sources=sources,
        )  # fmt: skip
        told = say or f"{host.name} -> {url}, closed by {closing}"

        def on_tick(tick: Tick, snapshot: Snapshot, total: Tick) -> None:
            self._say(f"{told}: {total.succeeded:,} ok, {total.failed:,} failed")

        self._say(told)
        with host.entered():
            run = experiment.stress(wish, experiment.Listener(on_tick=on_tick, signals=False))
        if run.lost_workers:
            raise InconclusiveError(f"the load from {host.name} lost a process: {run.notes[0]}")
        return run

    def time_wait(self, host: LabHost, *, to: Target | None = None, at: Target | None = None) -> int:
        """Sockets a host holds in TIME_WAIT: toward a destination, at an address of its own, or all.

        A load is over with its last answer; the last FINs are waited for.
        """
        where = toward(ipaddress.ip_address(to[0]), to[1]) if to else ()
        where = held_at(ipaddress.ip_address(at[0]), at[1]) if at else where
        with host.entered(), SockDiag() as table:
            return table.time_wait_left(where, PATIENCE)

    @contextmanager
    def counted(self, host: LabHost) -> Iterator[dict[str, int]]:
        """A table that, after the block, holds the kernel's counters of a host that moved, and by how much."""
        found: dict[str, int] = {}
        with host.entered():
            before = read_counters()
        yield found
        with host.entered():
            found.update(moved(before, read_counters()))

    def slowest_connect(self, run: Run) -> float:
        """Seconds, of the connects that succeeded."""
        return quantiles(run.total.connect, (1.0,))[0]

    def wait(self, seconds: float, why: str) -> None:
        """Lets time pass, and says what for."""
        self._say(why)
        time.sleep(seconds)
