// The AWS SDK for JavaScript v3 as a client: every behaviour of ../../behaviours.toml that it can show.

import { asynchronous } from "./asynchronous.mjs";
import { invoke } from "./invoke.mjs";
import { run } from "./report.mjs";
import { storage } from "./storage.mjs";
import { stream } from "./stream.mjs";

await run({ ...invoke, ...stream, ...asynchronous, ...storage });
