"""Places an order and reads it back. It knows nothing of fieldveil: the only change is BASE_URL."""

import json
import os
import urllib.request

# Was: https://api.example.com
BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8080")


def call(method, path, document=None):
    """Sends JSON; returns the JSON of the answer, and its Location."""
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(BASE_URL + path, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer), answer.headers["Location"]


def main():
    order = {
        "name": "Ada",
        "ssn": "123-45-6789",
        "cards": [{"number": "4111111111111111"}, {"number": 5500005555555559}],
        "amount": 19.90,
    }
    placed, location = call("POST", "/orders", order)
    print("placed:", json.dumps(placed))
    read, _ = call("GET", location)
    print("read:  ", json.dumps(read))
    assert placed == read == order


if __name__ == "__main__":
    main()
