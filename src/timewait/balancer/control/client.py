"""Speaks with a running balancer. Blocking, and nothing heavy is imported: `timewait balance ctl` answers at once."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from timewait.balancer.engine import BalancerError


class ControlError(BalancerError):
    """The balancer refused, or cannot be reached. `status` of HTTP, 0 for the latter."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("balancer", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """`Client(path).get("/v1/stats")`: one connection for each request."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def get(self, where: str) -> bytes:
        return self.ask("GET", where)

    def ask(self, method: str, where: str, body: Any = None, *, timeout: float | None = 30.0) -> bytes:
        """The answer's body. Raises ControlError for everything but success."""
        connection = _Connection(self.path, timeout)
        try:
            data = None if body is None else msgspec.json.encode(body)
            headers = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, where, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        except FileNotFoundError:
            raise ControlError(f"{self.path}: no balancer has its admin socket there") from None
        except ConnectionRefusedError:
            raise ControlError(f"{self.path}: the balancer that had this socket is gone") from None
        except PermissionError:
            raise ControlError(f"{self.path}: it is another user's; ask as that user") from None
        except TimeoutError:
            raise ControlError(f"{self.path}: no answer within {timeout:g} s") from None
        except (OSError, http.client.HTTPException) as problem:
            raise ControlError(f"{self.path}: {problem or 'closed without an answer'}") from None
        finally:
            connection.close()
        if answer.status >= 300:
            raise ControlError(_sentence(text, answer.status), answer.status)
        return text


def target_path(pool: str, address: str = "") -> str:
    """`/v1/pools/app/targets/10.0.1.11:8080`."""
    base = f"/v1/pools/{quote(pool, safe='')}/targets"
    return f"{base}/{quote(address, safe=':[]')}" if address else base


def _sentence(text: bytes, status: int) -> str:
    try:
        return str(msgspec.json.decode(text)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"the balancer answered {status}"
