"""The event loop beside Locust, and the bridge between its coroutines and Locust's greenlets.

Importing Locust replaces the standard library's sockets and threads by gevent's.
The loop therefore runs on uvloop (which polls by itself) in a native thread,
started with gevent's original of the patched function: transactions never wait
for a greenlet. A greenlet waits for a coroutine without polling, on an event
that the hub sets when the loop's thread wakes it; killing the greenlet cancels
the coroutine and waits until it has recorded its fate.
"""

import gevent
import gevent.event
from gevent import monkey

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

__all__ = ["Engine"]

T = TypeVar("T")


class Engine:
    """One event loop in one native thread; made after any fork, at most one per process."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._callbacks: deque[Callable[[], None]] = deque()
        self._wakeup = gevent.get_hub().loop.async_()
        self._wakeup.start(self._run_callbacks)
        monkey.get_original("_thread", "start_new_thread")(self._run, ())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* on the loop and return its result to the calling greenlet.

        Raises:
            gevent.GreenletExit: the greenlet was killed; the coroutine has been cancelled and has ended.
            Exception: whatever the coroutine raised.
        """
        done = gevent.event.Event()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            task = self.loop.create_task(coroutine)
            tasks.append(task)
            task.add_done_callback(lambda _: self.call_in_hub(done.set))

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        self.loop.call_soon_threadsafe(start)
        try:
            done.wait()
        except gevent.GreenletExit:
            self.loop.call_soon_threadsafe(cancel)
            done.wait()
            raise
        return tasks[0].result()

    def call_in_hub(self, callback: Callable[[], None]) -> None:
        """Call *callback* in Locust's thread, soon; it must not block. Safe from any thread."""
        self._callbacks.append(callback)
        self._wakeup.send()

    def _run_callbacks(self) -> None:
        while self._callbacks:
            self._callbacks.popleft()()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
