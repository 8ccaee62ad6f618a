"""A tiny BLOOM with random weights, made once for a test run."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.safetensors, config and tokenizer; 2 layers, some 600 words, no sense."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "bloom")


def make_checkpoint(folder: Path, hidden: int = 64, layers: int = 2, extra_words: int = 0) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

    data = Path(__file__).parent / "data"
    texts = [path.read_text(encoding="utf-8") for path in sorted(data.glob("*.txt"))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    torch.manual_seed(7)
    config = BloomConfig(
        vocab_size=len(fast) + extra_words,
        hidden_size=hidden,
        n_layer=layers,
        n_head=max(2, hidden // 32),
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    BloomForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
