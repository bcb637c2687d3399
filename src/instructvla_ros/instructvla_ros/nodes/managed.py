"""What the lifecycle nodes share: transitions that fail with a message, diagnostics, the owner thread,
main()."""

from __future__ import annotations

import io
import os
import secrets
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    NameValidationException,
)
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_policy_name_from_kind
from rclpy.signals import SignalHandlerOptions

from instructvla_ros.nodes import qos
from instructvla_ros.nodes.parameters import Parameter, declare, read

_DIAGNOSTICS_PERIOD_S = 1.0
_HEARTBEAT_PERIOD_S = 0.1
_EXIT_BAD_PARAMETER = 2
_SPIN_S = 0.2  # how soon a signal is noticed at the latest
_BAD_NAME = (NameValidationException, rclpy_implementation.RCLInvalidROSArgsError)
_ROS_REFUSES = (*_BAD_NAME, rclpy_implementation.RCLError)


class SetupError(RuntimeError):
    """A transition cannot be made; the message says what was found, what was expected and how to mend it."""


class Report(NamedTuple):
    """What a node says of itself in /diagnostics: what is wrong in words, "" if all is well, and values.

    `fault`: nothing moves for it, which is an ERROR; what only might go better is a WARN.
    """

    wrong: str
    values: Mapping[str, str]
    fault: bool = False


class OwnerThread:
    """One thread that calls `step` again and again; `step` returns the seconds it may sleep unless woken.

    All model or control work of a node happens here. If `step` raises, `on_failure` is called in the thread
    with the traceback, and the thread ends. `at_end` frees in the thread what belongs to it.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        on_failure: Callable[[str], None],
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self._step, self._on_failure, self._at_end = step, on_failure, at_end
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """End the present sleep; may be called from any thread."""
        self._wake.set()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Ask the thread to end after its present step and wait; returns whether it ended."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        finished = False
        try:
            while not self._stopping:
                wait_s = self._step()
                if wait_s > 0.0:
                    self._wake.wait(min(wait_s, 1.0))
                self._wake.clear()
            finished = True
        finally:
            if not finished:
                self._on_failure(traceback.format_exc())
            if self._at_end is not None:
                self._at_end()


class ManagedNode(LifecycleNode):
    """A lifecycle node whose subclasses implement `setup`, `start`, `halt` and `teardown`.

    `setup` and `start` may raise SetupError, ValueError or OSError, and what ROS itself refuses, such as a bad topic
    name: the transition then fails, the node stays in its state, and the message is logged and shown in /diagnostics.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter], **options: Any) -> None:
        super().__init__(name, **options)
        self._declared = tuple(parameters)
        self._unheard: dict[str, str] = {}
        declare(self, parameters)
        self.problem = ""
        self.failed = False
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)
        self._heartbeats = self.create_publisher(DiagnosticStatus, "heartbeat", qos.HEARTBEAT)
        # In a container a process that is started again often gets the same process id: a token makes it another.
        self._heartbeat = DiagnosticStatus(name=name, hardware_id=f"{os.getpid()}-{secrets.token_hex(4)}")
        # A thread of its own: the executor is busy while a checkpoint is loaded, and its timers stop with /clock.
        self._heart = OwnerThread("heartbeat", self._beat, self.fail)

    # For subclasses.

    def setup(self, values: Mapping[str, Any]) -> None:
        """Load what is needed and create subscriptions; motion and model work do not start yet."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to work."""
        raise NotImplementedError

    def halt(self) -> None:
        """Stop working, so that `start` may be called again."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Undo `setup`."""
        raise NotImplementedError

    def report(self) -> Report:
        """What to say in /diagnostics, once a second."""
        return Report("", {})

    # Lifecycle.

    @property
    def state_label(self) -> str:
        """unconfigured, inactive, active or finalized."""
        return str(self._state_machine.current_state[1])

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("configure", lambda: self.setup(read(self, self._declared)), self.teardown)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt("activate", self.start, self.halt)
        return super().on_activate(state) if result == TransitionCallbackReturn.SUCCESS else result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.teardown()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.halt()
        self.teardown()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.halt()
        self.teardown()
        return TransitionCallbackReturn.SUCCESS

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:
        """rclpy's own method, guarded: it raises for a transition that the present state does not allow, which would
        end the process. Such a request (from a second manager, say) is refused instead."""
        if transition_id not in [known[0] for known in self._state_machine.available_transitions]:
            self.get_logger().error(f"transition {transition_id} refused: the node is {self.state_label}")
            return TransitionCallbackReturn.FAILURE
        return super()._LifecycleNodeMixin__change_state(transition_id)  # type: ignore[misc]

    def _attempt(self, what: str, action: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
        except (SetupError, ValueError, OSError, *_ROS_REFUSES) as error:
            problem = f"cannot {what}: {_in_words(error)}"
            if problem != self.problem:  # the manager tries again; saying it once is enough
                self.get_logger().error(problem)
            self.problem = problem
            undo()
            self._publish_diagnostics()
            return TransitionCallbackReturn.FAILURE
        except Exception:
            # rclpy turns this into the error state without a word, so say it here.
            self.get_logger().error(f"cannot {what}, unexpected:\n{traceback.format_exc()}")
            raise
        self.problem = ""
        return TransitionCallbackReturn.SUCCESS

    # What others must know, and what cannot be heard of them.

    def _beat(self) -> float:
        if self.context.ok():
            self._heartbeat.message = self.state_label
            self._heartbeats.publish(self._heartbeat)
        return _HEARTBEAT_PERIOD_S

    def destroy_node(self) -> None:
        """End the heartbeat before its publisher goes."""
        self._heart.stop()
        super().destroy_node()

    def create_subscription(self, msg_type: Any, topic: str, *arguments: Any, **options: Any) -> Any:
        """rclpy's own; a publisher whose quality of service does not fit is named in /diagnostics (F15)."""
        told = SubscriptionEventCallbacks(incompatible_qos=partial(self._on_incompatible, topic, "publisher"))
        return super().create_subscription(msg_type, topic, *arguments, **{"event_callbacks": told, **options})

    def create_publisher(self, msg_type: Any, topic: str, *arguments: Any, **options: Any) -> Any:
        """rclpy's own; a subscriber whose quality of service does not fit is named in /diagnostics (F15)."""
        told = PublisherEventCallbacks(incompatible_qos=partial(self._on_incompatible, topic, "subscriber"))
        return super().create_publisher(msg_type, topic, *arguments, **{"event_callbacks": told, **options})

    def _on_incompatible(self, topic: str, who: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        name = self.resolve_topic_name(topic)
        self._unheard[topic] = (
            f"a {who} of {name} does not fit in {policy}, nothing is exchanged with it; "
            f"compare with `ros2 topic info -v {name}` and give it the same {policy} (F15)"
        )
        self.get_logger().error(self._unheard[topic])
        self._publish_diagnostics()

    def fail(self, message: str) -> None:
        """End the process with exit status 1: the supervisor must see that a worker has died."""
        self.get_logger().fatal(message)
        self.failed = True

    def _publish_diagnostics(self) -> None:
        report = self.report()
        wrong = report.wrong or "; ".join(self._unheard.values())
        status = DiagnosticStatus(name=self.get_fully_qualified_name().lstrip("/"), hardware_id="instructvla")
        state = self.state_label
        if self.problem:
            status.level, status.message = DiagnosticStatus.ERROR, self.problem
        elif wrong:
            status.level = DiagnosticStatus.ERROR if report.fault else DiagnosticStatus.WARN
            status.message = wrong
        else:
            status.level, status.message = DiagnosticStatus.OK, state
        status.values = [KeyValue(key="state", value=state)]
        status.values += [KeyValue(key=key, value=value) for key, value in report.values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _in_words(error: Exception) -> str:
    """One line. ROS puts a name below its complaint, and a mark below the character that it means."""
    if not isinstance(error, _ROS_REFUSES):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines()]
    said = " ".join(line for line in lines if line and line != "^")
    named = isinstance(error, _BAD_NAME) or "remap rule" in said
    return f"{said}; correct the parameter or argument that it comes from" if named else said


def make_executor(context: Any = None) -> Any:
    """An executor of one thread: callbacks never overlap.

    The events executor takes half the time per message of the waiting one (a joint state arrives every 10 ms), and is
    used where this rclpy has it.
    """
    try:
        from rclpy.experimental import EventsExecutor

        return EventsExecutor(context=context)
    except (ImportError, io.UnsupportedOperation):  # the latter where stderr is no real file: rclpy wants one
        return SingleThreadedExecutor(context=context)


def run(make_node: Callable[[], Any]) -> int:
    """Run a node until SIGINT or SIGTERM; returns the exit status.

    rclpy's own signal handlers shut the context down under a spinning executor, so that nothing can be said
    to anybody any more; here the loop ends by itself and the node halts in order.
    """
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # reads the command line's remappings
        node = make_node()
    except (InvalidParameterTypeException, InvalidParameterValueException, ValueError, OSError, *_ROS_REFUSES) as error:
        rclpy.logging.get_logger("instructvla").fatal(f"cannot start: {_in_words(error)}")
        rclpy.try_shutdown()
        return _EXIT_BAD_PARAMETER
    executor = make_executor()
    executor.add_node(node)
    try:
        while not asked.is_set() and not node.failed:
            executor.spin_once(timeout_sec=_SPIN_S)
    finally:
        if isinstance(node, ManagedNode):
            node.halt()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return int(node.failed)


def main_of(make_node: Callable[[], Any]) -> None:
    """Entry point helper: run and exit."""
    sys.exit(run(make_node))
