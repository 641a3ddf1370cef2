"""A members service that works in plaintext and knows nothing of fieldveil. It prints the bodies that it gets."""

import http.server
import json
import os

PORT = int(os.environ.get("PORT", "9000"))
MEMBERS = []


class Members(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"]))
        print("got:", text.decode(), flush=True)
        document = json.loads(text)
        if self.path == "/members":
            MEMBERS.append({"id": len(MEMBERS) + 1, **document})
            self.answer(201, MEMBERS[-1])
        elif self.path == "/members/search":
            self.answer(200, [member for member in MEMBERS if document.items() <= member.items()])
        else:
            self.answer(404, {"error": "nothing is here"})

    def do_GET(self):
        found = [member for member in MEMBERS if self.path == f"/members/{member['id']}"]
        self.answer(200, found[0]) if found else self.answer(404, {"error": "no such member"})

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Members).serve_forever()
