"""An event loop with virtual time, on which several processes run: which of them goes on is chosen by the seed.

Strategy: the real loop of one process runs its callbacks in the order in which they became ready, and code may rely on
that. Between processes there is no order. So each ``Process`` has a queue of its own, and the loop chooses whose queue
is served next. A callback belongs to the process in whose context it was planned, which tasks and timers inherit. Time
passes by a little with each choice, and up to the next timer when nothing is ready.

A process can stand still: its timers come due and wait, as with SIGSTOP. One that is killed is never served again.
There are no threads: what is given to an executor runs at once, and its result arrives a little later.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, Final

STEP: Final = 0.00005
"""Seconds that one round of a process' callbacks takes on average."""

EXECUTOR: Final = 0.002
"""Seconds after which work of an executor is done, on average."""


class Process:
    """What runs on the loop and may stand still or die.

    Attributes:
        name: for the trace.
        context: the context of everything that belongs to it; run what begins it in there.
        alive: whether it is still served.
        stalled_until: before which time it is not served.
        tasks: all its tasks, so that none is collected before the run is over.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[asyncio.Handle] = deque()
        self.alive = True
        self.stalled_until = 0.0
        self.tasks: list[asyncio.Task[Any]] = []
        self.context = copy_context()
        self.context.run(_process.set, self)


_process: ContextVar[Process] = ContextVar("process")


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The loop; see the module.

    Args:
        random: makes its choices.

    Attributes:
        errors: what was given to the loop's handler of exceptions, which is always a defect.
        turns: rounds so far, so that a run that goes in a circle is noticed.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = 1_000.0
        self._timers: list[tuple[float, int, asyncio.Handle, Process]] = []
        self._sequence = 0
        self._processes: list[Process] = []
        self._running = False
        self.errors: list[str] = []
        self.turns = 0
        self.world = self.new_process("world")

    def new_process(self, name: str) -> Process:
        """Add a process that runs on this loop."""
        process = Process(name)
        self._processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        """Let nothing of a process run any more; what it had planned stays, so that ``clear`` can end it."""
        process.alive = False

    def stall(self, process: Process, seconds: float) -> None:
        """Let nothing of a process run for a while."""
        process.stalled_until = self._now + seconds

    # Running

    def run_until(self, when: float) -> None:
        """Run everything up to a point of virtual time."""
        self._enter()
        try:
            while self._once(when):
                pass
        finally:
            self._leave()

    def run_until_complete(self, future: Any) -> Any:
        """Run until a future or coroutine of the world is done."""
        if asyncio.iscoroutine(future):
            future = self.world.context.run(self.create_task, future)
        self._enter()
        try:
            while not future.done():
                if not self._once(float("inf")):
                    raise RuntimeError("nothing runs any more, and it is not done")
        finally:
            self._leave()
        return future.result()

    def _enter(self) -> None:
        self._running = True
        asyncio.events._set_running_loop(self)

    def _leave(self) -> None:
        asyncio.events._set_running_loop(None)
        self._running = False

    def _once(self, until: float) -> bool:
        """Serve one process for one round; return False when nothing is left to be done before ``until``."""
        now, timers = self._now, self._timers
        while timers and timers[0][0] <= now:
            _, _, handle, process = heapq.heappop(timers)
            if not handle.cancelled():
                process.ready.append(handle)
        able = [each for each in self._processes if each.ready and each.alive and each.stalled_until <= now]
        if not able:
            due = [timers[0][0]] if timers else []
            due += [each.stalled_until for each in self._processes if each.ready and each.alive]
            following = min(due, default=until)
            self._now = min(max(following, now), until)
            return following < until
        process = able[0] if len(able) == 1 else able[int(self._random.random() * len(able))]
        self._now = now + self._random.random() * 2 * STEP
        self.turns += 1
        ready = process.ready
        for _ in range(len(ready)):
            if not process.alive:
                break  # by one of its callbacks
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()
        return True

    # What asyncio asks of a loop

    def time(self) -> float:
        """Give virtual seconds."""
        return self._now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Plan a callback for the next round of its process."""
        handle = asyncio.Handle(callback, args, self, context)
        self._owner(handle).ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Plan a callback."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Plan a callback."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, handle, self._owner(handle)))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """Start a task, which belongs to the process that starts it."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        process = _process.get(self.world) if context is None else context.get(_process, self.world)
        tasks = process.tasks
        tasks.append(task)
        if len(tasks) > 256:
            tasks[:] = [each for each in tasks if not each.done()]
        return task

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run work at once and give its result a little later."""
        future = self.create_future()
        try:
            result, error = function(*args), None
        except Exception as caught:
            result, error = None, caught

        def arrive() -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        self.call_later(self._random.random() * 2 * EXECUTOR, arrive)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note what nobody else has taken."""
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")

    def get_debug(self) -> bool:
        """Give False."""
        return False

    def is_running(self) -> bool:
        """Tell whether it runs."""
        return self._running

    def is_closed(self) -> bool:
        """Give False: what runs on it ends with the run."""
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: it is passed over when it is due."""

    def _owner(self, handle: asyncio.Handle) -> Process:
        return handle._context.get(_process, self.world)  # type: ignore[attr-defined,no-any-return]

    # The end

    def clear(self) -> None:
        """Cancel every task of every process, killed ones too, and let them end, so that none is left behind."""
        for process in self._processes:
            process.alive, process.stalled_until = True, 0.0
        for _ in range(20):
            left = [task for process in self._processes for task in process.tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            self.run_until(self._now + 1.0)
        self._timers.clear()
        for process in self._processes:
            for task in process.tasks:
                if task.done() and not task.cancelled():
                    task.exception()
            process.tasks.clear()
            process.ready.clear()
