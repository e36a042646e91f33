"""Dialogues: a short script of segments and socket calls, played on the model and on a real kernel alike.

A script says what a peer sends to a host and what must come back. On the model it is played by the rules of every
kernel it names; on the running kernel by a peer made of frames, over a link, at the real TCP. Every segment the host
sends must be expected, every counter the rules know must move as said, and nothing else may happen.

    why      A newer timestamp opens the next connection [tcp_timewait_state_process]
    kernels  all
    given    TIME_WAIT seq=5000 ts=100000
    > SYN seq=4000 ts=100001
    < SYN ACK seq=2+65537 ack=4001 ecr=100001
    count    nothing

A line is one step; `#` begins a comment. Four words may stand only in front of the first step:

`why TEXT [KERNEL FUNCTION]`
    What the script shows, in one sentence, and where the kernel decides it.
`kernels NAME...`
    The profiles it holds for: `all`, names (`timewait rules kernels`), or ranges in the order of that table:
    `..6.14`, `el7..4.12`, `4.19..`.
`model REASON`
    It is for the model only: minutes pass, or no such kernel is at hand.
`over ipv6`
    Instead of IPv4.

The others are steps, played in their order:

`given STATE [seq=N] [ts=N] [connected] [bound]`
    A connection in a state: ESTABLISHED, FIN_WAIT1, FIN_WAIT2 (an orphan's), TIME_WAIT, CLOSING, CLOSE_WAIT,
    LAST_ACK. It is opened and closed step by step, each checked. The host expects `seq` next (5000); without `ts`
    the peer has no timestamps. The host listens, and closes first unless the state says otherwise; `connected`: it
    is the client, from a port of its own choice if `bound`. Counters begin here.
`> FLAGS seq=N [ack=N] [len=N] [ts=N [ecr=N]] [port=N]`
    The peer sends. FLAGS are of SYN ACK FIN RST PSH. Without `ts` the segment has no timestamps; `ecr` is by itself
    the host's last timestamp.
`< FLAGS [seq=N] [ack=N] [len=N] [ts | ts=any | ecr=N] [port=N]`
    The host sends this next. Flags (but PSH), length and the presence of timestamps are always compared (`ts=any`:
    not), numbers where they are written. `< nothing` makes visible what holds anyway.
`host CALL`
    The host's program calls `listen [backlog=N]`, `accept [NAME]`, `connect [NAME] [port=N] [reuse]`,
    `send N [NAME]`, `recv N [NAME]` (0: the end), `shutdown [NAME]`, `close [NAME]`, `linger 0 [NAME]`. With
    `fails ERRNO` it must. Sockets are called `listener` and `connection` unless named. `port`: bind() first;
    `reuse`: with SO_REUSEADDR.
`knobs NAME=VALUE...`
    Sysctls under net.ipv4 change.
`wait TIME`
    Time passes: `60s`, `300ms`, `24d`.
`count NAME+N...`, `count nothing`
    How counters moved since the last `count` or `given`; all others of `timewait.tcp.counters` did not.
`state STATE [TIME [armed TIME ago]] [port=N]`
    The state sock_diag shows, `gone` where there is none; what its timer was set to, and when (now).

Numbers of the peer are absolute, those of the host count from its first SYN, which is 0; `seq=new` begins to count
again. They may be sums: `2+65537`, `5000-2^31`, modulo 2^32. The server's port is 80, the client's 40000 unless a
line says `port=`; with an automatic port it is the one the host's SYN has. A line that begins with `[KERNELS]` holds
for these alone, the others skip it.
"""

from timewait.lab.dialogue.kernel import PlayError, nearest_profile, play_on_kernel
from timewait.lab.dialogue.language import ScriptError, parse
from timewait.lab.dialogue.model import play_on_model
from timewait.lab.dialogue.play import Played
from timewait.lab.dialogue.script import Script
from timewait.lab.dialogue.transcript import transcript

__all__ = [
    "PlayError",
    "Played",
    "Script",
    "ScriptError",
    "nearest_profile",
    "parse",
    "play_on_kernel",
    "play_on_model",
    "transcript",
]
