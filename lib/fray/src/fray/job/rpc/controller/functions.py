"""The code of functions, kept once by content and forgotten with the last session that uses it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fray.serialization.callables import ENTRYPOINT_PREFIX
from fray.types import SessionId


@dataclass(slots=True)
class FunctionCut:
    """What has changed between two saves."""

    code: list[tuple[str, bytes]] = field(default_factory=list)
    """New functions."""
    gone_code: list[str] = field(default_factory=list)
    """Functions that nobody uses any more."""
    users: list[tuple[str, str]] = field(default_factory=list)
    """New uses: function, session."""
    gone_users: list[tuple[str, str]] = field(default_factory=list)
    """Uses that have ended."""


class FunctionStore:
    """Packed functions by id. The bytes are opaque here."""

    def __init__(self, code: Iterable[tuple[str, bytes]] = (), users: Iterable[tuple[str, str]] = ()) -> None:
        self._code = dict(code)
        self._users: dict[str, set[SessionId]] = {}
        for function_id, session in users:
            self._users.setdefault(function_id, set()).add(SessionId(session))
        self._changed_code: set[str] = set()
        self._changed_users: set[tuple[str, SessionId]] = set()

    def add(self, session: SessionId, function_id: str, code: bytes) -> None:
        """Keep a function for a session."""
        if function_id not in self._code:
            self._code[function_id] = code
            self._changed_code.add(function_id)
        users = self._users.setdefault(function_id, set())
        if session not in users:
            users.add(session)
            self._changed_users.add((function_id, session))

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
            if session in users:
                users.remove(session)
                self._changed_users.add((function_id, session))
            if not users:
                del self._users[function_id], self._code[function_id]
                unused.append(function_id)
        self._changed_code.update(unused)
        return unused

    def has_changes(self) -> bool:
        """Whether something has changed since ``take_changes``."""
        return bool(self._changed_code or self._changed_users)

    def take_changes(self) -> FunctionCut:
        """Return what has changed since the last time, for saving."""
        cut = FunctionCut()
        for function_id in self._changed_code:
            code = self._code.get(function_id)
            if code is None:
                cut.gone_code.append(function_id)
            else:
                cut.code.append((function_id, code))
        for function_id, session in self._changed_users:
            is_used = session in self._users.get(function_id, ())
            (cut.users if is_used else cut.gone_users).append((function_id, session))
        self._changed_code.clear()
        self._changed_users.clear()
        return cut
