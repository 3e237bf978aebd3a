"""Counts, in the formats that libraries for language models expect of an endpoint.

* `{"inputs": "…", "parameters": {…}}`: Hugging Face's text generation, with `"stream": true` as events of TGI
* `{"messages": […]}`: chat completions of OpenAI, with `"stream": true` as their events
* `{"inputs": ["…", …]}`: embeddings of two dimensions, the characters and the words

The words it says are `one` to `ten`, as many as may be new. A prompt that contains `fail` makes it fail.
"""

import json

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
JSON = "application/json"
EVENTS = "text/event-stream"


def model_fn(model_dir):
    return WORDS


def transform_fn(words, body, content_type, accept):
    asked = json.loads(body)
    if "messages" in asked:
        return _chat(words, asked)
    if isinstance(asked["inputs"], list):
        return _compact({"embedding": [[len(text), len(text.split())] for text in asked["inputs"]]}), JSON
    return _generate(words, asked)


def _generate(words, asked):
    prompt, parameters = asked["inputs"], asked.get("parameters", {})
    said = _said(words, prompt, parameters.get("max_new_tokens"))
    if asked.get("stream"):
        return _token_events(said), EVENTS
    text = "".join(said)
    full = parameters.get("return_full_text", True)
    return _compact([{"generated_text": prompt + text if full else text}]), JSON


def _token_events(said):
    for index, word in enumerate(said, start=1):
        token = {"id": index, "text": word, "logprob": 0.0, "special": False}
        ends = index == len(said)
        yield _event({"index": index, "token": token, "generated_text": "".join(said) if ends else None})


def _chat(words, asked):
    contents = [message["content"] for message in asked["messages"]]
    said = _said(words, contents[-1], asked.get("max_tokens"))
    about = {"id": "chatcmpl-1", "created": 1, "model": asked.get("model", "counter")}
    if asked.get("stream"):
        return _chunk_events(said, {**about, "object": "chat.completion.chunk"}), EVENTS
    prompt_tokens = sum(len(content.split()) for content in contents)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(said)},
        "finish_reason": "stop",
    }
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": len(said),
        "total_tokens": prompt_tokens + len(said),
    }
    return _compact({**about, "object": "chat.completion", "choices": [choice], "usage": usage}), JSON


def _chunk_events(said, about):
    for word in said:
        delta = {"role": "assistant", "content": word}
        yield _event({**about, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _event({**about, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield "data: [DONE]\n\n"


def _said(words, prompt, most):
    if "fail" in prompt:
        raise ValueError("the prompt was to fail")
    return [f" {word}" for word in words[:most]]


def _event(document):
    return f"data: {_compact(document)}\n\n"


def _compact(document):
    return json.dumps(document, separators=(",", ":"))
