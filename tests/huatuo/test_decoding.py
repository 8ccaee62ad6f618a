"""Every setting of a generation changes tokens as transformers' generate does; encoder-decoders, beams, NaN."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from huatuo.config import Generation
from huatuo.engines.base import Chunk, Deadlines, Finish, with_deadlines
from huatuo.engines.decoding import decode, ids_only, pick, search
from huatuo.engines.local import LocalEngine
from huatuo.errors import Refused, Truncated, Unavailable
from tests.huatuo.test_local_engine import ASK, configured, say
from tests.patience import JumpingLoop

LENGTH = 16


def lively(model: Any) -> Any:
    """The model with weights so large and a head so far from the embedding that it does not say one word for ever."""
    import copy

    model = copy.deepcopy(model)
    torch.manual_seed(5)
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.3)
    model.generation_config = ids_only(model.generation_config)
    return model


@pytest.fixture(scope="module")
def bloom(tiny_checkpoint: Path) -> Any:
    from huatuo.models.loaded import load_model

    return lively(load_model(tiny_checkpoint, dtype="float32")[0])


@pytest.fixture(scope="module")
def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(3)
    config = T5Config(
        vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=2,
        num_heads=4, decoder_start_token_id=0,
    )  # fmt: skip
    return lively(T5ForConditionalGeneration(config).eval())


PROMPT = [5, 17, 40, 41, 42, 17]


def drawn(model: Any, seed: int = 0, limit: int = LENGTH, **settings: Any) -> list[int]:
    with torch.inference_mode():
        tokens = decode(model, PROMPT, Generation(**settings), limit, seed, set())
        return [token for token in tokens if token is not None]


def generated(model: Any, **settings: Any) -> list[int]:
    """What transformers says, without the prompt or the start token."""
    ids = torch.tensor([PROMPT])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=LENGTH, min_new_tokens=LENGTH,
        eos_token_id=-1, pad_token_id=0, **settings,
    )[0].tolist()  # fmt: skip
    return output[1:] if model.config.is_encoder_decoder else output[len(PROMPT) :]


def probabilities(**settings: Any) -> torch.Tensor:
    """The shares of 4 words over many draws, from fixed logits; word 0 was said before."""
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(1)
    said = [
        pick(logits.clone(), torch.tensor([0]), Generation(**settings), generator)
        for _ in range(4000)
    ]
    return torch.bincount(torch.tensor(said), minlength=4) / len(said)


def warped(
    temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, penalty: float = 1.0
) -> torch.Tensor:
    """The same shares by transformers' own processors, in the order of its generate."""
    from transformers import LogitsProcessorList
    from transformers.generation import logits_process as theirs

    steps: list[Any] = [
        theirs.RepetitionPenaltyLogitsProcessor(penalty),
        theirs.TemperatureLogitsWarper(temperature),
    ]
    steps += [theirs.TopKLogitsWarper(top_k)] if top_k else []
    steps += [theirs.TopPLogitsWarper(top_p)] if top_p < 1 else []
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    return LogitsProcessorList(steps)(torch.tensor([[0]]), logits).softmax(-1)[0]


SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0.5, "top_p": 1.0}, {"temperature": 0.5}),
    ({"temperature": 1.9, "top_p": 1.0}, {"temperature": 1.9}),
    ({"temperature": 1.0, "top_p": 0.7}, {"top_p": 0.7}),
    ({"temperature": 1.0, "top_p": 1.0, "top_k": 2}, {"top_k": 2}),
    ({"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.6}, {"penalty": 1.6}),
    (
        {"temperature": 0.7, "top_p": 0.9, "top_k": 3, "repetition_penalty": 1.2},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 3, "penalty": 1.2},
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), SETTINGS)
def test_a_setting_shifts_the_draws_as_transformers_does(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert torch.allclose(probabilities(**ours), warped(**theirs), atol=0.03)
    assert not torch.allclose(warped(**theirs), warped(), atol=0.03), "the setting has an effect"


@pytest.mark.parametrize("name", ["bloom", "t5"])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_greedy_says_what_generate_says(
    name: str, penalty: float, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    said = drawn(model, temperature=0.0, repetition_penalty=penalty)
    assert said == generated(model, do_sample=False, repetition_penalty=penalty)
    assert len(set(said)) > 1


def test_the_repetition_penalty_changes_what_is_said(bloom: Any) -> None:
    assert drawn(bloom, temperature=0.0) != drawn(bloom, temperature=0.0, repetition_penalty=1.5)


@pytest.mark.parametrize("name", ["bloom", "t5"])
def test_beams_say_what_generate_says_and_not_what_greed_says(
    name: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    ticks = []
    with torch.inference_mode():
        said, ended = search(
            model, PROMPT, Generation(num_beams=4), LENGTH, set(), lambda: ticks.append(1)
        )
    assert said == generated(model, do_sample=False, num_beams=4)
    assert not ended and len(ticks) == LENGTH
    assert said != drawn(model, temperature=0.0), "more than one beam has an effect"


def test_beams_end_at_a_stop_token_and_leave_it_out(bloom: Any) -> None:
    with torch.inference_mode():
        said, _ = search(bloom, PROMPT, Generation(num_beams=3), LENGTH, set(), lambda: None)
        short, ended = search(bloom, PROMPT, Generation(num_beams=3), 64, {said[1]}, lambda: None)
    assert said[1] not in short
    assert ended or len(short) == 64


def test_a_beam_search_is_cancelled_within_one_token_and_gives_signs_of_life(
    tiny_checkpoint: Path,
) -> None:
    engine = LocalEngine(configured(tiny_checkpoint), Path("/"))
    many = Generation(num_beams=4, max_new_tokens=4000, context_tokens=8000)
    engine._stops = lambda: set()  # type: ignore[method-assign]
    items: list[Any] = []
    cancelled = threading.Event()

    def put(item: Any) -> None:
        items.append(item)
        if len(items) == 5:
            cancelled.set()

    with pytest.raises(Unavailable):
        engine._answer(ASK, many, 0, cancelled, put)
    assert items == [Chunk("", thinking=True)] * 5


def test_a_folders_own_settings_work_nowhere(tiny_checkpoint: Path) -> None:
    engine = LocalEngine(configured(tiny_checkpoint), Path("/"))
    engine.model.generation_config.top_k = 1
    kept = ids_only(engine.model.generation_config).to_diff_dict()
    assert {key for key in kept if key.endswith("_id")} == {key for key in kept if "token" in key}
    assert "top_k" not in kept


def test_the_limits_of_tokens_are_kept(tiny_checkpoint: Path) -> None:
    def tokens(**settings: Any) -> int:
        config = configured(tiny_checkpoint, temperature=1.0, top_p=1.0, **settings)
        engine = LocalEngine(config, Path("/"))
        engine._stops = lambda: set()  # type: ignore[method-assign]
        counted: list[int | None] = []
        inner: Callable[..., Any] = engine._tokens

        def counting(*args: Any) -> Any:
            for token in inner(*args):
                counted.append(token)
                yield token

        engine._tokens = counting  # type: ignore[method-assign]
        text, finish = asyncio.run(say(engine, 1))
        assert finish.reason == "length" and text
        return len(counted)

    assert tokens(max_new_tokens=7) == 7
    assert tokens(max_new_tokens=23) == 23
    narrow = tokens(max_new_tokens=500, context_tokens=64)
    assert 0 < narrow < 64, "prompt and answer share the context"
    assert tokens(max_new_tokens=500, context_tokens=100) == narrow + 36


def test_settings_of_one_answer_win_over_the_models_own(tiny_checkpoint: Path) -> None:
    engine = LocalEngine(configured(tiny_checkpoint, temperature=1.0), Path("/"))
    greedy = Generation(temperature=0.0, max_new_tokens=9)

    async def said(seed: int) -> list[Any]:
        return [item async for item in engine.stream(ASK, seed=seed, settings=greedy)]

    first = asyncio.run(said(1))
    assert first == asyncio.run(said(2))
    assert first != asyncio.run(say(engine, 1))


def test_an_encoder_decoder_stops_where_its_stop_token_comes(t5: Any) -> None:
    said = drawn(t5, temperature=0.0)
    stop = said[3]
    with torch.inference_mode():
        until = list(decode(t5, PROMPT, Generation(temperature=0.0), LENGTH, 0, {stop}))
    assert until == [*said[: said.index(stop)], None]


def test_logits_that_are_not_numbers_end_the_answer_or_give_chatglms_token(bloom: Any) -> None:
    import copy

    broken = copy.deepcopy(bloom)
    with torch.no_grad():
        broken.transformer.ln_f.weight.fill_(float("nan"))
    for temperature in (0.0, 1.0):
        with pytest.raises(Unavailable, match="NaN"):
            drawn(broken, temperature=temperature)
    with torch.inference_mode(), pytest.raises(Unavailable, match="NaN"):
        search(broken, PROMPT, Generation(num_beams=2), 3, set(), lambda: None)
    broken.config.model_type = "chatglm"
    with torch.inference_mode():
        said, _ = search(broken, PROMPT, Generation(num_beams=2), 3, set(), lambda: None)
    assert said == [5, 5, 5]
    assert drawn(broken, temperature=1.0, limit=3) == [5, 5, 5]


def test_thoughts_are_progress_but_no_answer() -> None:
    async def stream(*items: Chunk | Finish, pause_s: float = 0.0) -> Any:
        for item in items:
            await asyncio.sleep(pause_s)
            yield item

    async def heard(*items: Chunk | Finish, pause_s: float = 0.0) -> list[Any]:
        patience = Deadlines(first_token_s=0.2, between_tokens_s=0.2, whole_answer_s=5)
        return [item async for item in with_deadlines(stream(*items, pause_s=pause_s), patience)]

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        thoughts = [Chunk("", thinking=True)] * 4
        slow = runner.run(heard(*thoughts, Chunk("答"), Finish("stop"), pause_s=0.1))
    assert slow == [Chunk("答"), Finish("stop")]
    for unseen in (Chunk("想", thinking=True), Chunk("\x07\u200b \n")):
        with pytest.raises(Refused, match="empty"):
            asyncio.run(heard(unseen, Finish("stop")))
    with pytest.raises(Truncated, match="without end"):
        asyncio.run(heard(*[Chunk("想一想再想一想，", thinking=True)] * 60))
