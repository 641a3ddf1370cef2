"""Applications that know nothing of the agent, in a network namespace whose connections are redirected to it.

Needs root and some programs; see namespaces.py.
"""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import textwrap
import unittest

import grpc

import echoes
import support
from namespaces import AGENT, HERE, PORT, THERE, Namespaces

POLICY = """\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: transparent}
classes: {field: {key: field}}
routes:
  - name: live
    match: {host: api.example.com, path: /live}
  - name: records
    match: {host: api.example.com}
    request: {rules: [{at: $..ssn, seal: field}]}
    response: {rules: [{at: $..ssn, open: field}]}
"""
LISTENERS = """\
  - {{name: four, mode: transparent, bind: "127.0.0.1:{port}", uncovered: {uncovered}, silent: {silent}}}
  - {{name: six, mode: transparent, bind: "[::1]:{port}", uncovered: {uncovered}, silent: {silent}}}
"""
SETTINGS = """\
policy: {{dir: policies}}
ca: {{dir: ca}}
listeners:
{listeners}upstreams:
  api: {{url: "https://api.example.com", tls: {{ca: public.pem}}}}
log: {{level: debug}}
"""
BODY = '{"ssn": "078-05-1120"}'

# What stands in the other namespace: sends bodies back, keeps them, and greets first on a third port; datagrams come back, too.
SERVER = """\
import http.server, json, socket, ssl, sys, threading
place = sys.argv[1]
lock = threading.Lock()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with lock, open(place + "/got", "a") as got:
            got.write(json.dumps({"host": self.headers["Host"], "body": body.decode(), "via": self.headers["Via"]}) + "\\n")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True

secure = Server(("::", 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(place + "/cert.pem", place + "/key.pem")
secure.socket = context.wrap_socket(secure.socket, server_side=True)
threading.Thread(target=secure.serve_forever).start()

def greet():
    with socket.create_server(("::", 8443), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        while True:
            stream, _ = server.accept()
            stream.sendall(b"220 hello\\r\\n")
            stream.sendall(b"you said " + stream.recv(100))
            stream.close()

threading.Thread(target=greet).start()

datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
datagrams.bind(("::", 443))

def send_back():
    while True:
        datagrams.sendto(*datagrams.recvfrom(100))

threading.Thread(target=send_back).start()
plain = Server(("::", 80), Handler)
open(place + "/ready", "w").close()
plain.serve_forever()
"""


# What becomes of a datagram for HTTP/3, over IPv4 and IPv6.
QUIC = textwrap.dedent(f"""
    import socket
    for family, address in ((socket.AF_INET, {THERE[0]!r}), (socket.AF_INET6, {THERE[1]!r})):
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(30)
            datagrams.connect((address, 443))
            try:
                datagrams.send(b"hello")
                print("answered" if datagrams.recv(10) == b"hello" else "garbled")
            except (ConnectionRefusedError, PermissionError):
                print("refused")
""")


def written(uncovered="tunnel", silent="refuse", listeners=LISTENERS):
    """The settings."""
    return SETTINGS.format(listeners=listeners.format(port=PORT, uncovered=uncovered, silent=silent))


class Transparent(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.world = Namespaces(self.stack)
        self.place, self.said, self.until = self.world.place, self.world.said, self.world.until
        self.world.start([sys.executable, "-c", SERVER, str(self.place)], self.world.net)
        self.until("the server is ready", (self.place / "ready").exists)

    def agent(self, **settings):
        return self.world.agent(written(**settings), POLICY, (80, 443, 8443))

    def curl(self, url, *arguments, ca="agent/ca/ca.pem", name=None):
        """curl as anyone has it, with names that lead to the other namespace; its exit code, and what came."""
        command = self.world.application("curl", "--silent", "--show-error", "--max-time", "60", name=name)
        done = subprocess.run(
            [*command, "--cacert", str(self.place / ca), *arguments, url], capture_output=True, text=True, timeout=90
        )
        return done.returncode, done.stdout

    def got(self):
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.place / "got").read_text().splitlines()]
        return []

    def quic(self, name=None):
        """What becomes of datagrams that are sent from there, of either family."""
        return self.world.inside(name or self.world.app, sys.executable, "-c", QUIC).split()

    def sealed_both_ways(self, name=None):
        """What is sent from there, with TLS and without, arrives sealed and comes back opened."""
        for scheme in ("https", "http"):
            for family in ("--ipv4", "--ipv6"):
                with self.subTest(scheme=scheme, family=family, name=name):
                    before = len(self.got())
                    code, came = self.curl(f"{scheme}://api.example.com/records", family, "--json", BODY, name=name)
                    self.assertEqual((code, came), (0, BODY), self.said())
                    [got] = self.got()[before:]
                    self.assertNotIn("078-05-1120", got["body"])
                    self.assertIn("fv1~", got["body"])

    def nothing_gets_out(self, process, name=None):
        """Once the agent is killed: what is redirected to it is refused."""
        before = len(self.got())
        process.kill()
        process.wait()
        for url in ("https://api.example.com/", "http://api.example.com/records", "https://other.example.com/"):
            for family in ("--ipv4", "--ipv6"):
                code, came = self.curl(url, family, "--json", BODY, name=name)
                self.assertEqual((code, came), (7, ""), (url, family))
        self.assertEqual(self.quic(name), ["refused", "refused"])
        self.assertEqual(len(self.got()), before)

    def as_it_was(self, name=None):
        """Without the rules: it is the service itself that is spoken with, and that shows what they had been for."""
        for family in ("--ipv4", "--ipv6"):
            code, came = self.curl("https://api.example.com/", family, "--data", "{}", ca="public.pem", name=name)
            self.assertEqual((code, came), (0, "{}"))
            self.assertIsNone(self.got()[-1]["via"])
        self.assertEqual(self.quic(name), ["answered", "answered"])

    def test_curl_is_intercepted_and_knows_nothing(self):
        process = self.agent()
        count = 0
        for scheme in ("https", "http"):
            for family in ("--ipv4", "--ipv6"):
                for version in ("--http1.1", "--http2"):
                    ssn = f"078-05-{count:04}"
                    body = json.dumps({"ssn": ssn, "name": "Ada"})
                    posted = ("--header", "Content-Type: application/json", "--data", body)
                    code, came = self.curl(f"{scheme}://api.example.com/records", family, version, *posted)
                    self.assertEqual((code, came), (0, body), (scheme, family, version, self.said()))
                    count += 1
                    got = self.got()
                    self.assertEqual(len(got), count)
                    self.assertNotIn(ssn, got[-1]["body"])
                    self.assertIn("fv1~", got[-1]["body"])
                    self.assertIn("fieldveil-", got[-1]["via"])
        # A host that no policy names goes on unseen: it is the service itself that the client speaks TLS with.
        code, came = self.curl("https://other.example.com/", "--data", "ssn=078-05-1120", ca="public.pem")
        self.assertEqual((code, came), (0, "ssn=078-05-1120"), self.said())
        self.assertIsNone(self.got()[-1]["via"])
        self.until("it is on record", lambda: 'outcome="tunnelled"' in self.said())

        # QUIC is refused at once, so that clients fall back.
        self.assertEqual(self.quic(), ["refused", "refused"])

        # The agent's own port is for redirected connections alone.
        probe = f"import socket; s = socket.create_connection(('127.0.0.1', {PORT})); assert s.recv(1) == b''"
        self.world.inside(self.world.app, sys.executable, "-c", probe)
        self.until("it is on record", lambda: 'outcome="not-redirected"' in self.said())

        # A request for another host or port than its connection's is refused, and a certificate is not asked for in vain. Without TLS a
        # connection has no name: its address is all that there is to compare with.
        expected = {
            "api.example.com": {"http": "200", "https": "200"},
            "api.example.com:8080": {"http": "421", "https": "421"},
            "192.0.2.1": {"http": "421", "https": "421"},
            "other.example.com": {"http": "200", "https": "421"},
        }
        for host, statuses in expected.items():
            for scheme, status in statuses.items():
                for version in ("--http1.1", "--http2"):
                    before = len(self.got())
                    code, came = self.curl(
                        f"{scheme}://api.example.com/records", "--ipv4", version, "--header", f"Host: {host}",
                        "--header", "Content-Type: application/json", "--data", "{}", "--write-out", " %{http_code}",
                    )
                    body, found = came.rsplit(" ", 1)
                    self.assertEqual((code, found), (0, status), (host, scheme, version))
                    if status == "421":
                        self.assertEqual(json.loads(body)["code"], "misdirected")
                    self.assertEqual([got["host"] for got in self.got()[before:]], [host] if status == "200" else [])

        self.nothing_gets_out(process)
        self.world.redirect("down")
        self.world.redirect("down")
        self.as_it_was()
        self.assertEqual(self.world.inside(self.world.app, "nft", "list", "ruleset"), "")

    def test_agent_and_application_are_one_user(self):
        """What bears the mark is the agent's, whoever it runs as: root here, as curl."""
        self.world.agent(written() + "redirect: {mark: 64206}\n", POLICY, (80, 443), exempt=("--mark", "64206"), user=0)
        self.sealed_both_ways()
        code, came = self.curl("https://other.example.com/", "--data", "x", ca="public.pem")
        self.assertEqual((code, came), (0, "x"), self.said())
        self.until("it is on record", lambda: 'outcome="tunnelled"' in self.said())

    def test_rules_of_iptables(self):
        """The lines that the documentation has, and no others."""
        text = (support.PROJECT / "docs/transparent.md").read_text()
        block = text[text.index("### By iptables") :].split("```")[1]
        lines = [line for line in block.splitlines() if line.startswith(("iptables ", "ip6tables "))]
        self.assertEqual(len(lines), 4)
        lines = [line.replace(" 990 ", f" {AGENT} ") for line in lines]
        process = self.world.agent(written(), POLICY, (), exempt=())
        for line in lines:
            self.world.inside(self.world.app, *line.split())
        self.sealed_both_ways()
        self.assertEqual(self.quic(), ["refused", "refused"])
        self.nothing_gets_out(process)
        for line in lines:
            self.world.inside(self.world.app, *line.replace(" -A ", " -D ").split())
        self.as_it_was()

    def test_a_mark_takes_a_right_that_is_asked_for_at_the_start(self):
        as_agent, home = self.world.prepare(written() + "redirect: {mark: 64206}\n", POLICY)
        command = [*as_agent, home / "fieldveil", "run", "--config", home / "settings.yaml", "--data-dir", home / "data"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("`redirect.mark`: connections cannot be marked: Operation not permitted", done.stderr)
        self.assertIn("CAP_NET_ADMIN", done.stderr)

    def test_what_is_routed_through_is_redirected(self):
        """Another namespace, whose way out is through the agent's."""
        guest = f"{self.world.app}-guest"
        self.world.add(guest)
        gate, guests = ("203.0.113.1", "2001:db8:2::1"), ("203.0.113.2", "2001:db8:2::2")
        self.world.join(self.world.app, "gate", gate, guest, "out", guests)
        self.world.inside(self.world.app, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        # There and back: without the rules, everything would arrive.
        for family, network, ours, theirs in (("-4", "203.0.113.0/24", gate[0], HERE[0]), ("-6", "2001:db8:2::/64", gate[1], HERE[1])):
            self.world.inside(guest, "ip", family, "route", "add", "default", "via", ours)
            self.world.inside(self.world.net, "ip", family, "route", "add", network, "via", theirs)
        settings = written(listeners='  - {{name: all, mode: transparent, bind: "[::]:{port}"}}\n')
        exempt = ("--uid", str(AGENT), "--interface", "gate")
        process = self.world.agent(settings, POLICY, (80, 443), exempt=exempt, listeners=1)
        for name in (guest, self.world.app):
            self.sealed_both_ways(name)
            self.assertEqual(self.quic(name), ["refused", "refused"])
        self.nothing_gets_out(process, guest)
        self.nothing_gets_out(process)
        self.world.redirect("down")
        self.as_it_was(guest)
        self.as_it_was()

    def test_what_no_policy_names_is_refused(self):
        self.agent(uncovered="refuse")
        code, _ = self.curl("https://other.example.com/", "--data", "{}", ca="public.pem")
        self.assertNotEqual(code, 0)
        code, came = self.curl("http://other.example.com/", "--data", "{}")
        self.assertEqual((code, json.loads(came)["code"]), (0, "uncovered"))
        code, came = self.curl("https://api.example.com/", "--json", BODY)
        self.assertEqual((code, came), (0, BODY))
        [got] = self.got()
        self.assertIn("fv1~", got["body"])
        # The connection with TLS, and the request without.
        self.until("it is on record", lambda: self.said().count('outcome="uncovered"') == 2)

    def greeted(self, first):
        probe = textwrap.dedent(f"""
            import socket
            with socket.create_connection(({THERE[0]!r}, 8443)) as stream:
                stream.settimeout(60)
                try:
                    greeting = stream.recv(100)
                    if greeting:
                        stream.sendall({first!r})
                        greeting += stream.recv(100)
                except ConnectionResetError:
                    greeting = b""
                print(greeting)
        """)
        return self.world.inside(self.world.app, sys.executable, "-c", probe).strip()

    def test_a_server_that_speaks_first(self):
        self.agent(silent="tunnel")
        said = self.greeted(b"EHLO")
        self.assertEqual(said, repr(b"220 hello\r\nyou said EHLO"), self.said())

    def test_a_server_that_speaks_first_is_refused_by_default(self):
        self.agent()
        self.assertEqual(self.greeted(b"EHLO"), repr(b""))
        self.until("it is on record", lambda: 'outcome="silent"' in self.said())


CALLS = """\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: calls}
classes: {field: {key: field}}
routes:
  - name: records
    match: {host: api.example.com, path: /records}
    request: {rules: [{at: $..ssn, seal: field}]}
"""
ECHOES = """\
policy: {{dir: policies}}
ca: {{dir: ca, names: [api.example.com]}}
listeners:
  - {{name: four, mode: transparent, bind: "127.0.0.1:{port}"}}
  - {{name: six, mode: transparent, bind: "[::1]:{port}"}}
upstreams:
  websocket: {{url: "https://api.example.com:{secure_websocket}", tls: {{ca: public.pem}}}}
  calls: {{url: "https://api.example.com:{secure_calls}", tls: {{ca: public.pem}}}}
log: {{level: debug}}
"""


class Echoes(unittest.TestCase):
    """WebSocket and gRPC, unharmed, under the agent's certificate or the service's own."""

    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.world = Namespaces(stack, THERE[:1])
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cls.world.issued.configure_cert(tls)
        chain = b"".join(blob.bytes() for blob in cls.world.issued.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(cls.world.issued.private_key_pem.bytes(), chain)])
        with cls.world.network():
            cls.ports = {
                "websocket": stack.enter_context(echoes.websocket_echo(THERE[0])),
                "secure_websocket": stack.enter_context(echoes.websocket_echo(THERE[0], tls)),
                "calls": stack.enter_context(echoes.grpc_echo(THERE[0])),
                "secure_calls": stack.enter_context(echoes.grpc_echo(THERE[0], credentials)),
            }
        cls.world.agent(ECHOES.format(port=PORT, **cls.ports), CALLS, cls.ports.values())

    def check(self, kind, target, ca):
        """Talks from the application's namespace; what the agent said meanwhile of connections."""
        before = len(self.world.said())
        script = support.PROJECT / "tests/python/echoes.py"
        command = self.world.application(sys.executable, script, kind, target, "-" if ca is None else self.world.place / ca)
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, env={**os.environ, "GRPC_DNS_RESOLVER": "native"})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + self.world.said())
        return lambda: self.world.said()[before:]

    def test_websocket(self):
        port, secure = self.ports["websocket"], self.ports["secure_websocket"]
        for url, ca, outcomes in (
            (f"ws://api.example.com:{port}/live", None, ["tunnelled"]),
            (f"ws://other.example.com:{port}/live", None, ["tunnelled"]),
            (f"wss://api.example.com:{secure}/live", "agent/ca/ca.pem", ["intercepted", "tunnelled"]),
            (f"wss://other.example.com:{secure}/live", "public.pem", ["tunnelled"]),
        ):
            with self.subTest(url):
                said = self.check("websocket", url, ca)
                self.world.until("it is on record", lambda: all(f'outcome="{outcome}"' in said() for outcome in outcomes))
                self.assertEqual('outcome="intercepted"' in said(), "intercepted" in outcomes)

    def test_grpc(self):
        port, secure = self.ports["calls"], self.ports["secure_calls"]
        for target, ca, outcome, requests in (
            # Nothing says that HTTP/2 is spoken there but the client.
            (f"api.example.com:{port}", None, None, 6),
            (f"other.example.com:{port}", None, None, 6),
            (f"api.example.com:{secure}", "agent/ca/ca.pem", "intercepted", 6),
            (f"other.example.com:{secure}", "public.pem", "tunnelled", 0),
        ):
            with self.subTest(target):
                said = self.check("grpc", target, ca)
                self.world.until("it is on record", lambda: outcome is None or f'outcome="{outcome}"' in said())
                self.world.until("all calls are on record", lambda: said().count(" access request_id=") >= requests)
                self.assertEqual(said().count(" access request_id="), requests)
                self.assertEqual('outcome="intercepted"' in said(), outcome == "intercepted")


if __name__ == "__main__":
    unittest.main()
