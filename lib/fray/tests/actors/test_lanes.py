"""The port on which a worker takes calls of its actors: who does not belong there does no harm."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from fray import create_job_ctx
from fray.errors import Unavailable
from fray.job.rpc.actors.link import WorkerLink
from fray.job.rpc.controller import FrayControllerServer
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire import lane
from fray.job.rpc.worker import FrayWorker

pytestmark = pytest.mark.integration

TOKEN = "the-lanes-token"


@pytest.fixture(scope="module")
def ctx() -> Iterator[Any]:
    server = FrayControllerServer(token=TOKEN)
    server.start()
    worker = FrayWorker(server.address, token=TOKEN, num_cpus=1, embedded_in=server)
    worker.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAY_TOKEN", TOKEN)
        with create_job_ctx("fray", controller_address=server.address) as ctx:
            yield ctx
    worker.stop(grace=0)
    server.stop()


@pytest.fixture
def actor(ctx: Any) -> Any:
    return ctx.create_actor(list)


@pytest.fixture
def address(ctx: Any, actor: Any) -> str:
    info = ctx.session.ask_actor("get_actor", pb.ActorRef(actor_id=ctx.actor_status(actor).actor_id))
    assert info.lane_address
    return str(info.lane_address)


def greeted(address: str, token: str) -> socket.socket:
    """Return a connection that has proved, rightly or not, that it knows the token."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    mine = lane.make_nonce()
    connection.sendall(lane.HELLO + mine)
    answer = b""
    while len(answer) < lane.SERVER_HELLO_BYTES:
        answer += connection.recv(lane.SERVER_HELLO_BYTES - len(answer))
    connection.sendall(lane.prove(lane.derive_lane_key(token), b"client", mine, answer[: lane.NONCE_BYTES]))
    return connection


def is_cut_off(connection: socket.socket) -> bool:
    with connection:
        try:
            return connection.recv(1) == b""
        except ConnectionError:
            return True


def test_caller_without_the_token_is_cut_off_and_told_nothing(ctx: Any, actor: Any, address: str) -> None:
    connection = greeted(address, "another token")
    connection.sendall(lane.pack(pb.ActorCalls(actor_id="any")))
    assert is_cut_off(connection)
    with pytest.raises(Unavailable, match="does not know the cluster's token"):
        WorkerLink(address, "another token", lambda answers: None)
    assert ctx.get(actor.append.remote(1)) is None


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n" + bytes(64), b"fray-lane-9\n" + bytes(64), bytes(200)],
    ids=["http", "version", "zeros"],
)
def test_caller_that_speaks_something_else_is_cut_off(garbage: bytes, ctx: Any, actor: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(garbage)
    assert is_cut_off(connection)
    assert ctx.get(actor.append.remote(1)) is None


@pytest.mark.parametrize(
    "frame",
    [struct.pack("<IB", 1 << 31, 1), struct.pack("<IB", 3, 77) + b"abc", struct.pack("<IB", 5, 1) + b"\xff" * 5],
    ids=["too large", "kind", "damaged"],
)
def test_caller_that_sends_what_is_no_message_is_cut_off(frame: bytes, ctx: Any, actor: Any, address: str) -> None:
    connection = greeted(address, TOKEN)
    connection.sendall(frame)
    assert is_cut_off(connection)
    assert ctx.get(actor.append.remote(1)) is None


def test_call_of_an_actor_that_is_not_there_is_answered_so(address: str) -> None:
    answers: list[pb.ActorAnswers] = []
    connection = greeted(address, TOKEN)
    with connection:
        calls = [pb.ActorCall(seq=1, method="m")]
        connection.sendall(lane.pack(pb.ActorCalls(actor_id="nobody", incarnation=1, caller="me", calls=calls)))
        reader = lane.LaneReader()
        while not answers:
            answers += reader.feed(connection.recv(65536))
    assert (answers[0].gone, list(answers[0].refused), list(answers[0].answers)) == (True, [1], [])


def test_caller_that_never_reads_does_not_hold_up_others(ctx: Any, actor: Any, address: str) -> None:
    big = ctx.create_actor(bytearray, 200_000)
    status = ctx.actor_status(big)
    with greeted(address, TOKEN) as deaf:
        payload = ctx.session.store.pack(((), {}))
        calls = [pb.ActorCall(seq=seq, method="copy", payload=payload) for seq in range(1, 301)]
        deaf.sendall(lane.pack(pb.ActorCalls(actor_id=status.actor_id, incarnation=1, caller="deaf", calls=calls)))
        for _ in range(50):
            ctx.get(actor.append.remote(1), timeout=60)
        assert len(ctx.get(big.copy.remote(), timeout=60)) == 200_000
