"""For mitmproxy: seals the fields that the bench's policy seals, as one would write it in an afternoon."""

import base64
import json
import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CIPHER = AESGCM(AESGCM.generate_key(256))


def token(value):
    nonce = os.urandom(12)
    sealed = nonce + CIPHER.encrypt(nonce, json.dumps(value).encode(), None)
    return "fv1~" + base64.urlsafe_b64encode(sealed).decode().rstrip("=") + "~"


def seal(document):
    """Wherever they stand: $..ssn, $..email, $..phone, $..passport, $..iban, $..cards[*].number."""
    if isinstance(document, list):
        return [seal(one) for one in document]
    if not isinstance(document, dict):
        return document
    sealed = {}
    for name, value in document.items():
        if name in ("ssn", "email", "phone", "passport", "iban"):
            sealed[name] = token(value)
        elif name == "cards":
            sealed[name] = [{**card, "number": token(card["number"])} for card in value]
        else:
            sealed[name] = seal(value)
    return sealed


def request(flow):
    flow.request.text = json.dumps(seal(json.loads(flow.request.text)))
