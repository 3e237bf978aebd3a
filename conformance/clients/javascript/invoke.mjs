// InvokeEndpoint.

import { createReadStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";

import {
  InternalDependencyException,
  InternalFailure,
  ModelError,
  ModelNotReadyException,
  SageMakerRuntimeClient,
  ServiceUnavailable,
  ValidationError,
} from "@aws-sdk/client-sagemaker-runtime";

import { connectionReuse, missing, retries, typed, unknownKey, wrongSecret } from "./errors.mjs";
import { check, equal, failure } from "./report.mjs";
import { RAW, bytes, endpoint, invoke as call, order, seen, sha256, text, unique } from "./target.mjs";

const MIB = 1024 * 1024;
const VISIBLE = Array.from({ length: 1024 }, (_, index) => String.fromCharCode(0x21 + (index % 94))).join("");

async function roundTrip(body) {
  const reply = await call({ Body: body, Accept: RAW });
  equal(sha256(reply.Body), sha256(body), "the body's hash");
}

export const invoke = {
  "invoke.members-in": async () => {
    const saw = await seen({
      Body: "x",
      ContentType: "text/csv; charset=utf-8",
      Accept: "application/json, */*;q=0.1",
      CustomAttributes: "a=1; b='two', c~",
      InferenceId: "an id (with spaces)",
      SessionId: "session-1",
      PrefixAwareId: "prefix",
      TargetVariant: "Other",
    });
    equal(saw.headers["content-type"], "text/csv; charset=utf-8", "ContentType");
    equal(saw.headers.accept, "application/json, */*;q=0.1", "Accept");
    equal(saw.headers["x-amzn-sagemaker-custom-attributes"], "a=1; b='two', c~", "CustomAttributes");
    equal(saw.headers["x-amzn-sagemaker-inference-id"], "an id (with spaces)", "InferenceId");
    equal(saw.headers["x-amzn-sagemaker-session-id"], "session-1", "SessionId");
    equal(saw.length, 1, "length");
    return "ContentType is application/octet-stream where none is given";
  },
  "invoke.members-out": async () => {
    const headers = {
      "X-Amzn-SageMaker-Custom-Attributes": "trace=1; b",
      "X-Amzn-SageMaker-New-Session-Id": "s-1; Expires=2030-01-02T03:04:05Z",
      "X-Amzn-SageMaker-Closed-Session-Id": "s-0",
    };
    const reply = await call(order({ body: "done", content_type: "text/x; charset=utf-8", headers }));
    equal(reply.$metadata.httpStatusCode, 200, "status");
    equal(text(reply), "done", "Body");
    equal(reply.ContentType, "text/x; charset=utf-8", "ContentType");
    equal(reply.InvokedProductionVariant, "Main", "InvokedProductionVariant");
    equal(reply.CustomAttributes, "trace=1; b", "CustomAttributes");
    equal(reply.NewSessionId, "s-1; Expires=2030-01-02T03:04:05Z", "NewSessionId");
    equal(reply.ClosedSessionId, "s-0", "ClosedSessionId");
  },
  "invoke.request-id": async () => {
    check((await call({})).$metadata.requestId, "the reply has no request id");
    const error = await failure(call(order({ status: 400 })), ModelError);
    check(error.$metadata.requestId, "the error has no request id");
  },
  "invoke.body-empty": async () => {
    const reply = await call({ Body: new Uint8Array(), Accept: RAW });
    equal(reply.Body?.length ?? 0, 0, "length");
    return `the SDK gives an empty Body as ${reply.Body}`;
  },
  "invoke.body-binary": () => roundTrip(bytes(65536)),
  "invoke.body-large": () => roundTrip(bytes(5_000_000)),
  "invoke.body-too-large": async () => {
    const error = await failure(call({ Body: new Uint8Array(6 * MIB + 1) }), "RequestEntityTooLargeException");
    equal(error.$metadata.httpStatusCode, 413, "status");
  },
  "invoke.body-stream": async () => {
    const body = bytes(1_000_000);
    const directory = mkdtempSync(join(tmpdir(), "conformance-"));
    try {
      writeFileSync(join(directory, "body"), body);
      const reply = await call({ Body: createReadStream(join(directory, "body")), Accept: RAW });
      equal(sha256(reply.Body), sha256(body), "the body's hash");
    } finally {
      rmSync(directory, { recursive: true });
    }
    return "the SDK signs it as UNSIGNED-PAYLOAD";
  },
  "invoke.body-stream-unknown-length": async () => {
    const body = bytes(1_000_000);
    const reply = await call({ Body: Readable.from([body.subarray(0, 1000), body.subarray(1000)]), Accept: RAW });
    equal(sha256(reply.Body), sha256(body), "the body's hash");
    return "the SDK signs it as UNSIGNED-PAYLOAD";
  },
  "invoke.custom-attributes": async () => {
    const saw = await seen({ CustomAttributes: VISIBLE });
    equal(saw.headers["x-amzn-sagemaker-custom-attributes"], VISIBLE, "CustomAttributes");
    const error = await failure(call({ CustomAttributes: `${VISIBLE}x` }), ValidationError);
    check(error.message.includes("less than or equal to 1024"), error.message);
    const beyond = await failure(call({ CustomAttributes: "naïve" }), Error);
    const unsendable = await failure(call({ CustomAttributes: "\u2603" }), Error);
    return `"naïve": ${beyond.name}; a snowman: ${unsendable.name}`;
  },
  "invoke.target-variant": async () => {
    equal((await call({})).InvokedProductionVariant, "Main", "without TargetVariant");
    equal((await call({ TargetVariant: "Other" })).InvokedProductionVariant, "Other", "with TargetVariant");
    await failure(call({ TargetVariant: "Third" }), ValidationError);
  },
  "invoke.not-supported": async () => {
    const asked = {
      TargetModel: "one.tar.gz",
      InferenceComponentName: "component",
      TargetContainerHostname: "second",
      EnableExplanations: "`true`",
    };
    for (const [member, value] of Object.entries(asked)) await failure(call({ [member]: value }), ValidationError);
  },
  "invoke.validation-error": missing(call, ValidationError),
  "invoke.model-error": async () => {
    for (const status of [400, 503]) {
      const error = await failure(call(order({ status, body: "the model's words" })), ModelError);
      equal(error.$metadata.httpStatusCode, 424, "status");
      equal(error.OriginalStatusCode, status, "OriginalStatusCode");
      equal(error.OriginalMessage, "the model's words", "OriginalMessage");
      check(error.LogStreamArn.endsWith(`:log-group:/aws/sagemaker/Endpoints/${endpoint()}`), error.LogStreamArn);
      check(error.message.includes(`(${status}) from`), error.message);
    }
  },
  "invoke.model-not-ready": typed(call, "ModelNotReadyException", ModelNotReadyException, 429),
  "invoke.internal-failure": typed(call, "InternalFailure", InternalFailure, 500),
  "invoke.service-unavailable": typed(call, "ServiceUnavailable", ServiceUnavailable, 503),
  "invoke.internal-dependency": typed(call, "InternalDependencyException", InternalDependencyException, 530),
  "invoke.retries": retries(call, "ServiceUnavailable", "InternalFailure"),
  "invoke.no-retries": async () => {
    const name = unique();
    await failure(call(order({ count: name, status: 500 })), ModelError);
    equal(text(await call(order({ counted: name }))), "1", "attempts");
  },
  "invoke.client-timeout": async () => {
    const client = new SageMakerRuntimeClient({
      maxAttempts: 1,
      requestHandler: { requestTimeout: 500, throwOnRequestTimeout: true },
    });
    await failure(call(order({ hang: true }), client), "TimeoutError");
    equal(text(await call(order({ body: "next" }), client)), "next", "the next call");
  },
  "invoke.connection-reuse": connectionReuse(async (client, turn) => {
    if (turn % 2) await failure(call(order({ status: 400 }), client), ModelError);
    else await call({}, client);
  }),
  "invoke.concurrent": async () => {
    const replies = await Promise.all(
      Array.from({ length: 32 }, (_, index) => call({ Body: `body ${index}`, Accept: RAW })),
    );
    replies.forEach((reply, index) => equal(text(reply), `body ${index}`, "Body"));
  },
  "invoke.wrong-secret": wrongSecret(call),
  "invoke.unknown-key": unknownKey(call),
  "invoke.close": async () => {
    const client = new SageMakerRuntimeClient({});
    await call({}, client);
    client.destroy();
  },
};
