"""The local engine on a tiny random BLOOM: seeds, cancelling, text pieces, and folders it refuses."""

import asyncio
import json
import pickle
import shutil
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from huatuo.config import Generation, ModelConfig
from huatuo.engines.base import Chunk, Finish
from huatuo.engines.decoding import decode, pick
from huatuo.engines.local import LocalEngine, _Text
from huatuo.errors import CheckpointError, Damaged, Mismatch, TooLong, Unavailable, Untrusted
from huatuo.messages import Conversation, Message
from huatuo.models.registry import digest

ASK: Conversation = (Message("user", "我最近头痛，怎么办？"),)


def configured(folder: Path, sha256: str = "", **generation: Any) -> ModelConfig:
    settings = {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 40, **generation}
    return ModelConfig(
        name="tiny",
        title_zh="小",
        title_en="tiny",
        engine="local",
        path=folder,
        template="huatuo-nano",
        sha256=sha256,
        dtype="float32",
        generation=Generation(**settings),
    )


async def say(
    engine: LocalEngine, seed: int, conversation: Conversation = ASK
) -> tuple[str, Finish]:
    text, finish = "", None
    async for item in engine.stream(conversation, seed=seed):
        if isinstance(item, Finish):
            finish = item
        else:
            text += item.text
    assert finish is not None
    return text, finish


def test_the_same_seed_gives_the_same_text_even_beside_another_answer(
    tiny_checkpoint: Path,
) -> None:
    engine = LocalEngine(configured(tiny_checkpoint), Path("/"))

    async def run() -> None:
        alone = await say(engine, 1)
        other = await say(engine, 2)
        together = await asyncio.gather(say(engine, 1), say(engine, 2), say(engine, 1))
        assert together == [alone, other, alone]
        assert alone[0] != other[0]
        assert "\ufffd" not in alone[0]

    asyncio.run(run())


def test_greedy_ignores_the_seed_and_the_limit_ends_with_length(tiny_checkpoint: Path) -> None:
    engine = LocalEngine(configured(tiny_checkpoint, temperature=0.0, max_new_tokens=12), Path("/"))
    first = asyncio.run(say(engine, 1))
    assert first == asyncio.run(say(engine, 99))
    assert first[1].reason in ("stop", "length")


def test_greedy_equals_transformers_generate(tiny_checkpoint: Path) -> None:
    from huatuo import prompts

    config = configured(tiny_checkpoint, temperature=0.0, repetition_penalty=1.2, max_new_tokens=24)
    engine = LocalEngine(config, Path("/"))
    import torch

    ids = prompts.encode(engine.tokenizer, ASK, "huatuo-nano", max_tokens=200).ids
    with torch.inference_mode():
        ours = list(decode(engine.model, ids, config.generation, 24, 0, set()))
        theirs = engine.model.generate(
            torch.tensor([ids]),
            do_sample=False,
            repetition_penalty=1.2,
            max_new_tokens=24,
            min_new_tokens=24,
            eos_token_id=-1,
        )[0, len(ids) :]
    assert ours == theirs.tolist()


def test_sampling_keeps_to_top_k_and_top_p() -> None:
    import torch

    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)

    def drawn(**settings: Any) -> set[int]:
        chosen = Generation(temperature=1.0, **settings)
        seen = torch.tensor([0])
        return {pick(logits.clone(), seen, chosen, generator) for _ in range(300)}

    assert drawn(top_p=1.0) == {0, 1, 2, 3}
    assert drawn(top_p=0.79) == {0, 1}
    assert drawn(top_p=1.0, top_k=1) == {0}
    assert drawn(top_p=0.6, top_k=3) == {0, 1}


def test_cancelling_takes_effect_within_one_token(tiny_checkpoint: Path) -> None:
    engine = LocalEngine(
        configured(tiny_checkpoint, max_new_tokens=4000, context_tokens=8000), Path("/")
    )
    engine.model.generation_config.eos_token_id = None
    engine.tokenizer.eos_token = None  # it never ends by itself

    tokens = 0

    def counted(*_: Any) -> None:
        nonlocal tokens
        tokens += 1

    engine.model.register_forward_hook(counted)

    async def run() -> None:
        stream = engine.stream(ASK, seed=3)
        assert isinstance(await anext(stream), Chunk)
        await stream.aclose()  # type: ignore[attr-defined]
        before = tokens
        while engine._workers._work_queue.qsize() or _busy(engine):
            await asyncio.sleep(0.01)
        assert tokens - before <= 1, "the one that was under way"

    def _busy(engine: LocalEngine) -> bool:
        frames = sys._current_frames()
        names = {t.ident for t in threading.enumerate() if t.name.startswith("tiny")}
        return any("_answer" in _names(frames[ident]) for ident in names if ident in frames)

    def _names(frame: Any) -> list[str]:
        names = []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return names

    # the prompt needs an eos for doctor turns only; this conversation has none
    asyncio.run(run())


def test_a_closed_engine_is_unavailable(tiny_checkpoint: Path) -> None:
    engine = LocalEngine(configured(tiny_checkpoint), Path("/"))
    asyncio.run(engine.close())
    with pytest.raises(Unavailable):
        asyncio.run(say(engine, 1))


def test_old_turns_are_dropped_whole_and_said_so(tiny_checkpoint: Path) -> None:
    engine = LocalEngine(
        configured(tiny_checkpoint, context_tokens=160, max_new_tokens=8), Path("/")
    )
    turns: list[Message] = []
    for number in range(12):
        turns += [Message("user", f"第{number}问：头痛"), Message("assistant", "请多休息。")]
    _, finish = asyncio.run(say(engine, 1, (*turns, Message("user", "还痛"))))
    assert finish.dropped_turns > 0
    with pytest.raises(TooLong):
        asyncio.run(say(engine, 1, (Message("user", "头痛" * 900),)))


def test_half_characters_are_never_shown(tiny_checkpoint: Path) -> None:
    engine = LocalEngine(configured(tiny_checkpoint), Path("/"))
    said = "  龘靐齉𠮷👩‍⚕️ 结束了。\n\n下一段  "
    ids = engine.tokenizer(said, add_special_tokens=False)["input_ids"]
    text = _Text(engine.tokenizer)
    pieces = [text.add(i) for i in ids] + [text.rest()]
    assert "".join(pieces) == said.strip()
    broken = _Text(engine.tokenizer)
    cut = [broken.add(i) for i in ids[:-1] if i != ids[3]] + [broken.rest()]
    assert "\ufffd" not in "".join(cut)


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def refused(folder: Path, sha256: str = "") -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        LocalEngine(configured(folder, sha256), Path("/"))
    return caught.value


def test_a_pickle_is_refused_and_its_payload_never_runs(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for place in ("pytorch_model.bin", "nested/optimizer.pt", "rng_state.PTH"):
        folder = copied(tiny_checkpoint, tmp_path / place.replace("/", "-"))
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(pickle.dumps(Payload()))
        error = refused(folder)
        assert isinstance(error, Untrusted) and Path(place).name in str(error)
    assert not (tmp_path / "ran").exists()


def test_code_in_the_folder_is_refused_and_never_imported(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = copied(tiny_checkpoint, tmp_path / "code")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    assert isinstance(refused(folder), Untrusted)
    folder = copied(tiny_checkpoint, tmp_path / "map")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    assert isinstance(refused(folder), Untrusted)
    assert not [name for name in sys.modules if "modeling_evil" in name]


def test_an_index_that_names_a_pickle_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(tiny_checkpoint, tmp_path / "index")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../x.bin"}}))
    assert isinstance(refused(folder), Untrusted)
    index.write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    error = refused(folder)
    assert isinstance(error, Damaged) and "model-2.safetensors" in str(error)


def test_damage_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    whole = (tiny_checkpoint / "model.safetensors").read_bytes()
    right = digest([tiny_checkpoint / "model.safetensors"])
    length = struct.unpack("<Q", whole[:8])[0]
    cases: list[tuple[bytes | None, type[CheckpointError], str]] = [
        (None, Damaged, "model.safetensors: missing"),
        (b"", Damaged, "header"),
        (whole[:-10], Damaged, "ends inside tensor"),
        (whole + b"0", Damaged, "after its last tensor"),
        (struct.pack("<Q", 200_000_000) + whole[8:], Damaged, "header"),
        (whole[:8] + b"x" * length + whole[8 + length :], Damaged, "not JSON"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), Mismatch, "sha256"),
    ]
    for number, (data, kind, words) in enumerate(cases):
        folder = copied(tiny_checkpoint, tmp_path / str(number))
        weights = folder / "model.safetensors"
        weights.unlink()
        if data is not None:
            weights.write_bytes(data)
        error = refused(folder, right)
        assert type(error) is kind, error
        assert words in str(error)
    assert isinstance(refused(tmp_path / "nowhere"), Damaged)
    LocalEngine(configured(tiny_checkpoint, right), Path("/"))


def test_weights_of_another_shape_or_with_nan_are_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny_checkpoint / "model.safetensors")
    name = sorted(tensors)[0]
    changes: list[dict[str, Any]] = [
        {**tensors, name: tensors[name] * float("nan")},
        {key: value for key, value in tensors.items() if key != name},
        {**tensors, "stray.weight": tensors[name].clone()},
        {**tensors, name: tensors[name][:1].clone()},
    ]
    for number, changed in enumerate(changes):
        folder = copied(tiny_checkpoint, tmp_path / str(number))
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        error = refused(folder)
        assert isinstance(error, Damaged | Mismatch), error


def test_a_tokenizer_of_a_larger_model_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = copied(tiny_checkpoint, tmp_path / "words")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"新词{i}" for i in range(50)])
    tokenizer.save_pretrained(folder)
    assert isinstance(refused(folder), Mismatch)


def test_two_answers_run_at_a_time_and_the_third_waits(tiny_checkpoint: Path) -> None:
    engine = LocalEngine(configured(tiny_checkpoint, max_new_tokens=30), Path("/"))

    async def run() -> None:
        answers = await asyncio.gather(*(say(engine, seed) for seed in range(5)))
        assert len(answers) == 5

    asyncio.run(run())
