"""The engine: events in the order of their times, on arrays, each decided by a function of `timewait.tcp`."""
