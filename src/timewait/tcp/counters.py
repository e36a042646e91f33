"""The counters a decision moves, as bits, under the names of /proc/net/netstat and /proc/net/snmp."""

from __future__ import annotations

PAWS_PASSIVE = 1 << 0
PAWS_ESTAB = 1 << 1
PAWS_TIMEWAIT = 1 << 2
PAWS_ACTIVE = 1 << 3
LISTEN_DROPS = 1 << 4
LISTEN_OVERFLOWS = 1 << 5
ACK_SKIPPED_TIMEWAIT = 1 << 6
ACK_SKIPPED_FINWAIT2 = 1 << 7
TW_RECYCLED = 1 << 8
TW = 1 << 9
TW_KILLED = 1 << 10
TIMEWAIT_OVERFLOW = 1 << 11
ABORT_ON_CLOSE = 1 << 12
ABORT_ON_DATA = 1 << 13
ABORT_ON_LINGER = 1 << 14
ABORT_ON_MEMORY = 1 << 15
REQ_Q_FULL_DROP = 1 << 16
REQ_Q_FULL_DO_COOKIES = 1 << 17
PAWS_OLD_ACK = 1 << 18
SYNCOOKIES_SENT = 1 << 19
# an open connection, and one that is being opened
ACK_SKIPPED_PAWS = 1 << 20
ACK_SKIPPED_SEQ = 1 << 21
ACK_SKIPPED_CHALLENGE = 1 << 22
ACK_SKIPPED_SYNRECV = 1 << 23
CHALLENGE_ACK = 1 << 24
SYN_CHALLENGE = 1 << 25
ABORT_ON_SYN = 1 << 26
EMBRYONIC_RSTS = 1 << 27
PASSIVE_OPENS = 1 << 28
ATTEMPT_FAILS = 1 << 29
ESTAB_RESETS = 1 << 30
TSECR_REJECTED = 1 << 31

NAMES: dict[int, str] = {
    PAWS_PASSIVE: "PAWSPassive",
    PAWS_ESTAB: "PAWSEstab",
    PAWS_TIMEWAIT: "PAWSTimewait",
    PAWS_ACTIVE: "PAWSActive",
    LISTEN_DROPS: "ListenDrops",
    LISTEN_OVERFLOWS: "ListenOverflows",
    ACK_SKIPPED_TIMEWAIT: "TCPACKSkippedTimeWait",
    ACK_SKIPPED_FINWAIT2: "TCPACKSkippedFinWait2",
    TW_RECYCLED: "TWRecycled",
    TW: "TW",
    TW_KILLED: "TWKilled",
    TIMEWAIT_OVERFLOW: "TCPTimeWaitOverflow",
    ABORT_ON_CLOSE: "TCPAbortOnClose",
    ABORT_ON_DATA: "TCPAbortOnData",
    ABORT_ON_LINGER: "TCPAbortOnLinger",
    ABORT_ON_MEMORY: "TCPAbortOnMemory",
    REQ_Q_FULL_DROP: "TCPReqQFullDrop",
    REQ_Q_FULL_DO_COOKIES: "TCPReqQFullDoCookies",
    PAWS_OLD_ACK: "PAWSOldAck",
    SYNCOOKIES_SENT: "SyncookiesSent",
    ACK_SKIPPED_PAWS: "TCPACKSkippedPAWS",
    ACK_SKIPPED_SEQ: "TCPACKSkippedSeq",
    ACK_SKIPPED_CHALLENGE: "TCPACKSkippedChallenge",
    ACK_SKIPPED_SYNRECV: "TCPACKSkippedSynRecv",
    CHALLENGE_ACK: "TCPChallengeACK",
    SYN_CHALLENGE: "TCPSYNChallenge",
    ABORT_ON_SYN: "TCPAbortOnSyn",
    EMBRYONIC_RSTS: "EmbryonicRsts",
    PASSIVE_OPENS: "PassiveOpens",
    ATTEMPT_FAILS: "AttemptFails",
    ESTAB_RESETS: "EstabResets",
    TSECR_REJECTED: "TSEcrRejected",
}


def names(counters: int) -> tuple[str, ...]:
    """The counters that rise by one, as `nstat` names them without its prefix TcpExt."""
    return tuple(name for bit, name in NAMES.items() if counters & bit)
