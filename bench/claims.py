"""How long all claims take, the slow ones left out: the command as a user runs it."""

from __future__ import annotations

import json
import subprocess
import time

from bench.figures import Figure, Result, Values
from bench.place import TIMEWAIT
from bench.settings import Settings


def claims(settings: Settings) -> Result:
    """One run; its length is made of waiting for the kernel's own seconds, and varies little."""
    chosen = "wrap" if settings.quick else "all"
    began = time.perf_counter()
    done = subprocess.run([TIMEWAIT, "lab", "run", chosen, "--json"], stdout=subprocess.PIPE, text=True, timeout=600)
    took = time.perf_counter() - began
    rows = json.loads(done.stdout)
    if done.returncode:
        told = "; ".join(f"{row['claim']} {row['verdict']} {row['why']}" for row in rows)
        raise RuntimeError(f"lab run ended with {done.returncode}: {told}")
    return Result(
        name="claims",
        title="All claims, the slow ones left out",
        how=f"`timewait lab run {chosen}`: {len(rows)} experiments one after the other, from fork to exit, every "
        "verdict as predicted.",
        figures=[Figure(what="`timewait lab run all`", unit="s", values=[took], asked="<= 90")],
        details=[Values(name=row["claim"], unit="s", values=[row["seconds"]]) for row in rows],
    )
