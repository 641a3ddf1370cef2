"""Servers in asyncio, for tests that are not."""

import asyncio
import contextlib
import threading


@contextlib.contextmanager
def running(server):
    """Enters a server's asynchronous context in a loop on a thread of its own, until the block ends; gives the port of its socket."""
    entered, state = threading.Event(), {}

    async def serve():
        try:
            async with server() as serving:
                state.update(port=serving.sockets[0].getsockname()[1], loop=asyncio.get_running_loop(), stop=asyncio.Event())
                entered.set()
                await state["stop"].wait()
        finally:
            entered.set()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    entered.wait(60)
    try:
        yield state["port"]
    finally:
        if "loop" in state:
            state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join()
