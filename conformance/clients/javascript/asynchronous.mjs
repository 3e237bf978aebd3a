// InvokeEndpointAsync, and its results in S3.

import { GetObjectCommand, PutObjectCommand, S3Client, waitUntilObjectExists } from "@aws-sdk/client-s3";
import { InternalFailure, ServiceUnavailable, ValidationError } from "@aws-sdk/client-sagemaker-runtime";

import { connectionReuse, missing, retries, typed, wrongSecret } from "./errors.mjs";
import { check, equal, failure, required } from "./report.mjs";
import { RAW, bytes, endpoint, invokeAsync, once, order, sha256, unique } from "./target.mjs";

const s3 = new S3Client({ forcePathStyle: true });
const call = (members, client) => invokeAsync({ Body: "x", ...members }, client);

/** The object at an s3:// URL, once it is there. */
async function object(url) {
  const [, Bucket, Key] = /^s3:\/\/([^/]+)\/(.+)$/.exec(url);
  await waitUntilObjectExists({ client: s3, minDelay: 1, maxDelay: 2, maxWaitTime: 60 }, { Bucket, Key });
  const reply = await s3.send(new GetObjectCommand({ Bucket, Key }));
  return { type: reply.ContentType, body: Buffer.from(await reply.Body.transformToByteArray()) };
}

async function upload(body) {
  const at = { Bucket: required("CONFORMANCE_BUCKET"), Key: `in/${unique()}` };
  await s3.send(new PutObjectCommand({ ...at, Body: body }));
  return `s3://${at.Bucket}/${at.Key}`;
}

export const asynchronous = {
  "async.members-in": async () => {
    const id = unique();
    const reply = await call({
      ContentType: "text/csv; charset=utf-8",
      Accept: "application/json",
      CustomAttributes: "a=1; b='two', c~",
      InferenceId: id,
      RequestTTLSeconds: 600,
      InvocationTimeoutSeconds: 60,
      S3OutputPathExtension: `extension/${id}`,
      Filename: "result.json",
    });
    equal(reply.InferenceId, id, "InferenceId");
    check(reply.OutputLocation.endsWith(`/extension/${id}/result.json`), reply.OutputLocation);
    const { headers, length } = JSON.parse((await object(reply.OutputLocation)).body);
    equal(headers["content-type"], "text/csv; charset=utf-8", "ContentType");
    equal(headers.accept, "application/json", "Accept");
    equal(headers["x-amzn-sagemaker-custom-attributes"], "a=1; b='two', c~", "CustomAttributes");
    equal(headers["x-amzn-sagemaker-inference-id"], id, "InferenceId");
    equal(length, 1, "length");
    for (const wrong of [{ RequestTTLSeconds: 59 }, { InvocationTimeoutSeconds: 3601 }]) {
      await failure(call(wrong), ValidationError);
    }
  },
  "async.result": async () => {
    const reply = await call({ Body: bytes(100_000), Accept: RAW });
    equal(reply.$metadata.httpStatusCode, 202, "status");
    check(reply.$metadata.requestId, "no request id");
    check(reply.InferenceId, "no InferenceId");
    check(/^s3:\/\/.+-error\.out$/.test(reply.FailureLocation), reply.FailureLocation);
    const result = await object(reply.OutputLocation);
    equal(result.type, RAW, "the object's content type");
    equal(sha256(result.body), sha256(bytes(100_000)), "the object's hash");
  },
  "async.input-location": async () => {
    const body = bytes(5_000_000);
    const reply = await invokeAsync({ InputLocation: await upload(body), Accept: RAW });
    equal(sha256((await object(reply.OutputLocation)).body), sha256(body), "the object's hash");
  },
  "async.failure": async () => {
    const reply = await call(order({ status: 500, body: "the model's words" }));
    const { body } = await object(reply.FailureLocation);
    check(body.includes("the model's words"), String(body));
  },
  "async.body-and-location": async () => {
    await failure(call({ InputLocation: "s3://bucket/key" }), ValidationError);
    await failure(invokeAsync({}), ValidationError);
  },
  "async.body-too-large": async () => {
    await failure(call({ Body: new Uint8Array(128_001) }), ValidationError);
  },
  "async.validation-error": async () => {
    await missing(call, ValidationError)();
    await failure(call({ EndpointName: endpoint() }, once), ValidationError);
  },
  "async.internal-failure": typed(call, "InternalFailure", InternalFailure, 500),
  "async.service-unavailable": typed(call, "ServiceUnavailable", ServiceUnavailable, 503),
  "async.retries": retries(call, "ServiceUnavailable"),
  "async.connection-reuse": connectionReuse((client) => call({}, client)),
  "async.wrong-secret": wrongSecret(call),
};
