"""Faults on the wire, on purpose: calls and answers that are lost, late, or come twice.

``FRAY_FAULTS`` turns them on for every client and server of a process; unset, none of this is on the way of a call. It lists
faults, of which the first that strikes a call counts, and may end with a seed::

    SubmitTasks:response_lost:0.2,*:delay:0.1:0.05,Report:drop_after:1:x3;seed=7

Each is ``RPC:KIND:SHARE``, with ``*`` for every RPC, then the seconds of ``delay`` and ``late_duplicate`` (default 0.05),
then ``xN`` for at most N times. Every client and every server draws for itself; with a seed, the nth call of an RPC meets
the same fate in every run. Of a stream, ``response_lost`` and ``drop_after`` are drawn for each message: it is lost, and the
stream ends with it. Workers inside their controller's process, and calls of actors on the direct lane, make no RPCs.

``FRAY_FAULTS_LOG`` names a file to which all processes append a line for every fault that struck: see ``count_faults``.
"""

from __future__ import annotations

import asyncio
import enum
import json
import random
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, MutableMapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fray.config import load_faults
from fray.errors import ConfigurationError
from fray.job.rpc.proto import fray_pb
from fray.job.rpc.wire.auth import App, Receive, Scope, Send
from fray.job.rpc.wire.errors import Code, ConnectError

Message = MutableMapping[str, Any]

DEFAULT_SECONDS = 0.05
"""Of a delay that says no more."""


class FaultKind(enum.Enum):
    """What may happen to a call."""

    REQUEST_LOST = "request_lost"
    """The client's call fails as UNAVAILABLE and never leaves it."""
    RESPONSE_LOST = "response_lost"
    """The server acts and answers; the client's call fails as UNAVAILABLE."""
    DELAY = "delay"
    """The request reaches the handler later, even when its client has gone by then."""
    DUPLICATE = "duplicate"
    """The request comes again once the first is answered; the client gets the answer to the second."""
    IN_FLIGHT_DUPLICATE = "in_flight_duplicate"
    """The request comes again while the first is being handled; the client gets the answer to the second."""
    LATE_DUPLICATE = "late_duplicate"
    """The request comes again later, when its client has long had the answer to the first."""
    DROP_BEFORE = "drop_before"
    """The server breaks the connection instead of handling the request."""
    DROP_AFTER = "drop_after"
    """The server handles the request and breaks the connection instead of answering."""


IN_CLIENT = frozenset({FaultKind.REQUEST_LOST, FaultKind.RESPONSE_LOST})
"""Kinds that strike in the client; all others strike in the server."""
IN_SERVER = frozenset(FaultKind) - IN_CLIENT
BESIDE = frozenset({FaultKind.IN_FLIGHT_DUPLICATE, FaultKind.LATE_DUPLICATE})
"""Kinds that go on beside the call: they are written down when they are over."""
TIMED = frozenset({FaultKind.DELAY, FaultKind.LATE_DUPLICATE})
"""Kinds that take seconds."""
PER_MESSAGE = frozenset({FaultKind.RESPONSE_LOST, FaultKind.DROP_AFTER})
"""Kinds that are drawn for each message of a stream."""

_METHODS = [method for service in fray_pb.desc().services for method in service.methods]
RPCS = tuple(method.name for method in _METHODS)
"""All RPCs, of the controller and of workers."""
STREAMS = frozenset(method.name for method in _METHODS if method.method_kind == "server_streaming")
"""Those whose answer is a stream."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of ``FRAY_FAULTS``."""

    rpc: str
    """Name of an RPC, or ``*``."""
    kind: FaultKind
    share: float
    """Of the calls that it strikes: above 0, at most 1."""
    seconds: float = DEFAULT_SECONDS
    """How late; only of kinds that are."""
    limit: int | None = None
    """How often it strikes at most; None for no limit."""


class Faults:
    """Decides the fate of the calls of one client or server, and writes down what it decided. Thread-safe."""

    def __init__(self, faults: Iterable[Fault], seed: str | None = None, log: Path | None = None) -> None:
        self._faults = tuple(faults)
        self._seed = seed
        self._log = log
        self._lock = threading.Lock()  # guards the fields below
        self._dice: dict[tuple[int, str], random.Random] = {}
        self._struck: Counter[int] = Counter()

    def draw(self, rpc: str, kinds: Iterable[FaultKind]) -> Fault | None:
        """Return the fault that strikes a call now, or None."""
        with self._lock:
            for number, fault in enumerate(self._faults):
                if fault.rpc in ("*", rpc) and fault.kind in kinds and self._strikes(number, fault, rpc):
                    if fault.kind not in BESIDE:
                        self.write(rpc, fault.kind)
                    return fault
        return None

    def write(self, rpc: str, kind: FaultKind) -> None:
        """Write down a fault that struck."""
        if self._log is not None:
            with self._log.open("a") as file:  # one short write: lines of several processes do not mix
                file.write(json.dumps({"kind": kind.value, "rpc": rpc}) + "\n")

    def _strikes(self, number: int, fault: Fault, rpc: str) -> bool:
        if fault.limit is not None and self._struck[number] >= fault.limit:
            return False
        dice = self._dice.get((number, rpc))
        if dice is None:
            seed = None if self._seed is None else f"{self._seed}:{number}:{rpc}"
            dice = self._dice[number, rpc] = random.Random(seed)
        if dice.random() >= fault.share:
            return False
        self._struck[number] += 1
        return True


def count_faults(log: Path) -> Counter[tuple[str, str]]:
    """Return how often which kind of fault struck which RPC, in all processes that wrote to a log; empty if none did."""
    if not log.exists():
        return Counter()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return Counter((line["kind"], line["rpc"]) for line in lines)


def find_faults(kinds: frozenset[FaultKind]) -> Faults | None:
    """Return the faults of these kinds that the environment asks for, or None.

    Raises:
        ConfigurationError: if ``FRAY_FAULTS`` cannot be understood; says what is right.
    """
    text, log = load_faults()
    if not text:
        return None
    entries, seed = parse_faults(text)
    wanted = [fault for fault in entries if fault.kind in kinds]
    return Faults(wanted, seed, Path(log) if log else None) if wanted else None


def parse_faults(text: str) -> tuple[list[Fault], str | None]:
    """Return the faults that a text lists, and its seed.

    Raises:
        ConfigurationError: naming the part that is wrong, and what is right.
    """
    entries, *options = text.split(";")
    seed = None
    for option in options:
        name, _, seed = option.strip().partition("=")
        if name != "seed" or not seed or len(options) > 1:
            raise _wrong(option, "after the semicolon comes one seed, such as seed=7")
    return [_parse_fault(entry.strip()) for entry in entries.split(",")], seed


def _parse_fault(entry: str) -> Fault:
    rpc, *rest = entry.split(":")
    if len(rest) < 2:
        raise _wrong(entry, "a fault is RPC:KIND:SHARE, RPC:KIND:SHARE:SECONDS or either with :xN at the end")
    if rpc != "*" and rpc not in RPCS:
        raise _wrong(entry, f"{rpc!r} is none of the RPCs, which are *, {', '.join(RPCS)}")
    name, share, *more = rest
    try:
        kind = FaultKind(name)
    except ValueError:
        raise _wrong(entry, f"{name!r} is none of the kinds, which are {', '.join(k.value for k in FaultKind)}") from None
    limit = _number(entry, more.pop()[1:], "xN is a whole number") if more and more[-1].startswith("x") else None
    if len(more) > (1 if kind in TIMED else 0):
        raise _wrong(entry, f"{more[-1]!r} is too much; only {' and '.join(sorted(k.value for k in TIMED))} take seconds")
    seconds = _number(entry, more[0], "seconds are a number") if more else DEFAULT_SECONDS
    chance = _number(entry, share, "the share of calls is a number")
    if not 0 < chance <= 1 or not 0 <= seconds <= 3600 or (limit is not None and (limit < 1 or limit % 1)):
        raise _wrong(entry, "the share is above 0 and at most 1, seconds are 0 to 3600, and xN is x1 or more")
    return Fault(rpc, kind, chance, seconds, None if limit is None else int(limit))


def _number(entry: str, text: str, rule: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _wrong(entry, f"{text!r}: {rule}") from None


def _wrong(part: str, rule: str) -> ConfigurationError:
    return ConfigurationError(
        f"FRAY_FAULTS: {part!r}: {rule}. An example: SubmitTasks:response_lost:0.2,*:delay:0.1:0.05;seed=7"
    )


# --- where faults strike: in interceptors of clients, and in a layer of servers right behind the gate


def sync_interceptors() -> tuple[ClientFaults, ...]:
    """Return what a blocking client needs to meet the faults that the environment asks for: nothing if there are none.

    Raises:
        ConfigurationError: as ``find_faults``.
    """
    faults = find_faults(IN_CLIENT)
    return (ClientFaults(faults),) if faults is not None else ()


def async_interceptors() -> tuple[AsyncClientFaults, ...]:
    """The same for a client on an event loop."""
    faults = find_faults(IN_CLIENT)
    return (AsyncClientFaults(faults),) if faults is not None else ()


def with_faults(app: App) -> App:
    """Return an application with the faults that the environment asks for: itself if there are none.

    Raises:
        ConfigurationError: as ``find_faults``.
    """
    faults = find_faults(IN_SERVER)
    return app if faults is None else ServerFaults(app, faults)


class ClientFaults:
    """An interceptor of blocking clients."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def intercept_unary_sync(self, call_next: Callable[[Any, Any], Any], request: Any, ctx: Any, /) -> Any:
        rpc = ctx.method.name
        fault = self._faults.draw(rpc, IN_CLIENT)
        _lose_if(fault, FaultKind.REQUEST_LOST, rpc)
        answer = call_next(request, ctx)
        _lose_if(fault, FaultKind.RESPONSE_LOST, rpc)
        return answer

    def intercept_server_stream_sync(self, call_next: Callable[[Any, Any], Any], request: Any, ctx: Any, /) -> Generator[Any]:
        rpc = ctx.method.name
        _lose_if(self._faults.draw(rpc, IN_CLIENT - PER_MESSAGE), FaultKind.REQUEST_LOST, rpc)
        with closing(call_next(request, ctx)) as messages:
            for message in messages:
                _lose_if(self._faults.draw(rpc, IN_CLIENT & PER_MESSAGE), FaultKind.RESPONSE_LOST, rpc)
                yield message


class AsyncClientFaults:
    """The same on an event loop."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def intercept_unary(
        self, call_next: Callable[[Any, Any], Coroutine[Any, Any, Any]], request: Any, ctx: Any, /
    ) -> Any:
        rpc = ctx.method.name
        fault = self._faults.draw(rpc, IN_CLIENT)
        _lose_if(fault, FaultKind.REQUEST_LOST, rpc)
        answer = await call_next(request, ctx)
        _lose_if(fault, FaultKind.RESPONSE_LOST, rpc)
        return answer

    async def intercept_server_stream(
        self, call_next: Callable[[Any, Any], Any], request: Any, ctx: Any, /
    ) -> AsyncGenerator[Any]:
        rpc = ctx.method.name
        _lose_if(self._faults.draw(rpc, IN_CLIENT - PER_MESSAGE), FaultKind.REQUEST_LOST, rpc)
        async with aclosing(call_next(request, ctx)) as messages:
            async for message in messages:
                _lose_if(self._faults.draw(rpc, IN_CLIENT & PER_MESSAGE), FaultKind.RESPONSE_LOST, rpc)
                yield message


def _lose_if(fault: Fault | None, kind: FaultKind, rpc: str) -> None:
    if fault is not None and fault.kind is kind:
        raise ConnectError(Code.UNAVAILABLE, f"a fault on purpose (FRAY_FAULTS): {kind.value} of {rpc}")


class ServerFaults:
    """An ASGI layer. Copies of a request run as requests of a client that reads one message and goes."""

    def __init__(self, app: App, faults: Faults) -> None:
        self._app = app
        self._faults = faults
        self._copies: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rpc = _rpc_of(scope)
        fault = self._faults.draw(rpc, IN_SERVER - PER_MESSAGE if rpc in STREAMS else IN_SERVER)
        if rpc in STREAMS:
            send = _CutStream(rpc, self._faults, send)
        if fault is None:
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            return
        match fault.kind:
            case FaultKind.DROP_BEFORE:
                _hang_up(send)
                await receive()
            case FaultKind.DROP_AFTER:
                await self._run_copy(scope, body)
                _hang_up(send)
                await receive()
            case FaultKind.DELAY:
                await asyncio.sleep(fault.seconds)
                await self._app(scope, _Request(body, receive), send)
            case FaultKind.DUPLICATE:
                await self._run_copy(scope, body)
                await self._app(scope, _Request(body, receive), send)
            case FaultKind.IN_FLIGHT_DUPLICATE:
                self._start_copy(scope, body, fault.kind, 0.0)
                await asyncio.sleep(0)  # the copy goes first
                await self._app(scope, _Request(body, receive), send)
            case FaultKind.LATE_DUPLICATE:
                self._start_copy(scope, body, fault.kind, fault.seconds)
                await self._app(scope, _Request(body, receive), send)

    def _start_copy(self, scope: Scope, body: bytes, kind: FaultKind, delay_s: float) -> None:
        async def run() -> None:
            await asyncio.sleep(delay_s)
            await self._run_copy(scope, body)
            self._faults.write(_rpc_of(scope), kind)

        task = asyncio.create_task(run())
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def _run_copy(self, scope: Scope, body: bytes) -> None:
        """Handle a request whose answer nobody gets; of a stream, until its first message."""
        answered = asyncio.Event()

        async def wait_gone() -> Message:
            await answered.wait()
            return {"type": "http.disconnect"}

        async def ignore(message: Message) -> None:
            if message.get("body"):
                answered.set()

        await self._app(dict(scope), _Request(body, wait_gone), ignore)


class _Request:
    """Gives a request that was read already, then what the connection says."""

    def __init__(self, body: bytes, then: Receive) -> None:
        self._body: bytes | None = body
        self._then = then

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._then()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _CutStream:
    """Passes a stream's messages on until one of them is lost, and the connection with it."""

    def __init__(self, rpc: str, faults: Faults, send: Send) -> None:
        self._rpc, self._faults, self.inner = rpc, faults, send
        self._is_cut = False

    async def __call__(self, message: Message) -> None:
        if not self._is_cut and message.get("body") and self._faults.draw(self._rpc, IN_SERVER & PER_MESSAGE):
            self._is_cut = True
            _hang_up(self.inner)
        if not self._is_cut:
            await self.inner(message)


def _rpc_of(scope: Scope) -> str:
    path: str = scope.get("path", "")
    return path.rpartition("/")[2]


async def _read(receive: Receive) -> bytes | None:
    """Return a request's body; None if its client went away before the end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _hang_up(send: Send) -> None:
    """Break the connection. ASGI has no word for that: uvicorn's object behind ``send`` does it."""
    inner: Any = send.inner if isinstance(send, _CutStream) else send
    inner.__self__.transport.abort()
