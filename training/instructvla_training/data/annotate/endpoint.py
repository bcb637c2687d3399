"""One annotating model behind an OpenAI-compatible endpoint: limits, repeats, tokens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import openai

from instructvla_training.refusals import EndpointError

from .prompt import again
from .schema import Annotation, AnswerError, parse

__all__ = ["Answer", "Endpoint", "EndpointError", "RateLimit", "Settings", "Usage"]

PASSING = (openai.RateLimitError, openai.InternalServerError, openai.APIConnectionError)
"""What may go well a moment later."""
OF_ONE_REQUEST = (400, 409, 413, 422)
"""Refusals that may be about this episode alone: its pictures, their size, what a filter makes of its words."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0


class BadReply(ValueError):
    """Status 200 with something else than a chat completion."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to reach the model and how hard to try. The API key is read from the environment and kept nowhere else."""

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    count: int = 2  # of each kind of pair
    requests_per_minute: float = 60.0
    timeout_s: float = 120.0
    repeats: int = 5  # of a request that failed: 429 (after as long as the server says), 5xx, no answer in time
    answers: int = 3  # asked for until one is valid
    max_tokens: int = 1500


@dataclass(frozen=True)
class Usage:
    """Tokens and requests spent."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True)
class Answer:
    """``annotation`` is None where no answer was of use; ``problem`` then says why."""

    annotation: Annotation | None
    usage: Usage
    problem: str = ""
    refused: bool = False  # or not answered at all; several in a row are no accident


class RateLimit:
    """Lets calls through at an even rate; thread-safe. ``clock`` and ``sleep`` in seconds."""

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._period_s, self._clock, self._sleep = 60.0 / per_minute, clock, sleep
        self._next_s = float("-inf")
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Returns when the next request may be sent."""
        with self._lock:
            now_s = self._clock()
            begin_s = max(now_s, self._next_s)
            self._next_s = begin_s + self._period_s
        if begin_s > now_s:
            self._sleep(begin_s - now_s)


class Endpoint:
    """Asks for annotations; may be used from several threads. Every request, repeats too, keeps to the rate."""

    def __init__(
        self, settings: Settings, share: float = 1.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """``share`` of the request rate belongs to this process. Raises EndpointError without a key or an address."""
        _check_address(settings.base_url)
        key = os.environ.get(settings.api_key_env)
        if not key:
            raise EndpointError(
                f"found no API key in the environment variable {settings.api_key_env}; set it (any text where the "
                "server needs none), or name another variable: --api-key-env"
            )
        self._settings, self._sleep = settings, sleep
        self._limit = RateLimit(settings.requests_per_minute * share)
        self._client = openai.OpenAI(
            api_key=key, base_url=settings.base_url, timeout=settings.timeout_s, max_retries=0
        )

    def annotate(self, messages: list[dict[str, Any]], instruction: str) -> Answer:
        """Asks until an answer is valid. Raises EndpointError where asking again is of no use."""
        usage, problem = Usage(), ""
        for _ in range(self._settings.answers):
            try:
                text, spent = self._repeated(messages)
            except PASSING as error:
                tried = f"{type(error).__name__} after {self._settings.repeats} repeats"
                return Answer(None, usage, f"{tried} ({error.__cause__ or error})", refused=True)
            except BadReply as error:
                return Answer(None, usage, f"{error}; check --base-url", refused=True)
            except openai.APIStatusError as error:
                if error.status_code in OF_ONE_REQUEST:
                    return Answer(None, usage, f"refused with {error.status_code} ({error.message})", refused=True)
                raise EndpointError(
                    f"{self._settings.base_url} answers {error.status_code} ({error.message}); "
                    "check --base-url, --model and the API key"
                ) from error
            usage += spent
            try:
                return Answer(parse(text, instruction), usage)
            except AnswerError as error:
                problem = str(error)
                messages = [*messages, *again(text, problem)]
        return Answer(None, usage, problem)

    def _repeated(self, messages: list[dict[str, Any]]) -> tuple[str, Usage]:
        """The answer's text, after as many repeats as are allowed; raises what the last one raised."""
        for number in range(self._settings.repeats):
            try:
                return self._ask(messages)
            except PASSING as error:
                self._sleep(_pause_s(error, number))
        return self._ask(messages)

    def _ask(self, messages: list[dict[str, Any]]) -> tuple[str, Usage]:
        self._limit.wait()
        try:
            reply = self._client.chat.completions.create(  # type: ignore[call-overload]
                model=self._settings.model,
                messages=messages,
                max_tokens=self._settings.max_tokens,
                response_format={"type": "json_object"},
            )
        except openai.APIResponseValidationError as error:
            raise BadReply(f"found {_start(error.body)} in the answer, expected a chat completion") from error
        except ValueError as error:  # JSON that was cut
            raise BadReply(f"found an answer that is no JSON ({error}), expected a chat completion") from error
        choices = getattr(reply, "choices", None)
        if not isinstance(choices, list):
            raise BadReply(f"found {_start(reply)} in the answer, expected a chat completion")
        spent = Usage(1, _tokens(reply, "prompt_tokens"), _tokens(reply, "completion_tokens"))
        message = choices[0].message if choices else None
        return (message.content or "") if message is not None else "", spent


def _tokens(reply: Any, kind: str) -> int:
    """As the server counts them; 0 where it does not."""
    count = getattr(getattr(reply, "usage", None), kind, None)
    return count if isinstance(count, int) else 0


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, brackets that stay open
        good = False
    if not good:
        raise EndpointError(f"found {url!r}, expected an address such as https://host.example/v1; correct --base-url")


def _pause_s(error: Exception, number: int) -> float:
    """As long as the server says, else twice as long each time."""
    response = getattr(error, "response", None)
    try:
        wanted = float(response.headers["retry-after"]) if response is not None else -1.0
    except (KeyError, ValueError):
        wanted = -1.0
    return min(LONGEST_PAUSE_S, wanted if wanted >= 0.0 else FIRST_PAUSE_S * 2**number)


def _start(body: object) -> str:
    told = getattr(body, "error", None) or body
    return repr(told)[:80]
