"""requests."""

import concurrent.futures

import requests

import plan


def main():
    run = plan.arguments()
    assert run.version == "1.1"
    with requests.Session() as session:
        session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=len(run.together)))
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=len(run.together)))

        def exchange(one):
            data = one.pieces() if one.framing == "chunked" else one.body
            # Said here: a bundle of the environment's goes before what the session says.
            answer = session.request(
                one.method, run.url + one.path, data=data, headers=one.headers, timeout=60, verify=run.ca or True
            )
            run.keep(one, answer.status_code, {11: "1.1"}[answer.raw.version], answer.content)

        for one in run.alone:
            exchange(one)
        with concurrent.futures.ThreadPoolExecutor(len(run.together)) as pool:
            list(pool.map(exchange, run.together))


if __name__ == "__main__":
    main()
