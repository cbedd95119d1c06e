"""Keeps the journal behind the state: takes what has changed, has it written off the event loop, tells who waits for that.

While one cut is being written, what changes meanwhile gathers for the next. If nobody waits for it, it gathers a little
longer: a task that comes and goes within that time is written once, or not at all. Work does not wait for the disk; what is
told to others waits where taking it back would hurt: see ``Driver``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fray.errors import StateError
from fray.job.rpc.controller.core.model import State
from fray.job.rpc.controller.core.records import Cut, take
from fray.job.rpc.controller.functions import FunctionCut, FunctionStore
from fray.job.rpc.controller.journal import Journal

GATHER_S = 0.1
"""Between the beginnings of two cuts, unless somebody waits."""
RETRY_S = 1.0
"""Before a cut that could not be written is tried again."""
TIDY_AFTER_S = 1.0
"""Of quiet, before the space of what was deleted is given back."""

log = logging.getLogger("fray.controller")


class Saver:
    """Saves one state; without a journal nothing is written, and everything counts as saved.

    All methods belong to the event loop.
    """

    def __init__(self, journal: Journal | None, state: State, functions: FunctionStore, offset_s: float) -> None:
        self.trouble = ""
        """Why the latest cut could not be written; it is tried again."""
        self.on_trouble: Callable[[str], None] = lambda _: None
        """Called with a text when trouble begins."""
        self._journal, self._state, self._functions, self._offset_s = journal, state, functions, offset_s
        self._taken = 0
        self._saved = 0
        self._actions: deque[tuple[int, Callable[[], None]]] = deque()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="fray-journal")
        self._writing: asyncio.Task[None] | None = None
        self._began_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._pending: tuple[Cut, FunctionCut] | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def path(self) -> str:
        """Where the state is saved; empty for nowhere."""
        return self._journal.path if self._journal is not None else ""

    def mark(self) -> int:
        """Return the number of the cut that holds, or will hold, all that has happened so far."""
        if self._journal is not None and (self._state.changes or self._functions.has_changes()):
            return self._taken + 1
        return self._taken

    def is_saved(self, mark: int) -> bool:
        """Whether a cut is on the disk."""
        return mark <= self._saved

    def step(self) -> None:
        """Begin to save what has changed, now or soon, unless that is under way; call after every change."""
        if self._journal is None:
            self._functions.take_changes()
        elif self._writing is None and not self._closed and self.mark() > self._taken:
            self._begin(self._journal)

    def _begin(self, journal: Journal) -> None:
        loop = asyncio.get_running_loop()
        left_s = self._began_at + GATHER_S - loop.time()
        if self._actions or left_s <= 0:
            self._began_at = loop.time()
            self._writing = loop.create_task(self._write_next(journal))
        elif self._timer is None:
            self._timer = loop.call_later(left_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.step()

    def when_saved(self, action: Callable[[], None]) -> None:
        """Call ``action`` when all that has happened so far is on the disk: at once, if it is. The order is kept."""
        mark = self.mark()
        if self.is_saved(mark) and not self._actions:
            action()
        else:
            self._actions.append((mark, action))

    async def wait_saved(self) -> None:
        """Return when all that has happened so far is on the disk."""
        if not self.is_saved(self.mark()):
            saved = asyncio.get_running_loop().create_future()
            self.when_saved(lambda: _settle(saved))
            self.step()
            await saved

    async def close(self) -> None:
        """Save what is left, once, and close the journal."""
        self._closed = True
        for timer in (self._timer, self._tidying):
            if timer is not None:
                timer.cancel()
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._journal is not None:
            cuts = [self._pending] if self._pending is not None else []  # again, if it was written: that changes nothing
            try:
                await self._on_thread(_close, self._journal, [*cuts, self._take()])
            except Exception as error:  # as in ``_write``; there is nothing left to do but to say so
                log.error("what was accepted last is not saved: %s", error)
        self._writer.shutdown()

    def _take(self) -> tuple[Cut, FunctionCut]:
        self._taken += 1
        return take(self._state.changes, self._offset_s), self._functions.take_changes()

    async def _write_next(self, journal: Journal) -> None:
        try:
            self._pending = self._take()
            await self._write(journal, *self._pending)
            self._pending = None
            self._saved = self._taken
            self._act()
        finally:
            self._writing = None
        self.step()
        if self._writing is None and self._timer is None:
            self._tidy_later(journal)

    def _act(self) -> None:
        """Do what has waited for a cut."""
        while self._actions and self.is_saved(self._actions[0][0]):
            _, action = self._actions.popleft()
            try:
                action()
            except Exception:  # a defect of ours must not keep the rest from being saved
                log.exception("a step that waited for the state to be saved failed")

    async def _write(self, journal: Journal, cut: Cut, functions: FunctionCut) -> None:
        """Write a cut; again until it works."""
        while True:
            try:
                await self._on_thread(journal.commit, cut, functions)
            except Exception as error:  # also a defect of ours: what is not written must not count as saved
                if not self.trouble:
                    is_ours = not isinstance(error, StateError)
                    log.error("%s; no new work is taken until it can be saved", error, exc_info=error if is_ours else None)
                    self.on_trouble(str(error))
                self.trouble = str(error) or type(error).__name__
                await asyncio.sleep(RETRY_S)
            else:
                if self.trouble:
                    log.warning("the state file %s can be written again", journal.path)
                self.trouble = ""
                return

    def _tidy_later(self, journal: Journal) -> None:
        if self._tidying is not None:
            self._tidying.cancel()
        if not self._closed:
            self._tidying = asyncio.get_running_loop().call_later(TIDY_AFTER_S, self._tidy, journal)

    def _tidy(self, journal: Journal) -> None:
        if self._writing is None and not self._closed:
            self._writer.submit(_tidy, journal)

    async def _on_thread(self, function: Callable[..., None], *args: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, function, *args)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _close(journal: Journal, cuts: list[tuple[Cut, FunctionCut]]) -> None:
    try:
        for cut, functions in cuts:
            journal.commit(cut, functions)
        journal.tidy()
    finally:
        journal.close()


def _tidy(journal: Journal) -> None:
    try:
        journal.tidy()
    except StateError as error:
        log.info("%s", error)
