"""aiohttp."""

import asyncio
import ssl

import aiohttp

import plan


async def main():
    run = plan.arguments()
    assert run.version == "1.1"
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=run.ca))
    async with aiohttp.ClientSession(connector=connector, trust_env=True) as session:

        async def exchange(one):
            async def pieces():
                for piece in one.pieces():
                    yield piece

            data = pieces() if one.framing == "chunked" else one.body
            asked = session.request(
                one.method, run.url + one.path, data=data, headers=one.headers, expect100=one.framing == "expect"
            )
            async with asked as answer:
                version = f"{answer.version.major}.{answer.version.minor}"
                run.keep(one, answer.status, version, await answer.read())

        for one in run.alone:
            await exchange(one)
        await asyncio.gather(*map(exchange, run.together))


if __name__ == "__main__":
    asyncio.run(main())
