// What the Node clients share: reading the plan, writing down the answers.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const PIECE = 1000;

const [url, version, ca, plan, out] = process.argv.slice(2);

function exchange(line) {
  const [name, method, path, framing, together, type, file] = line.split("\t");
  const headers = { "X-Exchange": name };
  if (type !== "-") headers["Content-Type"] = type;
  const body = file === "-" ? undefined : readFileSync(file);
  return { name, method, url: url + path, framing, together, headers, body };
}

export const run = {
  url,
  version,
  ca: ca === "-" ? undefined : readFileSync(ca),
};

/** The body, in pieces. */
export async function* pieces(body) {
  for (let at = 0; at < body.length; at += PIECE) yield body.subarray(at, at + PIECE);
}

/** Runs every exchange of the plan; `send` gives status, version and body. */
export async function everything(send) {
  const exchanges = readFileSync(plan, "utf8").trimEnd().split("\n").map(exchange);
  async function one(exchange) {
    const { status, version, body } = await send(exchange);
    writeFileSync(join(out, `${exchange.name}.head`), `${status}\n${version}\n`);
    writeFileSync(join(out, `${exchange.name}.body`), body);
  }
  for (const alone of exchanges.filter(({ together }) => together === "no")) await one(alone);
  await Promise.all(exchanges.filter(({ together }) => together === "yes").map(one));
}
