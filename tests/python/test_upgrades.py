"""What no rule is for passes through with its semantics intact: WebSocket (the `websockets` library) and gRPC (grpcio)."""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import pathlib
import tempfile
import threading
import time
import unittest

import grpc
import websockets

import support


@contextlib.contextmanager
def websocket_echo():
    """Sends back what comes, whole messages of either kind; gives its port."""
    started = threading.Event()
    state = {}

    async def echo(connection):
        with contextlib.suppress(websockets.ConnectionClosedError):
            async for message in connection:
                await connection.send(message)

    async def serve():
        async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, subprotocols=["echo.v1"]) as server:
            state["port"] = server.sockets[0].getsockname()[1]
            state["loop"], state["stop"] = asyncio.get_running_loop(), asyncio.Event()
            started.set()
            await state["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    started.wait(60)
    try:
        yield state["port"]
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join()


def raw(data):
    return data


class Calls(grpc.GenericRpcHandler):
    """Unary and both ways, of bytes, with trailers."""

    def service(self, call):
        if call.method == "/test.Echo/Unary":
            return grpc.unary_unary_rpc_method_handler(self.unary, raw, raw)
        if call.method == "/test.Echo/Both":
            return grpc.stream_stream_rpc_method_handler(self.both, raw, raw)
        return None

    def unary(self, request, context):
        context.set_trailing_metadata((("x-count", str(len(request))), ("x-bytes-bin", b"\x00\xff")))
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 50% done")
        return request[::-1]

    def both(self, requests, context):
        context.send_initial_metadata((("x-open", "1"),))
        count = 0
        for request in requests:
            count += 1
            yield request.upper()
        context.set_trailing_metadata((("x-count", str(count)),))


@contextlib.contextmanager
def grpc_echo():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=(Calls(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


POLICY = """\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: calls}
classes: {field: {key: field}}
routes:
  - name: records
    match: {path: /records}
    request: {rules: [{at: $..ssn, seal: field}]}
"""
SETTINGS = """\
policy: {{dir: policies}}
listeners: [{{name: out, bind: "127.0.0.1:{port}", upstream: api}}]
upstreams: {{api: {{url: "http://127.0.0.1:{upstream}", http: "{http}"}}}}
"""


@contextlib.contextmanager
def agent(upstream, http):
    """The agent before an upstream of that version of HTTP; gives its authority, and the path of its output."""
    port = support.free_port()
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        (place / "policies").mkdir()
        (place / "policies/calls.yaml").write_text(POLICY)
        (place / "settings.yaml").write_text(SETTINGS.format(port=port, upstream=upstream, http=http))
        command = [support.BINARY, "run", "--config", str(place / "settings.yaml"), "--data-dir", str(place / "data")]
        with support.running(command, port) as log:
            yield f"127.0.0.1:{port}", log


async def talk(url):
    sizes = [0, 1, 125, 126, 65_535, 65_536, 1_000_000]
    async with websockets.connect(url, max_size=None, subprotocols=["echo.v1"], open_timeout=60) as socket:
        assert socket.subprotocol == "echo.v1"
        for size in sizes:
            for message in ("ü" * (size // 2), os.urandom(size)):
                await socket.send(message)
                assert await socket.recv() == message
        await (await socket.ping())
        # Both directions at once.
        messages = [str(number) * 1000 for number in range(500)]

        async def send():
            for message in messages:
                await socket.send(message)

        sending = asyncio.create_task(send())
        assert [await socket.recv() for _ in messages] == messages
        await sending
        await socket.close(4001, "enough")
    assert socket.close_code == 4001


class Upgrades(unittest.TestCase):
    def test_websocket(self):
        with websocket_echo() as upstream, agent(upstream, "auto") as (authority, log):
            asyncio.run(talk(f"ws://{authority}/live?room=1"))
            deadline = time.monotonic() + 60
            while "tunnelled" not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            said = log.read_text()
            self.assertIn('outcome="tunnelled"', said)

    def test_websocket_on_a_route_with_rules(self):
        with websocket_echo() as upstream, agent(upstream, "auto") as (authority, _):
            with self.assertRaises(websockets.exceptions.InvalidStatus) as refused:
                asyncio.run(talk(f"ws://{authority}/records"))
            answer = refused.exception.response
            self.assertEqual(answer.status_code, 403)
            self.assertEqual(json.loads(answer.body)["code"], "upgrade-refused")

    def test_grpc(self):
        with grpc_echo() as upstream, agent(upstream, "2") as (authority, _):
            with grpc.insecure_channel(authority) as channel:
                self.calls(channel)

    def calls(self, channel):
        unary = channel.unary_unary("/test.Echo/Unary", raw, raw)
        for request in (b"", b"hello", os.urandom(1_000_000)):
            answer, call = unary.with_call(request, timeout=60)
            self.assertEqual(answer, request[::-1])
            trailers = dict(call.trailing_metadata())
            self.assertEqual(trailers["x-count"], str(len(request)))
            self.assertEqual(trailers["x-bytes-bin"], b"\x00\xff")
        with self.assertRaises(grpc.RpcError) as failed:
            unary(b"fail", timeout=60)
        self.assertEqual(failed.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertEqual(failed.exception.details(), "not now: 50% done")
        with self.assertRaises(grpc.RpcError) as failed:
            channel.unary_unary("/test.Echo/None", raw, raw)(b"", timeout=60)
        self.assertEqual(failed.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

        # Each message is answered before the next one is sent: nothing waits for the end.
        ready = threading.Semaphore(0)

        def requests():
            for number in range(100):
                yield b"message %d" % number
                ready.acquire()

        call = channel.stream_stream("/test.Echo/Both", raw, raw)(requests(), timeout=120)
        self.assertEqual(dict(call.initial_metadata())["x-open"], "1")
        for number in range(100):
            self.assertEqual(next(call), b"MESSAGE %d" % number)
            ready.release()
        self.assertEqual(list(call), [])
        self.assertEqual(dict(call.trailing_metadata())["x-count"], "100")


if __name__ == "__main__":
    unittest.main()
