"""one prompt to a server that speaks the OpenAI protocol: tries, caps on spending, answers kept on disk, errors told apart.

What is asked and how an answer is read belongs to the judges (training/judge.py, huatuo_judge.py, feedback.py). A
server that answers for another model than the one asked is refused, for its verdicts would count as that model's. A
JSON schema is sent as `response_format`; a server that refuses it is asked without, and the answer is read as strictly.
"""

import hashlib
import json
import os
import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAI, OpenAIError
from openai.types.chat import ChatCompletion
from pydantic import Field

from huatuo.config import is_safe_url
from huatuo.errors import Busy, ConfigError, EngineError, Refused, Truncated, Unavailable
from huatuo.privacy import mask
from huatuo.toml import Settings
from training.rows import write_text
from training.spending import REPLY_TOKENS, Bill, Estimate, Limits, Paid, Purse, count_tokens

TRIES = 3
WAIT_S = 0.5
"""First wait between tries; doubled for the next."""
LONGEST_WAIT_S = 8.0
"""A server that asks for a longer wait than this is Busy at once."""
CONNECT_S = 5.0
_DATED = re.compile(r"-(\d{4}|\d{4}-\d{2}-\d{2}|\d{8})")
"""What a server may add to the name that was asked for: gpt-4 answers as gpt-4-0613."""

_UNSUITABLE = (400, 413, 422)
"""Statuses that speak of one request and not of the server: too long, or not as the server wants it."""

Parsed = TypeVar("Parsed")


class Rejected(Refused):
    """The server does not take this one prompt (HTTP 400, 413 or 422)."""


@dataclass(frozen=True)
class Question:
    """One draw of one prompt. schema: the answer's JSON schema, None for free text; temperature: None sends none."""

    prompt: str
    number: int = 0
    temperature: float | None = None
    schema: Mapping[str, Any] | None = None


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
    max_calls: int = Field(default=2000, ge=1, description="calls paid for at most, per run")
    max_total_tokens: int = Field(
        default=0,
        ge=0,
        description="tokens paid for at most, sent and received, per run; 0: no cap",
    )
    max_cost: float = Field(
        default=0.0, ge=0, description="spent at most, per run, in the prices' currency; 0: no cap"
    )
    price_in: float = Field(default=0.0, ge=0, description="per million tokens sent")
    price_out: float = Field(default=0.0, ge=0, description="per million tokens received")
    max_tokens: int = Field(default=400, ge=16, description="longest explanation, in tokens")
    tokens_key: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="what the server calls that limit"
    )
    timeout_s: float = Field(default=60.0, gt=0, description="for one call")
    cache: str = Field(default="data/judge-cache", description="folder of answered calls")


class Endpoint:
    """The connection to one model, for several threads at once.

    purse: what this run has spent; bill: of all replies that answer() gave, those of earlier runs too.

    Raises ConfigError for an unsafe address, a missing key, or a cap on cost without prices.
    """

    def __init__(self, config: EndpointConfig, cache: Path | None = None) -> None:
        if not is_safe_url(config.base_url):
            raise ConfigError("base_url: must be https, or http on this machine")
        if config.max_cost and not (config.price_in or config.price_out):
            raise ConfigError("max_cost: needs price_in and price_out")
        key = os.environ.get(config.api_key_env, "") if config.api_key_env else "none"
        if not key:
            raise ConfigError(
                f"api_key_env: the environment variable {config.api_key_env} is not set"
            )
        self.name = f"llm:{config.model}"
        self.purse = Purse(
            Limits(
                config.max_calls,
                config.max_total_tokens,
                config.max_cost,
                config.price_in,
                config.price_out,
            )
        )
        self.bill = Bill(self.purse.limits)
        self.cache = cache if cache is not None else Path(config.cache)
        self._config = config
        self._masked = lru_cache(maxsize=10_000)(
            lambda text: mask(text).text
        )  # dear, and asked again
        self._takes_schema: bool | None = None  # not known before the first answer
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        secure = config.base_url.startswith("https:")
        self.client = OpenAI(
            api_key=key,
            base_url=config.base_url,
            max_retries=0,
            http_client=httpx2.Client(
                follow_redirects=False,
                timeout=httpx2.Timeout(config.timeout_s, connect=CONNECT_S),
                trust_env=secure,
            ),
        )

    @property
    def place(self) -> str:
        """Twelve hex digits that tell this server and model from others."""
        text = json.dumps([self._config.base_url.rstrip("/"), self._config.model])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def calls(self) -> int:
        """Requests sent, tries included."""
        return self.purse.calls

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def shown(self, text: str) -> str:
        """The text as it may be sent: identifiers masked if it leaves the country."""
        return self._masked(text) if self._config.leaves_country else text

    def ask(
        self,
        prompt: str,
        parse: Callable[[str], Parsed],
        *,
        temperature: float | None = 0,
        tries: int = TRIES,
        number: int = 0,
    ) -> Parsed:
        """As answer(), for a prompt in free text. number: of several draws of one prompt, each kept by itself."""
        return self.answer(Question(prompt, number, temperature), parse, tries=tries)

    def answer(
        self, question: Question, parse: Callable[[str], Parsed], *, tries: int = TRIES
    ) -> Parsed:
        """What `parse` makes of the model's answer; one it raises ValueError for is asked anew, `tries` in all.

        Kept answers are not asked again. Raises Busy, Refused (Rejected for this prompt only), Unavailable, Truncated
        for answers that break off or that `parse` cannot read, or CapReached, a ConfigError.
        """
        with self._turns[self.key(question)]:  # the same question at the same time is asked once
            kept = _read_kept(self._file(question), question.prompt, parse)
            if kept is None:
                return self._asked(question, parse, tries)
            self._put_on_bill(question, kept.get("usage"), kept.get("share", 1.0))
            return parse(kept["said"])

    def _asked(self, question: Question, parse: Callable[[str], Parsed], tries: int) -> Parsed:
        attempt, doubted = 1, False
        while True:
            try:
                said, usage = self._call(question)
                parsed = parse(said)
            except (OpenAIError, httpx2.HTTPError, ValueError) as error:
                if self._may_be_the_schema(error, question):
                    # Asked without; if that is refused too, the prompt was the cause.
                    self._takes_schema, doubted = False, True
                    continue
                if doubted and isinstance(error, APIStatusError):
                    self._takes_schema = None
                spent = isinstance(error, ValueError) and attempt >= tries
                wait = None if spent else _wait_s(error, attempt)
                if wait is None:
                    raise self.as_engine_error(error) from None
                time.sleep(wait)
                attempt += 1
                continue
            self.keep(question, said, usage)
            self._put_on_bill(question, usage)
            return parsed

    def _put_on_bill(self, question: Question, usage: Any, share: float = 1.0) -> None:
        """usage: as keep() takes it, or as it was read back."""
        guessed = not usage
        sent, received = usage or self.size(question)
        self.bill.add(self.key(question), Paid(sent, received, guessed, share))

    def kept(self, question: Question, parse: Callable[[str], object] = str) -> str | None:
        """The readable answer to this draw of the prompt that lies on disk, or None."""
        kept = _read_kept(self._file(question), question.prompt, parse)
        return None if kept is None else str(kept["said"])

    def key(self, question: Question) -> str:
        """What an answer is kept under: SHA-256 of server, model, temperature, prompt and number.

        The longest reply does not belong to it: only answers that ended by themselves are kept.
        """
        asked = [self.place, question.temperature, question.prompt, question.number]
        text = json.dumps(asked, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def keep(
        self,
        question: Question,
        said: str,
        usage: tuple[float, float] | None,
        share: float = 1.0,
    ) -> None:
        """Write an answer to disk, whole or not at all. share: of the price, below 1 for one that came in a batch."""
        row = {"model": self._config.model, "prompt": question.prompt, "said": said, "usage": usage}
        row |= {"share": share} if share != 1 else {}
        write_text(self._file(question), json.dumps(row, ensure_ascii=False))

    def body(self, question: Question, *, with_schema: bool = True) -> dict[str, Any]:
        """The request, as the protocol has it."""
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": "user", "content": question.prompt}],
        }
        if question.temperature is not None:
            body["temperature"] = question.temperature
        if config.max_tokens:
            body[config.tokens_key] = config.max_tokens
        if question.schema is not None and with_schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": question.schema},
            }
        return body

    def read(self, answer: ChatCompletion) -> tuple[str, tuple[float, float] | None]:
        """(text, (tokens sent, tokens received) or None) of a finished answer.

        Raises ValueError for one that broke off or was declined, Refused for one of another model.
        """
        choices = getattr(answer, "choices", None)
        if not choices or choices[0].finish_reason != "stop":
            raise ValueError("the judge did not finish")
        self._check_model(str(getattr(answer, "model", None) or ""))
        said = choices[0].message.content or ""
        return said.encode("utf-8", "replace").decode("utf-8"), usage_of(answer)

    def size(self, question: Question) -> tuple[float, float]:
        """(tokens sent, tokens received at most) as expected before the call."""
        config = self._config
        sent = count_tokens(question.prompt, config.model)
        if question.schema is not None:
            sent += count_tokens(json.dumps(question.schema), config.model)
        return sent, float(config.max_tokens or REPLY_TOKENS)

    def estimate(
        self, missing: Iterable[tuple[Question, int]], reply_tokens: float = REPLY_TOKENS
    ) -> Estimate:
        """What asking (question, tries left at most) takes; reply_tokens: the length of a reply, roughly."""
        calls, at_most, sent, received = 0, 0, 0.0, 0.0
        for question, tries in missing:
            size = self.size(question)
            calls, at_most = calls + 1, at_most + tries
            sent, received = sent + size[0], received + min(size[1], reply_tokens)
        limits = self.purse.limits
        cost = limits.cost(sent, received) if limits.is_priced else None
        return Estimate(calls, at_most, round(sent), round(received), cost)

    def _file(self, question: Question) -> Path:
        digest = self.key(question)
        return self.cache / digest[:2] / f"{digest}.json"

    def _call(self, question: Question) -> tuple[str, tuple[float, float] | None]:
        asks_schema = self._takes_schema is not False
        size = self.size(question)
        self.purse.reserve(*size)
        used, guess = None, False
        try:
            body = self.body(question, with_schema=asks_schema)
            answer: ChatCompletion = self.client.chat.completions.create(**body)
            used, guess = usage_of(answer), True
        except APITimeoutError:
            guess = True  # the server may have worked, and charge, all the same
            raise
        finally:
            self.purse.settle(size, used, guess)
        if question.schema is not None and asks_schema:
            self._takes_schema = True
        return self.read(answer)

    def _may_be_the_schema(self, error: Exception, question: Question) -> bool:
        refused = isinstance(error, APIStatusError) and error.status_code in (400, 422)
        return refused and question.schema is not None and self._takes_schema is None

    def _check_model(self, answered: str) -> None:
        asked = self._config.answers_as or self._config.model
        rest = answered.removeprefix(asked)
        if answered != asked and (rest == answered or not _DATED.fullmatch(rest)):
            raise Refused(
                f"{self.name}: the server answered for the model {answered[:80]!r}; "
                "if that is the one you mean, set answers_as"
            )

    def as_engine_error(self, error: Exception) -> EngineError:
        """What a failure of the client or of reading means, without the server's words."""
        if isinstance(error, APIStatusError):
            status = error.status_code
            if status in (429, 503):
                return Busy(f"{self.name} is overloaded (HTTP {status}); try again in a minute")
            if status >= 500 or status in (408, 409):
                return Unavailable(f"{self.name}: the server failed (HTTP {status})")
            if status in _UNSUITABLE:
                return Rejected(
                    f"{self.name}: the server refused the request (HTTP {status}); too long for the model, or a "
                    "setting it does not know (temperature, tokens_key)"
                )
            return Refused(f"{self.name}: the server refused (HTTP {status}); check model and key")
        if isinstance(error, OpenAIError | httpx2.HTTPError):
            return Unavailable(f"{self.name}: no connection; is the server running?")
        return Truncated(
            f"{self.name}: {TRIES} answers without a readable verdict in the last line"
        )


def usage_of(answer: ChatCompletion) -> tuple[float, float] | None:
    """(tokens sent, tokens received) as the server tells, None if it does not."""
    usage = getattr(answer, "usage", None)
    sent, received = (getattr(usage, key, None) for key in ("prompt_tokens", "completion_tokens"))
    if not isinstance(sent, int) or not isinstance(received, int) or min(sent, received) < 0:
        return None
    return float(sent), float(received)


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


def _read_kept(file: Path, prompt: str, parse: Callable[[str], object]) -> Mapping[str, Any] | None:
    """What was answered to the same prompt before; a file that cannot be read counts as none."""
    try:
        row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        parse(row["said"])
        sent, received = row.get("usage") or (0, 0)
        sound = row["prompt"] == prompt and min(sent, received) >= 0 < row.get("share", 1)
        return row if sound else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
