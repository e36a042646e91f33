"""The supervisor, with an engine that does as it is told, checks that answer as a test says, and its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest

from kit.fake_plane import FakePlane
from timewait.balancer.config.model import Configuration, Then
from timewait.balancer.config.read import configuration
from timewait.balancer.engine import BalancerError, Rotation
from timewait.balancer.health.icmp import Icmp
from timewait.balancer.health.probes import Check, Outcome
from timewait.balancer.rotation import State
from timewait.balancer.supervisor import AbsentError, ConflictError, Supervisor

A, B, C = "127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"


def file(*targets: str, health: str = "", drain: str = "", more: str = "") -> Configuration:
    listed = ", ".join(f'{{ addr = "{one}" }}' for one in targets)
    text = f"""
        [[listener]]
        name = "web"
        bind = ["127.0.0.1:1"]
        rule = [{{ pool = "app" }}]
        [[pool]]
        name = "app"
        target = [{listed}]
        {more}
        health = {{ {health} }}
        drain = {{ {drain} }}
    """
    return configuration(text, "clb.toml")


class Scene:
    """A supervisor that runs, and everything around it."""

    def __init__(self, configuration: Configuration) -> None:
        self.plane = FakePlane()
        self.said: list[str] = []
        self.dead: set[str] = set()
        self.now = 1000.0
        self.checks = 0
        self.supervisor = Supervisor(
            configuration,
            make=lambda engine: self.plane,
            say=self.said.append,
            make_check=self._check,
            now=lambda: self.now,
        )

    async def _check(self, check: Check, icmp: Icmp) -> Outcome:
        self.checks += 1
        return Outcome(False, "connection refused") if check.address in self.dead else Outcome(True, "", 0.001)

    async def pass_time(self, seconds: float) -> None:
        """Moves the clock as far as it goes in steps that wake every check."""
        self.now += seconds
        for watched in self.supervisor._prober.watched.values():
            watched.woken.set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)

    @property
    def weights(self) -> dict[str, int]:
        return self.plane.weights["app"]

    def states(self) -> dict[str, State]:
        return {one.address: one.state for one in self.supervisor.health()}


def play(
    configuration: Configuration, story: Callable[[Scene], Awaitable[None]], dead: tuple[str, ...] = ()
) -> Scene:
    async def main() -> Scene:
        scene = Scene(configuration)
        scene.dead = set(dead)
        await scene.supervisor.start()
        await scene.settle()
        try:
            await story(scene)
        finally:
            await scene.supervisor.close()
        return scene

    return asyncio.run(main())


def test_a_dead_target_gets_nothing_from_the_first_connection_on() -> None:
    async def story(scene: Scene) -> None:
        assert scene.weights == {A: 10, B: 0}
        assert scene.plane.calls == ["start"]
        assert scene.states() == {A: State.HEALTHY, B: State.UNHEALTHY}

    play(file(A, B), story, dead=(B,))


def test_a_target_falls_and_rises_again() -> None:
    async def story(scene: Scene) -> None:
        scene.dead = {B}
        for _ in range(3):
            assert scene.weights == {A: 10, B: 10}
            await scene.pass_time(5)
        assert scene.weights == {A: 10, B: 0}
        assert scene.said[-1].startswith(f"target app {B}: unhealthy: connection refused (3 checks")
        scene.dead = set()
        for _ in range(3):
            assert scene.weights == {A: 10, B: 0}
            await scene.pass_time(5)
        assert scene.weights == {A: 10, B: 10}
        assert scene.plane.calls == ["start", "rotate", "rotate"]

    play(file(A, B), story)


@pytest.mark.parametrize(
    ("more", "weights", "sentence"),
    [
        ("", {A: 10, B: 10}, 'pool app: no target is healthy; all of them get traffic (all_down = "all")'),
        ('all_down = "reject"', {A: 0, B: 0}, 'no target is healthy; clients are turned away (all_down = "reject")'),
    ],
)
def test_all_down(more: str, weights: dict[str, int], sentence: str) -> None:
    async def story(scene: Scene) -> None:
        assert scene.weights == weights
        assert any(sentence in line for line in scene.said)
        scene.dead = set()
        for _ in range(3):
            await scene.pass_time(5)
        assert scene.weights == {A: 10, B: 10}
        assert "pool app: has healthy targets again" in scene.said

    play(file(A, B, more=more), story, dead=(A, B))


def test_checks_that_are_off_send_traffic_anyway() -> None:
    async def story(scene: Scene) -> None:
        assert scene.weights == {A: 10, B: 10}
        assert scene.checks == 0
        assert set(scene.states().values()) == {State.UNCHECKED}

    play(file(A, B, health="enabled = false"), story, dead=(A, B))


def test_weight_zero_is_still_checked_and_drains() -> None:
    async def story(scene: Scene) -> None:
        scene.plane.open["app", B] = 2
        told = await scene.supervisor.weigh("app", B, 0)
        assert (told.was, told.weight, told.effective, told.draining) == (10, 0, 0, True)
        assert scene.weights == {A: 10, B: 0}
        assert [one.draining for one in scene.supervisor.health()] == [False, True]
        before = scene.checks
        await scene.pass_time(5)
        assert scene.checks == before + 2
        scene.now += 26  # drain.timeout is 30 s
        await scene.until(lambda: f"cut app {B} rst" in scene.plane.calls)
        await scene.until(lambda: any("2 connections of 2 cut (rst)" in line for line in scene.said))
        assert "reload" not in scene.plane.calls

    play(file(A, B), story)


def test_a_weight_that_comes_back_ends_the_drain() -> None:
    async def story(scene: Scene) -> None:
        scene.plane.open["app", B] = 2
        draining = asyncio.create_task(scene.supervisor.drain("app", B, 60.0, None))
        await scene.settle()
        await scene.supervisor.weigh("app", B, 3)
        assert (await draining).ended == "cancelled"
        scene.now += 100
        await asyncio.sleep(0.15)
        assert not any(call.startswith("cut") for call in scene.plane.calls)
        assert scene.weights == {A: 10, B: 3}

    play(file(A, B), story)


@pytest.mark.parametrize(
    ("then", "ended", "cut"), [(Then.RST, "cut", 2), (Then.FIN, "cut", 2), (Then.LEAVE, "left", 0), (None, "cut", 2)]
)
def test_drain_waits_and_reports(then: Then | None, ended: str, cut: int) -> None:
    async def story(scene: Scene) -> None:
        scene.plane.open["app", B] = 2
        told = await scene.supervisor.drain("app", B, 0.0, then)
        assert (told.ended, told.connections, told.cut) == (ended, 2, cut)
        assert scene.weights == {A: 10, B: 0}

    play(file(A, B), story)


def test_drain_of_a_quiet_target_ends_at_once() -> None:
    async def story(scene: Scene) -> None:
        assert (await scene.supervisor.drain("app", B, None, None)).ended == "idle"

    play(file(A, B), story)


def test_a_new_target_waits_for_its_checks() -> None:
    async def story(scene: Scene) -> None:
        told = await scene.supervisor.add("app", C, 7)
        assert (told.weight, told.effective) == (7, 0)
        assert scene.plane.calls == ["start", "reload"]
        for _ in range(3):
            assert scene.weights == {A: 10, B: 10, C: 0}
            await scene.pass_time(5)
        assert scene.weights == {A: 10, B: 10, C: 7}

    play(file(A, B), story)


def test_a_removed_target_drains_before_the_engine_forgets_it() -> None:
    async def story(scene: Scene) -> None:
        scene.plane.open["app", B] = 1
        assert await scene.supervisor.remove("app", B) == 5.0
        assert scene.weights == {A: 10, B: 0}
        assert [(one.address, one.leaving) for one in scene.supervisor.health()] == [(A, False), (B, True)]
        del scene.plane.open["app", B]
        await scene.until(lambda: scene.plane.calls[-1] == "reload")
        assert scene.weights == {A: 10}
        assert [one.address for one in scene.supervisor.health()] == [A]
        assert not any(call.startswith("cut") for call in scene.plane.calls)

    play(file(A, B, drain='timeout = "5s"'), story)


def test_a_target_that_comes_back_while_it_leaves_stays() -> None:
    async def story(scene: Scene) -> None:
        scene.plane.open["app", B] = 1
        await scene.supervisor.remove("app", B)
        await scene.supervisor.add("app", B, 4)
        scene.now += 100
        await asyncio.sleep(0.15)
        assert [(one.address, one.weight, one.leaving) for one in scene.supervisor.health()] == [
            (A, 10, False),
            (B, 4, False),
        ]
        assert not any(call.startswith("cut") for call in scene.plane.calls)

    play(file(A, B), story)


def test_what_is_refused() -> None:
    async def story(scene: Scene) -> None:
        supervisor = scene.supervisor
        with pytest.raises(AbsentError, match="no pool is named 'ap'; there are app"):
            await supervisor.weigh("ap", A, 1)
        with pytest.raises(AbsentError, match=f"pool app has no target '{C}'; it has {A}"):
            await supervisor.weigh("app", C, 1)
        with pytest.raises(ConflictError, match="is in pool app already"):
            await supervisor.add("app", A, 1)
        with pytest.raises(ConflictError, match="is in pool app already"):
            await supervisor.add("app", A.replace(":7", ":07"), 1)  # the same place, written otherwise
        with pytest.raises(BalancerError, match="itself"):
            await supervisor.add("app", "127.0.0.1:1", 1)
        with pytest.raises(ConflictError, match="is the only one of pool app"):
            await supervisor.remove("app", A)
        await supervisor.begin_to_stop()
        with pytest.raises(ConflictError, match="the balancer is ending"):
            await supervisor.weigh("app", A, 1)
        assert scene.plane.calls == ["start", "drain"]

    play(file(A), story)


def test_a_reload_that_an_engine_refuses_changes_nothing() -> None:
    async def story(scene: Scene) -> None:
        before = scene.supervisor.configuration
        scene.plane.refuses = "no memory"
        with pytest.raises(BalancerError, match="no memory"):
            await scene.supervisor.reload(file(A, C))
        scene.plane.refuses = ""
        assert scene.supervisor.configuration == before
        assert scene.states() == {A: State.HEALTHY, B: State.HEALTHY}  # what is known of B was not forgotten
        assert [one.leaving for one in scene.supervisor.health()] == [False, False]
        assert scene.weights == {A: 10, B: 10}

    play(file(A, B), story)


def test_a_reload_keeps_what_was_changed_by_hand_unless_told_not_to() -> None:
    async def story(scene: Scene) -> None:
        await scene.supervisor.weigh("app", A, 0)
        found = await scene.supervisor.reload(file(A, B, C))
        assert (found.targets_added, found.by_hand) == ([f"app {C}"], [f"app {A}: weight 0"])
        assert scene.weights == {A: 0, B: 10, C: 0}
        found = await scene.supervisor.reload(file(A, B, C), reset=True)
        assert (found.targets_weighed, found.by_hand) == ([f"app {A}: 0 -> 10"], [])
        assert scene.weights == {A: 10, B: 10, C: 0}
        assert scene.supervisor.by_hand == []

    play(file(A, B), story)


def test_a_pool_that_a_reload_brings_begins_as_at_the_start() -> None:
    def renamed(configuration: Configuration) -> Configuration:
        rule = msgspec.structs.replace(configuration.listener[0].rule[0], pool="other")
        listener = msgspec.structs.replace(configuration.listener[0], rule=(rule,))
        pool = msgspec.structs.replace(configuration.pool[0], name="other")
        return msgspec.structs.replace(configuration, listener=(listener,), pool=(pool,))

    async def story(scene: Scene) -> None:
        scene.dead = {C}
        await scene.supervisor.reload(renamed(file(B, C)))
        await scene.settle()
        assert scene.plane.weights["other"] == {B: 10, C: 0}

    play(file(A, B), story)


def test_a_reload_of_the_same_file_tells_the_engine_nothing() -> None:
    async def story(scene: Scene) -> None:
        assert (await scene.supervisor.reload(file(A, B))).nothing
        assert scene.plane.calls == ["start"]

    play(file(A, B), story)


def test_an_engine_that_cannot_start_leaves_nothing() -> None:
    async def main() -> None:
        scene = Scene(file(A, B))
        scene.plane.refuses = "port 80 is taken"
        with pytest.raises(BalancerError, match="port 80 is taken"):
            await scene.supervisor.start()
        assert scene.supervisor._prober.watched == {}
        await scene.settle()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_an_engine_that_dies_is_told() -> None:
    async def story(scene: Scene) -> None:
        scene.plane.died.set_result("worker 1 was killed by SIGKILL")
        assert await scene.supervisor.planes.failed() == "engine embedded: worker 1 was killed by SIGKILL"

    play(file(A, B), story)


def test_statistics_have_everything_that_counts() -> None:
    async def story(scene: Scene) -> None:
        stats = await scene.supervisor.statistics()
        assert (stats.listeners["web"].accepted, stats.unknown) == (7, ["tls_handshakes"])
        assert [(one.address, one.state, one.effective, one.passed) for one in stats.health] == [
            (A, State.HEALTHY, 10, 1),
            (B, State.HEALTHY, 10, 1),
        ]
        again: Any = msgspec.json.decode(msgspec.json.encode(stats), type=type(stats))
        assert again == stats

    play(file(A, B), story)


def test_the_end_waits_for_a_change_under_way() -> None:
    async def story(scene: Scene) -> None:
        finished = asyncio.Event()
        reload = scene.plane.reload

        async def slow(configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
            await finished.wait()
            await reload(configuration, rotations)

        scene.plane.reload = slow  # type: ignore[method-assign]
        reloading = asyncio.create_task(scene.supervisor.reload(file(A, C)))
        await scene.settle()
        ending = asyncio.create_task(scene.supervisor.begin_to_stop())
        await scene.settle()
        assert scene.plane.calls == ["start"]
        finished.set()
        await asyncio.gather(reloading, ending)
        assert scene.plane.calls == ["start", "reload", "drain"]

    play(file(A, B), story)
