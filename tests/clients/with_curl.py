"""curl: one process for what goes one after the other, and one with --parallel."""

import concurrent.futures
import subprocess

import plan


def transfers(run, exchanges, *more):
    """Has curl make these, in one process."""
    command = ["curl", "-sS", *more]
    for at, one in enumerate(exchanges):
        body = run.out / f"{one.name}.body"
        body.write_bytes(b"")
        if at:
            command.append("--next")
        command += ["--max-time", "60", "--compressed", "-L"]
        if run.ca:
            command += ["--cacert", run.ca]
        if run.version == "1.1":
            command.append("--http1.1")
        else:
            command.append("--http2" if run.ca else "--http2-prior-knowledge")
        for name, value in one.headers.items():
            command += ["-H", f"{name}: {value}"]
        if one.framing == "chunked" and run.version == "1.1":
            command += ["-H", "Transfer-Encoding: chunked"]
        # By itself it expects 100 for bodies of over a megabyte, and without --data it sends no body at all.
        command += ["-H", "Expect: 100-continue" if one.framing == "expect" else "Expect:"]
        if one.body is not None:
            command += ["--data-binary", f"@{one.file}"]
        # With POST said by -X, it would be the method behind a redirection, too, whatever its status.
        if one.method == "HEAD":
            command.append("-I")
        elif one.body is None or one.method != "POST":
            command += ["-X", one.method]
        # What -I gives out is the head.
        command += ["-o", "/dev/null" if one.method == "HEAD" else str(body)]
        command += ["-w", f"{one.name} %{{http_code}} %{{http_version}}\\n", run.url + one.path]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    for line in done.stdout.splitlines():
        name, status, version = line.split(" ")
        (run.out / f"{name}.head").write_text(f"{status}\n{version}\n")


def main():
    run = plan.arguments()
    if run.version == "2" and run.ca is None:
        # It fails where it uses a connection of prior knowledge again; see the driver.
        for one in run.alone:
            transfers(run, [one])
        with concurrent.futures.ThreadPoolExecutor(len(run.together)) as pool:
            list(pool.map(lambda one: transfers(run, [one]), run.together))
    else:
        transfers(run, run.alone)
        transfers(run, run.together, "--parallel")


if __name__ == "__main__":
    main()
