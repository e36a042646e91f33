"""The admin API's requests. Each is answered once it is done, with JSON; what cannot be done is {"error": "..."}.

GET    /v1/config                        the file with every default and what was changed at runtime; ?as=toml
GET    /v1/stats                         everything counted, and what the kernel says
GET    /v1/health                        every target
PUT    /v1/pools/POOL/targets/ADDRESS    {"weight": 0}
POST   /v1/pools/POOL/targets            {"addr": "10.0.1.13:8080", "weight": 10}
DELETE /v1/pools/POOL/targets/ADDRESS
POST   /v1/pools/POOL/targets/ADDRESS/drain   {"timeout": "30s", "then": "rst"}; waits for the end of it
POST   /v1/check                         {"text": "...", "name": "..."}, or nothing: the balancer's own file
POST   /v1/reload                        {"reset": true} forgets what was changed at runtime
GET    /metrics                          for Prometheus
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from timewait.balancer.changes import Changes
from timewait.balancer.config.model import Target, Then
from timewait.balancer.config.problem import ConfigError
from timewait.balancer.config.units import seconds
from timewait.balancer.control.metrics import exposition
from timewait.balancer.engine import BalancerError
from timewait.balancer.source import Source
from timewait.balancer.supervisor import AbsentError, ConflictError, Supervisor

Weight = Annotated[int, msgspec.Meta(ge=0, le=100)]
_Body = TypeVar("_Body", bound=msgspec.Struct)


class WeightBody(msgspec.Struct, forbid_unknown_fields=True):
    weight: Weight


class TargetBody(msgspec.Struct, forbid_unknown_fields=True):
    addr: str
    weight: Weight = Target(addr="").weight


class DrainBody(msgspec.Struct, forbid_unknown_fields=True):
    timeout: str | int | None = None
    then: str | None = None


class CheckBody(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    name: str = ""


class ReloadBody(msgspec.Struct, forbid_unknown_fields=True):
    reset: bool = False


class Api:
    """The requests of one balancer. `reload` is the service's own, so that SIGHUP and the API do the same."""

    def __init__(self, supervisor: Supervisor, source: Source, reload: Callable[[bool], Awaitable[Changes]]) -> None:
        self._supervisor, self._source, self._reload = supervisor, source, reload

    def application(self) -> web.Application:
        """Everything, for the unix socket."""
        app = web.Application(middlewares=[_sentences], client_max_size=8 << 20)
        target = "/v1/pools/{pool}/targets/{target}"
        app.add_routes(
            [
                web.get("/v1/config", self.config),
                web.get("/v1/stats", self.stats),
                web.get("/v1/health", self.health),
                web.put(target, self.weigh),
                web.post("/v1/pools/{pool}/targets", self.add),
                web.delete(target, self.remove),
                web.post(f"{target}/drain", self.drain),
                web.post("/v1/check", self.check),
                web.post("/v1/reload", self.reload),
                web.get("/metrics", self.metrics),
            ]
        )
        return app

    def metrics_only(self) -> web.Application:
        """For TCP, where anybody may read."""
        app = web.Application(middlewares=[_sentences])
        app.add_routes([web.get("/metrics", self.metrics)])
        return app

    async def config(self, request: web.Request) -> web.Response:
        if request.query.get("as") == "toml":
            from timewait.balancer.config.show import effective

            return web.Response(text=effective(self._supervisor.configuration))
        return _json(
            {
                "file": self._source.name,
                "configuration": self._supervisor.configuration,
                "by_hand": self._supervisor.by_hand,
            }
        )

    async def stats(self, request: web.Request) -> web.Response:
        return _json(await self._supervisor.statistics())

    async def health(self, request: web.Request) -> web.Response:
        return _json({"targets": self._supervisor.health()})

    async def metrics(self, request: web.Request) -> web.Response:
        stats = await self._supervisor.statistics()
        text, kind = exposition(stats, request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": kind})

    async def weigh(self, request: web.Request) -> web.Response:
        body = await _body(request, WeightBody)
        return _json(await self._supervisor.weigh(*_names(request), body.weight))

    async def add(self, request: web.Request) -> web.Response:
        body = await _body(request, TargetBody)
        return _json(await self._supervisor.add(request.match_info["pool"], _address(body.addr), body.weight), 201)

    async def remove(self, request: web.Request) -> web.Response:
        return _json({"removed": True, "drains_for": await self._supervisor.remove(*_names(request))})

    async def drain(self, request: web.Request) -> web.Response:
        body = await _body(request, DrainBody)
        try:
            timeout = None if body.timeout is None else seconds(body.timeout)
        except ValueError as problem:
            raise BalancerError(f"timeout {body.timeout!r} {problem}") from None
        return _json(await self._supervisor.drain(*_names(request), timeout, _then(body.then)))

    async def check(self, request: web.Request) -> web.Response:
        body = await _body(request, CheckBody)
        reading = (
            self._source.read() if body.text is None else self._source.parsed(body.text, body.name or "the file")
        )
        changes = self._supervisor.would_change(reading.configuration)
        return _json({"warnings": reading.warnings, "changes": changes, "lines": changes.lines()})

    async def reload(self, request: web.Request) -> web.Response:
        body = await _body(request, ReloadBody)
        changes = await self._reload(body.reset)
        return _json({"changes": changes, "lines": changes.lines()})


def _names(request: web.Request) -> tuple[str, str]:
    return request.match_info["pool"], request.match_info["target"]


def _then(text: str | None) -> Then | None:
    """Raises BalancerError."""
    try:
        return None if text is None else Then(text)
    except ValueError:
        raise BalancerError(f"then = {text!r} is none of its values; write one of {', '.join(Then)}") from None


def _address(text: str) -> str:
    """A target's address as a file may have it. Raises BalancerError."""
    from timewait.balancer.config.addresses import place

    try:
        place(text)
    except ValueError as problem:
        raise BalancerError(f"target {text!r} {problem}") from None
    return text


async def _body(request: web.Request, kind: type[_Body]) -> _Body:
    """The request's JSON, or what stands for nothing. Raises BalancerError."""
    text = await request.read()
    try:
        return msgspec.json.decode(text or b"{}", type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as problem:
        raise BalancerError(f"{request.method} {request.path}: {problem}") from None


def _json(answer: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer) + b"\n", content_type="application/json", status=status)


_STATUS: list[tuple[type[Exception], int]] = [(AbsentError, 404), (ConflictError, 409), (ConfigError, 422)]


@web.middleware
async def _sentences(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What goes wrong becomes a status and one sentence."""
    try:
        return await handler(request)
    except BalancerError as problem:
        status = next((code for kind, code in _STATUS if isinstance(problem, kind)), 400)
        return _json({"error": str(problem)}, status)
    except web.HTTPException as problem:
        known = f"{request.method} {request.path} is not known here; docs/balance-running.md has the API"
        return _json({"error": known if problem.status in (404, 405) else problem.reason}, problem.status)
    except Exception as problem:
        return _json({"error": f"a fault of the balancer: {type(problem).__name__}: {problem}"}, 500)
