"""One worker's engine: the chapters of a connection's life put together, and how the work ends."""

from __future__ import annotations

from timewait.stress.closing import shut
from timewait.stress.connection import CLOSING, FOREVER, IDLE
from timewait.stress.endings import Endings
from timewait.stress.exchanges import Exchanges
from timewait.stress.openings import Openings
from timewait.stress.renewals import Renewals


class Engine(Openings, Exchanges, Endings, Renewals):
    """Driven by `loop.run`; its state is described in `core.Core`."""

    def stop(self, now: float, patience: float) -> None:
        """Nothing new from here on; what is in flight has `patience` seconds, idle connections are closed."""
        if self.schedule is not None and self.budget > 0:
            until = min(now, self.end_at) - self.start_at
            self.meters.unsent += max(0, min(self.schedule.count(until), FOREVER) - self.arrival)
        self.stopped, self.budget = True, 0
        self.drain_until = now + patience
        self.retries.clear()
        for c in list(self.idle):
            self.idle.pop(c)
            self.busy += 1
            self.part(c, now, peer_closed=False, closes=False)

    def abandon(self) -> None:
        """Counts and closes what is still in flight."""
        for c in list(self.by_fd.values()):
            if c.state not in (CLOSING, IDLE):
                self.meters.unfinished += 1
            if c.established:
                self.book_end(shut(c.sock))
            self.drop(c)
