"""Errors of a training run."""

from __future__ import annotations


class RunError(ValueError):
    """A run that cannot be made as asked: what was found, what was expected, how to mend it."""


class NonFiniteLoss(RuntimeError):
    """A loss or gradient is NaN or infinite; the run stops before the weights are touched."""


class EndpointError(RuntimeError):
    """The annotating endpoint refuses this and every further request: a wrong key, model or address."""
