"""Somebody else's hands on an HSM: makes keys, switches them off and on, deletes them, and opens a blob, with python-pkcs11.

    softhsm.py LIBRARY TOKEN PIN make LABEL ID
    softhsm.py LIBRARY TOKEN PIN switch LABEL on|off
    softhsm.py LIBRARY TOKEN PIN delete LABEL
    softhsm.py LIBRARY TOKEN PIN open LABEL BLOB CONTEXT      prints the data key, in hexadecimal as BLOB and CONTEXT
"""

import sys

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass

library, token, pin, verb, label, *rest = sys.argv[1:]
with pkcs11.lib(library).get_token(token_label=token).open(rw=True, user_pin=pin) as session:
    keys = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}))
    if verb == "make":
        session.generate_key(KeyType.AES, 256, store=True, label=label, id=bytes.fromhex(rest[0]))
    elif verb == "switch":
        for key in keys:
            key[Attribute.DECRYPT] = rest[0] == "on"
    elif verb == "delete":
        for key in keys:
            key.destroy()
    elif verb == "open":
        blob, context = map(bytes.fromhex, rest)
        (key,) = [key for key in keys if key[Attribute.CHECK_VALUE] == blob[:3]]
        params = GCMParams(nonce=blob[3:15], aad=context, tag_bits=128)
        print(key.decrypt(blob[15:], mechanism=Mechanism.AES_GCM, mechanism_param=params).hex())
    else:
        sys.exit(f"unknown: {verb}")
