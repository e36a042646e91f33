"""Everything that changes while a world runs, in flat arrays of integers; and everything that does not.

Compiled, the arrays are NumPy's; interpreted, they are lists, whose numbers are Python's own. What has several fields
lies flat, field by field, SLOT or ROW numbers apart: 64 octets for a five-tuple are one line of cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from timewait.simulate.engine.compiled import bare
from timewait.simulate.engine.draws import Keys
from timewait.tcp.knobs import Knobs
from timewait.tcp.profiles import Rules

Numbers = Any  # an array of 64-bit integers, or a list

NOBODY = -1

# registers
G_SEQ = 0  # events scheduled so far
G_BUCKET = 1  # the wheel's hand
G_ACTIVE, G_DONE = 2, 3  # active events, and how many of them have happened
G_WAITING = 4  # events scheduled and not happened
G_LOWEST = 5  # events in the lowest level
G_NOW = 6  # ns
G_ARRIVAL = 7  # when the next connection is opened; NEVER
G_ARRIVALS = 8  # connections opened so far
G_CANDIDATES = 9  # moments drawn so far
G_SPARE = 10  # first free slot
G_FREE_SLOTS = 11
G_IDLE = 12  # clients that think
G_REST_HEAD, G_REST_TAIL = 13, 14  # ports at rest, counted from the beginning
G_EVENTS = 15
G_CONNECTING, G_OPEN = 18, 19
G_TAKEN = 20  # source ports taken, all addresses
G_BACK_HEAD, G_BACK_TAIL = 21, 22  # the balancer's ports at rest
G_BACK_TURN = 23  # connections the balancer opened
G_BACK_TAKEN = 24
G_OPENER = 16  # the client that opens the next connection, where that is drawn
G_REST_AT, G_BACK_AT = 17, 25  # ns, when the first port at rest is free: NEVER
G_REST_ROOM, G_BACK_ROOM = 30, 31  # how many ports at rest there is room for: powers of two
G_QUEUE = 26  # most that waited in an accept queue since the last tick
G_LINES = 27  # lines that were ever used
G_LINE, G_LINE_AT = 28, 29  # the one whose first event comes next, and when that is
LINES = 32  # a line of events that wait equally long, for each SYN of a connection
L_HEAD, L_TAIL, L_AT, L_LAST = 0, 1, 2, 3  # first and last slot, and when their events are due
L_AHEAD, L_LEAD = 4, 5  # the slot up to which memory was asked for them, and how many places that is behind the first
LINE, MOST_LINES = 6, 16
REGISTERS = 128

NEVER = 1 << 62

# a connection, from its first SYN to its end
C_WHEN, C_SEQ, C_LINK = 0, 1, 2  # its event: time in ns, number, next in the bucket
C_KIND = 3
C_CLIENT = 4
C_ROW = 5  # its five-tuple; NOBODY while it has no port
C_STARTED = 6  # ns, when its first SYN passed the gateway
C_BASE = 7  # ns, what the times of the SYNs are counted from
C_TRIES = 8  # SYNs sent
C_NUMBER = 9  # the how manieth connection of the simulation
C_OWN = 10  # destination << 16 | the client's own port, until it has an answer; then
C_BACK = 10  # the balancer's port for it; NOBODY
C_ISN = 11
C_OFFSET = 12  # of its timestamps
C_STATE = 13  # ANSWERED ... below; the sequence number of a RST above 16 bits
C_CLOCK = 14  # us, the uptime of its client when the simulation began
C_TRIP = 15  # ns, client to server and back
SLOT = 16

ANSWERED = 1  # the server has sent a SYN-ACK
FAILED = 2  # the balancer found no port toward its servers
TRIES_ONE, TRIES_SHIFT = 256, 8  # how often the accept queue was full

SYN_DUE, GIVE_UP, RST_ARRIVES, JOINS, SERVED, ENDS = 0, 1, 2, 3, 4, 5  # C_KIND

# a five-tuple, and the TIME_WAIT that holds it
T_UNTIL = 0  # ns; 0: none
T_HOLDER = 1  # who has it
T_RCV_NXT, T_SND_NXT, T_TS, T_STAMP = 2, 3, 4, 5
T_LAST_ACK, T_ENTERED = 6, 7  # ms
ROW = 8
FREE, SERVER_HOLDS, CLIENT_HOLDS = 0, 1, 2

# a client: 64 bits
TRIED, CONNECTED = 1, 2
OPEN_ONE, OPEN_MASK, OPEN_SHIFT = 4, 0xFFFF, 2  # ports it has
HINT_SHIFT = 18  # 32 bits: where its own kernel's search for a port stands

MS = 1_000_000
RING = 1 << 17  # ms: no TIME_WAIT outlasts it


REST = 3  # numbers for a port at rest: ns when it is free, five-tuple, client

# Where in `State.m` lies what always has the same size; the rest begins at the places that `Fixed` names.
TICK = REGISTERS  # outcome.Column
DROPS = TICK + 32  # outcome.REASONS
COUNTERS = DROPS + 256
LATENCY = COUNTERS + 32
HEADS = LATENCY + 33792  # counts of timewait.histogram; then the buckets of the wheel
END = HEADS + (1 << 18) + 2 * (1 << 10)


class State(NamedTuple):
    """What changes: one long row of numbers, and four that grow when there is need."""

    m: Numbers  # the registers first
    conns: Numbers
    active: Numbers  # slots whose bucket is up, in order
    behind: Numbers  # for each slot that stands in a line, the one behind it: apart, so that one may look far ahead
    rest: Numbers  # source ports at rest: a ring, in the order in which they become free
    back: Numbers  # the balancer's source ports at rest


def addressed(s: State) -> State:
    """The same for compiled code, see `bare`."""
    return State(bare(s.m), bare(s.conns), bare(s.active), bare(s.behind), bare(s.rest), bare(s.back))


B_TIME_WAIT, B_SWEPT, B_FREE_AT = 0, 1, 2  # TIME_WAITs; up to which ms they are swept; when the next accept() ends
B_IDLE = 3  # kept connections to servers that nobody uses
BOX = 4


class Fixed(NamedTuple):
    """What does not change. Times in ns."""

    seed: int
    keys: Keys
    width: int
    # when
    process: int
    gap: float  # mean between connections, or of the wait of one client
    swing: float
    period: float
    peak_at: float
    times: int  # how many of a trace
    # clients
    clients: int
    client: Rules
    client_knobs: Knobs
    uptime_low: int  # s
    uptime_span: int
    sends: int  # how many SYNs leave
    gives_up: int
    timeout: int  # 0: the kernel's
    requests: int
    pause: int
    closing: int
    octets_sent: int
    octets_received: int
    # ports
    choice: int
    low: int
    high: int
    addresses: int
    destinations: int
    independent: bool
    ports: int
    words: int  # of a pool's bits
    odd_word: int  # where the bits of every second port begin; 0: not apart
    block: int
    block_words: int
    rest: int
    per_client: int
    port_low: int  # of a client's own kernel
    port_high: int
    # network
    access: int
    delay: int
    loss: float
    eaten: float
    # server
    server: Rules
    server_knobs: Knobs
    boxes: int
    backlog: int
    accept: int  # ns one accept() takes; 0: nothing
    answer: float
    exponential: bool
    rto_ms: int
    # backend
    servers: int  # 0: no backend
    sources: int
    kept: bool
    back_closing: int
    back_ts: bool
    back_low: int
    back_high: int
    back_ports: int
    back_words: int
    back_odd: int
    # places in `State.m`
    times_at: int
    sends_at: int  # when SYNs leave, from the first
    clients_at: int
    block_of_at: int  # blocks: a client's block + 1
    idle_at: int  # clients that think
    boxes_at: int  # BOX numbers for each box, then for the clients, then for the balancer as a client
    ring_at: int  # TIME_WAITs that end in each ms, for each of these
    record_ts_at: int  # tcp_tw_recycle, by box and source address
    record_stamp_at: int
    bits_at: int  # a bit for each source port that is free, 32 to a number, by pool: an address toward a destination
    free_at: int  # how many are, by pool
    hint_at: int  # where the next search begins, by pool or address
    queue_at: int  # lru: the free ones, the longest free first
    ends_at: int  # lru: head and tail, by pool
    blocks_at: int  # blocks: a bit for each that is free, by address
    used_at: int  # blocks: ports taken in each
    resting_at: int  # ports at rest, by address
    waits_at: int  # a bit for each five-tuple whose row says that the server holds it: most SYNs look no further
    rows_at: int
    back_bits_at: int
    back_free_at: int
    back_hint_at: int
    back_rows_at: int


POISSON, CONSTANT, DIURNAL, TRACE, THINK = 0, 1, 2, 3, 4
BY_SERVER, BY_CLIENT, BY_RESET = 0, 1, 2
BY_KERNEL, SEQUENTIAL, RANDOM, HASHED, PRESERVED, OLDEST, BLOCKS = 0, 1, 2, 3, 4, 5, 6
