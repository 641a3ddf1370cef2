"""What no rule is for passes through with its semantics intact, whatever the way in: WebSocket and gRPC (both ends of each: echoes.py).

The third way, transparent, is in test_transparent.py.
"""

import asyncio
import contextlib
import json
import pathlib
import ssl
import subprocess
import tempfile
import time
import unittest

import aiohttp
import grpc
import httpx
import trustme
import websockets

import echoes
import recording
import support

POLICY = """\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: calls}
classes: {field: {key: field}}
routes:
  - name: records
    match: {host: localhost, path: /records}
    request: {rules: [{at: $..ssn, seal: field}]}
"""
REVERSE = """\
policy: {{dir: policies}}
listeners: [{{name: out, bind: "127.0.0.1:{port}", upstream: api}}]
upstreams: {{api: {{url: "http://localhost:{upstream}", http: "{http}"}}}}
"""
FORWARD = """\
policy: {{dir: policies}}
listeners: [{{name: out, mode: forward, bind: "127.0.0.1:{port}", loopback_upstreams: true}}]
ca: {{dir: ca, names: [localhost]}}
upstreams:
  clear: {{url: "http://localhost:{upstream}", http: "{http}"}}
  secure: {{url: "https://localhost:{upstream}", tls: {{ca: public.pem}}, http: "{http}"}}
log: {{level: debug}}
"""


async def asgi_echo(scope, receive, send):
    """Says in which version it was asked; and sends back what comes over a WebSocket."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["http_version"].encode()})
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "echo.v1"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})


class Upgrades(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.place = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory()))

    @contextlib.contextmanager
    def again(self):
        """What is started within ends with it."""
        with contextlib.ExitStack() as stack:
            kept, self.stack = self.stack, stack
            try:
                yield
            finally:
                self.stack = kept

    def agent(self, settings, **more):
        """Runs it; its authority."""
        port = support.free_port()
        (self.place / "policies").mkdir(exist_ok=True)
        (self.place / "policies/calls.yaml").write_text(POLICY)
        path = self.place / "settings.yaml"
        path.write_text(settings.format(port=port, **more))
        if "\nca:" in settings and not (self.place / "ca").exists():
            subprocess.run([support.BINARY, "ca", "init", "--config", str(path)], check=True, capture_output=True)
        command = [support.BINARY, "run", "--config", str(path), "--data-dir", str(self.place / "data")]
        self.log = self.stack.enter_context(support.running(command, port))
        return f"127.0.0.1:{port}"

    def until_said(self, *words):
        """Waits until the agent has said these, all in one line."""
        deadline = time.monotonic() + 60
        while not any(all(word in line for word in words) for line in self.log.read_text().splitlines()):
            self.assertLess(time.monotonic(), deadline, f"{words}: {self.log.read_text()}")
            time.sleep(0.05)


class Reverse(Upgrades):
    def websocket(self):
        upstream = self.stack.enter_context(echoes.websocket_echo())
        return self.agent(REVERSE, upstream=upstream, http="auto")

    def test_websocket(self):
        asyncio.run(echoes.talk(f"ws://{self.websocket()}/live?room=1", proxy=None))
        self.until_said(" connection ", 'outcome="tunnelled"')

    def test_websocket_on_a_route_with_rules(self):
        with self.assertRaises(websockets.exceptions.InvalidStatus) as refused:
            asyncio.run(echoes.talk(f"ws://{self.websocket()}/records", proxy=None))
        answer = refused.exception.response
        self.assertEqual(answer.status_code, 403)
        self.assertEqual(json.loads(answer.body)["code"], "upgrade-refused")

    def test_grpc(self):
        upstream = self.stack.enter_context(echoes.grpc_echo())
        with grpc.insecure_channel(self.agent(REVERSE, upstream=upstream, http="2")) as channel:
            echoes.make_calls(channel)


class Forward(Upgrades):
    """The policy names localhost, so what is for 127.0.0.1 is tunnelled. Of certificates a client trusts either the service's alone, or the agent's."""

    def setUp(self):
        super().setUp()
        public = trustme.CA()
        self.public, self.own = self.place / "public.pem", self.place / "ca/ca.pem"
        public.cert_pem.write_to_path(self.public)
        self.issued = public.issue_cert("localhost", "127.0.0.1")

    def websocket(self, secure):
        """The service's port, and the proxy before it."""
        tls = None
        if secure:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.issued.configure_cert(tls)
        upstream = self.stack.enter_context(echoes.websocket_echo(tls=tls))
        return upstream, "http://" + self.agent(FORWARD, upstream=upstream, http="auto")

    def grpc(self, secure, http="auto"):
        """As `websocket`."""
        credentials = None
        if secure:
            chain = b"".join(blob.bytes() for blob in self.issued.cert_chain_pems)
            credentials = grpc.ssl_server_credentials([(self.issued.private_key_pem.bytes(), chain)])
        upstream = self.stack.enter_context(echoes.grpc_echo(credentials=credentials))
        return upstream, "http://" + self.agent(FORWARD, upstream=upstream, http=http)

    def test_websocket_tunnelled(self):
        for secure in (False, True):
            with self.subTest(secure=secure), self.again():
                upstream, proxy = self.websocket(secure)
                scheme, trust = ("wss", ssl.create_default_context(cafile=self.public)) if secure else ("ws", None)
                asyncio.run(echoes.talk(f"{scheme}://127.0.0.1:{upstream}/live", proxy=proxy, ssl=trust))
                self.until_said(" connection ", 'outcome="tunnelled"')
                self.assertNotIn('outcome="intercepted"', self.log.read_text())

    def test_websocket_intercepted(self):
        upstream, proxy = self.websocket(secure=True)
        trust = ssl.create_default_context(cafile=self.own)
        asyncio.run(echoes.talk(f"wss://localhost:{upstream}/live", proxy=proxy, ssl=trust))
        self.until_said(" connection ", 'outcome="intercepted"')
        self.until_said(" connection ", 'outcome="tunnelled"')
        with self.assertRaises(websockets.exceptions.InvalidStatus) as refused:
            asyncio.run(echoes.talk(f"wss://localhost:{upstream}/records", proxy=proxy, ssl=trust))
        self.assertEqual(json.loads(refused.exception.response.body)["code"], "upgrade-refused")

    def test_websocket_without_tls_behind_connect(self):
        """`websockets` sends CONNECT whatever the scheme; the policy's word is for what follows, too."""
        upstream, proxy = self.websocket(secure=False)
        asyncio.run(echoes.talk(f"ws://localhost:{upstream}/live", proxy=proxy))
        self.until_said(" connection ", 'outcome="plain"')
        self.until_said(" connection ", 'outcome="tunnelled"')
        with self.assertRaises(websockets.exceptions.InvalidStatus) as refused:
            asyncio.run(echoes.talk(f"ws://localhost:{upstream}/records", proxy=proxy))
        self.assertEqual(json.loads(refused.exception.response.body)["code"], "upgrade-refused")

    def test_grpc_without_tls_behind_connect(self):
        upstream, proxy = self.grpc(secure=False, http="2")
        with self.channel(f"localhost:{upstream}", proxy, None) as channel:
            echoes.make_calls(channel)
        self.until_said(" connection ", 'outcome="plain"')

    def test_websocket_of_a_service_that_prefers_http_2(self):
        """An upgrade is HTTP/1.1's: it gets a connection in that, whatever the others of its service and its client are."""
        key, chain = self.place / "key.pem", self.place / "chain.pem"
        self.issued.private_key_pem.write_to_path(key)
        chain.write_bytes(b"".join(blob.bytes() for blob in self.issued.cert_chain_pems))
        serving = recording.serving(chain, key, [], upstream=asgi_echo)
        _, _, upstream = self.stack.enter_context(serving)
        proxy = "http://" + self.agent(FORWARD, upstream=upstream, http="auto")
        trust = ssl.create_default_context(cafile=self.own)
        asyncio.run(echoes.talk(f"wss://localhost:{upstream}/live", proxy=proxy, ssl=trust))
        self.until_said(" connection ", 'outcome="tunnelled"')
        with httpx.Client(http2=True, proxy=proxy, verify=trust) as client:
            answer = client.get(f"https://localhost:{upstream}/version")
            self.assertEqual((answer.http_version, answer.text), ("HTTP/2", "2"))

    def test_websocket_in_absolute_form(self):
        """aiohttp has no CONNECT for what goes without TLS, and writes the scheme as the application did."""
        upstream, proxy = self.websocket(secure=False)

        async def talk(scheme, host, path):
            url = f"{scheme}://{host}:{upstream}{path}"
            async with aiohttp.ClientSession() as session:
                async with session.ws_connect(url, proxy=proxy, protocols=["echo.v1"]) as socket:
                    self.assertEqual(socket.protocol, "echo.v1")
                    for number in range(100):
                        await socket.send_str(f"message {number}")
                        self.assertEqual(await socket.receive_str(timeout=60), f"message {number}")

        for scheme in ("http", "ws"):
            for host in ("localhost", "127.0.0.1"):
                with self.subTest(scheme=scheme, host=host):
                    asyncio.run(talk(scheme, host, "/live"))
            with self.subTest(scheme=scheme), self.assertRaises(aiohttp.WSServerHandshakeError) as refused:
                asyncio.run(talk(scheme, "localhost", "/records"))
            self.assertEqual(refused.exception.status, 403)

    def channel(self, target, proxy, trust):
        options = [("grpc.http_proxy", proxy), ("grpc.enable_http_proxy", 1)]
        if trust is None:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(trust.read_bytes()), options)

    def test_grpc_tunnelled(self):
        for secure in (False, True):
            with self.subTest(secure=secure), self.again():
                upstream, proxy = self.grpc(secure)
                with self.channel(f"127.0.0.1:{upstream}", proxy, self.public if secure else None) as channel:
                    echoes.make_calls(channel)
                self.until_said(" connection ", 'outcome="tunnelled"')
                self.assertNotIn('outcome="intercepted"', self.log.read_text())

    def test_grpc_intercepted(self):
        upstream, proxy = self.grpc(secure=True)
        with self.channel(f"localhost:{upstream}", proxy, self.own) as channel:
            echoes.make_calls(channel)
        self.until_said(" connection ", 'outcome="intercepted"')

    def test_grpc_to_the_proxy_itself(self):
        """HTTP/2 without TLS, whose requests name where they go, as absolute form does."""
        upstream, proxy = self.grpc(secure=False, http="2")
        options = [("grpc.default_authority", f"localhost:{upstream}"), ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(proxy.removeprefix("http://"), options) as channel:
            echoes.make_calls(channel)


if __name__ == "__main__":
    unittest.main()
