"""Question answering: the span of a text that answers a question. transformers has no such pipeline since version 5.

Parameters have the names and defaults that they have in the pipeline of transformers 4.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_LEFT_OUT = -10000.0
"""A logit whose probability is 0."""


class Span(NamedTuple):
    score: float
    start: int
    end: int
    answer: str


class Limits(NamedTuple):
    top_k: int = 1
    doc_stride: int = 128
    max_answer_len: int = 15
    max_seq_len: int = 384
    max_question_len: int = 64
    handle_impossible_answer: bool = False
    align_to_words: bool = True


def create(
    torch: Any, transformers: Any, task: str, *, model: str, device: int, trust_remote_code: bool
) -> "QuestionAnswering":
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise ValueError("question answering needs a fast tokenizer, tokenizer.json")
    network = transformers.AutoModelForQuestionAnswering.from_pretrained(
        model, trust_remote_code=trust_remote_code
    )
    return QuestionAnswering(
        torch, network.to(torch.device(device if device >= 0 else "cpu")).eval(), tokenizer
    )


class QuestionAnswering:
    def __init__(self, torch: Any, network: Any, tokenizer: Any) -> None:
        self._torch = torch
        self._network = network
        self._tokenizer = tokenizer

    def __call__(self, inputs: Any = None, **parameters: Any) -> Any:
        """Of an object with `question` and `context` an answer, or `top_k` of them; of a list a list."""
        if inputs is None:
            inputs = {name: parameters.pop(name) for name in ("question", "context") if name in parameters}
        limits = _limits(parameters)
        if isinstance(inputs, Mapping):
            return self._answer(inputs, limits)
        if not isinstance(inputs, list) or not all(isinstance(each, Mapping) for each in inputs):
            raise ValueError("inputs must be an object with question and context, or a list of such objects")
        answers = [self._answer(each, limits) for each in inputs]
        return answers[0] if len(answers) == 1 else answers

    def _answer(self, asked: Mapping[str, Any], limits: Limits) -> Any:
        question, context = (_text(asked, name) for name in ("question", "context"))
        spans: list[Span] = []
        null_score = 1.0
        for window in self._windows(question, context, limits):
            found, score_of_none = self._spans(window, context, limits)
            spans.extend(found)
            null_score = min(null_score, score_of_none)
        if limits.handle_impossible_answer:
            spans.append(Span(null_score, 0, 0, ""))
        best = _merged(spans, limits.top_k)
        answers = [span._asdict() for span in best]
        return answers[0] if len(answers) == 1 else answers

    def _windows(self, question: str, context: str, limits: Limits) -> Iterator[Any]:
        """The context in parts that the model can read, each after the question, which overlap."""
        question_ids = self._tokenizer(question, add_special_tokens=False)["input_ids"]
        if len(question_ids) > limits.max_question_len:
            question_ids = question_ids[: limits.max_question_len]
            question = self._tokenizer.decode(question_ids)
        length = min(self._tokenizer.model_max_length, limits.max_seq_len)
        room = length - len(question_ids) - self._tokenizer.num_special_tokens_to_add(pair=True)
        if room < 1:
            raise ValueError(
                f"a question of {len(question_ids)} tokens leaves no room for the context among {length}: ask a "
                "shorter one, or set max_question_len"
            )
        pair = (question, context) if self._question_first else (context, question)
        read = self._tokenizer(
            *pair,
            truncation="only_second" if self._question_first else "only_first",
            max_length=length,
            stride=min(limits.doc_stride, room // 2),
            return_overflowing_tokens=True,
        )
        yield from read.encodings

    @property
    def _question_first(self) -> bool:
        return bool(self._tokenizer.padding_side == "right")

    def _spans(self, window: Any, context: str, limits: Limits) -> tuple[list[Span], float]:
        """The best of one window, and the score of there being none."""
        import numpy as np

        of_context = 1 if self._question_first else 0
        allowed = np.array([each == of_context for each in window.sequence_ids])
        beginning = self._beginning(window)
        if beginning is not None:
            allowed[beginning] = True
        starts, ends = (_softmax(np.where(allowed, logits, _LEFT_OUT)) for logits in self._logits(window))
        score_of_none = 0.0
        if beginning is not None:
            score_of_none = float(starts[beginning] * ends[beginning])
            starts[beginning] = ends[beginning] = 0.0
        # scores[i, j] is that of the span from token i to token j, of max_answer_len tokens at most.
        scores = np.tril(np.triu(np.outer(starts, ends)), limits.max_answer_len - 1)
        best = np.argsort(-scores, axis=None)[: limits.top_k]
        spans = []
        for first, last in zip(*np.unravel_index(best, scores.shape), strict=True):
            if window.sequence_ids[first] != of_context or window.sequence_ids[last] != of_context:
                continue
            start, end = window.offsets[first][0], window.offsets[last][1]
            if limits.align_to_words:
                start, end = _whole_words(window, int(first), int(last), of_context)
            spans.append(Span(float(scores[first, last]), start, end, context[start:end]))
        return spans, score_of_none

    def _beginning(self, window: Any) -> int | None:
        """The place of the token whose span means that there is no answer."""
        cls = self._tokenizer.cls_token_id
        return window.ids.index(cls) if cls is not None and cls in window.ids else None

    def _logits(self, window: Any) -> Sequence[Any]:
        fields = {
            "input_ids": window.ids,
            "attention_mask": window.attention_mask,
            "token_type_ids": window.type_ids,
        }
        taken = {name: fields[name] for name in self._tokenizer.model_input_names if name in fields}
        with self._torch.no_grad():
            output = self._network(
                **{
                    name: self._torch.tensor([each], device=self._network.device)
                    for name, each in taken.items()
                }
            )
        return [each[0].float().cpu().numpy() for each in (output.start_logits, output.end_logits)]


def _limits(parameters: Mapping[str, Any]) -> Limits:
    unknown = sorted(parameters.keys() - set(Limits._fields) - {"topk", "padding"})
    if unknown:
        raise ValueError(
            f"question answering has no parameter {', '.join(unknown)}: it has {', '.join(Limits._fields)}"
        )
    given = {name: each for name, each in parameters.items() if name in Limits._fields}
    if "topk" in parameters:
        given.setdefault("top_k", parameters["topk"])
    limits = Limits(**given)
    if limits.top_k < 1 or limits.max_answer_len < 1:
        raise ValueError("top_k and max_answer_len must be at least 1")
    return limits


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"an input needs a {name}, which is a text that is not empty: {json.dumps(value)}")
    return value


def _softmax(logits: Any) -> Any:
    import numpy as np

    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _whole_words(window: Any, first: int, last: int, sequence: int) -> tuple[int, int]:
    """The characters from the beginning of the first token's word to the end of the last one's."""
    words = window.word_ids[first], window.word_ids[last]
    if None in words:
        return window.offsets[first][0], window.offsets[last][1]
    return window.word_to_chars(words[0], sequence)[0], window.word_to_chars(words[1], sequence)[1]


def _merged(spans: Sequence[Span], count: int) -> list[Span]:
    """The best, where windows that overlap, and tokens of one word, have found the same answer together."""
    found: dict[tuple[int, int], Span] = {}
    for span in sorted(spans, key=lambda each: -each.score):
        known = found.get(span[1:3])
        found[span[1:3]] = span if known is None else known._replace(score=max(known.score, span.score))
    return list(found.values())[:count]
