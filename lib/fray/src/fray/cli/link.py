"""One question to a controller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from fray.cli.options import DEFAULT_ADDRESS
from fray.config import load_config
from fray.errors import Unavailable

ANSWER_TIMEOUT_S = 20.0
"""How long a person waits for an answer."""


def find_address(controller: str | None) -> str:
    """Return the URL of the controller that is meant: argument, environment, file, default."""
    return load_config(address=controller).address or DEFAULT_ADDRESS


def ask(controller: str | None, method: str, request: Any) -> Any:
    """Make one call to a controller and return its answer. Blocks.

    Raises:
        FrayError: whatever went wrong, with the remedy.
    """
    from fray.job.rpc.wire.client import ControllerClient
    from fray.job.rpc.wire.errors import unreachable

    address = find_address(controller)
    client = ControllerClient(address, load_config().require_token())

    def call() -> Any:
        try:
            return client.call(method, request, ANSWER_TIMEOUT_S)
        finally:
            client.close()

    try:
        return _wait_interruptibly(call)
    except Unavailable as error:
        raise unreachable(address, error) from error


def _wait_interruptibly(call: Callable[[], Any]) -> Any:
    """Return what a blocking call returns. It runs on a thread of its own, because only so does Ctrl-C not wait for it."""
    answer: Future[Any] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, name="fray-call", daemon=True).start()
    return answer.result()
