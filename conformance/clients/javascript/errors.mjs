// What holds for the errors of every operation. `call` takes members and a client.

import { check, equal, failure, required } from "./report.mjs";
import { MISSING, counts, fail, failing, once, stranger } from "./target.mjs";

/** An error that the gateway shows on demand arrives as its class. */
export const typed = (call, name, type, status) => async () => {
  await fail(name, 1);
  const error = await failure(call({}, failing({ maxAttempts: 1 })), type);
  equal(error.name, name, "name");
  equal(error.$metadata.httpStatusCode, status, "status");
  check(error.message, "the error has no message");
};

export const retries = (call, ...names) => async () => {
  for (const name of names) {
    await fail(name, 2);
    const reply = await call({}, failing());
    equal((await counts()).attempts, 3, `attempts at ${name}`);
    equal(reply.$metadata.attempts, 3, "$metadata.attempts");
  }
};

export const missing = (call, type) => async () => {
  const error = await failure(call({ EndpointName: MISSING }, once), type);
  equal(error.$metadata.httpStatusCode, 400, "status");
  check(/^Endpoint no-such-endpoint of account \d{12} not found\.$/.test(error.message), error.message);
};

export const wrongSecret = (call) => async () => {
  const error = await failure(call({}, stranger(true)), "InvalidSignatureException");
  equal(error.$metadata.httpStatusCode, 403, "status");
};

export const unknownKey = (call) => async () => {
  const error = await failure(call({}, stranger(false)), "UnrecognizedClientException");
  equal(error.$metadata.httpStatusCode, 403, "status");
};

/** `use` calls once with the client; an odd turn may be one that fails. */
export const connectionReuse = (use) => async () => {
  required("CONFORMANCE_FAILING_URL");
  const client = failing();
  const before = (await counts()).connections;
  for (let turn = 0; turn < 20; turn += 1) await use(client, turn);
  equal((await counts()).connections - before, 1, "connections");
};
