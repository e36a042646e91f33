"""The claim about what connect() itself costs while the ports run out."""

from __future__ import annotations

from random import Random

from timewait.claims.claim import claim
from timewait.claims.places import pair
from timewait.claims.stage import Stage
from timewait.histogram import quantiles
from timewait.plan import Closing, PortPolicy, Ports
from timewait.run import Run
from timewait.tcp import choice
from timewait.tcp.kernels import Kernel
from timewait.verdict import Measure, Outcome

LOW, HIGH = 20_000, 23_999
FILLED = (0.1, 0.5, 0.6, 0.9, 0.95)  # shares of the ports in TIME_WAIT at which a stretch ends
SLOWER = 5.0  # what counts as slow: this many times what it takes while ports are plenty
FLAT = 3.0  # what still counts as flat; other work on the machine disturbs a median of microseconds


@claim(
    "port-search",
    "Long before the wall, connect() itself gets slow: it looks for a free port.",
    topology="direct",
)
def port_search(stage: Stage) -> Outcome:
    kernel = _medians(_stretches(stage, Ports(PortPolicy.KERNEL)))
    own = _medians(_stretches(stage, Ports(PortPolicy.OLDEST, LOW, HIGH)))
    looked = ports_looked_at(stage.kernel, Random(1))
    rise, flat = kernel[-1] / kernel[0], own[-1] / own[0]
    last = f"{FILLED[-2]:.0%} to {FILLED[-1]:.0%}"
    return Outcome(
        measures=(
            Measure(
                f"connect() with {last} of the ports in TIME_WAIT, against less than {FILLED[0]:.0%}: median",
                f"slower ({looked[0]:.0f} port looked at, then {looked[-1]:.0f})",
                f"{rise:.0f} x slower ({kernel[0] * 1e6:.0f} us, then {kernel[-1] * 1e6:.0f} us)",
                rise >= SLOWER,
            ),
            Measure(
                "... where the tool allocates ports itself",
                "flat (1 port looked at)",
                f"{flat:.1f} x ({own[0] * 1e6:.0f} us, then {own[-1] * 1e6:.0f} us)",
                flat <= FLAT,
            ),
        ),
        notes=(
            "Once half of the ports rest, a search passes all ports of one parity before it tries the other.",
            "median connect() by share of ports in TIME_WAIT: "
            + ", ".join(f"to {share:.0%} {value * 1e6:.0f} us" for share, value in zip(FILLED, kernel, strict=True)),
            "ports looked at by the rules: "
            + ", ".join(f"to {share:.0%} {value:.0f}" for share, value in zip(FILLED, looked, strict=True)),
        ),
    )


def _stretches(stage: Stage, ports: Ports) -> list[Run]:
    """One run for each stretch of FILLED, all toward the same destination, each port used once."""
    runs, size = [], HIGH - LOW + 1
    with pair(stage, ports=(LOW, HIGH)) as here:
        for before, share in zip((0.0, *FILLED[:-1]), FILLED, strict=True):
            count = round(size * share) - round(size * before)
            start = LOW + round(size * before)
            span = Ports(ports.policy, start, start + count - 1) if ports.low else ports
            say = f"{before:.0%} to {share:.0%} of the ports in TIME_WAIT"
            runs.append(
                stage.load(here.client, here.url, Closing.CLIENT, count=count, at_once=4, ports=span, say=say)
            )
    return runs


def _medians(runs: list[Run]) -> list[float]:
    """Seconds inside connect()."""
    return [quantiles(run.total.search, (0.5,))[0] for run in runs]


def ports_looked_at(kernel: Kernel, random: Random) -> list[float]:
    """The mean of each stretch of FILLED, by the rules of this kernel, when nothing may be taken over."""
    size = HIGH - LOW + 1
    states = [choice.FREE] * size
    offset_hash, hint, means, used = random.getrandbits(32), 0, [], 0
    for share in FILLED:
        tried, wanted = 0, round(size * share)
        stretch = wanted - used
        while used < wanted:
            offset = choice.start(kernel.rules, LOW, HIGH, hint, offset_hash)
            found = choice.choose(kernel.rules, LOW, HIGH, offset, states)
            hint += choice.advance(kernel.rules, found.steps, random.randrange(8))
            states[found.port - LOW] = choice.BUSY
            tried += found.tried
            used += 1
        means.append(tried / stretch)
    return means
