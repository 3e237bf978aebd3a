// The clients, and what the model and the gateway that fails on demand are asked for.

import { createHash, randomUUID } from "node:crypto";

import {
  InvokeEndpointAsyncCommand,
  InvokeEndpointCommand,
  InvokeEndpointWithResponseStreamCommand,
  SageMakerRuntimeClient,
} from "@aws-sdk/client-sagemaker-runtime";

import { equal, required } from "./report.mjs";

export const ORDER = "application/x-order";
export const RAW = "application/octet-stream";
export const MISSING = "no-such-endpoint";

const runtime = new SageMakerRuntimeClient({});
export const once = new SageMakerRuntimeClient({ maxAttempts: 1 });
const asText = new TextDecoder();

export const endpoint = () => required("CONFORMANCE_ENDPOINT");
export const asyncEndpoint = () => required("CONFORMANCE_ASYNC_ENDPOINT");
export const unique = () => randomUUID();
export const sha256 = (data) => createHash("sha256").update(data).digest("hex");
export const text = (reply) => asText.decode(reply.Body);

/** Every byte value, over and over. */
export const bytes = (length) => Uint8Array.from({ length }, (_, index) => (index * 7 + (index >> 8)) & 0xff);

export const invoke = (members, client = runtime) =>
  client.send(new InvokeEndpointCommand({ EndpointName: endpoint(), Body: "", ...members }));

export const invokeStream = (members, client = runtime, options = {}) =>
  client.send(new InvokeEndpointWithResponseStreamCommand({ EndpointName: endpoint(), Body: "", ...members }), options);

export const invokeAsync = (members, client = runtime) =>
  client.send(new InvokeEndpointAsyncCommand({ EndpointName: asyncEndpoint(), ...members }));

/** The members that tell the model what to do. */
export const order = (what) => ({ ContentType: ORDER, Body: JSON.stringify(what) });

export const seen = async (members) => JSON.parse(text(await invoke(members)));

/** The bytes of a stream; `each` sees every part. */
export async function collect(reply, each = () => {}) {
  const parts = [];
  for await (const event of reply.Body) {
    equal(Object.keys(event).join(), "PayloadPart", "the member of an event");
    parts.push(event.PayloadPart.Bytes);
    await each(asText.decode(event.PayloadPart.Bytes));
  }
  return Buffer.concat(parts);
}

/** A client of the gateway that fails on demand. */
export const failing = (options = {}) =>
  new SageMakerRuntimeClient({ endpoint: required("CONFORMANCE_FAILING_URL"), ...options });

export async function fail(error, times) {
  const control = required("CONFORMANCE_FAILING_CONTROL");
  const reply = await fetch(`${control}/fail?error=${error}&times=${times}`, { method: "POST" });
  equal(reply.status, 200, "the control's status");
  await reply.arrayBuffer();
}

export async function counts() {
  const reply = await fetch(`${required("CONFORMANCE_FAILING_CONTROL")}/counts`);
  return reply.json();
}

export const stranger = (secretOnly) => {
  const accessKeyId = secretOnly ? required("AWS_ACCESS_KEY_ID") : "AKIAAAAAAAAAAAAAAAAA";
  return new SageMakerRuntimeClient({ credentials: { accessKeyId, secretAccessKey: "not-the-secret" } });
};

export { runtime };
