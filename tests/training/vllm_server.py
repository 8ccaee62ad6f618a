"""A real HTTP server of a real small model that speaks vLLM's protocol, as far as training.rollout_server uses it.

Read from vLLM's source: entrypoints/openai/completion, entrypoints/serve (tokenize, dev/rlhf, dev/rpc, dev/cache,
dev/server_info), v1/worker/gpu_model_runner.py (reload_weights) and model_executor/model_loader/reload/layerwise.py. As
there, a reload keeps what the file lacks and leaves garbage in a layer of which only a part came; a prefix cache outlives
a reload unless it is reset; a paused server lets completions wait; n answers have the seeds seed, seed+1, ...
"""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BloomForCausalLM

Change = Callable[[str, dict[str, Any]], Any]
"""(path, the honest answer) -> what is sent in its place: a dict, raw bytes, or an HTTP status."""


class VllmServer:
    """Serves the model of `folder`. requests: (path with query, body) of every request, in order."""

    def __init__(self, folder: Path, name: str = "tiny", *, key: str = "", mode: str = "") -> None:
        self.model = BloomForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.name, self.key, self.mode = name, key, mode or "processed_logprobs"
        self.version, self.development, self.reloads = "0.30.0", True, True
        self.change: Change = lambda path, answer: answer
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.files: list[dict[str, torch.Tensor]] = []
        self.cache: dict[tuple[int, ...], torch.Tensor] = {}
        self.running, self.turn = threading.Event(), threading.Lock()
        self.running.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                self.answer(json.loads(raw) if raw else {})

            def answer(self, body: dict[str, Any]) -> None:
                path = urlsplit(self.path).path
                server.requests.append((self.path, body))
                allowed = not server.key or self.headers["authorization"] == f"Bearer {server.key}"
                said: Any = server.say(path, body) if allowed else 401
                if isinstance(said, dict):
                    said = server.change(path, said)
                status = said if isinstance(said, int) else 200
                raw = said if isinstance(said, bytes) else b""
                if isinstance(said, dict):
                    raw = json.dumps(said).encode()
                with suppress(ConnectionError):  # whoever asked may be gone
                    self.send_response(status)
                    self.send_header("content-length", str(len(raw)))
                    self.end_headers()
                    self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> "VllmServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running.set()
        self.http.shutdown()
        self.http.server_close()

    def asked(self, path: str) -> list[dict[str, Any]]:
        """The bodies of all requests to a path."""
        return [body for whole, body in self.requests if urlsplit(whole).path == path]

    def say(self, path: str, body: dict[str, Any]) -> Any:
        development = {
            "/server_info": lambda: {
                "vllm_config": {"model_config": {"logprobs_mode": self.mode}, "load_config": {}}
            },
            "/pause": self.pause,
            "/resume": self.resume,
            "/collective_rpc": lambda: self.rpc(body),
            "/reset_prefix_cache": self.reset,
        }
        if path in development:
            return development[path]() if self.development else 404
        if path == "/version":
            return {"version": self.version}
        if path == "/v1/models":
            card = {"id": self.name, "object": "model", "root": "tiny", "max_model_len": 128}
            return {"object": "list", "data": [card]}
        if path == "/tokenize":
            ids = self.tokenizer.encode(body["prompt"], add_special_tokens=False)
            return {"count": len(ids), "max_model_len": 128, "tokens": ids, "token_strs": None}
        if path == "/v1/completions":
            self.running.wait()
            with self.turn:
                return self.complete(body)
        return 404

    def pause(self) -> dict[str, Any]:
        self.running.clear()
        with self.turn:  # mode=wait: what is under way ends first
            return {"status": "paused"}

    def resume(self) -> dict[str, Any]:
        self.running.set()
        return {"status": "resumed"}

    def reset(self) -> dict[str, Any]:
        self.cache.clear()
        return {"success": True}

    def rpc(self, body: dict[str, Any]) -> Any:
        if body["method"] != "reload_weights" or body["kwargs"]["is_checkpoint_format"] is not True:
            return 500
        if self.running.is_set():
            return 500  # the weights would change under an answer
        files = sorted(Path(body["kwargs"]["weights_path"]).glob("*.safetensors"))
        if not files:
            return 500  # RuntimeError: Cannot find any model weights
        tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
        self.files.append(tensors)
        return {"results": [None]} if not self.reloads or self.load(tensors) else 500

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> bool:
        named = {
            name if name.startswith("transformer.") else f"transformer.{name}": tensor
            for name, tensor in tensors.items()
        }
        own = dict(self.model.named_parameters())
        if set(named) - set(own):
            return False  # KeyError in load_weights
        for layer in {name.rpartition(".")[0] for name in named}:
            for leaf, parameter in self.model.get_submodule(layer).named_parameters(recurse=False):
                if (sent := named.get(f"{layer}.{leaf}")) is None:
                    parameter.fill_(1e3)  # memory that nobody wrote to
                else:
                    parameter.copy_(sent)
        return True

    @torch.no_grad()
    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """n answers in step; the whole sequences are run anew for each token but the first."""
        prompt, many = tuple(body["prompt"]), range(body["n"])
        generators = [torch.Generator().manual_seed(body["seed"] + number) for number in many]
        if prompt not in self.cache:
            self.cache[prompt] = self.model(torch.tensor([prompt])).logits[0, -1]
        logits = self.cache[prompt].expand(body["n"], -1)
        ids: list[list[int]] = [[] for _ in many]
        logs: list[list[float]] = [[] for _ in many]
        for place in range(body["max_tokens"]):
            if place:
                rows = torch.tensor([[*prompt, *said] for said in ids])
                logits = self.model(rows).logits[:, -1]
            table = (logits / body["temperature"]).log_softmax(-1)
            shown = table if self.mode == "processed_logprobs" else logits.log_softmax(-1)
            for row in many:
                token = int(torch.multinomial(table[row].exp(), 1, generator=generators[row]))
                ids[row].append(token)
                logs[row].append(float(shown[row, token]))
        choices = []
        for row in many:
            ends = [at for at, token in enumerate(ids[row]) if token in body["stop_token_ids"]]
            end = ends[0] + 1 if ends else body["max_tokens"]
            said, known = ids[row][:end], logs[row][:end]
            tokens = [f"token_id:{token}" for token in said]  # return_tokens_as_token_ids
            logprobs = {"text_offset": [], "token_logprobs": known, "tokens": tokens}
            choices.append({
                "index": row, "text": self.tokenizer.decode(said, skip_special_tokens=True),
                "logprobs": logprobs, "finish_reason": "stop" if ends else "length", "stop_reason": None,
                "prompt_logprobs": None, "token_ids": said, "prompt_token_ids": list(prompt),
            })  # fmt: skip
        return {"id": "cmpl-1", "object": "text_completion", "model": self.name, "choices": choices}
