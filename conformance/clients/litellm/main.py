"""LiteLLM as a client: its providers `sagemaker/` and `sagemaker_chat/`, told the URL of each operation."""

import asyncio
import os
from collections.abc import Iterable
from typing import Any

import litellm

from report import check, equal, failure, required, run

MESSAGES = [{"role": "user", "content": "count, please:"}]
WORDS = " one two three four five six seven eight nine ten"


def asked(provider: str, *, stream: bool = False, **members: Any) -> dict[str, Any]:
    """LiteLLM does not know AWS_ENDPOINT_URL: it takes the whole URL of an invocation."""
    endpoint = required("CONFORMANCE_TEXT_ENDPOINT")
    operation = "invocations-response-stream" if stream else "invocations"
    return {
        "model": f"{provider}/{endpoint}",
        "sagemaker_base_url": f"{os.environ['AWS_ENDPOINT_URL']}/endpoints/{endpoint}/{operation}",
        "aws_region_name": os.environ["AWS_REGION"],
        "num_retries": 0,
        **({"stream": True} if stream else {}),
        **members,
    }


def completed(reply: Any) -> str:
    return reply.choices[0].message.content


def joined(chunks: Iterable[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def complete() -> None:
    reply = litellm.completion(messages=MESSAGES, **asked("sagemaker", return_full_text=False))
    equal(completed(reply), WORDS, "the completion")
    short = asked("sagemaker", return_full_text=False, max_tokens=2)
    equal(completed(litellm.completion(messages=MESSAGES, **short)), " one two", "with max_tokens")


def complete_async() -> None:
    reply = asyncio.run(litellm.acompletion(messages=MESSAGES, **asked("sagemaker", return_full_text=False)))
    equal(completed(reply), WORDS, "the completion")


def stream() -> None:
    chunks = list(litellm.completion(messages=MESSAGES, **asked("sagemaker", stream=True)))
    equal(joined(chunks), WORDS.lstrip(), "the completion, whose first space it strips")
    check(len(chunks) >= len(WORDS.split()), f"{len(chunks)} chunks")

    async def collected() -> list[Any]:
        reply = await litellm.acompletion(messages=MESSAGES, **asked("sagemaker", stream=True))
        return [chunk async for chunk in reply]

    equal(joined(asyncio.run(collected())), WORDS.lstrip(), "the completion, asynchronously")


def chat() -> None:
    reply = litellm.completion(messages=MESSAGES, **asked("sagemaker_chat"))
    equal(completed(reply), WORDS, "the answer")
    equal(reply.usage.total_tokens, 12, "total_tokens")
    asynchronous = asyncio.run(
        litellm.acompletion(messages=MESSAGES, **asked("sagemaker_chat", max_tokens=2))
    )
    equal(completed(asynchronous), " one two", "the answer, asynchronously")


def chat_stream() -> None:
    chunks = list(litellm.completion(messages=MESSAGES, **asked("sagemaker_chat", stream=True)))
    equal(joined(chunks), WORDS, "the answer")
    check(len(chunks) >= len(WORDS.split()), f"{len(chunks)} chunks")


def embed() -> None:
    reply = litellm.embedding(input=["a", "b c"], **asked("sagemaker"))
    equal([each["embedding"] for each in reply.data], [[1, 1], [3, 2]], "the vectors")


def error() -> str:
    """Of `sagemaker/` only a stream's: the release stumbles over its own handling of any other status."""
    failing = [{"role": "user", "content": "fail"}]
    for each in (
        asked("sagemaker_chat"),
        asked("sagemaker_chat", stream=True),
        asked("sagemaker", stream=True),
    ):
        raised = failure(lambda each=each: list(litellm.completion(messages=failing, **each)), Exception)
        check("the prompt was to fail" in str(raised), f"{type(raised).__name__}: {raised}")
    return f"the last is a {type(raised).__name__}"


if __name__ == "__main__":
    run(
        {
            "llm.complete": complete,
            "llm.complete-async": complete_async,
            "llm.stream": stream,
            "llm.chat": chat,
            "llm.chat-stream": chat_stream,
            "llm.embed": embed,
            "llm.error": error,
        }
    )
