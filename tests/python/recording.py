"""An upstream that records what it gets, over HTTP/1.1 and HTTP/2 with and without TLS, and a relay that counts connections."""

import asyncio
import contextlib
import gzip
import threading
import typing

import hypercorn.asyncio
import hypercorn.config

import support


class Got(typing.NamedTuple):
    """One request, as the upstream got it."""

    exchange: str
    method: str
    path: str
    version: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Upstream:
    """Echoes bodies; keeps what is PUT and gives it again; says 204 to DELETE; sends what comes to /moved elsewhere."""

    def __init__(self):
        self.got = []
        self.kept = b""

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        fields = dict(scope["headers"])
        exchange = fields.get(b"x-exchange", b"").decode()
        method, path = scope["method"], scope["path"]
        self.got.append(Got(exchange, method, path, scope["http_version"], list(scope["headers"]), body))
        headers = [(b"content-type", b"application/json")]
        status = 200
        if path == "/moved":
            status, answer = 307, b""
            host = fields[b"host"].decode() if b"host" in fields else None
            headers.append((b"location", f"{scope['scheme']}://{host}/records".encode()))
        elif method == "DELETE":
            status, answer, headers = 204, b"", []
        elif method in ("GET", "HEAD"):
            answer = self.kept
            if b"gzip" in fields.get(b"accept-encoding", b""):
                answer = gzip.compress(answer)
                headers.append((b"content-encoding", b"gzip"))
        else:
            answer = body
            if method == "PUT":
                self.kept = body
        if status != 204:
            headers.append((b"content-length", str(len(answer)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer})


class Relay:
    """Passes bytes on to a port, and counts the connections that it took."""

    def __init__(self, to):
        self.to = to
        self.connections = 0

    async def start(self):
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def accept(self, reader, writer):
        self.connections += 1
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self.to)
        await asyncio.gather(pump(reader, onward_writer), pump(onward_reader, writer))


async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


@contextlib.contextmanager
def serving(cert, key, relays, also="127.0.0.1", upstream=None):
    """Runs an upstream, and these relays; gives the upstream and its two ports, without TLS and with it. `also`: a further address."""
    upstream = upstream or Upstream()
    config = hypercorn.config.Config()
    clear, secure = support.free_port(), support.free_port()
    addresses = sorted({"127.0.0.1", also})
    config.insecure_bind = [f"{address}:{clear}" for address in addresses]
    config.bind = [f"{address}:{secure}" for address in addresses]
    config.certfile, config.keyfile = str(cert), str(key)
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 1
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def main():
        servers = [await relay.start() for relay in relays]
        ready.set()
        await hypercorn.asyncio.serve(upstream, config, shutdown_trigger=over.wait)
        for server in servers:
            server.close()

    def work():
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        if not ready.wait(60):
            raise RuntimeError("the upstream did not start")
        support.wait_for(clear)
        support.wait_for(secure)
        yield upstream, clear, secure
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
