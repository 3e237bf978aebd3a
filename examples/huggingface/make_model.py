"""Makes a tiny model with random weights, as save_pretrained writes it: its answers are nonsense, and soon there.

Usage: python examples/huggingface/make_model.py MODEL_DIR [TASK]    without TASK for text-classification

An image for Hugging Face serves MODEL_DIR without code. The packages needed are torch and transformers, and for
image-classification pillow.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = (
    "the a harbour ship boat sails rests in at is was where when who blue green old quiet night morning wind and "
    "captain anna lives small town . , ? ! ##s ##ed ##ing"
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *WORDS.split()]
CHAT_TEMPLATE = "{% for message in messages %}{{ message.role }} : {{ message.content }} {% endfor %}"
LABELS = {0: "CALM", 1: "ROUGH", 2: "FOG"}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def tokenizer() -> Any:
    """Of whole words of a small vocabulary."""
    vocabulary = {word: number for number, word in enumerate(VOCABULARY)}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        chat_template=CHAT_TEMPLATE,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def bert(kind: Any, **options: Any) -> Any:
    return kind(
        transformers.BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=64, **SMALL, **options)
    )


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=len(VOCABULARY),
            n_positions=64,
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=2,
            eos_token_id=3,
            pad_token_id=0,
        )
    )


def t5() -> Any:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=len(VOCABULARY),
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            pad_token_id=0,
            eos_token_id=3,
            decoder_start_token_id=0,
        )
    )


def vit() -> Any:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=32, patch_size=8, id2label=LABELS, **SMALL)
    )


MODELS: dict[str, Callable[[], Any]] = {
    "text-classification": lambda: bert(transformers.BertForSequenceClassification, id2label=LABELS),
    "token-classification": lambda: bert(transformers.BertForTokenClassification, id2label=LABELS),
    "question-answering": lambda: bert(transformers.BertForQuestionAnswering),
    "fill-mask": lambda: bert(transformers.BertForMaskedLM),
    "feature-extraction": lambda: bert(transformers.BertModel),
    "text-generation": gpt2,
    "text2text-generation": t5,
    "image-classification": vit,
}


def make(model_dir: Path, task: str = "text-classification") -> None:
    torch.manual_seed(0)
    MODELS[task]().save_pretrained(model_dir)
    if task == "image-classification":
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(model_dir)
    else:
        tokenizer().save_pretrained(model_dir)


if __name__ == "__main__":
    make(Path(sys.argv[1]), *sys.argv[2:3])
