"""What `watch` shows, as pure data and text: fed by messages, read by the screen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from instructvla_ros.nodes.stats import RateMeter

LEVELS = {b"\x00": "ok", b"\x01": "warn", b"\x02": "error", b"\x03": "stale"}
_MODES = ("inactive", "idle", "executing", "holding", "resetting", "stopped", "fault")


def mode_name(mode: int) -> str:
    """The word for a SafetyState mode."""
    return _MODES[mode] if 0 <= mode < len(_MODES) else f"mode {mode}"


@dataclass
class LiveView:
    """Newest values and rates. Written by the ROS thread, read by the screen; each field is replaced as a
    whole."""

    instruction: str = ""
    text: str = ""
    final: bool = False
    tokens_per_second: float = 0.0
    gates: str = ""
    latent_stamp_s: float = -math.inf
    mode: str = "no controller heard"
    reason: str = ""
    step: str = ""
    unheard_goals: str = ""
    """The topic of the joint goals while nobody publishes it, so that their rate tells nothing."""
    levels: dict[str, str] = field(default_factory=dict)
    rates: dict[str, RateMeter] = field(
        default_factory=lambda: {name: RateMeter() for name in ("latents", "chunks", "joint goals")}
    )

    def on_reasoning(self, message: Any) -> None:
        """The text so far."""
        self.instruction = f"{message.instruction_id}: {message.instruction}" if message.instruction else ""
        self.text, self.final = message.text, message.final
        self.tokens_per_second = message.tokens_per_second

    def on_latent(self, message: Any, now_s: float, stamp_s: float) -> None:
        """A latent action, whose image is from `stamp_s`."""
        self.rates["latents"].note(now_s)
        self.latent_stamp_s = stamp_s
        self.gates = ", ".join(f"{value:.2f}" for value in message.gate_mean)

    def on_safety(self, message: Any) -> None:
        """What the controller allows."""
        self.mode = mode_name(message.mode)
        self.reason = f"{message.fault_id} {message.reason}".strip()

    def on_step(self, message: Any) -> None:
        """The step being executed."""
        d = message.delta_xyz_m
        self.step = f"chunk {message.chunk_seq} step {message.step}: {d.x:+.3f} {d.y:+.3f} {d.z:+.3f} m"
        self.step += f", gripper {message.gripper:.1f}" + (", clamped" if message.clamped else "")

    def on_diagnostics(self, message: Any, namespace: str) -> None:
        """One line for each node in the namespace that is not well; all robots of a domain share the topic."""
        for status in message.status:
            if not status.name.startswith(namespace.lstrip("/") + "/"):
                continue
            level = LEVELS.get(status.level, "?")
            self.levels = {**self.levels, status.name: "" if level == "ok" else f"{level}: {status.message}"}

    def rows(self, now_s: float) -> list[tuple[str, str]]:
        """Label and text, top to bottom."""
        age_s = now_s - self.latent_stamp_s
        writing = "" if self.final or not self.text else "…"
        rows = [
            ("instruction", self.instruction or 'none yet (instructvla say "…")'),
            ("reasoning", self.text + writing),
            ("tokens/s", f"{self.tokens_per_second:.1f}" if self.tokens_per_second else ""),
            ("latent age", f"{age_s:.2f} s" if math.isfinite(age_s) else "none yet"),
            ("gates", self.gates),
            ("arm", f"{self.mode}  {self.reason}".strip()),
            ("step", self.step),
        ]
        rows += [(name, f"{meter.rate_hz(now_s):.1f} Hz") for name, meter in self.rates.items()]
        if self.unheard_goals:
            why = "only an Interbotix driver's goals are counted, see --robot-name"
            rows[-1] = ("joint goals", f"nobody publishes {self.unheard_goals}; {why}")
        rows += [(name.rsplit("/", 1)[-1], text) for name, text in sorted(self.levels.items()) if text]
        return rows
