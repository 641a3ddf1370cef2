"""What passes through with its semantics intact, both ends of it: WebSocket (the `websockets` library) and gRPC (grpcio).

    python echoes.py websocket URL CA       an application that has no more than this: CA is a file, or `-`
    python echoes.py grpc HOST:PORT CA
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import pathlib
import ssl
import sys
import threading

import grpc
import websockets

import beside


@contextlib.contextmanager
def websocket_echo(address="127.0.0.1", tls=None):
    """Sends back what comes, whole messages of either kind; gives its port."""
    # A connection on which nothing was said, as where the agent had a look at the certificate, is no trouble.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)

    async def echo(connection):
        with contextlib.suppress(websockets.ConnectionClosedError):
            async for message in connection:
                await connection.send(message)

    with beside.running(lambda: websockets.serve(echo, address, 0, max_size=None, subprotocols=["echo.v1"], ssl=tls)) as port:
        yield port


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
def grpc_echo(address="127.0.0.1", credentials=None):
    """Answers calls; gives its port."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=(Calls(),))
    if credentials is None:
        port = server.add_insecure_port(f"{address}:0")
    else:
        port = server.add_secure_port(f"{address}:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


async def talk(url, **options):
    """What is said over a WebSocket comes back, whole and in order."""
    sizes = [0, 1, 125, 126, 65_535, 65_536, 1_000_000]
    async with websockets.connect(url, max_size=None, subprotocols=["echo.v1"], open_timeout=60, **options) as socket:
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


def failure(call, request):
    try:
        call(request, timeout=60)
    except grpc.RpcError as error:
        return error
    raise AssertionError("it did not fail")


def make_calls(channel):
    """One answer for a request, failures, and a call of both ways at once: messages and trailers are as the service sent them."""
    unary = channel.unary_unary("/test.Echo/Unary", raw, raw)
    for request in (b"", b"hello", os.urandom(1_000_000)):
        answer, call = unary.with_call(request, timeout=60)
        assert answer == request[::-1]
        trailers = dict(call.trailing_metadata())
        assert trailers["x-count"] == str(len(request))
        assert trailers["x-bytes-bin"] == b"\x00\xff"
    failed = failure(unary, b"fail")
    assert failed.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failed.details() == "not now: 50% done"
    failed = failure(channel.unary_unary("/test.Echo/None", raw, raw), b"")
    assert failed.code() == grpc.StatusCode.UNIMPLEMENTED

    # Each message is answered before the next one is sent: nothing waits for the end.
    ready = threading.Semaphore(0)

    def requests():
        for number in range(100):
            yield b"message %d" % number
            ready.acquire()

    call = channel.stream_stream("/test.Echo/Both", raw, raw)(requests(), timeout=120)
    assert dict(call.initial_metadata())["x-open"] == "1"
    for number in range(100):
        assert next(call) == b"MESSAGE %d" % number
        ready.release()
    assert list(call) == []
    assert dict(call.trailing_metadata())["x-count"] == "100"


def main():
    kind, target, ca = sys.argv[1:]
    if kind == "websocket":
        context = None if ca == "-" else ssl.create_default_context(cafile=ca)
        asyncio.run(talk(target, ssl=context, proxy=None))
    elif ca == "-":
        with grpc.insecure_channel(target) as channel:
            make_calls(channel)
    else:
        credentials = grpc.ssl_channel_credentials(pathlib.Path(ca).read_bytes())
        with grpc.secure_channel(target, credentials) as channel:
            make_calls(channel)


if __name__ == "__main__":
    main()
