"""What should be, and what follows from it: the configuration engines get, the checks to make. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from timewait.balancer import overlay
from timewait.balancer.config import capability, check
from timewait.balancer.config.effective import check_type
from timewait.balancer.config.model import Configuration, Pool, Protocol, Target
from timewait.balancer.engine import BalancerError
from timewait.balancer.health.probes import Check
from timewait.balancer.overlay import Hand, Key


class Wish(NamedTuple):
    """The file, what was done by hand, who is on the way out (with the pool it was in)."""

    file: Configuration
    overlay: dict[Key, Hand]
    leaving: dict[Key, Pool]

    def effective(self) -> Configuration:
        """What engines get: those that leave are still there, without weight."""
        return overlay.effective(self.file, self.overlay, self.leaving)

    def checks(self) -> dict[Key, Check]:
        """What to check, by target; who leaves is checked no more."""
        configuration = overlay.effective(self.file, self.overlay)
        udp = {listener.pool for listener in configuration.listener if listener.protocol is Protocol.UDP}
        return {
            (pool.name, one.addr): Check(one.addr, check_type(configuration, pool), pool.health, pool.name in udp)
            for pool in configuration.pool
            if pool.health.enabled
            for one in pool.target
        }

    def refuse_what_no_file_may_say(self) -> None:
        """A file was checked when it was read; with what was done by hand over it, it is checked again. Raises
        BalancerError."""
        if self.overlay:
            configuration = overlay.effective(self.file, self.overlay)
            problems = [*check.problems(configuration), *capability.problems(configuration)]
            if problems:
                raise BalancerError("\n".join(dict.fromkeys(problem.sentence for problem in problems)))


def shape(configuration: Configuration) -> Configuration:
    """What only a reload tells an engine: everything but weights, which rotations tell."""
    pools = []
    for pool in configuration.pool:
        targets = tuple(Target(addr=one.addr, weight=0) for one in pool.target)
        pools.append(msgspec.structs.replace(pool, target=targets))
    return msgspec.structs.replace(configuration, pool=tuple(pools))
