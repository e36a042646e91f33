"""A link between two hosts in user space: it delays, loses, filters, records, and applies an old kernel's rules."""

from timewait.lab.wire.link import Wire
from timewait.lab.wire.spec import ACKS_TO_SYNS, RESETS, Drop, End, OldKernel, WireSpec
from timewait.lab.wire.told import Counts, Event

__all__ = ["ACKS_TO_SYNS", "RESETS", "Counts", "Drop", "End", "Event", "OldKernel", "Wire", "WireSpec"]
