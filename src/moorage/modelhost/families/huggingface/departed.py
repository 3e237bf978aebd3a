"""Tasks that transformers had until its version 5, as the images of that time answered them."""

from collections.abc import Callable
from typing import Any, Final

_KEYS: Final = {
    "text2text-generation": "generated_text",
    "summarization": "summary_text",
    "translation": "translation_text",
}
_LONGEST_ANSWER = 15  # tokens


def pipeline(task: str, model_dir: str, device: str) -> Callable[..., Any] | None:
    """None for a task that never was one."""
    if task == "question-answering":
        return _QuestionAnswering(model_dir, device)
    key = _KEYS.get("translation" if task.startswith("translation_") else task)
    return _TextToText(model_dir, device, key) if key else None


class _TextToText:
    def __init__(self, model_dir: str, device: str, key: str) -> None:
        import transformers

        self._tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
        self._model = transformers.AutoModelForSeq2SeqLM.from_pretrained(model_dir).to(device).eval()
        self._key = key

    def __call__(self, inputs: str | list[str], **parameters: Any) -> list[dict[str, str]]:
        import torch

        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        tokens = self._tokenizer(texts, return_tensors="pt", padding=len(texts) > 1, truncation=True)
        tokens.pop("token_type_ids", None)  # which these models do not take
        with torch.no_grad():
            made = self._model.generate(**tokens.to(self._model.device), **parameters)
        return [{self._key: text} for text in self._tokenizer.batch_decode(made, skip_special_tokens=True)]


class _QuestionAnswering:
    def __init__(self, model_dir: str, device: str) -> None:
        import transformers

        self._tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
        self._model = transformers.AutoModelForQuestionAnswering.from_pretrained(model_dir).to(device).eval()

    def __call__(self, inputs: dict[str, str] | list[dict[str, str]], top_k: int = 1, **_: Any) -> Any:
        if isinstance(inputs, list):
            return [self(each, top_k=top_k) for each in inputs]
        answers = self._answers(inputs["question"], inputs["context"])[:top_k]
        return answers[0] if top_k == 1 else answers

    def _answers(self, question: str, context: str) -> list[dict[str, Any]]:
        """Spans of the context, the likeliest first."""
        import torch

        tokens = self._tokenizer(
            question, context, return_tensors="pt", truncation="only_second", return_offsets_mapping=True
        )
        offsets = tokens.pop("offset_mapping")[0].tolist()
        of_context = torch.tensor([part == 1 for part in tokens.sequence_ids(0)], device=self._model.device)
        with torch.no_grad():
            made = self._model(**tokens.to(self._model.device))
        starts, ends = (
            logits[0].masked_fill(~of_context, float("-inf")).softmax(0)
            for logits in (made.start_logits, made.end_logits)
        )
        scores = torch.triu(torch.outer(starts, ends)).tril(_LONGEST_ANSWER - 1)
        best = scores.flatten().topk(min(20, scores.numel()))
        found = []
        for score, position in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            first, last = divmod(position, scores.shape[1])
            begin, end = offsets[first][0], offsets[last][1]
            found.append({"score": score, "start": begin, "end": end, "answer": context[begin:end]})
        return found
