"""The code of functions, kept once by content and forgotten with the last session that uses it."""

from __future__ import annotations

from fray.serialization.callables import ENTRYPOINT_PREFIX
from fray.types import SessionId


class FunctionStore:
    """Packed functions by id. The bytes are opaque here."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}
        self._users: dict[str, set[SessionId]] = {}

    def add(self, session: SessionId, function_id: str, code: bytes) -> None:
        """Keep a function for a session."""
        self._code.setdefault(function_id, code)
        self._users.setdefault(function_id, set()).add(session)

    def has(self, function_id: str) -> bool:
        """Whether tasks may name the function."""
        return function_id in self._code or function_id.startswith(ENTRYPOINT_PREFIX)

    def find(self, function_id: str) -> bytes | None:
        """Return the code; None for entrypoints and for functions that are forgotten."""
        return self._code.get(function_id)

    def release(self, session: SessionId) -> list[str]:
        """Drop a session's use of all its functions; return those that nobody uses any more."""
        unused = []
        for function_id, users in list(self._users.items()):
            users.discard(session)
            if not users:
                del self._users[function_id], self._code[function_id]
                unused.append(function_id)
        return unused
