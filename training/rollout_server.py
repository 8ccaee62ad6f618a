"""answers from a vLLM server instead of our own generation; before each step it gets the changed blocks, and nothing else.

The server is vLLM 0.22 or newer with its development endpoints, and serves the run's parent:
  VLLM_SERVER_DEV_MODE=1 vllm serve PARENT --served-model-name NAME --logprobs-mode processed_logprobs
Update: the policy's blocks go into a new folder that both sides see, as one safetensors file under the names of the
parent's own files; then POST /pause?mode=wait, /collective_rpc reload_weights(weights_path, is_checkpoint_format),
/reset_prefix_cache, /resume. vLLM keeps what the file lacks (its log says "Failed to load weights" of each such layer, as
it must), but fills a layer of which a part is missing with garbage, and its layers fuse q, k and v, or gate and up. So
whole blocks are sent, also where only some of their tensors moved. Tied embeddings are safe: neither side of them is
sent. A server started with `--load-format dummy` cannot reload.

Answers: POST /v1/completions with token ids in and out. Training uses our own log-probabilities of them, from one forward
of the trunk; the server's show whether it samples from the policy that learns. A server in bfloat16 differs by rounding,
so one small update that was lost may hide in it; one that was refused is an error. The same questions get the same
seeds in any number of processes; the same answers are up to the server (VLLM_BATCH_INVARIANT=1).
Not here: transfer by NCCL, several servers, answers that go on over an update.
"""

import hashlib
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from huatuo.config import is_safe_url
from huatuo.errors import (
    CheckpointError,
    ConfigError,
    HuatuoError,
    Mismatch,
    NotFinite,
    Refused,
    Timeout,
    Truncated,
    Unavailable,
)
from huatuo.models.layout import check_names, name_in
from huatuo.models.trunk import Trunk
from huatuo.toml import InsidePath, Settings
from training.rollout import Drawing, Rollouts

OLDEST = (0, 22)
"""The first vLLM whose model runners both reload from a folder that is named."""
CONNECT_S = 10.0
WEIGHTS = "model.safetensors"
_STEP = re.compile(r"step-\d+-\w+")
Done = TypeVar("Done")


class ServerConfig(Settings):
    """The table [rollout_server] of a reinforcement-learning file."""

    base_url: str = Field(description="https, or http on this machine, up to and with /v1")
    model: str = Field(min_length=1, description="the parent's name on that server")
    weights: InsidePath = Field(description="folder that both sides see, for the changed blocks")
    weights_there: str = Field(
        default="", pattern=r"^(/.*)?$", description="that folder's path on the server, if another"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="the blocks are sent in; the server rounds them to its own"
    )
    gap: float = Field(
        default=0.1, gt=0, description="most that log-probabilities may differ, mean nats a token"
    )
    api_key_env: str = Field(default="", description="environment variable that holds the key")
    timeout_s: float = Field(default=600.0, gt=0, description="for one update, and one prompt")


@dataclass(frozen=True)
class Answer:
    """An answer's tokens, its end mark included, with the server's log-probabilities; finished: ended by itself."""

    ids: Sequence[int]
    log_probs: Sequence[float]
    finished: bool


class RolloutServer:
    """One process's connection. sent: figures of its last update, {sent_mb, sent_s}.

    folder: where the updates of this run lie. names: the tensors of the parent's files with their shapes. blocks: how many
    learn. vocabulary: rows of the parent's head. process, world, reduce: as in Learner; what fails in one fails in all.
    Raises ConfigError for an unsafe address or a missing key. Call `check` before anything else.
    """

    def __init__(
        self,
        config: ServerConfig,
        folder: Path,
        names: Mapping[str, tuple[int, ...]],
        blocks: int,
        vocabulary: int,
        *,
        process: int = 0,
        world: int = 1,
        reduce: Callable[[float], float] = lambda number: number,
    ) -> None:
        url = config.base_url.rstrip("/")
        if not is_safe_url(url) or not url.endswith("/v1"):
            raise ConfigError(
                "rollout_server.base_url: must be https, or http on this machine, and end in /v1"
            )
        key = os.environ.get(config.api_key_env, "") if config.api_key_env else ""
        if config.api_key_env and not key:
            raise ConfigError(
                f"rollout_server.api_key_env: the environment variable {config.api_key_env} is not set"
            )
        self.config, self.folder = config, folder
        self.sent = {"sent_mb": 0.0, "sent_s": 0.0}
        self._names, self._blocks, self._vocabulary = names, blocks, vocabulary
        self._process, self._world, self._reduce = process, world, reduce
        self._root = url.removesuffix("/v1")
        secure = url.startswith("https:")
        self._client = httpx2.Client(
            headers={"authorization": f"Bearer {key}"} if key else {},
            follow_redirects=False,
            timeout=httpx2.Timeout(config.timeout_s, connect=CONNECT_S),
            trust_env=secure,
        )

    def check(self, tokenizer: Any, text: str, tokens: int, temperature: float) -> None:
        """Asks the server what it is. text: a probe for its vocabulary; tokens: prompt and answer together.

        Raises Unavailable (gone, too old, no development endpoints) and Mismatch (another model, vocabulary or kind of
        log-probabilities, too short a context).
        """
        version = str(self._call("GET", "/version").get("version"))[:40]
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise Unavailable(
                f"{self._root}: vLLM {version} cannot be sent single blocks; it must be "
                f"{OLDEST[0]}.{OLDEST[1]} or newer"
            )
        served = {
            card.get("id"): card for card in self._call("GET", "/v1/models").get("data") or []
        }
        if self.config.model not in served:
            names = ", ".join(str(name)[:60] for name in served) or "nothing"
            raise Mismatch(
                f"{self._root} serves {names} and not {self.config.model}; see rollout_server.model"
            )
        room = served[self.config.model].get("max_model_len")
        if isinstance(room, int) and room < tokens:
            raise Mismatch(
                f"{self._root}: max_model_len is {room} and context_tokens {tokens}; start it with --max-model-len"
            )
        about = self._call("GET", "/server_info?config_format=json").get("vllm_config") or {}
        mode = (about.get("model_config") or {}).get("logprobs_mode", "raw_logprobs")
        if temperature != 1 and mode != "processed_logprobs":
            raise Mismatch(
                f"{self._root} gives {mode}, from before the temperature of {temperature}; start it with "
                "--logprobs-mode processed_logprobs"
            )
        probe = {"model": self.config.model, "prompt": text, "add_special_tokens": False}
        theirs = self._call("POST", "/tokenize", probe).get("tokens")
        if theirs != tokenizer.encode(text, add_special_tokens=False):
            raise Mismatch(f"{self._root}: its vocabulary is not the parent's; serve the parent")

    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """The first process has the server load these tensors of the parent's state dict, whole blocks, as its own.

        Raises NotFinite, Mismatch and CheckpointError (disk full) before the server is touched. After Refused, Unavailable
        or Timeout it may stay paused, since a half-loaded model must answer nobody; the next update resumes it.
        """
        self._together(lambda: None if self._process else self._update(tensors, step))

    def answers(
        self, prompts: Sequence[Sequence[int]], samples: int, how: Drawing, seed: str
    ) -> list[Answer]:
        """`samples` answers to each prompt, number n*samples+i the i-th of prompt n; how.rows are under way at once.

        seed: of the step. A prompt's place among those of all processes makes it the prompt's own.
        Raises Refused, Truncated, Mismatch, Unavailable, Timeout: a failure is never an answer.
        """

        def one(number: int) -> list[Answer]:
            place = f"{seed}/{number * self._world + self._process}"
            drawn = int.from_bytes(hashlib.sha256(place.encode()).digest()[:7])
            return self._ask(prompts[number], samples, how, drawn)

        def all_of_them() -> list[Answer]:
            pool = ThreadPoolExecutor(max(1, how.rows // samples))
            try:
                futures = [pool.submit(one, number) for number in range(len(prompts))]
                return [answer for future in futures for answer in future.result()]
            finally:
                pool.shutdown(cancel_futures=True)

        return self._together(all_of_them)

    def compared(self, gap: Tensor, step: int) -> dict[str, float]:
        """{sampling_gap_mean, sent_mb, sent_s}. gap: (N,) our log-probabilities less the server's.

        Raises Mismatch naming the step when the mean over all processes is above the limit.
        """
        mean = self._reduce(float(gap.abs().sum())) / max(self._reduce(float(len(gap))), 1.0)
        if not mean <= self.config.gap:
            raise Mismatch(
                f"step {step}: the server's log-probabilities are {mean:.3g} nats a token from ours, more than "
                f"rollout_server.gap = {self.config.gap:g}: it answers with older blocks or another model, or rounds more "
                "than that; the state saved last is kept: go on from it with --resume"
            )
        return {"sampling_gap_mean": mean, **self.sent}

    def _together(self, work: Callable[[], Done]) -> Done:
        """What `work` gives, when it has succeeded in every process; otherwise none would wait for the others for ever."""
        done, failure = None, None
        try:
            done = work()
        except HuatuoError as error:
            failure = error
        failed = self._reduce(float(failure is not None))
        if failure is not None:
            raise failure
        if failed:
            raise Unavailable(
                f"{self._root}: failed another of the {self._world} processes; see what it says"
            )
        return done  # type: ignore[return-value]

    def _update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        began = time.monotonic()
        fresh = self._write(tensors, step)
        there = self.config.weights_there.rstrip("/")
        path = f"{there}/{self.folder.name}/{fresh.name}" if there else str(fresh.resolve())
        order = {"weights_path": path, "is_checkpoint_format": True}
        try:
            self._call("POST", "/pause?mode=wait")
            loaded = self._call(
                "POST", "/collective_rpc", {"method": "reload_weights", "kwargs": order}
            )
            if not loaded.get("results"):
                raise Refused(f"{self._root}: no worker loaded {path}")
            if self._call("POST", "/reset_prefix_cache").get("success") is False:
                raise Refused(f"{self._root}: keeps its prefix cache, which is of older blocks")
            self._call("POST", "/resume")
        except HuatuoError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise type(error)(f"step {step}: the changed blocks are not loaded: {error}") from None
        for old in self.folder.iterdir():
            if old != fresh and _STEP.fullmatch(old.name):
                shutil.rmtree(old, ignore_errors=True)
        size = (fresh / WEIGHTS).stat().st_size
        self.sent = {"sent_mb": size / 1e6, "sent_s": time.monotonic() - began}

    def _write(self, tensors: Mapping[str, Tensor], step: int) -> Path:
        """A new folder with the tensors: a path that the server has read before might give it what was there then."""
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        check_names(shapes, "policy", self._blocks, self._names, self.folder)
        named: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            sent = tensor.detach().to("cpu", getattr(torch, self.config.dtype)).contiguous()
            if not bool(torch.isfinite(sent).all()):
                raise NotFinite(f"step {step}: {name} holds NaN or infinity; it is not sent")
            named[str(name_in(self._names, name))] = sent
        fresh = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=f"step-{step}-", dir=self.folder))
            fresh.chmod(0o755)  # the server may run as somebody else
            save_file(named, fresh / WEIGHTS, metadata={"format": "pt"})
            (fresh / WEIGHTS).chmod(0o644)
        except (OSError, SafetensorError) as error:
            if fresh is not None:
                shutil.rmtree(fresh, ignore_errors=True)
            why = getattr(error, "strerror", None) or str(error)
            raise CheckpointError(
                f"{self.folder}: step {step}: the changed blocks cannot be written ({why}); free some space and go on "
                "with --resume: the state saved last is whole"
            ) from None
        return fresh

    def _ask(self, prompt: Sequence[int], samples: int, how: Drawing, seed: int) -> list[Answer]:
        body = {
            "model": self.config.model, "prompt": list(prompt), "n": samples, "seed": seed, "logprobs": 0,
            "max_tokens": how.max_new_tokens, "stop_token_ids": sorted(how.ends), "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            # Each of these, if it is left out, comes from the model's generation_config.json.
            "temperature": how.temperature, "top_p": how.top_p, "top_k": 0, "min_p": 0.0,
            "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        }  # fmt: skip
        said = self._call("POST", "/v1/completions", body)
        if said.get("model") != self.config.model:
            name = str(said.get("model"))[:60]
            raise Mismatch(f"{self._root} answers as {name} and not as {self.config.model}")
        choices = said.get("choices")
        if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
            raise Truncated(f"{self._root}: no answers")
        if [one.get("index") for one in choices] != list(range(samples)):
            raise Truncated(f"{self._root}: {len(choices)} answers and not {samples}")
        if any(one.get("prompt_token_ids") != list(prompt) for one in choices):
            raise Mismatch(f"{self._root}: answers another prompt than it was sent")
        return [self._read(one, how) for one in choices]

    def _read(self, choice: Mapping[str, Any], how: Drawing) -> Answer:
        ids, reason = choice.get("token_ids"), choice.get("finish_reason")
        known = choice.get("logprobs") or {}
        logs, named = known.get("token_logprobs"), known.get("tokens")
        if reason not in ("stop", "length"):
            raise Truncated(f"{self._root}: an answer broke off (finish_reason {reason})")
        if not isinstance(ids, list) or not isinstance(logs, list) or not ids:
            raise Truncated(f"{self._root}: an answer without tokens or log-probabilities")
        if named != [f"token_id:{token}" for token in ids]:
            raise Mismatch(f"{self._root}: an answer with the log-probabilities of other tokens")
        if len(ids) != len(logs) or not all(
            type(log) in (int, float) and -math.inf < log < 1e-3 for log in logs
        ):
            raise Truncated(f"{self._root}: an answer with half of its log-probabilities")
        if not all(type(token) is int and 0 <= token < self._vocabulary for token in ids):
            raise Mismatch(f"{self._root}: an answer has tokens that the parent does not know")
        if (ids[-1] in how.ends) != (reason == "stop") or not how.ends.isdisjoint(ids[:-1]):
            raise Mismatch(
                f"{self._root}: an answer ends elsewhere than at the template's end mark; start the server with "
                "--generation-config vllm"
            )
        if len(ids) != how.max_new_tokens and (reason == "length" or len(ids) > how.max_new_tokens):
            raise Truncated(f"{self._root}: an answer was cut after {len(ids)} tokens")
        return Answer(ids, logs, reason == "stop")

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The answer's JSON object, {} for an empty one. Its words are shown only where no prompt was sent."""
        where = self._root + path.partition("?")[0]
        try:
            answer = self._client.request(method, self._root + path, json=body)
        except httpx2.TimeoutException:
            raise Timeout(f"{where}: no answer within {self.config.timeout_s:g} s") from None
        except httpx2.HTTPError as error:
            raise Unavailable(
                f"{where}: no connection ({type(error).__name__}); is the server running?"
            ) from None
        if answer.status_code == 404 and not path.startswith(("/v1/", "/version", "/tokenize")):
            raise Unavailable(
                f"{where}: no such address; start the server with VLLM_SERVER_DEV_MODE=1 in its environment, reachable "
                "by nobody else"
            )
        if answer.status_code in (401, 403):
            raise Refused(f"{where}: the key is not taken; see rollout_server.api_key_env")
        if answer.status_code != 200:
            words = "" if path.startswith("/v1/") else f": {answer.text[:300]}"
            raise Refused(f"{where}: HTTP {answer.status_code}{words}")
        try:
            said = answer.json() if answer.content else {}
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise Truncated(f"{where}: half an answer, or none of vLLM's")
        return said


def packed(
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    pad: int,
    at_once: int,
) -> Rollouts:
    """The answers, equally many to each prompt, as if we had sampled them; the trunk's states by one forward.

    at_once: rows of a forward.
    """
    asked = [prompt for prompt in prompts for _ in range(len(answers) // len(prompts))]
    wide, rows = max(map(len, prompts)), len(answers)
    total = wide + max(len(answer.ids) for answer in answers)
    ids = torch.full((rows, total), pad)
    fed = torch.zeros(rows, total - 1, dtype=torch.long)
    answer, sampled = torch.zeros(rows, total, dtype=torch.bool), torch.zeros(rows, total)
    for row, (prompt, said) in enumerate(zip(asked, answers, strict=True)):
        begin, end = wide - len(prompt), wide + len(said.ids)
        ids[row, begin:end] = torch.tensor([*prompt, *said.ids])
        fed[row, begin : end - 1] = 1
        answer[row, wide:end] = True
        sampled[row, wide:end] = torch.tensor(said.log_probs)
    ids, fed = ids.to(trunk.device), fed.to(trunk.device)
    states = [
        trunk.states(ids[part : part + at_once, :-1], fed[part : part + at_once])
        for part in range(0, rows, at_once)
    ]
    return Rollouts(
        ids=ids,
        fed=fed,
        answer=answer.to(trunk.device),
        states=torch.cat(states),
        finished=torch.tensor([said.finished for said in answers], device=trunk.device),
        sampled=sampled.to(trunk.device),
    )
