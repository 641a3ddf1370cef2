"""The service of compose.yaml: keeps orders, answers with them, and prints what it got."""

import http.server
import signal
import sys


class Orders(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kept = []

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print("the service got:", body.decode())
        self.kept.append(body)
        self.answer(201, body, Location=f"/orders/{len(self.kept)}")

    def do_GET(self):
        order = self.path.removeprefix("/orders/")
        if order.isdigit() and 0 < int(order) <= len(self.kept):
            self.answer(200, self.kept[int(order) - 1])
        else:
            self.answer(404, b"{}")

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the first process of a container has to say so
    http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Orders).serve_forever()
