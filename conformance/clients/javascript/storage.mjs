// S3: objects, uploads in parts with @aws-sdk/lib-storage, and presigned URLs.

import { Readable } from "node:stream";

import {
  CopyObjectCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  PutObjectCommand,
  S3Client,
  paginateListObjectsV2,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

import { check, equal, failure } from "./report.mjs";
import { bytes, sha256, unique } from "./target.mjs";

const MIB = 1024 * 1024;
const KEYS = ["plain", "with space", "plus+plus", "100%", "percent%20encoded", "ümlaut/ß é", "d=1/it's (a) key&more"];
const s3 = new S3Client({ forcePathStyle: true });

async function newBucket() {
  const Bucket = `clients-${unique()}`;
  await s3.send(new CreateBucketCommand({ Bucket }));
  return Bucket;
}

async function read(members) {
  const reply = await s3.send(new GetObjectCommand(members));
  return reply.Body.transformToByteArray();
}

async function stored(Bucket) {
  const keys = [];
  for await (const page of paginateListObjectsV2({ client: s3, pageSize: 3 }, { Bucket })) {
    keys.push(...(page.Contents ?? []).map((each) => each.Key));
  }
  return keys;
}

async function remove(Bucket) {
  const Objects = (await stored(Bucket)).map((Key) => ({ Key }));
  const reply = await s3.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
  equal(reply.Deleted.length, Objects.length, "the number of deleted objects");
  await s3.send(new DeleteBucketCommand({ Bucket }));
}

function* chunks(data, size) {
  for (let begin = 0; begin < data.length; begin += size) yield data.subarray(begin, begin + size);
}

export const storage = {
  "storage.objects": async () => {
    const Bucket = await newBucket();
    for (const Key of KEYS) {
      const members = { Metadata: { by: "javascript" }, ContentType: "text/x" };
      await s3.send(new PutObjectCommand({ Bucket, Key, Body: Key, Tagging: "a=b", ...members }));
      const head = await s3.send(new HeadObjectCommand({ Bucket, Key }));
      equal(`${head.Metadata.by} ${head.ContentType}`, "javascript text/x", `the metadata of ${Key}`);
      const CopySource = encodeURIComponent(`${Bucket}/${Key}`);
      await s3.send(new CopyObjectCommand({ Bucket, Key: `copy/${Key}`, CopySource }));
      equal(Buffer.from(await read({ Bucket, Key: `copy/${Key}` })).toString(), Key, "the copy");
    }
    const keys = [...KEYS, ...KEYS.map((key) => `copy/${key}`)];
    equal((await stored(Bucket)).sort().join("\n"), keys.sort().join("\n"), "the keys");
    const once = { Bucket, Key: "once", Body: "1", IfNoneMatch: "*" };
    await s3.send(new PutObjectCommand(once));
    const error = await failure(s3.send(new PutObjectCommand(once)), "PreconditionFailed");
    equal(error.$metadata.httpStatusCode, 412, "the status");
    await remove(Bucket);
  },

  "storage.parts": async () => {
    const Bucket = await newBucket();
    const large = bytes(20 * MIB);
    for (const Body of [large, Readable.from(chunks(large, 3 * MIB))]) {
      const upload = new Upload({
        client: s3,
        params: { Bucket, Key: "ü large+1", Body, ContentType: "text/x", Metadata: { by: "lib-storage" } },
        partSize: 5 * MIB,
        queueSize: 3,
      });
      const reply = await upload.done();
      check(reply.ETag.endsWith('-4"'), reply.ETag);
      const head = await s3.send(new HeadObjectCommand({ Bucket, Key: "ü large+1" }));
      equal(`${head.Metadata.by} ${head.ContentType}`, "lib-storage text/x", "the metadata");
      equal(sha256(await read({ Bucket, Key: "ü large+1" })), sha256(large), "the object's hash");
    }
    const Range = "bytes=1000-1999";
    equal(sha256(await read({ Bucket, Key: "ü large+1", Range })), sha256(large.subarray(1000, 2000)), "a range");
    const small = new Upload({ client: s3, params: { Bucket, Key: "small", Body: Readable.from(["sma", "ll"]) } });
    await small.done();
    equal(Buffer.from(await read({ Bucket, Key: "small" })).toString(), "small", "the small one");
    const aborted = new Upload({ client: s3, params: { Bucket, Key: "never", Body: large }, partSize: 5 * MIB });
    const ending = failure(aborted.done(), "AbortError");
    await aborted.abort();
    await ending;
    check(!(await stored(Bucket)).includes("never"), "what was aborted is no object");
    await remove(Bucket);
  },

  "storage.presigned": async () => {
    const Bucket = await newBucket();
    for (const Key of KEYS) {
      const put = await getSignedUrl(s3, new PutObjectCommand({ Bucket, Key, ContentType: "text/x" }), { expiresIn: 60 });
      const sent = await fetch(put, { method: "PUT", body: Key, headers: { "content-type": "text/x" } });
      equal(sent.status, 200, `the status of the upload of ${Key}`);
      const ResponseContentDisposition = 'attachment; filename="a b"';
      const url = await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key, ResponseContentDisposition }));
      const got = await fetch(url);
      equal(await got.text(), Key, "the body");
      equal(got.headers.get("content-disposition"), ResponseContentDisposition, "Content-Disposition");
      equal((await fetch(url.replace(/.(?=&x-id)/, "x"))).status, 403, "the status of another signature");
    }
    await remove(Bucket);
  },
};
