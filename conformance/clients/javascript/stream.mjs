// InvokeEndpointWithResponseStream.

import {
  InternalFailure,
  InternalStreamFailure,
  ModelError,
  ModelStreamError,
  ServiceUnavailable,
  ValidationError,
} from "@aws-sdk/client-sagemaker-runtime";

import { connectionReuse, missing, retries, typed, wrongSecret } from "./errors.mjs";
import { check, equal, failure } from "./report.mjs";
import { RAW, bytes, collect, endpoint, fail, failing, invoke, invokeStream as call, order, sha256 } from "./target.mjs";
import { unique } from "./target.mjs";

const listed = (number) => Array.from({ length: number }, (_, index) => `part-${String(index).padStart(6, "0")}\n`).join("");

async function roundTrip(body) {
  const back = await collect(await call({ Body: body, Accept: RAW }));
  equal(sha256(back), sha256(body), "the body's hash");
}

/** The parts that came before a stream broke, and the error. */
async function broken(reply, type) {
  let before = "";
  const error = await failure(
    collect(reply, (part) => {
      before += part;
    }),
    type,
  );
  equal(before, listed(3), "the parts before");
  check(error.message, "the error has no message");
  return error;
}

export const stream = {
  "stream.members-in": async () => {
    const reply = await call({
      Body: "x",
      ContentType: "text/csv; charset=utf-8",
      Accept: "application/json, */*;q=0.1",
      CustomAttributes: "a=1; b='two', c~",
      InferenceId: "an id (with spaces)",
      SessionId: "session-1",
      PrefixAwareId: "prefix",
      TargetVariant: "Other",
    });
    equal(reply.InvokedProductionVariant, "Other", "TargetVariant");
    const saw = JSON.parse(await collect(reply));
    equal(saw.headers["content-type"], "text/csv; charset=utf-8", "ContentType");
    equal(saw.headers.accept, "application/json, */*;q=0.1", "Accept");
    equal(saw.headers["x-amzn-sagemaker-custom-attributes"], "a=1; b='two', c~", "CustomAttributes");
    equal(saw.headers["x-amzn-sagemaker-inference-id"], "an id (with spaces)", "InferenceId");
    equal(saw.headers["x-amzn-sagemaker-session-id"], "session-1", "SessionId");
    for (const member of ["InferenceComponentName", "TargetContainerHostname"]) {
      await failure(call({ [member]: "other" }), ValidationError);
    }
  },
  "stream.members-out": async () => {
    const headers = { "X-Amzn-SageMaker-Custom-Attributes": "trace=1; b" };
    const reply = await call(order({ parts: 2, content_type: "text/x; charset=utf-8", headers }));
    equal(reply.ContentType, "text/x; charset=utf-8", "ContentType");
    equal(reply.InvokedProductionVariant, "Main", "InvokedProductionVariant");
    equal(reply.CustomAttributes, "trace=1; b", "CustomAttributes");
    check(reply.$metadata.requestId, "no request id");
    equal(String(await collect(reply)), listed(2), "Body");
  },
  "stream.parts": async () => equal(String(await collect(await call(order({ parts: 2000 })))), listed(2000), "Body"),
  "stream.part-at-once": async () => {
    const gate = unique();
    const parts = [];
    await collect(await call(order({ gate })), async (part) => {
      parts.push(part);
      if (parts.length === 1) await invoke(order({ open: gate }));
    });
    equal(parts.join(), "first,second", "parts");
  },
  "stream.body-empty": () => roundTrip(new Uint8Array()),
  "stream.body-binary": () => roundTrip(bytes(65536)),
  "stream.body-large": () => roundTrip(bytes(5_000_000)),
  "stream.validation-error": missing(call, ValidationError),
  "stream.model-error": async () => {
    const error = await failure(call(order({ status: 500, body: "the model's words" })), ModelError);
    equal(error.$metadata.httpStatusCode, 424, "status");
    equal(error.OriginalStatusCode, 500, "OriginalStatusCode");
    equal(error.OriginalMessage, "the model's words", "OriginalMessage");
    check(error.LogStreamArn.endsWith(`:log-group:/aws/sagemaker/Endpoints/${endpoint()}`), error.LogStreamArn);
  },
  "stream.model-stream-error": async () => {
    const error = await broken(await call(order({ parts: 3, break: true })), ModelStreamError);
    equal(error.ErrorCode, "StreamBroken", "ErrorCode");
  },
  "stream.internal-stream-failure": async () => {
    await fail("InternalStreamFailure", 1);
    await broken(await call(order({ parts: 3 }), failing()), InternalStreamFailure);
  },
  "stream.internal-failure": typed(call, "InternalFailure", InternalFailure, 500),
  "stream.service-unavailable": typed(call, "ServiceUnavailable", ServiceUnavailable, 503),
  "stream.retries": retries(async (members, client) => {
    const reply = await call(members, client);
    await collect(reply);
    return reply;
  }, "ServiceUnavailable"),
  "stream.abandoned": async () => {
    const leaving = new AbortController();
    const reply = await call(order({ gate: unique() }), undefined, { abortSignal: leaving.signal });
    for await (const event of reply.Body) {
      equal(Buffer.from(event.PayloadPart.Bytes).toString(), "first", "the first part");
      break;
    }
    leaving.abort();
    equal(String(await collect(await call(order({ parts: 1 })))), listed(1), "the next stream");
  },
  "stream.connection-reuse": connectionReuse(async (client) => {
    await collect(await call(order({ parts: 3 }), client));
  }),
  "stream.wrong-secret": wrongSecret(call),
};
