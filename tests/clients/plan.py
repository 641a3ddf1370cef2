"""What the Python clients share: reading the plan, writing down the answers."""

import pathlib
import sys
import typing

PIECE = 1000


class Exchange(typing.NamedTuple):
    """One line of the plan; README.md beside this file says what each word means."""

    name: str
    method: str
    path: str
    framing: str
    together: str
    type: str
    file: str

    @property
    def headers(self):
        headers = {"X-Exchange": self.name}
        if self.type != "-":
            headers["Content-Type"] = self.type
        return headers

    @property
    def body(self):
        return None if self.file == "-" else pathlib.Path(self.file).read_bytes()

    def pieces(self):
        """The body, in pieces."""
        for at in range(0, len(self.body), PIECE):
            yield self.body[at : at + PIECE]


class Run(typing.NamedTuple):
    """The arguments of a client."""

    url: str
    version: str
    ca: str | None
    alone: list[Exchange]
    together: list[Exchange]
    out: pathlib.Path

    def keep(self, exchange, status, version, body):
        (self.out / f"{exchange.name}.head").write_text(f"{status}\n{version}\n")
        (self.out / f"{exchange.name}.body").write_bytes(body)


def arguments():
    url, version, ca, plan, out = sys.argv[1:]
    lines = pathlib.Path(plan).read_text().splitlines()
    exchanges = [Exchange(*line.split("\t")) for line in lines]
    return Run(
        url, version, None if ca == "-" else ca,
        [one for one in exchanges if one.together == "no"],
        [one for one in exchanges if one.together == "yes"],
        pathlib.Path(out),
    )
