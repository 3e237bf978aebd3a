"""Makes a tiny model with random weights, as save_pretrained writes it, for each of several tasks.

Usage: python make_model.py DIRECTORY [TASK ...]

Each DIRECTORY/TASK holds what belongs into the root of a model.tar.gz for a Hugging Face image. Nothing is
downloaded. Needs torch and transformers (and Pillow for images).
"""

import sys
from pathlib import Path
from typing import Any

import transformers

import torch

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "boats",
    "sail",
    "sink",
    "far",
    "the",
    "where",
    "do",
    "they",
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
BERT = {
    "text-classification": "BertForSequenceClassification",
    "token-classification": "BertForTokenClassification",
    "question-answering": "BertForQuestionAnswering",
    "fill-mask": "BertForMaskedLM",
    "feature-extraction": "BertModel",
}
TASKS = (*BERT, "text-generation", "text2text-generation", "image-classification")


def make(task: str, folder: Path) -> None:
    torch.manual_seed(7)
    folder.mkdir(parents=True)
    if task == "image-classification":
        config = transformers.ViTConfig(**SIZES, image_size=32, patch_size=16, num_labels=3)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
        return
    tokenizer(folder).save_pretrained(folder)
    model(task).eval().save_pretrained(folder)


def tokenizer(folder: Path) -> Any:
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    return transformers.BertTokenizer(str(vocabulary))


def model(task: str) -> Any:
    if task == "text-generation":
        config = transformers.GPT2Config(
            vocab_size=len(WORDS),
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=2,
            eos_token_id=3,
            pad_token_id=0,
        )
        return transformers.GPT2LMHeadModel(config)
    if task == "text2text-generation":
        t5 = transformers.T5Config(
            vocab_size=len(WORDS), d_model=32, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
        )
        return transformers.T5ForConditionalGeneration(t5)
    bert = transformers.BertConfig(vocab_size=len(WORDS), **SIZES)
    return getattr(transformers, BERT[task])(bert)


if __name__ == "__main__":
    for name in sys.argv[2:] or TASKS:
        make(name, Path(sys.argv[1], name))
