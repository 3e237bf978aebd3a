"""Text from text, by models with an encoder and a decoder: summaries, translations and others.

transformers has no such pipelines since version 5. Parameters are those of `generate`, and a few of the pipelines.
"""

from typing import Any, Final

_KEYS: Final = {"summarization": "summary_text", "translation": "translation_text"}


def create(
    torch: Any, transformers: Any, task: str, *, model: str, device: int, trust_remote_code: bool
) -> "TextToText":
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    network = transformers.AutoModelForSeq2SeqLM.from_pretrained(model, trust_remote_code=trust_remote_code)
    return TextToText(
        torch, task, network.to(torch.device(device if device >= 0 else "cpu")).eval(), tokenizer
    )


class TextToText:
    def __init__(self, torch: Any, task: str, network: Any, tokenizer: Any) -> None:
        self._torch = torch
        self._network = network
        self._tokenizer = tokenizer
        self._key = _KEYS.get(task.partition("_")[0], "generated_text")
        self._languages = task.split("_")[1::2] if task.startswith("translation_") else []
        config = network.config
        specific = (getattr(config, "task_specific_params", None) or {}).get(task) or {}
        self._options = {name: each for name, each in specific.items() if name != "prefix"}
        self._prefix = specific.get("prefix") or getattr(config, "prefix", None) or ""

    def __call__(self, inputs: Any, **parameters: Any) -> list[Any]:
        """An object for each text; a list for each where several sequences are asked for."""
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            raise ValueError("inputs must be a text or a list of texts")
        options = {**self._options, **parameters}
        cleans = options.pop("clean_up_tokenization_spaces", False)
        truncates = bool(options.pop("truncation", False))
        languages = {name: options.pop(name) for name in ("src_lang", "tgt_lang") if name in options}
        replies = []
        for text in texts:
            ids = self._generated(self._encoded(self._prefix + text, languages, truncates), options)
            replies.append(
                [
                    {
                        self._key: self._tokenizer.decode(
                            each, skip_special_tokens=True, clean_up_tokenization_spaces=cleans
                        )
                    }
                    for each in ids
                ]
            )
        flat = all(len(each) == 1 for each in replies) or isinstance(inputs, str)
        return [reply for each in replies for reply in each] if flat else replies

    def _encoded(self, text: str, languages: dict[str, str], truncates: bool) -> Any:
        """Tokens as PyTorch tensors; tokenizers of models for many languages want to know which."""
        build = getattr(self._tokenizer, "_build_translation_inputs", None)
        if build is None or self._key != "translation_text":
            return self._tokenizer(text, return_tensors="pt", truncation=truncates)
        source, target = [*self._languages, None, None][:2]
        return build(
            text,
            return_tensors="pt",
            truncation=truncates,
            src_lang=languages.get("src_lang", source),
            tgt_lang=languages.get("tgt_lang", target),
        )

    def _generated(self, encoded: Any, options: dict[str, Any]) -> Any:
        on_device = {
            name: each.to(self._network.device) if hasattr(each, "to") else each
            for name, each in encoded.items()
            if name != "token_type_ids"
        }
        with self._torch.no_grad():
            return self._network.generate(**on_device, **options)
