"""One annotating model behind an OpenAI-compatible endpoint: limits, repeats, tokens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai

from .prompt import again
from .schema import Annotation, AnswerError, parse


class EndpointError(RuntimeError):
    """The endpoint refuses this and every further request: a wrong key, model or address."""


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
    """Asks for annotations; may be used from several threads. Repeats of failed requests are the client library's."""

    def __init__(self, settings: Settings, share: float = 1.0) -> None:
        """``share`` of the request rate belongs to this process. Raises EndpointError without a key."""
        key = os.environ.get(settings.api_key_env)
        if not key:
            raise EndpointError(
                f"found no API key in the environment variable {settings.api_key_env}; set it (any text where the "
                "server needs none), or name another variable: --api-key-env"
            )
        self._settings = settings
        self._limit = RateLimit(settings.requests_per_minute * share)
        self._client = openai.OpenAI(
            api_key=key, base_url=settings.base_url, timeout=settings.timeout_s, max_retries=settings.repeats
        )

    def annotate(self, messages: list[dict[str, Any]], instruction: str) -> Answer:
        """Asks until an answer is valid. Raises EndpointError where asking again is of no use."""
        usage, problem = Usage(), ""
        for _ in range(self._settings.answers):
            self._limit.wait()
            try:
                text, spent = self._ask(messages)
            except (openai.RateLimitError, openai.InternalServerError, openai.APIConnectionError) as error:
                return Answer(None, usage, f"{type(error).__name__} after {self._settings.repeats} repeats")
            except openai.APIStatusError as error:
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

    def _ask(self, messages: list[dict[str, Any]]) -> tuple[str, Usage]:
        reply = self._client.chat.completions.create(  # type: ignore[call-overload]
            model=self._settings.model,
            messages=messages,
            max_tokens=self._settings.max_tokens,
            response_format={"type": "json_object"},
        )
        used = reply.usage
        spent = Usage(1, used.prompt_tokens if used else 0, used.completion_tokens if used else 0)
        return (reply.choices[0].message.content or "") if reply.choices else "", spent
