"""Messages between a worker and its executors: a length, then a marshalled tuple whose first item says what it is.

``marshal`` holds plain values only and runs no code when read; both ends are the same interpreter. Payloads inside are opaque.

To an executor, data socket:    (RUN, [item, ...])   (FUNCTION, function_id, code)
                                (CALL, [call, ...])  (FORGET, caller, [seq, ...])         (RETIRE,)
To an executor, control socket: (STOP, task_id)      (RECALL,)
From an executor:               (READY, pid)         (DONE, [outcome, ...])      (RETURNED, [task_id, ...])
                                (BLOCKED, task_id)   (UNBLOCKED, task_id)        (LOG, task_id, is_stderr, text)
                                (CREATED,)           (ANSWER, task_id, [answer, ...])

item    = (task_id, session, function_id, name, payload, dependency_values, retry_on, storage_url, logs, chain, actor)
actor   = (attempt, name, max_concurrency, checkpoint_every), zeros for the defaults; None for a task
outcome = (task_id, kind, payload, message, retryable, run_s), kind a value of ``OutcomeKind``
call    = (caller, seq, method, payload, chain)
answer  = (caller, seq, kind, payload, message), kind a value of ``ErrorKind``, or empty: the payload is the value

CALL, FORGET and RETIRE are for the executor of an actor: carry out; drop what has not begun and nobody wants; finish what
runs, save the state if it is to be saved, and end.
"""

from __future__ import annotations

import marshal
import struct
from typing import Any

RUN, FUNCTION, STOP, RECALL = "run", "fn", "stop", "recall"
CALL, FORGET, RETIRE = "call", "forget", "retire"
READY, DONE, RETURNED, BLOCKED, UNBLOCKED, LOG = "ready", "done", "returned", "blocked", "unblocked", "log"
CREATED, ANSWER = "created", "answer"

LENGTH = struct.Struct("<I")

Frame = tuple[Any, ...]


def pack(frame: Frame) -> bytes:
    """Return a frame's bytes."""
    body = marshal.dumps(frame)
    return LENGTH.pack(len(body)) + body


class Unpacker:
    """Gathers received bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take received bytes; return the frames that are complete."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        at = 0
        while len(buffer) - at >= 4:
            (length,) = LENGTH.unpack_from(buffer, at)
            if len(buffer) - at - 4 < length:
                break
            frames.append(marshal.loads(memoryview(buffer)[at + 4 : at + 4 + length]))
            at += 4 + length
        if at:
            del buffer[:at]
        return frames
