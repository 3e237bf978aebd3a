"""LlamaIndex as a client: `SageMakerLLM` with its own content handler and its own prompt templates.

The package imports llama-cpp-python by way of those templates and never calls it, so an empty module stands in for
that one: it would have to be compiled.
"""

import os
import sys
import types
from typing import Any

from botocore.exceptions import ClientError

from report import check, equal, failure, required, run

sys.modules["llama_cpp"] = types.SimpleNamespace(Llama=object)  # type: ignore[assignment]

from llama_index.core.llms import ChatMessage  # noqa: E402 - after the stand-in
from llama_index.llms.sagemaker_endpoint import SageMakerLLM  # noqa: E402

PROMPT = "count, please:"
WORDS = " one two three four five six seven eight nine ten"


def model(**members: Any) -> SageMakerLLM:
    return SageMakerLLM(
        endpoint_name=required("CONFORMANCE_TEXT_ENDPOINT"),
        aws_region_name=os.environ["AWS_REGION"],
        **members,
    )


def complete() -> None:
    equal(model().complete(PROMPT).text, WORDS, "the completion")
    short = model(model_kwargs={"max_new_tokens": 2}, endpoint_kwargs={"CustomAttributes": "a=1"})
    equal(short.complete(PROMPT).text, " one two", "with model_kwargs and endpoint_kwargs")


def stream() -> None:
    said = list(model().stream_complete(PROMPT))
    equal(said[-1].text, WORDS, "the completion")
    equal("".join(each.delta for each in said), WORDS, "the deltas")


def chat() -> None:
    messages = [ChatMessage(role="system", content="You count."), ChatMessage(role="user", content=PROMPT)]
    equal(model().chat(messages).message.content, WORDS, "the answer")


def chat_stream() -> None:
    messages = [ChatMessage(role="user", content=PROMPT)]
    equal(list(model().stream_chat(messages))[-1].message.content, WORDS, "the answer")


def error() -> None:
    raised = failure(lambda: model(max_retries=0).complete("fail"), ClientError)
    equal(raised.response["Error"]["Code"], "ModelError", "the code")
    check("the prompt was to fail" in str(raised), raised)


if __name__ == "__main__":
    run(
        {
            "llm.complete": complete,
            "llm.stream": stream,
            "llm.chat": chat,
            "llm.chat-stream": chat_stream,
            "llm.error": error,
        }
    )
