"""The JSON object and the CSV rows: names and units that programs rely on."""

from __future__ import annotations

import csv
import io
import json

import pytest

from report import samples
from timewait.report.record import as_json
from timewait.report.table import COLUMNS, write_csv
from timewait.run import Host, Run, Snapshot

QUANTILES = {"p50", "p90", "p99", "p99_9", "max"}


def test_the_contract() -> None:
    found = json.loads(json.dumps(as_json(samples.exhausted(), [samples.finding()], 3), allow_nan=False))
    assert found["plan"]["closing"] == "client"
    totals = found["totals"]
    assert {name: totals[name] for name in ("started", "connected", "succeeded", "failed", "requests")} == {
        "started": 31_500,
        "connected": 28_000,
        "succeeded": 28_000,
        "failed": 3_500,
        "requests": 28_000,
    }
    assert totals["seconds"] == 10.0
    assert (totals["bytes"], totals["bytes_out"]) == (28_000 * 240, 28_000 * 90)
    assert set(found["latency"]) == {"connect", "tls", "first_byte", "total"}
    assert set(found["latency"]["total"]) == QUANTILES
    assert found["latency"]["total"]["p99"] == pytest.approx(0.005, rel=0.001)
    assert found["latency"]["tls"] is None
    assert found["errors"] == [
        {"phase": "connect", "errno": "EADDRNOTAVAIL", "cause": "no-port", "count": 3500},
    ]
    assert (found["closed_first"]["us"], found["closed_first"]["peer"], found["closed_first"]["reset"]) == (
        28_000,
        0,
        0,
    )
    ports = found["ports"]
    assert (ports["capacity"], ports["in_use"], ports["time_wait"], ports["free"], ports["residue"]) == (
        28_232,
        0,
        28_232,
        0,
        232,
    )
    assert found["status"] == {"200": 28_000}
    assert found["counters"] == {"Tcp.ActiveOpens": 80_000}
    assert found["exit_code"] == 3


def test_a_finding_in_json() -> None:
    (found,) = as_json(samples.exhausted(), [samples.finding()], 3)["findings"]
    assert {"id", "summary", "evidence", "remedy", "confidence"} <= set(found)
    assert found["id"] == "ports-exhausted"
    assert found["evidence"][0] == {
        "text": "28,232 sockets in TIME_WAIT toward 10.0.0.1:8080",
        "source": "NETLINK_SOCK_DIAG",
    }
    assert set(found["remedy"][0]) == {"action", "effect", "cost"}


def test_a_run_without_anything_is_null_and_zero() -> None:
    found = json.loads(json.dumps(as_json(Run(plan=samples.plan(), host=Host()), [], 0), allow_nan=False))
    assert set(found["latency"].values()) == {None}
    assert found["totals"]["succeeded_per_second"] == 0
    assert found["ports"]["capacity"] is None
    assert found["ports"]["residue"] is None
    assert found["errors"] == found["findings"] == []


def test_an_interrupted_run_says_so() -> None:
    run = samples.healthy()
    run.interrupted, run.notes = "SIGTERM", ["a note"]
    found = as_json(run, [], 130)
    assert (found["interrupted"], found["notes"], found["exit_code"]) == ("SIGTERM", ["a note"], 130)


def test_a_damaged_error_key_is_kept_as_other() -> None:
    run = samples.healthy()
    run.total.errors = {"what is this thing": 3, "lonely": 2}
    assert [(row["cause"], row["count"]) for row in as_json(run, [], 1)["errors"]] == [("other", 3), ("other", 2)]


def rows(run: Run, file: str | None = None) -> list[dict[str, str]]:
    stream = io.StringIO()
    write_csv(run, stream, file)
    return list(csv.DictReader(io.StringIO(stream.getvalue())))


def test_one_row_a_tick() -> None:
    found = rows(samples.exhausted())
    assert len(found) == 10
    assert tuple(found[0]) == COLUMNS
    assert (found[0]["at"], found[0]["succeeded"], found[0]["ports_time_wait"]) == ("1", "8000", "8232")
    assert found[0]["tls_p99"] == ""
    assert float(found[0]["total_p99"]) == pytest.approx(0.005, rel=0.001)
    assert [row["failed_no_port"] for row in found] == ["0"] * 3 + ["500"] * 7


def test_the_rows_add_up_to_the_totals() -> None:
    run = samples.exhausted()
    found = rows(run)
    for name in ("started", "succeeded", "failed", "bytes_in", "closed_us"):
        assert sum(int(row[name]) for row in found) == getattr(run.total, name)


def test_a_file_column_tells_runs_apart() -> None:
    assert {row["file"] for row in rows(samples.healthy(), file="a,b\n.jsonl")} == {"a,b\n.jsonl"}


def test_ticks_without_snapshots_have_empty_ports() -> None:
    run = samples.healthy()
    run.snapshots = [Snapshot()]
    found = rows(run)
    assert len(found) == 10
    assert {row["ports_free"] for row in found} == {""}
