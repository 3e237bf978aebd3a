"""LangChain as a client: `SagemakerEndpoint` of langchain-aws, and the embeddings of langchain-community."""

import asyncio
import json
import os
from typing import Any

from botocore.exceptions import ClientError
from langchain_aws.llms.sagemaker_endpoint import LLMContentHandler, SagemakerEndpoint
from langchain_community.embeddings import SagemakerEndpointEmbeddings
from langchain_community.embeddings.sagemaker_endpoint import EmbeddingsContentHandler

from report import check, equal, failure, required, run

PROMPT = "count, please:"
WORDS = " one two three four five six seven eight nine ten"


class Generation(LLMContentHandler):
    """What a user writes for Hugging Face's text generation."""

    content_type = "application/json"
    accepts = "application/json"

    def transform_input(self, prompt: str, model_kwargs: dict[str, Any]) -> bytes:
        parameters = {"return_full_text": False, **model_kwargs}
        stream = parameters.pop("stream", False)
        return json.dumps({"inputs": prompt, "parameters": parameters, "stream": stream}).encode()

    def transform_output(self, output: Any) -> str:
        """Of a whole reply, or of a line of a stream."""
        if not isinstance(output, bytes):
            return json.loads(output.read())[0]["generated_text"]
        return json.loads(output.removeprefix(b"data:"))["token"]["text"] if output else ""


class Vectors(EmbeddingsContentHandler):
    content_type = "application/json"
    accepts = "application/json"

    def transform_input(self, inputs: list[str], model_kwargs: dict[str, Any]) -> bytes:
        return json.dumps({"inputs": inputs, **model_kwargs}).encode()

    def transform_output(self, output: Any) -> list[list[float]]:
        return json.loads(output.read())["embedding"]


def model(**members: Any) -> SagemakerEndpoint:
    return SagemakerEndpoint(
        endpoint_name=required("CONFORMANCE_TEXT_ENDPOINT"),
        region_name=os.environ["AWS_REGION"],
        content_handler=Generation(),
        **members,
    )


def complete() -> None:
    equal(model().invoke(PROMPT), WORDS, "the completion")
    short = model(model_kwargs={"max_new_tokens": 2}, endpoint_kwargs={"CustomAttributes": "a=1"})
    equal(short.invoke(PROMPT), " one two", "with model_kwargs and endpoint_kwargs")
    equal(short.batch([PROMPT] * 4), [" one two"] * 4, "a batch")
    equal(model().invoke(PROMPT, stop=["four"]), " one two three ", "with a stop word")


def complete_async() -> None:
    equal(asyncio.run(model().ainvoke(PROMPT)), WORDS, "the completion")


def stream() -> None:
    streaming = model(streaming=True, model_kwargs={"stream": True})
    words = list(streaming.stream(PROMPT))
    equal([word for word in words if word], [f" {word}" for word in WORDS.split()], "the chunks")


def embed() -> None:
    embeddings = SagemakerEndpointEmbeddings(
        endpoint_name=required("CONFORMANCE_TEXT_ENDPOINT"),
        region_name=os.environ["AWS_REGION"],
        content_handler=Vectors(),
    )
    equal(embeddings.embed_documents(["a", "b c"]), [[1, 1], [3, 2]], "the documents' vectors")
    equal(embeddings.embed_query("four words are here"), [19, 4], "the query's vector")


def error() -> None:
    # It wraps what botocore raised in a ValueError.
    wrapped = failure(lambda: model().invoke("fail"), ValueError, ClientError)
    check("ModelError" in str(wrapped), wrapped)
    check("the prompt was to fail" in str(wrapped), wrapped)


if __name__ == "__main__":
    run(
        {
            "llm.complete": complete,
            "llm.complete-async": complete_async,
            "llm.stream": stream,
            "llm.embed": embed,
            "llm.error": error,
        }
    )
