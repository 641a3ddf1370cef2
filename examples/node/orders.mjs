// Places an order and reads it back. It knows nothing of fieldveil: the only change is BASE_URL.

import assert from "node:assert/strict";

// Was: https://api.example.com
const BASE_URL = process.env.BASE_URL ?? "http://127.0.0.1:8080";

async function call(method, path, document) {
  const answer = await fetch(BASE_URL + path, {
    method,
    headers: { "Content-Type": "application/json" },
    body: document && JSON.stringify(document),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return { document: await answer.json(), location: answer.headers.get("Location") };
}

const order = {
  name: "Ada",
  ssn: "123-45-6789",
  cards: [{ number: "4111111111111111" }, { number: 5500005555555559 }],
  amount: 19.9,
};
const placed = await call("POST", "/orders", order);
console.log("placed:", JSON.stringify(placed.document));
const read = await call("GET", placed.location);
console.log("read:  ", JSON.stringify(read.document));
assert.deepEqual(placed.document, order);
assert.deepEqual(read.document, order);
