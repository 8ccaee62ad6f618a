"""Adapters on a tiny LLaMA: what peft computes, shared weights, 4 and 8 bits, and folders that are refused."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from huatuo.errors import CheckpointError, ConfigError, Damaged, Mismatch, Untrusted
from huatuo.models.adapter import CONFIG, WEIGHTS
from huatuo.models.loaded import load_model

HIDDEN, LAYERS, RANK = 64, 2, 4
IDS = torch.tensor([[1, 9, 23, 40, 7]])


@pytest.fixture(scope="module")
def base(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA with the tiny BLOOM's tokenizer."""
    return make_llama(tmp_path_factory.mktemp("llama") / "base", tiny_checkpoint)


def make_llama(folder: Path, words: Path, hidden: int = HIDDEN) -> Path:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(words)
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden,
        num_hidden_layers=LAYERS, num_attention_heads=4, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA as peft saves it, with both matrices random."""
    return make_lora(tmp_path_factory.mktemp("lora") / "med", base)


def make_lora(folder: Path, base: Path, seed: int = 1) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(
            r=RANK, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
        ),
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.2)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(input_ids=IDS).logits.float()
    return result


def by_peft(base: Path, lora: Path) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return logits(
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), lora).eval()
    )


def test_a_lora_computes_what_peft_computes_and_leaves_the_base_alone(
    base: Path, lora: Path
) -> None:
    plain, _ = load_model(base, dtype="float32")
    before = logits(plain)
    model, _ = load_model(base, adapter=lora, dtype="float32")
    assert torch.allclose(logits(model), by_peft(base, lora), atol=1e-4)
    assert torch.equal(logits(plain), before) and not torch.allclose(
        logits(model), before, atol=1e-2
    )


def test_two_adapters_of_one_base_share_every_byte_that_neither_touches(
    base: Path, lora: Path, tmp_path: Path
) -> None:
    other = make_lora(tmp_path / "other", base, seed=2)
    models = [load_model(base, adapter=one, dtype="float32")[0] for one in (lora, other)]
    own = [dict(model.named_parameters()) for model in models]
    shared = {name for name in own[0] if own[0][name].data_ptr() == own[1][name].data_ptr()}
    apart = set(own[0]) - shared
    assert {name.split(".")[-2] for name in apart} == {"q_proj", "v_proj"}
    assert not torch.allclose(logits(models[0]), logits(models[1]), atol=1e-2)


@pytest.mark.parametrize("load", ["int8", "nf4"])
def test_four_and_eight_bits_stay_near_and_take_an_adapter(
    base: Path, lora: Path, load: Any
) -> None:
    plain, _ = load_model(base, load=load)
    kinds = {type(module).__name__ for module in plain.modules()}
    assert {"int8": "Linear8bitLt", "nf4": "Linear4bit"}[load] in kinds
    whole = logits(load_model(base, dtype="float32")[0])
    assert torch.nn.functional.cosine_similarity(logits(plain), whole, dim=-1).min() > 0.97
    model, _ = load_model(base, adapter=lora, load=load)
    near = torch.nn.functional.cosine_similarity(logits(model), by_peft(base, lora), dim=-1)
    assert near.min() > 0.97
    assert torch.allclose(logits(plain), logits(load_model(base, load=load)[0]))


def changed(lora: Path, folder: Path, name: str, change: Any) -> None:
    tensors = load_file(lora / WEIGHTS)
    full = next(key for key in sorted(tensors) if name in key)
    if change is None:
        del tensors[full]
    elif isinstance(change, str):
        tensors[change] = tensors.pop(full)
    else:
        tensors[full] = change(tensors[full])
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def configured(folder: Path, **more: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **more}))


BAD: dict[str, tuple[Any, type[CheckpointError], str]] = {
    "pickle": (lambda d, s: (d / "adapter_model.bin").write_bytes(pickle.dumps(1)), Untrusted, "adapter_model.bin"),
    "code": (lambda d, s: (d / "evil.py").write_text("1"), Untrusted, "evil.py"),
    "no config": (lambda d, s: (d / CONFIG).unlink(), Damaged, CONFIG),
    "no weights": (lambda d, s: (d / WEIGHTS).unlink(), Damaged, WEIGHTS),
    "cut": (lambda d, s: (d / WEIGHTS).write_bytes((s / WEIGHTS).read_bytes()[:-9]), Damaged, "ends inside"),
    "stray": (lambda d, s: shutil.copy(s / WEIGHTS, d / "more.safetensors"), Damaged, "more.safetensors"),
    "kind": (lambda d, s: configured(d, peft_type="IA3"), Mismatch, "peft_type"),
    "classes": (lambda d, s: configured(d, auto_mapping={"base_model_class": "E", "parent_library": "e"}), Untrusted, "auto_mapping"),
    "whole tensors": (lambda d, s: configured(d, modules_to_save=["lm_head"]), Untrusted, "modules_to_save"),
    "missing half": (lambda d, s: changed(s, d, "layers.0.self_attn.q_proj.lora_B", None), Mismatch, "layers.0.self_attn.q_proj.lora_B.weight"),
    "other layer": (lambda d, s: changed(s, d, "layers.1.self_attn.v_proj.lora_A", "base_model.model.model.layers.7.self_attn.v_proj.lora_A.weight"), Mismatch, "layers.7.self_attn.v_proj.lora_A"),
    "extra tensor": (lambda d, s: changed(s, d, "layers.1.self_attn.v_proj.lora_A", "base_model.model.lm_head.weight"), Mismatch, "lm_head.weight"),
    "shape": (lambda d, s: changed(s, d, "layers.0.self_attn.q_proj.lora_A", lambda t: t[:, :-1].clone()), Mismatch, "[4, 63]"),
    "rank": (lambda d, s: changed(s, d, "layers.0.self_attn.q_proj.lora_A", lambda t: t[:-1].clone()), Mismatch, "q_proj.lora_A"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_an_adapter_that_is_not_sound_is_refused_by_name(
    case: str, base: Path, lora: Path, tmp_path: Path
) -> None:
    harm, kind, words = BAD[case]
    folder = tmp_path / "adapter"
    shutil.copytree(lora, folder)
    harm(folder, lora)
    with pytest.raises(CheckpointError) as caught:
        load_model(base, adapter=folder, dtype="float32")
    assert type(caught.value) is kind and words in str(caught.value), caught.value


@pytest.mark.parametrize("load", ["full", "nf4"])
def test_an_adapter_of_another_base_is_refused_with_tensor_and_shape(
    lora: Path, tiny_checkpoint: Path, tmp_path: Path, load: Any
) -> None:
    wider = make_llama(tmp_path / "wider", tiny_checkpoint, hidden=128)
    with pytest.raises(Mismatch, match=r"q_proj\.lora_A.*\[4, 64\].*another base"):
        load_model(wider, adapter=lora, load=load)
    with pytest.raises(Mismatch, match=r"q_proj\.lora_A.*does not have; it is another base"):
        load_model(tiny_checkpoint, adapter=lora, load=load)


def test_a_gpu_that_is_not_there_and_rows_in_four_bits_are_said_clearly(
    base: Path, lora: Path, tmp_path: Path
) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no GPU"):
            load_model(base, device="cuda")
    rows = tmp_path / "rows"
    shutil.copytree(lora, rows)
    configured(rows, enable_lora=[True, False, True])
    with pytest.raises(ConfigError, match="by rows"):
        load_model(base, adapter=rows, load="nf4")
