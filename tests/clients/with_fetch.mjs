// Node's own fetch; over HTTP/2, the fetch of the undici package, which is what Node's is made of.

import { createRequire } from "node:module";
import { everything, pieces, run } from "./plan.mjs";

const undici = createRequire(process.env.NODE_MODULES + "/")("undici");
let dispatcher, ask;
if (run.version === "2") {
  ask = undici.fetch;
  dispatcher = new undici.Agent({ allowH2: true, connections: 1, connect: { ca: run.ca } });
} else {
  // Certificates come from NODE_EXTRA_CA_CERTS.
  ask = fetch;
}

await everything(async ({ method, url, framing, headers, body }) => {
  const chunked = framing === "chunked";
  const answer = await ask(url, {
    method,
    headers,
    // A text: Node 20's fetch cannot send a Buffer again after a redirection.
    body: chunked ? pieces(body) : body?.toString(),
    duplex: chunked ? "half" : undefined,
    dispatcher,
  });
  return { status: answer.status, version: "-", body: Buffer.from(await answer.arrayBuffer()) };
});
await dispatcher?.close();
