"""Forward proxies that lead to each other: whatever is sent into the ring comes to an end.

Needs root, to give each agent a hosts file of its own.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import tempfile
import time
import unittest

import support

SETTINGS = """\
policy: {{dir: policies}}
listeners: [{{name: out, mode: forward, bind: "{address}:{port}", loopback_upstreams: true}}]
ca: {{dir: ca}}
upstreams:
  ring: {{url: "http://ring.example:{port}", http: "{http}"}}
log: {{level: debug}}
"""
POLICY = """\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: ring}
classes: {field: {key: field}}
routes:
  - name: all
    match: {path: /**}
    request: {rules: [{at: $..ssn, seal: field}]}
"""
FIRST, SECOND = "127.0.0.1", "127.0.0.2"


class Rings(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0:
            self.fail("a hosts file for each agent needs root")
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.place = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.port = support.free_port()

    def agent(self, address, other, http):
        """One that knows the ring's name as the other's address; the path of its output."""
        home = self.place / address
        (home / "policies").mkdir(parents=True)
        (home / "policies/ring.yaml").write_text(POLICY)
        (home / "settings.yaml").write_text(SETTINGS.format(address=address, port=self.port, http=http))
        (home / "hosts").write_text(f"127.0.0.1 localhost\n{other} ring.example\n")
        config = ["--config", str(home / "settings.yaml")]
        subprocess.run([support.BINARY, "ca", "init", *config], check=True, capture_output=True)
        mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, str(home / "hosts"), support.BINARY, "run", *config]
        return self.stack.enter_context(support.running([*command, "--data-dir", str(home / "data")], self.port, address))

    def ask(self, head, body=b""):
        with socket.create_connection((FIRST, self.port), 60) as stream:
            stream.sendall(head.replace("RING", f"ring.example:{self.port}").encode() + b"\r\n" + body)
            answer = b""
            while piece := stream.recv(65536):
                answer += piece
        return answer

    def until_requests(self, logs, expected):
        """Waits until the agents have so many requests on record."""
        deadline = time.monotonic() + 60
        while (found := [log.read_text().count(" access request_id=") for log in logs]) != expected:
            self.assertLess(time.monotonic(), deadline, found)
            time.sleep(0.05)

    def check(self, http, status, code, requests):
        logs = [self.agent(FIRST, SECOND, http), self.agent(SECOND, FIRST, http)]
        body = b'{"ssn": "078-05-1120"}'
        head = f"POST http://RING/x HTTP/1.1\r\nHost: RING\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        answer = self.ask(head, body)
        self.assertTrue(answer.startswith(f"HTTP/1.1 {status} ".encode()), answer)
        self.assertIn(f'"code":"{code}"'.encode(), answer.replace(b": ", b":"))
        self.assertNotIn(b"078-05-1120", answer)
        # To the other, back, and no further.
        self.until_requests(logs, requests)
        for log in logs:
            self.assertNotIn("078-05-1120", log.read_text())

    def test_http_2_names_the_next_proxy_in_each_request(self):
        self.check("2", 508, "loop", [2, 1])

    def test_http_1_names_no_further_proxy(self):
        self.check("1.1", 400, "proxy-form", [1, 1])

    def test_connect(self):
        """The settings know the next one as plain HTTP: what comes behind CONNECT is a request like others, and ends there."""
        logs = [self.agent(FIRST, SECOND, "auto"), self.agent(SECOND, FIRST, "auto")]
        ring, body = f"ring.example:{self.port}", b'{"ssn": "078-05-1120"}'
        with socket.create_connection((FIRST, self.port), 60) as stream:
            stream.sendall(f"CONNECT {ring} HTTP/1.1\r\nHost: {ring}\r\n\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += stream.recv(1)
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
            head = f"POST /x HTTP/1.1\r\nHost: {ring}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            stream.sendall(head.encode() + body)
            answer = b""
            while piece := stream.recv(65536):
                answer += piece
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
        self.assertIn(b"proxy-form", answer)
        self.until_requests(logs, [2, 1])
        for log in logs:
            self.assertNotIn("078-05-1120", log.read_text())


if __name__ == "__main__":
    unittest.main()
