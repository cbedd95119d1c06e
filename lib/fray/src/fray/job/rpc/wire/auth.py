"""The gate in front of a server: token, protocol version, body size. Plain ASGI, before anything is parsed."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fray.job.rpc.wire.settings import PROTOCOL_HEADER, PROTOCOL_VERSION

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def call_headers(token: str) -> dict[str, str]:
    """Return the headers of a call made with a token."""
    return {"authorization": f"Bearer {token}", PROTOCOL_HEADER: PROTOCOL_VERSION}


class TokenGate:
    """Lets a request through that carries the token; compares in constant time; tells nothing else apart."""

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given, version = b"", b""
        for name, value in scope.get("headers", ()):
            if name == b"authorization":
                given = value
            elif name == PROTOCOL_HEADER.encode():
                version = value
        if not hmac.compare_digest(given, self._expected):
            text = "send the cluster's token as 'Authorization: Bearer TOKEN'"
            await _refuse(send, 401, "unauthenticated", text if not given else "wrong token")
        elif version and version != PROTOCOL_VERSION.encode():
            text = f"this side speaks protocol version {PROTOCOL_VERSION}, the caller {version.decode('latin-1')}: "
            await _refuse(send, 400, "failed_precondition", text + "install the same version of fray on both")
        else:
            await self._app(scope, receive, send)


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"code": code, "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
