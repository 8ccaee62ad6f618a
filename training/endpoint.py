"""one prompt to a server that speaks the OpenAI protocol: tries, a cap on calls, answers kept on disk, errors told apart.

What is asked and how an answer is read belongs to the judges (training/feedback.py, training/huatuo_judge.py). A server
that answers for another model than the one asked is refused, for its verdicts would count as that model's.
"""

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAI, OpenAIError
from pydantic import Field

from huatuo.config import is_safe_url
from huatuo.errors import Busy, ConfigError, EngineError, Refused, Truncated, Unavailable
from huatuo.privacy import mask
from huatuo.toml import Settings

TRIES = 3
WAIT_S = 0.5
"""First wait between tries; doubled for the next."""
LONGEST_WAIT_S = 8.0
"""A server that asks for a longer wait than this is Busy at once."""
CONNECT_S = 5.0
_DATED = re.compile(r"-(\d{4}|\d{4}-\d{2}-\d{2}|\d{8})")
"""What a server may add to the name that was asked for: gpt-4 answers as gpt-4-0613."""

Parsed = TypeVar("Parsed")


class EndpointConfig(Settings):
    """A model behind a server that speaks the OpenAI protocol."""

    base_url: str = Field(description="https, or http on this machine, such as https://host/v1")
    model: str = Field(min_length=1, description="the model's name on that server")
    answers_as: str = Field(
        default="", description="the name the server gives in its answers, if it is another one"
    )
    api_key_env: str = Field(default="", description="environment variable that holds the key")
    leaves_country: bool = Field(
        default=True, description="whether texts leave the country; then identifiers are masked"
    )
    max_calls: int = Field(default=2000, ge=1, description="calls paid for at most, per judge")
    max_tokens: int = Field(default=400, ge=16, description="longest explanation, in tokens")
    timeout_s: float = Field(default=60.0, gt=0, description="for one call")
    cache: str = Field(default="data/judge-cache", description="folder of answered calls")


class Endpoint:
    """The connection to one model. calls: requests sent, tries included.

    Raises ConfigError for an unsafe address or a missing key.
    """

    def __init__(self, config: EndpointConfig, cache: Path | None = None) -> None:
        if not is_safe_url(config.base_url):
            raise ConfigError("base_url: must be https, or http on this machine")
        key = os.environ.get(config.api_key_env, "") if config.api_key_env else "none"
        if not key:
            raise ConfigError(
                f"api_key_env: the environment variable {config.api_key_env} is not set"
            )
        self.name = f"llm:{config.model}"
        self.calls = 0
        self._config = config
        self._cache = cache if cache is not None else Path(config.cache)
        secure = config.base_url.startswith("https:")
        self._client = OpenAI(
            api_key=key,
            base_url=config.base_url,
            max_retries=0,
            http_client=httpx2.Client(
                follow_redirects=False,
                timeout=httpx2.Timeout(config.timeout_s, connect=CONNECT_S),
                trust_env=secure,
            ),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def shown(self, text: str) -> str:
        """The text as it may be sent: identifiers masked if it leaves the country."""
        return mask(text).text if self._config.leaves_country else text

    def ask(
        self,
        prompt: str,
        parse: Callable[[str], Parsed],
        *,
        temperature: float | None = 0,
        tries: int = TRIES,
        number: int = 0,
    ) -> Parsed:
        """What `parse` makes of the model's answer; one it raises ValueError for is asked anew, `tries` in all.

        temperature: None sends none (the server's own). number: of several draws of one prompt, each kept by itself.
        Kept answers are not asked again. Raises Busy, Refused, Unavailable, Truncated for answers that break off or
        that `parse` cannot read, or ConfigError when max_calls is used up.
        """
        digest = self._digest(prompt, number)
        kept = self._cache / digest[:2] / f"{digest}.json"
        said = _read_kept(kept, prompt, parse)
        if said is not None:
            return parse(said)
        for attempt in range(1, TRIES + 1):
            try:
                said = self._call(prompt, temperature)
                parsed = parse(said)
            except (OpenAIError, httpx2.HTTPError, ValueError) as error:
                spent = isinstance(error, ValueError) and attempt >= tries
                wait = None if spent else _wait_s(error, attempt)
                if wait is None:
                    raise self._as_engine_error(error) from None
                time.sleep(wait)
                continue
            _keep(kept, self._config.model, prompt, said)
            return parsed
        raise Unavailable(f"{self.name}: no answer")  # not reached: the last wait is None

    def has_kept(self, prompt: str, number: int = 0) -> bool:
        """Whether an answer to this draw of the prompt lies on disk."""
        digest = self._digest(prompt, number)
        kept = self._cache / digest[:2] / f"{digest}.json"
        return _read_kept(kept, prompt, str) is not None

    def _digest(self, prompt: str, number: int) -> str:
        draw = f"\n{number}" if number else ""
        return hashlib.sha256(f"{self._config.model}\n{prompt}{draw}".encode()).hexdigest()

    def _call(self, prompt: str, temperature: float | None) -> str:
        config = self._config
        if self.calls >= config.max_calls:
            raise ConfigError(
                f"max_calls: the {self.calls:,} calls allowed are used up; what was judged is kept, raise it to go on"
            )
        self.calls += 1
        more: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        if config.max_tokens:
            more["max_tokens"] = config.max_tokens
        answer = self._client.chat.completions.create(
            model=config.model,
            messages=[{"role": "user", "content": prompt}],
            **more,
        )
        choices = getattr(answer, "choices", None)
        if not choices or choices[0].finish_reason != "stop":
            raise ValueError("the judge did not finish")
        self._check_model(str(getattr(answer, "model", None) or ""))
        return choices[0].message.content or ""

    def _check_model(self, answered: str) -> None:
        asked = self._config.answers_as or self._config.model
        rest = answered.removeprefix(asked)
        if answered != asked and (rest == answered or not _DATED.fullmatch(rest)):
            raise Refused(
                f"{self.name}: the server answered for the model {answered[:80]!r}; "
                "if that is the one you mean, set answers_as"
            )

    def _as_engine_error(self, error: Exception) -> EngineError:
        if isinstance(error, APIStatusError):
            status = error.status_code
            if status in (429, 503):
                return Busy(f"{self.name} is overloaded (HTTP {status}); try again in a minute")
            if status >= 500 or status in (408, 409):
                return Unavailable(f"{self.name}: the server failed (HTTP {status})")
            return Refused(f"{self.name}: the server refused (HTTP {status}); check model and key")
        if isinstance(error, OpenAIError | httpx2.HTTPError):
            return Unavailable(f"{self.name}: no connection; is the server running?")
        return Truncated(
            f"{self.name}: {TRIES} answers without a readable verdict in the last line"
        )


def _wait_s(error: Exception, attempt: int) -> float | None:
    """Seconds until the next try, or None if there is none."""
    if attempt >= TRIES:
        return None
    if isinstance(error, APIStatusError):
        status = error.status_code
        if status not in (408, 409, 429) and status < 500:
            return None
        asked = error.response.headers.get("retry-after", "")
        if asked.isdecimal():
            return float(asked) if float(asked) <= LONGEST_WAIT_S else None
    elif isinstance(error, APITimeoutError) or (
        isinstance(error, OpenAIError) and not isinstance(error, APIConnectionError)
    ):
        return None
    return float(WAIT_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.0))


def _read_kept(file: Path, prompt: str, parse: Callable[[str], object]) -> str | None:
    """What was answered to the same prompt before; a file that cannot be read counts as none."""
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        parse(row["said"])
        return str(row["said"]) if row["prompt"] == prompt else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(file: Path, model: str, prompt: str, said: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    row = {"model": model, "prompt": prompt, "said": said}
    temporary.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    temporary.replace(file)
