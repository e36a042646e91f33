"""Health checks: when one is due and what its answer means (`windows`), how it is made (`probes`), and by whom."""
