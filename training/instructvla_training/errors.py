"""What a person is told in one line: errors that say what was found, what was expected and how to mend it."""

from __future__ import annotations

from instructvla_model.config import ConfigError
from instructvla_model.image import ImageError
from instructvla_model.manifest import CheckpointError
from instructvla_model.normalization import StatisticsError
from instructvla_model.prompts import PromptError
from instructvla_model.runtime import RuntimeInputError
from instructvla_model.tokenizer import TokenizerError
from instructvla_ros.bags.types import BagError

from .data.formats.episode import DataError
from .language.vla_it import VlaItError
from .refusals import EndpointError, NonFiniteLoss, RunError

KNOWN: tuple[type[Exception], ...] = (
    BagError, CheckpointError, ConfigError, DataError, EndpointError, ImageError, NonFiniteLoss, PromptError, RunError,
    RuntimeInputError, StatisticsError, TokenizerError, VlaItError, OSError,
)  # fmt: skip
"""The project's own, and what the machine refuses. All others are mistakes in the program and keep their traceback."""


def line(error: Exception) -> str:
    """The message; what the system says is preceded by the file, as all others are."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
