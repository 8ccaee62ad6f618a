"""ChatGLM-6B's port against the original's own output where it lies beside the project, and against a plain writing-out."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from huatuo.config import Generation
from huatuo.engines.decoding import decode
from huatuo.errors import ConfigError, Damaged, Mismatch
from huatuo.models import chatglm
from huatuo.models.chatglm import ALPHA, ChatGLMConfig, ChatGLMForCausalLM
from huatuo.models.chatglm_layout import ANSWER, PLACE, REAL, positions, turns
from huatuo.models.rows import add_prefix, merge_rows
from huatuo.models.trunk import Trunk
from huatuo.toml import ROOT
from tests.huatuo import plain_chatglm as plain

PARITY = ROOT / "../shared/data/parity/chatglm6b"
needs_parity = pytest.mark.skipif(
    not PARITY.is_dir(), reason="../shared/data/parity/chatglm6b is not there"
)
CLOSE = 5e-5
"""Relative difference that the order of sums explains; the next wrong position or mask is a thousand times larger."""
PAD, MASK, GMASK, SOP, EOP = 3, 500, 501, 504, 505
SMALL = {
    "vocab_size": 600, "hidden_size": 64, "num_layers": 3, "num_attention_heads": 4, "inner_hidden_size": 128,
    "max_sequence_length": 128, "bos_token_id": SOP, "eos_token_id": EOP, "pad_token_id": PAD, "mask_token_id": MASK,
    "gmask_token_id": GMASK,
}  # fmt: skip
SHAPES = {
    "3 blocks of 4 heads": {},
    "1 block": {"num_layers": 1},
    "6 blocks of 2 wide heads": {"num_layers": 6, "num_attention_heads": 2},
    "a prefix of 1": {"pre_seq_len": 1},
    "a prefix of 7": {"pre_seq_len": 7},
    "positions of March 2023": {"old_positions": True},
    "one kind of position": {"position_encoding_2d": False},
}
PROMPTS = {
    "a word": [17, GMASK, SOP],
    "no word": [GMASK, SOP],
    "words": [5, 77, 201, 44, 44, 8, GMASK, SOP],
    "[MASK] at the end": [5, 77, 201, MASK, SOP],
    "[MASK] amid words": [5, MASK, 201, 44, SOP],
    "[MASK] and [gMASK]": [5, MASK, 201, GMASK, SOP],
    "words between [gMASK] and <sop>": [9, GMASK, 30, 31, SOP],
    "an answer begun": [5, 77, 201, GMASK, SOP, 9, 8, 7, 6],
    "a second <sop> and [gMASK]": [5, 77, GMASK, SOP, 9, GMASK, SOP, 4],
}


def made(**changes):
    """A model with random weights, large enough that positions and mask matter."""
    torch.manual_seed(0)
    model = ChatGLMForCausalLM(ChatGLMConfig(**{**SMALL, "initializer_range": 0.1, **changes}))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "attention" in name and name.endswith("weight"):
                tensor.normal_(std=0.5)  # else the residual, seven times as strong, drowns it
            elif name.endswith("bias"):
                tensor.normal_(std=0.1)
            elif "prefix" in name:
                tensor.normal_()
    return model.eval()


def gap(found, expected):
    """The largest difference, relative to the largest number."""
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).abs().max() / expected.abs().max())


def greedy(model, ids, count, **kwargs):
    """(ids (B, count), logits (B, count, V)): the engine's loop, for a batch."""
    cache, step, said, heard = DynamicCache(config=model.config), ids, [], []
    with torch.inference_mode():
        for _ in range(count):
            out = model(
                input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1, **kwargs
            )
            kwargs = {}
            heard.append(out.logits[:, -1])
            step = heard[-1].argmax(-1, keepdim=True)
            said.append(step)
    return torch.cat(said, 1), torch.stack(heard, 1)


def padded(rows):
    """(ids, mask), padded on the left."""
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def folder_of(path, weights, **config):
    path.mkdir()
    about = {**SMALL, **config, "model_type": "chatglm", "architectures": ["ChatGLMForCausalLM"]}
    (path / "config.json").write_text(json.dumps(about))
    save_file(dict(weights), path / "model.safetensors", metadata={"format": "pt"})
    return path


def adapter_of(path, tensors, **config):
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps(config))
    save_file({k: t.contiguous() for k, t in tensors.items()}, path / "adapter_model.safetensors")
    return path


def loaded(folder):
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values())
    return model.eval()


# --- the original's own output


def original(kind, path):
    """(model, expected) of one of the three sets; adapters are laid over the base, as the app does it."""
    config = json.loads((PARITY / "config.json").read_text())["config"]
    weights = load_file(PARITY / "base.weights.safetensors")
    model = loaded(folder_of(path / "base", weights, **{**config, "pre_seq_len": None}))
    if kind == "ptuning":
        name = "transformer.prefix_encoder.embedding.weight"
        prefix = load_file(PARITY / "ptuning.weights.safetensors")[name]
        add_prefix(
            model,
            adapter_of(path / "prefix", {name: prefix}, peft_type="PREFIX_TUNING", pre_seq_len=5),
        )
    if kind == "doctorglm_lora":
        tensors = load_file(PARITY / "doctorglm_lora.adapter.safetensors")
        about = {
            "r": 4,
            "lora_alpha": 8,
            "enable_lora": [True, False, True],
            "fan_in_fan_out": True,
        }
        merge_rows(model, adapter_of(path / "rows", tensors, peft_type="LORA", **about))
    return model, load_file(PARITY / f"{kind}.expected.safetensors")


@needs_parity
@pytest.mark.parametrize("kind", ["base", "ptuning", "doctorglm_lora"])
def test_the_original_gives_the_same(tmp_path, kind):
    model, expected = original(kind, tmp_path)
    for what in ("prompt", "answer"):
        if f"{what}_logits" in expected:
            ids = expected[f"{what}_ids"]
            assert gap(model(ids, use_cache=False).logits, expected[f"{what}_logits"]) <= 1e-4
            assert gap(model(ids[1:]).logits, expected[f"{what}_logits"][1:]) <= 1e-4
    said, heard = greedy(model, expected["prompt_ids"], 10)
    assert torch.equal(said, expected["greedy_ids"])
    if "greedy_step_logits" in expected:
        assert gap(heard, expected["greedy_step_logits"]) <= 1e-4


@needs_parity
@pytest.mark.parametrize("kind", ["base", "ptuning", "doctorglm_lora"])
def test_the_original_gives_the_same_left_padded(tmp_path, kind):
    model, expected = original(kind, tmp_path)
    first, second = expected["answer_ids"].tolist()
    ids, mask = padded([first, second, first[4:], second[7:]])
    found = model(ids, attention_mask=mask).logits
    assert gap(found[0], expected["answer_logits"][0]) <= 1e-4
    assert gap(found[1], expected["answer_logits"][1]) <= 1e-4
    longer, wide = padded([[8, *first], second])
    found = model(longer, attention_mask=wide).logits
    assert gap(found[1, 1:], expected["answer_logits"][1]) <= 1e-4
    prompts, narrow = padded(
        [[8, 8, 8, *expected["prompt_ids"][0].tolist()], expected["prompt_ids"][1].tolist()]
    )
    said, _ = greedy(model, prompts, 10, attention_mask=narrow)
    assert said[1].tolist() == expected["greedy_ids"][1].tolist()


# --- a plain writing-out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prompt", PROMPTS)
@torch.no_grad()
def test_logits_are_those_of_the_plain_model(shape, prompt):
    model, ids = made(**SHAPES[shape]), PROMPTS[prompt]
    expected = plain.logits(model.state_dict(), model.config, ids)
    assert gap(model(torch.tensor([ids])).logits[0], expected) < CLOSE
    assert gap(model(torch.tensor([ids]), use_cache=False).logits[0], expected) < CLOSE


@pytest.mark.parametrize("shape", [s for s in SHAPES if s != "one kind of position"])
@torch.no_grad()
def test_a_cache_changes_nothing(shape):
    model = made(**SHAPES[shape])
    prompt, answer = PROMPTS["words"], [9, 300, 2, 41, 7, 7]
    expected = plain.logits(model.state_dict(), model.config, prompt + answer)
    for cuts in ([1] * 6, [2, 3, 1], [6]):
        cache = DynamicCache(config=model.config)
        found = [model(torch.tensor([prompt]), past_key_values=cache).logits]
        rest = torch.tensor([answer])
        for part in rest.split(cuts, 1):
            found.append(model(part, past_key_values=cache).logits)
        assert gap(torch.cat(found, 1)[0], expected) < CLOSE


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_padding_changes_nothing(shape):
    model = made(**SHAPES[shape])
    rows = list(PROMPTS.values())
    ids, mask = padded(rows)
    found = model(ids, attention_mask=mask).logits
    for row, logits in zip(rows, found, strict=True):
        expected = plain.logits(model.state_dict(), model.config, row)
        assert gap(logits[-len(row) :], expected) < CLOSE
    right, seen = ids.flip(1), mask.flip(1)
    for place, row in enumerate(rows):
        right[place, : len(row)] = torch.tensor(row)
    found = model(right, attention_mask=seen, use_cache=False).logits
    for row, logits in zip(rows, found, strict=True):
        expected = plain.logits(model.state_dict(), model.config, row)
        assert gap(logits[: len(row)], expected) < CLOSE


@torch.no_grad()
def test_padding_in_a_later_call_is_not_seen():
    model, prompt = made(), PROMPTS["words"]
    ids = torch.tensor([prompt, prompt])
    cache = DynamicCache(config=model.config)
    model(ids, past_key_values=cache)
    mask = torch.ones(2, len(prompt) + 3)
    mask[0, -2] = 0
    found = model(
        torch.tensor([[9, PAD, 4], [9, 8, 4]]), past_key_values=cache, attention_mask=mask
    )
    for row, answer in ((0, [9, 4]), (1, [9, 8, 4])):
        expected = plain.logits(model.state_dict(), model.config, prompt + answer)
        assert gap(found.logits[row, -1], expected[-1]) < CLOSE


@torch.no_grad()
def test_a_long_prompt_is_attended_piece_by_piece(monkeypatch):
    model, ids = made(), torch.tensor([PROMPTS["an answer begun"]])
    whole = model(ids).logits
    monkeypatch.setattr(chatglm, "_ROWS_AT_ONCE", 2)
    assert gap(model(ids).logits, whole) < CLOSE


@pytest.mark.parametrize("shape", [s for s in SHAPES if s != "one kind of position"])
def test_each_row_of_a_padded_batch_speaks_as_if_alone(shape):
    model = made(**SHAPES[shape])
    rows = [PROMPTS[name] for name in ("a word", "words", "[MASK] amid words", "no word")]
    ids, mask = padded(rows)
    together, _ = greedy(model, ids, 7, attention_mask=mask)
    said = model.generate(
        ids, attention_mask=mask, max_new_tokens=7, min_new_tokens=7, do_sample=False
    )
    assert torch.equal(said[:, ids.shape[1] :], together)
    for row, answer in zip(rows, together, strict=True):
        alone = row
        for token in answer.tolist():
            assert int(plain.logits(model.state_dict(), model.config, alone)[-1].argmax()) == token
            alone = [*alone, token]


@torch.no_grad()
def test_a_model_in_half_is_the_plain_one_in_half():
    model = made().half()
    ids = [*([7, 9, 400, 31] * 3), GMASK, SOP, 5, 6]
    expected = plain.logits(model.state_dict(), model.config, ids, torch.float16)
    found = model(torch.tensor([ids])).logits[0]
    assert found.dtype == torch.float16
    assert gap(found, expected) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_angles_are_rounded_where_the_original_rounds_them(dtype):
    where = [0, 1, 2, 7, 129, 1000, 1777, 2047]
    places = torch.tensor([[where, where[::-1]]])
    cosine, sine = turns(places, 128, dtype)
    one = torch.ones(len(where), 64, dtype=dtype)
    for part, row in enumerate((where, where[::-1])):
        one[:, 32:] = 0
        assert torch.equal(plain.turned(one, row, dtype)[:, :32], cosine[0, part, :, :32])
        assert torch.equal(plain.turned(one, row, dtype)[:, 32:], sine[0, part, :, 32:])
    exact = turns(places, 128, torch.float32)[0]
    apart = float((cosine.float() - exact).abs().max())
    assert apart > 0.3 if dtype == torch.float16 else apart == 0


def test_a_model_in_bfloat16_keeps_exact_positions():
    places = torch.tensor([[[0, 257, 1999], [0, 1, 999]]])
    rounded, exact = turns(places, 128, torch.bfloat16), turns(places, 128, torch.float32)
    assert torch.equal(rounded[0], exact[0].bfloat16()) and torch.equal(
        rounded[1], exact[1].bfloat16()
    )


def test_the_residual_has_the_weight_of_28_blocks():
    assert pytest.approx(56**0.5) == ALPHA


def test_the_engine_decodes_it_without_a_special_case():
    model = made(num_layers=2)
    prompt = PROMPTS["words"]
    said = decode(model, prompt, Generation(temperature=0), 8, 1, {EOP})
    expected, _ = greedy(model, torch.tensor([prompt]), 8)
    assert list(said) == expected[0].tolist()


def test_beams_search_as_in_a_model_without_cache():
    model = made()
    ids, mask = padded([PROMPTS["words"], PROMPTS["a word"]])
    settings = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False, "attention_mask": mask}
    with_cache = model.generate(ids, **settings)
    assert torch.equal(with_cache, model.generate(ids, **settings, use_cache=False))


def test_only_the_last_logits_are_made_where_more_are_not_wanted():
    model, ids = made(), torch.tensor([PROMPTS["words"]])
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, model(ids).logits[:, -2:])
    assert torch.equal(model(ids, return_dict=False)[0], model(ids).logits)
    assert len(model(ids, output_hidden_states=True).hidden_states) == 4


def test_the_loss_is_of_the_next_token_where_there_is_a_label():
    model, ids = made(), torch.tensor([PROMPTS["an answer begun"]])
    labels = ids.clone()
    labels[:, :5] = -100
    logits = model(ids).logits[0, 4:-1]
    expected = torch.nn.functional.cross_entropy(logits, ids[0, 5:])
    torch.testing.assert_close(model(ids, labels=labels).loss, expected)


# --- trunk and branches


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("blocks", [1, -1])
def test_branch_of_trunk_is_the_model(shape, blocks):
    model = made(**SHAPES[shape])
    trunk = Trunk(model, blocks if blocks > 0 else model.config.num_layers)
    ids, mask = padded([PROMPTS["words"], PROMPTS["an answer begun"], PROMPTS["[MASK] amid words"]])
    layout = model.transformer.layout(ids, mask)
    with torch.no_grad():
        whole = model(ids, attention_mask=mask, use_cache=False).logits
        split = trunk.policy(trunk.states(ids, mask), layout) @ trunk.vocabulary.T
        copied = trunk.branch()(trunk.states(ids, layout), layout) @ trunk.vocabulary.T
    assert torch.equal(whole[mask.bool()], split[mask.bool()])
    assert torch.equal(split[mask.bool()], copied[mask.bool()])


# --- files


def test_a_published_folder_is_loaded_with_its_head_tied(tmp_path):
    weights = {k: t for k, t in made().state_dict().items() if k != "lm_head.weight"}
    stale = {"transformer.layers.0.attention.rotary_emb.inv_freq": torch.zeros(8)}
    short = loaded(folder_of(tmp_path / "short", {**weights, **stale}))
    head = {"lm_head.weight": weights["transformer.word_embeddings.weight"].clone()}
    long = loaded(folder_of(tmp_path / "long", {**weights, **head}))
    for model in (short, long):
        assert model.lm_head.weight is model.transformer.word_embeddings.weight
        torch.testing.assert_close(
            model(torch.tensor([[5, GMASK, SOP]])).logits,
            made()(torch.tensor([[5, GMASK, SOP]])).logits,
        )
    short.save_pretrained(tmp_path / "again")
    again = loaded(tmp_path / "again")
    assert torch.equal(again.lm_head.weight, short.lm_head.weight)
    assert again.generation_config.eos_token_id == EOP


def test_the_whole_model_has_the_published_size_and_names():
    with torch.device("meta"):
        model = ChatGLMForCausalLM(ChatGLMConfig())
    assert model.num_parameters() == 6_173_286_400
    layer, names = "transformer.layers.27.", set(model.state_dict())
    parts = [
        "input_layernorm",
        "post_attention_layernorm",
        "attention.query_key_value",
        "attention.dense",
    ]
    parts += ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]
    expected = {f"{layer}{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert {name for name in names if name.startswith(layer)} == expected
    outside = {"transformer.word_embeddings.weight", "lm_head.weight"}
    outside |= {f"transformer.final_layernorm.{kind}" for kind in ("weight", "bias")}
    assert {name for name in names if ".layers." not in name} == outside
    assert tuple(model.state_dict()[layer + "attention.query_key_value.weight"].shape) == (
        12288,
        4096,
    )


def test_a_prefix_is_saved_with_the_model(tmp_path):
    model, ids = made(pre_seq_len=4), torch.tensor([PROMPTS["words"]])
    model.save_pretrained(tmp_path)
    assert torch.equal(loaded(tmp_path)(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    "words, ids", [(130528, (130000, 130001)), (150528, (150000, 150001))], ids=["new", "old"]
)
def test_a_config_without_mask_ids_has_those_of_its_vocabulary(tmp_path, words, ids):
    about = {
        "model_type": "chatglm",
        "vocab_size": words,
        "num_layers": 28,
        "torch_dtype": "float16",
    }
    (tmp_path / "config.json").write_text(json.dumps(about))
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.mask_token_id, config.gmask_token_id) == ids
    assert (config.num_hidden_layers, config.max_position_embeddings) == (28, 2048)
    assert config.dtype == torch.float16


@torch.no_grad()
def test_positions_are_counted_from_the_first_word():
    model = made()
    ids, mask = padded([[5, 6, 7, GMASK, SOP, 8, 9], [5, GMASK, SOP, 8]])
    layout = model.transformer.layout(ids, mask)
    assert layout[1].tolist() == [0, 0, 0, REAL, REAL | PLACE, REAL | ANSWER, REAL | ANSWER]
    assert positions(layout, model.config, prompt=True).tolist() == [
        [[0, 1, 2, 3, 3, 3, 3], [0, 0, 0, 0, 1, 2, 3]],
        [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1, 2]],
    ]


# --- adapters


def lora_of(model, rank, alpha, enabled, groups=None):
    """(config, tensors) of a random LoRA by rows."""
    torch.manual_seed(3)
    rows, width = model.transformer.layers[0].attention.query_key_value.weight.shape
    changed, tensors = sum(enabled), {}
    inner = changed * rank // (groups or changed)
    for i in range(model.config.num_layers):
        at = f"transformer.layers.{i}.attention.query_key_value."
        tensors[at + "lora_A.weight"] = torch.randn(changed * rank, width) * 0.2
        tensors[at + "lora_B.weight"] = torch.randn(changed * rows // len(enabled), inner, 1) * 0.2
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "enable_lora": enabled}
    return config, tensors


@pytest.mark.parametrize("fan", [True, False])
@pytest.mark.parametrize(
    "rank, alpha, enabled, groups",
    [
        (4, 8, [True, False, True], None),
        (8, 16, [True, False, True], None),
        (1, 3, [False, True, False], None),
        (2, 1, [True, True, True], None),
        (2, 5, [True, True, True], 2),
        (2, 5, [False, False, True], 2),
        (3, 3, [True], None),
        (2, 2, [True, False, False, True, True, True], None),
    ],
)
def test_a_lora_changes_the_rows_that_it_was_trained_on(
    tmp_path, rank, alpha, enabled, groups, fan
):
    model, plainly = made(), made()
    config, tensors = lora_of(model, rank, alpha, enabled, groups)
    merge_rows(model, adapter_of(tmp_path / "rows", tensors, **config, fan_in_fan_out=fan))
    for i, block in enumerate(model.transformer.layers):
        at = f"transformer.layers.{i}.attention.query_key_value."
        first, second = tensors[at + "lora_A.weight"], tensors[at + "lora_B.weight"][:, :, 0]
        old = plainly.transformer.layers[i].attention.query_key_value.weight
        change, size, row = torch.zeros_like(old), len(old) // len(enabled), 0
        share = len(second) // (len(first) // second.shape[1])  # rows of B that one group makes
        for part, is_on in enumerate(enabled):
            for inner in range(size if is_on else 0):
                group = row // share
                slice_of_first = first[group * second.shape[1] : (group + 1) * second.shape[1]]
                change[part * size + inner] = second[row] @ slice_of_first * alpha / rank
                row += 1
        torch.testing.assert_close(
            block.attention.query_key_value.weight, old + change, rtol=0, atol=1e-5
        )
        assert torch.equal(
            block.attention.dense.weight, plainly.transformer.layers[i].attention.dense.weight
        )


@pytest.mark.parametrize("count", [1, 5, 12])
@torch.no_grad()
def test_a_prefix_laid_on_is_the_plain_models(tmp_path, count):
    model, ids = made(), PROMPTS["an answer begun"]
    name = "transformer.prefix_encoder.embedding.weight"
    prefix = {name: torch.randn(count, 2 * 3 * 64)}
    about = {"peft_type": "PREFIX_TUNING", "pre_seq_len": count, "prefix_projection": False}
    add_prefix(model, adapter_of(tmp_path / "prefix", prefix, **about))
    expected = plain.logits({**model.state_dict(), **prefix}, model.config, ids)
    assert gap(model(torch.tensor([ids])).logits[0], expected) < CLOSE
    assert model.config.pre_seq_len == count and not model.transformer.prefix_encoder.training


@torch.no_grad()
def test_a_prefix_with_a_projection_is_unfolded(tmp_path):
    model, ids = made(), PROMPTS["words"]
    at = "transformer.prefix_encoder."
    tensors = {
        at + "embedding.weight": torch.randn(4, 64),
        at + "trans.0.weight": torch.randn(64, 64) * 0.2, at + "trans.0.bias": torch.randn(64),
        at + "trans.2.weight": torch.randn(384, 64) * 0.2, at + "trans.2.bias": torch.randn(384),
    }  # fmt: skip
    about = {"peft_type": "PREFIX_TUNING", "pre_seq_len": 4, "prefix_projection": True}
    add_prefix(model, adapter_of(tmp_path / "prefix", tensors, **about))
    inner = (
        tensors[at + "embedding.weight"] @ tensors[at + "trans.0.weight"].T
        + tensors[at + "trans.0.bias"]
    ).tanh()
    flat = inner @ tensors[at + "trans.2.weight"].T + tensors[at + "trans.2.bias"]
    weights = {**made().state_dict(), at + "embedding.weight": flat}
    assert (
        gap(model(torch.tensor([ids])).logits[0], plain.logits(weights, model.config, ids)) < CLOSE
    )


# --- what is refused

BAD_PROMPTS = {
    "no mask": ([[5, 6, SOP]], r"row 0 .* no \[gMASK\]"),
    "no <sop>": ([[5, GMASK, SOP], [5, 6, GMASK]], r"row 1 .* <sop>"),
    "neither": ([[5, 6, 7]], "template"),
}


@pytest.mark.parametrize("bad", BAD_PROMPTS)
def test_a_prompt_of_another_family_is_refused(bad):
    rows, words = BAD_PROMPTS[bad]
    with pytest.raises(ConfigError, match=words):
        made()(torch.tensor(rows))
    with pytest.raises(ConfigError, match=words):
        made().generate(torch.tensor(rows), max_new_tokens=2)


BAD_CALLS = {
    "positions of its own": ({"position_ids": torch.arange(8)[None]}, "position_ids"),
    "a mask of another length": ({"attention_mask": torch.ones(1, 5)}, "attention_mask"),
    "a mask of four dimensions": ({"attention_mask": torch.ones(1, 1, 8, 8)}, "attention_mask"),
}


@pytest.mark.parametrize("bad", BAD_CALLS)
def test_what_would_be_ignored_is_refused(bad):
    kwargs, words = BAD_CALLS[bad]
    with pytest.raises(ValueError, match=words):
        made()(torch.tensor([PROMPTS["words"]]), **kwargs)


def test_a_cache_of_another_batch_or_model_is_refused():
    model, ids = made(), torch.tensor([PROMPTS["words"]])
    cache = model(ids).past_key_values
    with pytest.raises(ValueError, match="this batch"):
        model(torch.tensor([[4], [4]]), past_key_values=cache)
    foreign = DynamicCache(config=model.config)
    foreign.update(torch.zeros(1, 4, 3, 16), torch.zeros(1, 4, 3, 16), 0)
    with pytest.raises(ValueError, match="not filled"):
        model(torch.tensor([[4]]), past_key_values=foreign)


def test_packed_weights_are_refused():
    with pytest.raises(Mismatch, match="quantization_bit = 4"):
        ChatGLMForCausalLM(ChatGLMConfig(**SMALL, quantization_bit=4))


BAD_ROWS = {
    "another width": (lambda c, t: {k: v[:, :48] if "lora_A" in k else v for k, v in t.items()}, "lora_A.* another base"),
    "another height": (lambda c, t: {k: v[:96] if "lora_B" in k else v for k, v in t.items()}, "lora_B.* another base"),
    "another rank": (lambda c, t: c.update(r=8) or t, "lora_A"),
    "another choice of parts": (lambda c, t: c.update(enable_lora=[True, True, True]) or t, "lora_A"),
    "no choice": (lambda c, t: c.update(enable_lora=[False, False]) or t, "enable_lora"),
    "a choice that is none": (lambda c, t: c.update(enable_lora=None) or t, "enable_lora"),
    "no rank": (lambda c, t: c.update(r=0) or t, "r, lora_alpha"),
    "half a layer": (lambda c, t: {k: v for k, v in t.items() if "1.attention" not in k or "lora_A" in k}, r"layers\.1.*lora_B.* missing"),
    "a block less": (lambda c, t: {k: v for k, v in t.items() if "layers.2" not in k}, r"layers\.2.*lora_A.* missing"),
    "a block more": (lambda c, t: {**t, **{k.replace("layers.0", "layers.3"): v.clone() for k, v in t.items()}}, r"layers\.3.* does not have"),
    "another layer": (lambda c, t: {k.replace("query_key_value", "W_pack"): v for k, v in t.items()}, "W_pack.* does not have"),
    "a stray tensor": (lambda c, t: {**t, "lm_head.weight": torch.zeros(2, 2)}, "lm_head.weight is no matrix"),
    "NaN": (lambda c, t: {k: torch.full_like(v, torch.nan) for k, v in t.items()}, r"layers\.0.*NaN"),
    "numbers without a point": (lambda c, t: {k: v.int() for k, v in t.items()}, "no numbers"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_rows_that_do_not_fit_are_named_and_change_nothing(tmp_path, bad):
    model = made()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config, tensors = lora_of(model, 4, 8, [True, False, True])
    change, words = BAD_ROWS[bad]
    folder = adapter_of(tmp_path / "rows", change(config, tensors), **config)
    with pytest.raises((Mismatch, Damaged), match=words):
        merge_rows(model, folder)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


PREFIX = "transformer.prefix_encoder.embedding.weight"
BAD_PREFIXES = {
    "another depth": ({PREFIX: torch.zeros(5, 2 * 4 * 64)}, {}, f"{PREFIX} has shape .*512.*another base"),
    "another width": ({PREFIX: torch.zeros(5, 2 * 3 * 48)}, {}, f"{PREFIX} has shape"),
    "another length": ({PREFIX: torch.zeros(6, 2 * 3 * 64)}, {}, f"{PREFIX} has shape"),
    "no length": ({PREFIX: torch.zeros(5, 2 * 3 * 64)}, {"pre_seq_len": None}, "pre_seq_len"),
    "a stray tensor": ({PREFIX: torch.zeros(5, 384), "lm_head.weight": torch.zeros(2)}, {}, "lm_head.weight is no part"),
    "no tensor of it": ({"other": torch.zeros(5, 384)}, {}, "other is no part"),
    "a projection that is not there": ({PREFIX: torch.zeros(5, 64)}, {"prefix_projection": True}, "trans.0.bias is missing"),
    "NaN": ({PREFIX: torch.full((5, 384), torch.nan)}, {}, f"{PREFIX} holds NaN"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_PREFIXES)
def test_a_prefix_that_does_not_fit_is_named(tmp_path, bad):
    tensors, changes, words = BAD_PREFIXES[bad]
    about = {"peft_type": "PREFIX_TUNING", "pre_seq_len": 5, "prefix_projection": False, **changes}
    model = made()
    with pytest.raises((Mismatch, Damaged), match=words):
        add_prefix(model, adapter_of(tmp_path / "prefix", tensors, **about))
    assert model.config.pre_seq_len is None and model.transformer.prefix_encoder is None


def test_a_second_prefix_is_refused(tmp_path):
    folder = adapter_of(tmp_path / "prefix", {PREFIX: torch.zeros(5, 384)}, pre_seq_len=5)
    with pytest.raises(Mismatch, match="has none"):
        add_prefix(made(pre_seq_len=2), folder)


@pytest.mark.parametrize("lay", [merge_rows, add_prefix])
def test_a_folder_that_is_no_adapter_is_damaged(tmp_path, lay):
    with pytest.raises(Damaged, match="copy the adapter again"):
        lay(made(), tmp_path)
