"""httpx, over HTTP/1.1 and HTTP/2."""

import asyncio
import ssl

import httpx

import plan


async def main():
    run = plan.arguments()
    two = run.version == "2"
    client = httpx.AsyncClient(
        http1=not two, http2=two, verify=ssl.create_default_context(cafile=run.ca),
        follow_redirects=True, timeout=60,
    )
    async with client:

        async def exchange(one):
            async def pieces():
                for piece in one.pieces():
                    yield piece

            content = pieces() if one.framing == "chunked" else one.body
            answer = await client.request(one.method, run.url + one.path, content=content, headers=one.headers)
            run.keep(one, answer.status_code, answer.http_version.removeprefix("HTTP/"), answer.content)

        for one in run.alone:
            await exchange(one)
        await asyncio.gather(*map(exchange, run.together))


if __name__ == "__main__":
    asyncio.run(main())
