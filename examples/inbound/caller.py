"""Enrols a member, and finds it again by a token. What a caller has of a member, and may keep and log, is tokens."""

import json
import os
import urllib.request

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8080")


def call(path, document=None):
    """Sends JSON; returns the JSON of the answer."""
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(BASE_URL + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def main():
    enrolled = call("/members", {"name": "Ada", "ssn": "078-05-1120", "email": "ada@example.com"})
    print("enrolled:", json.dumps(enrolled))
    found = call("/members/search", {"ssn": enrolled["ssn"]})
    print("found:   ", json.dumps(found))
    assert [member["name"] for member in found] == ["Ada"]


if __name__ == "__main__":
    main()
