"""Every published layout, tiny and random, becomes a safetensors folder that computes the same."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from huatuo.errors import Mismatch
from huatuo.models import checkpoint, registry
from huatuo.models.convert.run import convert
from huatuo.models.convert.tables import native
from tests.huatuo.published import (
    BAICHUAN,
    CHATGLM,
    LORA,
    as_baichuan,
    inv_freq,
    random_chatglm,
    random_llama,
    random_lora,
    train_words,
    write_folder,
)

PARITY = Path(__file__).resolve().parents[3] / "shared" / "data" / "parity"
IDS = torch.tensor([[5, 17, 99, 200, 3, 42, 250, 7]])


def loaded(folder, kind=AutoModelForCausalLM, **how):
    model, report = kind.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **how
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), (
        report
    )
    return model.eval()


def weights(folder):
    return {
        name: t
        for file in sorted(folder.glob("*.safetensors"))
        for name, t in load_file(file).items()
    }


def near(one, other, limit=1e-4):
    return float((one - other).abs().max() / other.abs().max()) <= limit


@torch.no_grad()
def logits(model, ids=IDS, **how):
    return model(input_ids=ids, **how).logits


# What stands in every converted folder


def test_a_pickle_becomes_safetensors_bit_by_bit_with_a_manifest(tmp_path):
    model, tensors, config = random_llama()
    source = write_folder(tmp_path / "source", tensors, config)
    report = convert(source, tmp_path / "out", quiet=True)
    out = weights(tmp_path / "out")
    assert set(out) == set(tensors) and all(
        torch.equal(out[name], tensors[name]) for name in tensors
    )
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(model))
    assert registry.digest(registry.check_folder(tmp_path / "out")) == report.sha256
    said = checkpoint.read_manifest(tmp_path / "out")["source"]
    assert said["layout"] == "plain"
    for name, sha256 in said["files"].items():
        assert checkpoint.sha256_of(source / name) == sha256
    assert [path.name for path in tmp_path.iterdir()] == ["source", "out"] or len(
        list(tmp_path.iterdir())
    ) == 2


def test_several_shards_have_an_index_and_load_as_one(tmp_path):
    model, tensors, config = random_llama()
    source = write_folder(tmp_path / "source", tensors, config, shards=3)
    report = convert(source, tmp_path / "out", shard_bytes=60_000, quiet=True)
    assert report.shards > 3 and len(registry.check_folder(tmp_path / "out")) == report.shards
    assert report.sha256 == registry.digest(registry.weight_files(tmp_path / "out"))
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(model))


@pytest.mark.parametrize("shards", [1, 2])
def test_torch_files_from_before_the_zip_are_read_too(tmp_path, shards):
    model, tensors, config = random_llama()
    source = write_folder(tmp_path / "source", tensors, config, shards=shards, legacy=True)
    convert(source, tmp_path / "out", quiet=True)
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(model))


def test_parameters_views_and_every_float_are_read_as_torch_reads_them(tmp_path):
    _, tensors, config = random_llama()
    wide = torch.randn(2, *tensors["model.norm.weight"].shape)
    tensors["model.norm.weight"] = wide[1]  # a view with an offset
    tensors["lm_head.weight"] = torch.nn.Parameter(tensors["lm_head.weight"].bfloat16())
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].half()
    source = write_folder(tmp_path / "source", tensors, config)
    convert(source, tmp_path / "out", quiet=True)
    out = weights(tmp_path / "out")
    assert all(torch.equal(out[name], tensor.detach()) for name, tensor in tensors.items())
    assert all(out[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_safetensors_with_remote_code_lose_the_code(tmp_path):
    model, tensors, config = random_llama()
    folder = tmp_path / "source"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModel": "modeling_x.X"}})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["x.Y", None]}})
    )
    (folder / "modeling_x.py").write_text("raise SystemExit('this was executed')")
    report = convert(folder, tmp_path / "out", quiet=True)
    assert (
        "modeling_x.py" in report.left_out
        and "auto_map" not in (tmp_path / "out" / "config.json").read_text()
    )
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(model))


# Classes of transformers


def qwen2():
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=True,
        )
    )  # fmt: skip


def bloom():
    return BloomForCausalLM(BloomConfig(vocab_size=320, hidden_size=64, n_layer=2, n_head=4))


def t5(**changes):
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=320, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_decoder_layers=3, num_heads=4,
            decoder_start_token_id=0, **changes,
        )
    )  # fmt: skip


def t5_new():
    return t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False)


@pytest.mark.parametrize("make", [qwen2, bloom, t5, t5_new])
def test_a_class_of_transformers_keeps_its_numbers_and_its_tied_tensors(tmp_path, make):
    torch.manual_seed(1)
    model = make().eval()
    config = {**json.loads(model.config.to_json_string()), "architectures": [type(model).__name__]}
    source = write_folder(
        tmp_path / "source", model.state_dict(), config
    )  # torch.save keeps the tied ones too
    convert(source, tmp_path / "out", quiet=True)
    how = {"decoder_input_ids": IDS[:, :3]} if "T5" in type(model).__name__ else {}
    kind = AutoModelForSeq2SeqLM if how else AutoModelForCausalLM
    assert near(logits(loaded(tmp_path / "out", kind), **how), logits(model, **how), 1e-6)


def test_bloom_files_that_leave_out_the_prefix_are_read(tmp_path):
    model = bloom().eval()
    tensors = {
        name.removeprefix("transformer."): t for name, t in model.transformer.state_dict().items()
    }
    config = {**json.loads(model.config.to_json_string()), "architectures": ["BloomForCausalLM"]}
    convert(write_folder(tmp_path / "source", tensors, config), tmp_path / "out", quiet=True)
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(model))


@pytest.mark.parametrize("make", [lambda: random_llama()[0], qwen2, bloom, t5, t5_new])
def test_the_tables_say_what_transformers_builds(make):
    model = make()
    config = {**json.loads(model.config.to_json_string())}
    table = native(config, type(model).__name__)
    built = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {
        **table.shapes,
        **{alias: table.shapes[name] for alias, name in table.ties.items()},
    } == built


def test_a_class_without_a_table_is_asked_of_transformers(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

    sizes = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    made = (
        GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=64, n_layer=2, n_head=4)),
        Qwen3ForCausalLM(
            Qwen3Config(**sizes, intermediate_size=96, num_key_value_heads=2, head_dim=16)
        ),
    )
    for number, model in enumerate(made):
        said = {
            **json.loads(model.config.to_json_string()),
            "architectures": [type(model).__name__],
        }
        source = write_folder(tmp_path / f"s{number}", model.state_dict(), said)
        convert(source, tmp_path / f"o{number}", quiet=True)
        assert torch.equal(logits(loaded(tmp_path / f"o{number}")), logits(model.eval()))


# Baichuan


def rotated(states, places):
    """Baichuan's rotation of (T, heads, D), written out."""
    angles = places[:, None].float() * inv_freq(states.shape[-1])[None]  # (T, D / 2)
    cos, sin = (torch.cat([one, one], -1)[:, None] for one in (angles.cos(), angles.sin()))
    left, right = states.chunk(2, -1)
    return states * cos + torch.cat([-right, left], -1) * sin


@torch.no_grad()
def baichuan_logits(tensors, config, ids, *, normalised):
    """What Baichuan's own code computes for one row (T,), in plain products. Returns (T, V)."""

    def norm(x, weight):
        return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"])

    heads, length = config["num_attention_heads"], len(ids)
    x = tensors["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        w = {n.removeprefix(f"model.layers.{layer}."): t for n, t in tensors.items()}
        packed = norm(x, w["input_layernorm.weight"]) @ w["self_attn.W_pack.weight"].T
        q, k, v = packed.unflatten(-1, (3, heads, -1)).unbind(1)  # (T, heads, D)
        q, k = (rotated(one, torch.arange(length)) for one in (q, k))
        scores = torch.einsum("thd,shd->hts", q, k) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
        mixed = torch.einsum("hts,shd->thd", scores.softmax(-1), v).flatten(1)
        x = x + mixed @ w["self_attn.o_proj.weight"].T
        y = norm(x, w["post_attention_layernorm.weight"])
        gate = torch.nn.functional.silu(y @ w["mlp.gate_proj.weight"].T) * (
            y @ w["mlp.up_proj.weight"].T
        )
        x = x + gate @ w["mlp.down_proj.weight"].T
    head = tensors["lm_head.weight"]
    if normalised:
        head = head / head.norm(dim=1, keepdim=True)
    return norm(x, tensors["model.norm.weight"]) @ head.T


def baichuan_folder(folder, **changes):
    _, tensors, _ = random_llama(5)
    tensors = as_baichuan(tensors)
    config = {**BAICHUAN, **changes}
    write_folder(folder, tensors, config)
    (folder / "modeling_baichuan.py").write_text("raise SystemExit('this was executed')")
    return tensors, config


def baichuan2_changes():
    dropped = {"max_position_embeddings": None, "architectures": ["BaichuanForCausalLM"]}
    return {
        **dropped,
        "model_max_length": 4096,
        "z_loss_weight": 0,
        "tokenizer_class": "BaichuanTokenizer",
    }


@pytest.mark.parametrize("second", [False, True])
def test_baichuan_becomes_llama_with_the_same_logits(tmp_path, second):
    tensors, config = baichuan_folder(
        tmp_path / "source", **(baichuan2_changes() if second else {})
    )
    report = convert(tmp_path / "source", tmp_path / "out", quiet=True)
    assert report.layout == ("baichuan2" if second else "baichuan-7b")
    model = loaded(tmp_path / "out")
    assert type(model).__name__ == "LlamaForCausalLM"
    assert near(logits(model)[0], baichuan_logits(tensors, config, IDS[0], normalised=second))


def test_baichuan2_normalises_its_head_and_baichuan_7b_does_not(tmp_path):
    tensors, _ = baichuan_folder(tmp_path / "one")
    convert(tmp_path / "one", tmp_path / "first", quiet=True)
    convert(tmp_path / "one", tmp_path / "second", layout="baichuan2", quiet=True)
    assert torch.equal(weights(tmp_path / "first")["lm_head.weight"], tensors["lm_head.weight"])
    lengths = weights(tmp_path / "second")["lm_head.weight"].norm(dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)


@pytest.mark.parametrize(
    "changes, code",
    [({"hidden_size": 5120}, ""), ({}, "def _get_interleave(n): ...\nalibi_mask = None")],
)
def test_baichuan_13b_is_refused_with_the_reason(tmp_path, changes, code):
    baichuan_folder(tmp_path / "source", **changes)
    (tmp_path / "source" / "modeling_baichuan.py").write_text(code)
    with pytest.raises(Mismatch, match="ALiBi"):
        convert(tmp_path / "source", tmp_path / "out", quiet=True)


def test_a_baichuan_that_nothing_tells_apart_is_not_guessed(tmp_path):
    _, tensors, _ = random_llama(5)
    tensors = {n: t for n, t in as_baichuan(tensors).items() if "inv_freq" not in n}
    config = {**BAICHUAN, "architectures": ["BaichuanForCausalLM"], "model_max_length": 4096}
    config.pop("max_position_embeddings")
    write_folder(tmp_path / "source", tensors, config)
    with pytest.raises(Mismatch, match="--layout baichuan-7b or baichuan2"):
        convert(tmp_path / "source", tmp_path / "out", quiet=True)


@pytest.mark.skipif(
    not (PARITY / "baichuan7b").is_dir(), reason="../shared/data/parity/baichuan7b is not here"
)
def test_baichuan_agrees_with_the_original_implementation(tmp_path):
    folder = PARITY / "baichuan7b"
    config = json.loads((folder / "config.json").read_text())["config"]
    config = {**config, "architectures": ["BaiChuanForCausalLM"]}
    wanted = load_file(folder / "expected.safetensors")
    write_folder(tmp_path / "source", load_file(folder / "weights.safetensors"), config)
    convert(tmp_path / "source", tmp_path / "out", quiet=True)
    model = loaded(tmp_path / "out")
    ids, mask = wanted["ids"], wanted["attention_mask"]
    assert near(logits(model, ids[:1]), wanted["logits_row0"])
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    padded = logits(model, ids, attention_mask=mask, position_ids=places)
    assert near(padded[mask.bool()], wanted["logits_padded"][mask.bool()])
    for use_cache in (True, False):
        told = model.generate(
            ids[:1], max_new_tokens=12, do_sample=False, use_cache=use_cache, eos_token_id=None
        )
        assert told[:, ids.shape[1] :].tolist() == wanted["greedy_ids"].tolist()


# Tokenizers


def test_baichuans_tokenizer_equals_sentencepiece_without_its_class(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    baichuan_folder(tmp_path / "source")
    path = train_words(tmp_path / "source" / "tokenizer.model", size=1600)
    _, tensors, _ = random_llama(5, vocab_size=1600)
    write_folder(tmp_path / "source", as_baichuan(tensors), {**BAICHUAN, "vocab_size": 1600})
    token = {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": True}
    said = {
        "add_bos_token": False, "add_eos_token": False, "tokenizer_class": "BaiChuanTokenizer", "pad_token": None,
        "auto_map": {"AutoTokenizer": ["tokenization_baichuan.BaiChuanTokenizer", None]}, "bos_token": token,
        "eos_token": {**token, "content": "</s>"}, "unk_token": {**token, "content": "<unk>"},
    }  # fmt: skip
    (tmp_path / "source" / "tokenizer_config.json").write_text(json.dumps(said))
    convert(tmp_path / "source", tmp_path / "out", quiet=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    chance = random.Random(0)
    texts = "".join(
        p.read_text(encoding="utf-8") for p in (Path(__file__).parent / "data").glob("*.txt")
    )
    odd = [
        "a",
        "aa",
        " ",
        "  ",
        "\n",
        "1",
        "头",
        "。",
        "🙂",
        "é",
        "\t",
        "<病人>：",
        "一一",
        "\u3000",
    ]
    for turn in range(600):
        start, length = chance.randrange(len(texts)), chance.randrange(1, 60)
        text = texts[start : start + length]
        if turn % 2:
            text = "".join(chance.choice(odd) * chance.randrange(1, 5) for _ in range(8))
        ids = pieces.encode(text)
        assert tokenizer(text)["input_ids"] == ids, text
        assert tokenizer.decode(ids) == pieces.decode(ids), text


@pytest.mark.parametrize(
    "said",
    [{}, {"bos_token": "", "eos_token": "", "unk_token": "", "tokenizer_class": "LLaMATokenizer"}],
)
def test_llamas_tokenizer_puts_its_first_token_and_mends_the_empty_names(tmp_path, said):
    pytest.importorskip("sentencepiece")
    _, tensors, config = random_llama(vocab_size=1603)
    write_folder(tmp_path / "source", tensors, config)
    train_words(tmp_path / "source" / "tokenizer.model")
    (tmp_path / "source" / "tokenizer_config.json").write_text(json.dumps(said))
    (tmp_path / "source" / "added_tokens.json").write_text(
        '{"<human>": 1600, "<bot>": 1601, "[PAD]": 1602}'
    )
    convert(tmp_path / "source", tmp_path / "out", quiet=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (
        tokenizer("头痛")["input_ids"][0] == tokenizer.bos_token_id == 1
        and tokenizer.eos_token_id == 2
    )
    assert 1 not in tokenizer("头痛", add_special_tokens=False)["input_ids"]
    assert (
        tokenizer.convert_tokens_to_ids(["<human>", "[PAD]"]) == [1600, 1602]
        and len(tokenizer) == 1603
    )


# Deltas, the reward model, Yi


def delta_folders(tmp_path, base_words=300):
    """A base, a delta over it with a longer vocabulary, and the target they make."""
    _, target, config = random_llama(7)
    _, base, base_config = random_llama(8, vocab_size=base_words)
    target, base = ({n: t.half() for n, t in one.items()} for one in (target, base))
    whole = ("embed_tokens", "lm_head", "inv_freq")
    delta = {n: t if any(w in n for w in whole) else t - base[n] for n, t in target.items()}
    for one in (delta, base):
        for layer in range(2):
            one[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = inv_freq(16, torch.float16)
    write_folder(tmp_path / "HuatuoGPT-13b-delta", delta, {**config, "torch_dtype": "float16"})
    write_folder(tmp_path / "base", base, base_config)
    sums = {
        n: t if any(w in n for w in whole) else t + base[n]
        for n, t in delta.items()
        if "inv_freq" not in n
    }
    return tmp_path / "HuatuoGPT-13b-delta", tmp_path / "base", sums


def test_a_delta_is_added_to_its_base_in_half_precision(tmp_path):
    delta, base, sums = delta_folders(tmp_path)
    report = convert(delta, tmp_path / "out", base=base, quiet=True)
    out = weights(tmp_path / "out")
    assert report.layout == "delta" and set(out) == set(sums)
    assert all(torch.equal(out[name], sums[name]) for name in sums)
    loaded(tmp_path / "out")
    parents = checkpoint.read_manifest(tmp_path / "out")["parents"]["base"]["files"]
    assert parents == {f.name: checkpoint.sha256_of(f) for f in sorted(base.glob("*.bin"))}


def test_a_delta_is_never_taken_for_a_model(tmp_path):
    delta, _, _ = delta_folders(tmp_path)
    tensors = {
        k: v
        for f in sorted(delta.glob("*.bin"))
        for k, v in torch.load(f, weights_only=True).items()
    }
    tensors["model.norm.weight"] = torch.randn(64).half() * 1e-3
    config = json.loads((delta / "config.json").read_text())
    write_folder(tmp_path / "Ziya-LLaMA-13B-v1", tensors, config)
    with pytest.raises(Mismatch, match="--base"):
        convert(tmp_path / "Ziya-LLaMA-13B-v1", tmp_path / "out", quiet=True)


def test_a_base_of_another_shape_is_refused_by_the_tensors_name(tmp_path):
    delta, _, _ = delta_folders(tmp_path)
    _, other, config = random_llama(9, hidden_size=32)
    write_folder(tmp_path / "other", other, config)
    with pytest.raises(Mismatch, match=r"input_layernorm\.weight|q_proj\.weight"):
        convert(delta, tmp_path / "out", base=tmp_path / "other", quiet=True)
    _, deep, config = random_llama(9, num_hidden_layers=3)
    write_folder(tmp_path / "deep", deep, config)
    with pytest.raises(Mismatch, match=r"layers\.2\."):
        convert(delta, tmp_path / "out", base=tmp_path / "deep", quiet=True)


@pytest.mark.parametrize(
    "prefix, head", [("model.", "value_head"), ("", "value_head"), ("model.model.", "v_head")]
)
def test_the_reward_model_scores_the_last_attended_token(tmp_path, prefix, head):
    model, tensors, config = random_llama(4)
    body = {n.removeprefix("model."): t for n, t in tensors.items() if n != "lm_head.weight"}
    score = torch.randn(1, 64)
    made = {**{f"{prefix}{n}": t for n, t in body.items()}, f"{head}.weight": score}
    said = {
        **config,
        "architectures": ["LlamaRewardModel"],
        "auto_map": {"AutoModel": "modeling_llama_rm.X"},
    }
    convert(write_folder(tmp_path / "source", made, said, shards=3), tmp_path / "out", quiet=True)
    judge = loaded(tmp_path / "out", AutoModelForSequenceClassification)
    ids = torch.cat([IDS, torch.zeros(1, 3, dtype=torch.long)], 1)
    mask = (torch.arange(ids.shape[1]) < IDS.shape[1]).long()[None]
    with torch.no_grad():
        states = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    place = int(mask.cumsum(1).argmax())
    assert near(logits(judge, ids, attention_mask=mask), states[:, place] @ score.T)


def test_a_reward_model_with_an_unknown_head_is_refused(tmp_path):
    _, tensors, config = random_llama(4)
    made = {
        **{n: t for n, t in tensors.items() if "lm_head" not in n},
        "judge.weight": torch.randn(1, 64),
    }
    write_folder(tmp_path / "source", made, {**config, "architectures": ["LlamaRewardModel"]})
    with pytest.raises(Mismatch, match="scalar head"):
        convert(tmp_path / "source", tmp_path / "out", quiet=True)


def test_early_yi_files_get_llamas_names(tmp_path):
    model, tensors, config = random_llama(6)
    early = {
        n.replace("input_layernorm", "ln1").replace("post_attention_layernorm", "ln2"): t
        for n, t in tensors.items()
    }
    said = {
        **config,
        "model_type": "Yi",
        "architectures": ["YiForCausalLM"],
        "auto_map": {"AutoModel": "x.Y"},
    }
    report = convert(write_folder(tmp_path / "source", early, said), tmp_path / "out", quiet=True)
    assert report.layout == "yi" and torch.equal(logits(loaded(tmp_path / "out")), logits(model))


# ChatGLM-6B


def test_chatglm_keeps_its_names_and_dtypes_and_loads_without_code(tmp_path):
    pytest.importorskip("huatuo.models.chatglm")
    tensors = random_chatglm()
    source = write_folder(tmp_path / "source", tensors, CHATGLM, shards=3)
    (source / "modeling_chatglm.py").write_text("raise SystemExit('this was executed')")
    (source / "ice_text.model").write_bytes(b"pieces")
    convert(source, tmp_path / "out", quiet=True)
    out = weights(tmp_path / "out")
    wanted = {n: t for n, t in tensors.items() if "inv_freq" not in n and n != "lm_head.weight"}
    assert set(out) == set(wanted)
    assert all(out[n].dtype == t.dtype and torch.equal(out[n], t) for n, t in wanted.items())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["ChatGLMForCausalLM"] and "auto_map" not in config
    assert (tmp_path / "out" / "ice_text.model").read_bytes() == b"pieces"
    model = loaded(tmp_path / "out")
    prompt = torch.tensor([[5, 9, 17, 501, 504]])
    assert logits(model, prompt).isfinite().all()


@pytest.mark.skipif(
    not (PARITY / "chatglm6b").is_dir(), reason="../shared/data/parity/chatglm6b is not here"
)
def test_chatglm_and_its_adapters_agree_with_the_original_implementation(tmp_path):
    pytest.importorskip("huatuo.models.chatglm")
    from huatuo.models.rows import add_prefix, merge_rows

    folder = PARITY / "chatglm6b"
    config = json.loads((folder / "config.json").read_text())["config"]
    config |= {"architectures": ["ChatGLMModel"], "auto_map": {"AutoModel": "modeling_chatglm.X"}}
    write_folder(tmp_path / "base", load_file(folder / "base.weights.safetensors"), config)
    lora = load_file(folder / "doctorglm_lora.adapter.safetensors")
    write_adapter(tmp_path / "lora", lora, {**ROWS, "r": 4, "lora_alpha": 8})
    tuned = load_file(folder / "ptuning.weights.safetensors")
    write_folder(tmp_path / "tuned", tuned, config, shards=1)
    convert(tmp_path / "base", tmp_path / "model", quiet=True)
    convert(tmp_path / "lora", tmp_path / "rows", base=tmp_path / "model", quiet=True)
    convert(tmp_path / "tuned", tmp_path / "prefix", base=tmp_path / "base", quiet=True)
    for name, lay in (
        ("base", lambda model: None),
        ("doctorglm_lora", lambda model: merge_rows(model, tmp_path / "rows")),
        ("ptuning", lambda model: add_prefix(model, tmp_path / "prefix")),
    ):
        model = loaded(tmp_path / "model")
        lay(model)
        wanted = load_file(folder / f"{name}.expected.safetensors")
        assert near(logits(model, wanted["answer_ids"]), wanted["answer_logits"]), name


def test_a_head_of_its_own_is_refused_for_chatglm(tmp_path):
    tensors = random_chatglm()
    tensors["lm_head.weight"][3] += 1
    write_folder(tmp_path / "source", tensors, CHATGLM)
    with pytest.raises(Mismatch, match=r"lm_head\.weight is not equal"):
        convert(tmp_path / "source", tmp_path / "out", quiet=True)


def test_the_old_vocabulary_loses_its_image_tokens(tmp_path):
    tensors = random_chatglm(vocab=20_600)
    ids = {
        "bos_token_id": 20_504,
        "eos_token_id": 20_505,
        "mask_token_id": 20_500,
        "gmask_token_id": 20_501,
    }
    write_folder(
        tmp_path / "source",
        tensors,
        {**CHATGLM, "vocab_size": 20_600, "pad_token_id": 20_003, **ids},
    )
    (tmp_path / "source" / "tokenizer_config.json").write_text('{"num_image_tokens": 20000}')
    convert(tmp_path / "source", tmp_path / "out", new_vocabulary=True, quiet=True)
    words = weights(tmp_path / "out")["transformer.word_embeddings.weight"]
    assert torch.equal(words, tensors["transformer.word_embeddings.weight"][20_000:])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["vocab_size"], config["gmask_token_id"], config["pad_token_id"]) == (600, 501, 3)
    assert (
        json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["num_image_tokens"]
        == 0
    )


# Adapters


def write_adapter(folder, tensors, config):
    return write_folder(
        folder, tensors, config, shards=1, name="adapter_config.json", stem="adapter_model"
    )


def test_an_old_lora_is_read_by_todays_peft(tmp_path):
    from peft import PeftModel

    model, tensors, config = random_llama()
    lora = random_lora()
    base = write_folder(tmp_path / "base", tensors, config)
    source = write_adapter(tmp_path / "lora", lora, LORA)
    report = convert(source, tmp_path / "out", base=base, quiet=True)
    assert (
        report.layout == "lora"
        and len(checkpoint.verify(tmp_path / "out")["parents"]["base"]["files"]) == 2
    )
    over = PeftModel.from_pretrained(
        loaded(write_and_convert(tmp_path, base)), tmp_path / "out"
    ).eval()
    for name in [n for n in lora if "lora_A" in n]:
        own = name.removeprefix("base_model.model.").replace("lora_A.", "")
        with torch.no_grad():
            model.get_parameter(own).add_(2 * lora[name.replace("lora_A", "lora_B")] @ lora[name])
    assert near(logits(over), logits(model))


def write_and_convert(tmp_path, base):
    convert(base, tmp_path / "model", quiet=True)
    return tmp_path / "model"


ROWS = {
    **LORA,
    "enable_lora": [True, False, True],
    "fan_in_fan_out": True,
    "target_modules": ["query_key_value"],
}


def rows_tensors():
    torch.manual_seed(2)
    at = "base_model.model.transformer.layers.{}.attention.query_key_value.lora_{}.weight"
    a = {at.format(layer, "A"): torch.randn(16, 64) for layer in range(2)}
    return a | {at.format(layer, "B"): torch.randn(128, 8, 1) for layer in range(2)}


def test_doctorglms_lora_keeps_its_rows(tmp_path):
    lora = rows_tensors()
    base = write_folder(tmp_path / "base", random_chatglm(), CHATGLM)
    source = write_adapter(tmp_path / "lora", lora, ROWS)
    report = convert(source, tmp_path / "out", base=base, quiet=True)
    assert report.layout == "rows"
    out = weights(tmp_path / "out")
    assert {f"base_model.model.{n}" for n in out} == set(lora)
    assert all(torch.equal(t, lora[f"base_model.model.{n}"]) for n, t in out.items())
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (
        config["enable_lora"] == [True, False, True]
        and config["r"] == 8
        and config["lora_alpha"] == 16
    )


def test_of_a_p_tuning_checkpoint_only_the_prefix_is_kept(tmp_path):
    prefix = torch.randn(5, 2 * 2 * 64)
    tensors = {**random_chatglm(), "transformer.prefix_encoder.embedding.weight": prefix}
    said = {**CHATGLM, "pre_seq_len": 5, "prefix_projection": False}
    report = convert(
        write_folder(tmp_path / "s", tensors, said, shards=1), tmp_path / "out", quiet=True
    )
    assert report.layout == "prefix"
    assert torch.equal(
        weights(tmp_path / "out")["transformer.prefix_encoder.embedding.weight"], prefix
    )
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["peft_type"] == "PREFIX_TUNING" and config["pre_seq_len"] == 5
