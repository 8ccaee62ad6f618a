"""Tiny random models in the files of the published ones: same keys, same shards, same tokenizers and configs."""

import json
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

DATA = Path(__file__).parent / "data"
# Named, because a vocabulary's size must exceed the number of different characters in its texts.
TRAINING_TEXTS = [DATA / "benign.txt", DATA / "red_flags.txt"]
SIZES = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
}  # fmt: skip
BAICHUAN = {
    **SIZES, "architectures": ["BaiChuanForCausalLM"], "model_type": "baichuan", "hidden_act": "silu",
    "auto_map": {"AutoConfig": "configuration_baichuan.BaiChuanConfig", "AutoModelForCausalLM": "modeling_baichuan.X"},
    "tokenizer_class": "BaiChuanTokenizer", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "tie_word_embeddings": False, "torch_dtype": "float32", "use_cache": True, "_name_or_path": "./",
}  # fmt: skip
CHATGLM = {
    "_name_or_path": "THUDM/chatglm-6b", "architectures": ["ChatGLMModel"], "model_type": "chatglm", "num_layers": 2,
    "auto_map": {"AutoConfig": "configuration_chatglm.ChatGLMConfig", "AutoModel": "modeling_chatglm.X"},
    "hidden_size": 64, "inner_hidden_size": 128, "num_attention_heads": 4, "layernorm_epsilon": 1e-5,
    "vocab_size": 600, "max_sequence_length": 128, "position_encoding_2d": True, "bos_token_id": 504,
    "eos_token_id": 505, "pad_token_id": 3, "mask_token_id": 500, "gmask_token_id": 501, "torch_dtype": "float16",
}  # fmt: skip
LORA = {
    "base_model_name_or_path": "decapoda-research/llama-7b-hf", "bias": "none", "enable_lora": None,
    "fan_in_fan_out": False, "inference_mode": True, "lora_alpha": 16, "lora_dropout": 0.05, "merge_weights": False,
    "modules_to_save": None, "peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}  # fmt: skip


def write_folder(
    folder, tensors, config, *, shards=2, name="config.json", stem="pytorch_model", legacy=False
):
    """A folder with config and .bin files as torch.save and save_pretrained write them. Returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / name).write_text(
            json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8"
        )
    names = list(tensors)
    if shards == 1:
        torch.save(dict(tensors), folder / f"{stem}.bin", _use_new_zipfile_serialization=not legacy)
        return folder
    size = -(-len(names) // shards)
    table = {}
    for number in range(shards):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.bin"
        part = names[number * size : (number + 1) * size]
        torch.save(
            {one: tensors[one] for one in part},
            folder / file,
            _use_new_zipfile_serialization=not legacy,
        )
        table |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 13744473856}, "weight_map": table}
    (folder / f"{stem}.bin.index.json").write_text(json.dumps(index))
    return folder


def random_llama(seed=0, **changes):
    """(model in float32, its tensors, its config as a dict)."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{**SIZES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **changes}
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() > 1:
                tensor.normal_(0, 0.15)
            else:
                tensor.uniform_(0.5, 1.5)
    table = {
        **json.loads(config.to_json_string()),
        "architectures": ["LlamaForCausalLM"],
        "torch_dtype": "float32",
    }
    return model, {name: tensor.clone() for name, tensor in model.state_dict().items()}, table


def inv_freq(dim, dtype=torch.float32):
    return (1.0 / 10000 ** (torch.arange(0, dim, 2).float() / dim)).to(dtype)


def as_baichuan(tensors):
    """A LLaMA's tensors in Baichuan-7B's keys."""
    packed = {}
    for name, tensor in tensors.items():
        if "q_proj" in name:
            rows = [tensors[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            packed[name.replace("q_proj", "W_pack")] = torch.cat(rows)
            packed[name.replace("q_proj.weight", "rotary_emb.inv_freq")] = inv_freq(16)
        elif "k_proj" not in name and "v_proj" not in name:
            packed[name] = tensor
    return packed


def random_chatglm(seed=0, vocab=600, dtype=torch.float16):
    """ChatGLM-6B's tensors: half but for the norms, the head as it is stored, inverse frequencies."""
    torch.manual_seed(seed)
    words = (torch.randn(vocab, 64) * 0.1).to(dtype)
    tensors = {"transformer.word_embeddings.weight": words}

    def linear(name, rows, columns):
        tensors[f"{name}.weight"] = (torch.randn(rows, columns) * 0.1).to(dtype)
        tensors[f"{name}.bias"] = (torch.randn(rows) * 0.05).to(dtype)

    def norm(name):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = (
            1 + 0.1 * torch.randn(64),
            0.1 * torch.randn(64),
        )

    for layer in range(2):
        at = f"transformer.layers.{layer}."
        norm(f"{at}input_layernorm")
        tensors[f"{at}attention.rotary_emb.inv_freq"] = inv_freq(8, torch.float16)
        linear(f"{at}attention.query_key_value", 192, 64)
        linear(f"{at}attention.dense", 64, 64)
        norm(f"{at}post_attention_layernorm")
        linear(f"{at}mlp.dense_h_to_4h", 128, 64)
        linear(f"{at}mlp.dense_4h_to_h", 64, 128)
    norm("transformer.final_layernorm")
    tensors["lm_head.weight"] = words.clone()
    return tensors


def random_lora(layers=2, hidden=64, rank=8, seed=3):
    """BenTsao's tensors: A and B of q_proj and v_proj."""
    torch.manual_seed(seed)
    made = {}
    for layer in range(layers):
        for module in ("q_proj", "v_proj"):
            at = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            made[f"{at}.lora_A.weight"] = torch.randn(rank, hidden) * 0.1
            made[f"{at}.lora_B.weight"] = torch.randn(hidden, rank) * 0.1
    return made


def train_words(path: Path, *, size=1600, prefix=True, byte_fallback=True):
    """A SentencePiece model of pairs, trained on the tests' texts, as Baichuan's and LLaMA's are."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=",".join(map(str, TRAINING_TEXTS)), model_prefix=str(path.with_suffix("")), vocab_size=size, model_type="bpe",
        byte_fallback=byte_fallback, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=prefix, character_coverage=0.98, split_digits=True, minloglevel=2,
        allow_whitespace_only_pieces=True, num_threads=1,
    )  # fmt: skip
    return path
