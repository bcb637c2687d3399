"""What the tests over DDS share: a thread that spins a node, and waiting for something to become true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from instructvla_ros.nodes.managed import make_executor

LIMIT_S = 60.0


class Spinner:
    """Spins a node in a thread of its own until it is ended."""

    def __init__(self, context: Any, node: Any) -> None:
        self._executor, self._ending = make_executor(context), threading.Event()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._ending.is_set():
            self._executor.spin_once(timeout_sec=0.05)
        self._executor.shutdown()

    def end(self) -> None:
        """May be called again."""
        self._ending.set()
        self._thread.join(10.0)


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> bool:
    """Whether it became true in time."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.01)
    return False


def ask(node: Any, kind: Any, service: str, /, **request: Any) -> Any:
    """A service's answer to a node that somebody else spins."""
    client = node.create_client(kind, service)
    assert client.wait_for_service(LIMIT_S), service
    answered = threading.Event()
    future = client.call_async(kind.Request(**request))
    future.add_done_callback(lambda _: answered.set())
    assert answered.wait(LIMIT_S), service
    return future.result()
