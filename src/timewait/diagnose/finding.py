"""What a finding is. Ids, confidence and blame are part of the contract: docs, `--json` and exit codes use them."""

from __future__ import annotations

import msgspec

CERTAIN, LIKELY, POSSIBLE = "certain", "likely", "possible"
MACHINE, TARGET, NETWORK, SETTING = "machine", "target", "network", "setting"


class Evidence(msgspec.Struct, frozen=True):
    """One observation with its number, and where that number comes from."""

    text: str
    source: str  # "TcpExt.ListenOverflows in /proc/net/netstat", "errno of connect()"


class Remedy(msgspec.Struct, frozen=True):
    """Something to do: an exact command or flag, what it changes on this host, and what it costs."""

    action: str
    effect: str
    cost: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One cause, found."""

    id: str
    summary: str  # one sentence, with this run's numbers
    evidence: list[Evidence] = []
    remedy: list[Remedy] = []  # best first
    wrong: list[str] = []  # what people try, and why it does not help
    confidence: str = CERTAIN  # certain | likely | possible
    blame: str = MACHINE  # machine | target | network | setting


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What a cause's function answers; id and blame come from the closed list in causes.py."""

    summary: str
    evidence: list[Evidence] = []
    remedy: list[Remedy] = []
    wrong: list[str] = []
    confidence: str = CERTAIN
