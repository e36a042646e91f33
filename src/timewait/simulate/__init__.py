"""The kernel's decisions for millions of clients behind NATs: a world as data, an engine that plays it.

`run_world(scenario, seed)` is the whole of it: `world.Scenario` in, `outcome.Outcome` out; `record.recorded` makes a
`Run` of that, so that findings and reports work as for a real run.
"""
