// Runs behaviours one after another and prints each outcome as a line of JSON.

export class Skipped extends Error {}

export function required(name) {
  const value = process.env[name];
  if (!value) throw new Skipped(`${name} is not set`);
  return value;
}

export function equal(actual, expected, what) {
  if (actual !== expected) {
    throw new Error(`${what}: ${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`);
  }
}

export function check(condition, what) {
  if (!condition) throw new Error(what);
}

/** The error that a call fails with, of a class or a name. */
export async function failure(promise, expected) {
  let reply;
  try {
    reply = await promise;
  } catch (error) {
    const matches = typeof expected === "string" ? error.name === expected : error instanceof expected;
    if (!matches) throw error;
    return error;
  }
  throw new Error(`succeeded, where ${expected.name ?? expected} was expected: ${JSON.stringify(reply.$metadata)}`);
}

export async function run(behaviours) {
  for (const [behaviour, test] of Object.entries(behaviours)) {
    let outcome = "passed";
    let detail = "";
    try {
      detail = (await test()) ?? "";
    } catch (error) {
      outcome = error instanceof Skipped ? "skipped" : "failed";
      detail = error instanceof Skipped ? error.message : `${error.name}: ${error.message}`;
      if (outcome === "failed") console.error(`${behaviour}:`, error);
    }
    console.log(JSON.stringify({ behaviour, outcome, detail }));
  }
}
