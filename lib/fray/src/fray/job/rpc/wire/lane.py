"""The direct lane: calls of actors between a caller and a worker, over one TCP connection without HTTP.

A call over HTTP costs a request and a response of their own, about 350 microseconds; here it is one write each way. Both
sides first prove that they know the cluster's token, without sending it: each answers the other's nonce with a keyed BLAKE2b
digest. Then messages follow each other, each with its length and kind before it.

    client: HELLO, nonce (16)        server: nonce (16), proof (32)        client: proof (32)
    then:   length (4, little-endian), kind (1), message
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from typing import Any

from fray.errors import TransportError
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.settings import MAX_MESSAGE_BYTES

HELLO = b"fray-lane-1\n"
NONCE_BYTES, PROOF_BYTES = 16, 32
CLIENT_HELLO_BYTES = len(HELLO) + NONCE_BYTES
SERVER_HELLO_BYTES = NONCE_BYTES + PROOF_BYTES

_HEAD = struct.Struct("<IB")
_KINDS: dict[int, Any] = {1: pb.ActorCalls, 2: pb.ActorAnswers}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}


class LaneBroken(TransportError):
    """The other side does not keep to the protocol, or does not know the token."""


def make_nonce() -> bytes:
    """Return a fresh nonce."""
    return secrets.token_bytes(NONCE_BYTES)


def derive_lane_key(token: str) -> bytes:
    """Return the key of the proofs."""
    return hashlib.blake2b(token.encode(), person=b"fray-lane", digest_size=32).digest()


def prove(key: bytes, side: bytes, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """Return the proof of a side, ``b"client"`` or ``b"server"``."""
    return hashlib.blake2b(side + client_nonce + server_nonce, key=key, digest_size=PROOF_BYTES).digest()


def is_proof(given: bytes, key: bytes, side: bytes, client_nonce: bytes, server_nonce: bytes) -> bool:
    """Whether a proof is right; compares in constant time."""
    return hmac.compare_digest(given, prove(key, side, client_nonce, server_nonce))


def pack(message: pb.ActorCalls | pb.ActorAnswers) -> bytes:
    """Return a message's bytes."""
    body = message.to_binary()
    return _HEAD.pack(len(body), _NUMBERS[type(message)]) + body


class LaneReader:
    """Gathers received bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Take received bytes; return the messages that are complete.

        Raises:
            LaneBroken: if they are no messages.
        """
        buffer = self._buffer
        buffer += data
        messages: list[Any] = []
        at = 0
        while len(buffer) - at >= _HEAD.size:
            length, number = _HEAD.unpack_from(buffer, at)
            if length > MAX_MESSAGE_BYTES or number not in _KINDS:
                raise LaneBroken(f"a message of kind {number} and {length} bytes is none of this protocol's")
            start = at + _HEAD.size
            if len(buffer) - start < length:
                break
            messages.append(_parse(_KINDS[number], bytes(memoryview(buffer)[start : start + length])))
            at = start + length
        if at:
            del buffer[:at]
        return messages


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.from_binary(data)
    except Exception as error:  # whatever the library says of damaged bytes
        raise LaneBroken(f"a damaged message: {type(error).__name__}: {error}") from error
