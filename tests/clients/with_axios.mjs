// axios, with connections kept alive.

import { createRequire } from "node:module";
import http from "node:http";
import https from "node:https";
import { Readable } from "node:stream";
import { everything, pieces, run } from "./plan.mjs";

const axios = createRequire(process.env.NODE_MODULES + "/")("axios");
const client = axios.create({
  adapter: "http",
  httpAgent: new http.Agent({ keepAlive: true }),
  httpsAgent: new https.Agent({ keepAlive: true, ca: run.ca }),
  responseType: "arraybuffer",
  validateStatus: () => true,
});

await everything(async ({ method, url, framing, headers, body }) => {
  const data = framing === "chunked" ? Readable.from(pieces(body)) : body;
  const more = framing === "expect" ? { Expect: "100-continue" } : {};
  const answer = await client.request({ method, url, data, headers: { ...headers, ...more } });
  const version = answer.request.res?.httpVersion ?? "-";
  return { status: answer.status, version, body: answer.data };
});
client.defaults.httpAgent.destroy();
client.defaults.httpsAgent.destroy();
