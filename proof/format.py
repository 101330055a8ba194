#!/usr/bin/env python3
"""A second implementation of docs/format.md, to prove that the page says enough.

Reads the vectors in kvassd/tests/golden.json, which the tests of kvassd read as well, derives and seals everything
again from their inputs, opens it, and fails where anything differs. Needs pycryptodome.

    python3 proof/format.py            check
    python3 proof/format.py --write    write the outputs anew, after a change of format
"""

import hashlib
import hmac
import json
import struct
import sys
from pathlib import Path

from Crypto.Cipher import AES, ChaCha20_Poly1305

VECTORS = Path(__file__).resolve().parent.parent / "kvassd/tests/golden.json"
CHUNK, TAG, INLINE_MAX = 32 << 10, 16, 4096


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def derive(secret: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 without a salt; one block is enough for every length in use."""
    prk = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(prk, info + b"\x01", "sha256")[:length]


def mac(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256 over parts, the label first, each behind its length."""
    return hmac.digest(key, b"".join(struct.pack(">Q", len(part)) + part for part in parts), "sha256")


def account_keys(key: bytes) -> dict[str, bytes]:
    keys = {name: derive(key, b"kvass v1 " + name.encode()) for name in ("sync", "id", "record", "auth", "nonce")}
    keys["account"] = derive(keys["sync"], b"kvass v1 account", 16)
    return keys


def fingerprint(account: bytes) -> str:
    digits = account.hex()
    return "-".join(digits[at : at + 4] for at in range(0, 16, 4))


def base32(data: bytes) -> str:
    """Crockford's base 32 in lower case."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    return "".join(digits[int(bits[at : at + 5], 2)] for at in range(0, len(bits), 5))


def server_key(sync: bytes) -> str:
    """K_sync as people copy it, with a checksum of four bytes."""
    return "kvass-server-" + base32(sync + sha256(b"kvass v1 server key" + sync)[:4])


def field(number: int, data: bytes) -> bytes:
    """A protobuf field of bytes, left out where it is empty."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data if data else b""


def number(at: int, value: int) -> bytes:
    """A protobuf field of a number, left out where it is 0."""
    return bytes([at << 3]) + varint(value) if value else b""


def varint(rest: int) -> bytes:
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def aes(content_key: bytes, position: int, last: bool):
    return AES.new(content_key, AES.MODE_GCM, nonce=bytes(7) + struct.pack(">I?", position, last))


def seal_value(content_key: bytes, value: bytes) -> list[bytes]:
    parts = [value[at : at + CHUNK] for at in range(0, len(value), CHUNK)] or [b""]
    sealed = (aes(content_key, at, at == len(parts) - 1).encrypt_and_digest(part) for at, part in enumerate(parts))
    return [text + tag for text, tag in sealed]


def open_value(content_key: bytes, chunks: list[bytes]) -> bytes:
    opened = (
        aes(content_key, at, at == len(chunks) - 1).decrypt_and_verify(chunk[:-TAG], chunk[-TAG:])
        for at, chunk in enumerate(chunks)
    )
    return b"".join(opened)


def record(keys: dict[str, bytes], given: dict) -> dict:
    """All that follows from the inputs of one vector."""
    name, content_key = given["name"].encode(), bytes.fromhex(given["content_key"])
    out = {"id": mac(keys["id"], b"kvass v1 id", name)[:16]}
    value_hash = bytes(32)
    if given["kind"] == 1:
        value = bytes(at % 251 for at in range(given["size"]))
        chunks = seal_value(content_key, value)
        assert open_value(content_key, chunks) == value
        hashes = b"".join(sha256(chunk) for chunk in chunks)
        value_hash, sealed_value = sha256(hashes), b"".join(chunks)
        out["sealed_value_sha256"] = sha256(sealed_value)
        if given["size"] <= 1:
            out["sealed_value"] = sealed_value
        if given["size"] > INLINE_MAX:
            out["blob_sha256"] = sha256(sealed_value + hashes)
    header = field(1, name) + field(2, content_key)
    return out | seal(keys, given, out["id"], given["size"], value_hash, header)


def seal(keys: dict[str, bytes], given: dict, at: bytes, size: int, value_hash: bytes, header: bytes) -> dict:
    """A record of any kind, once its header and its value are known."""
    generation = struct.pack(">I", given["generation"])
    stamp = struct.pack(">QQI", given["time_us"], given["counter"], given["pid"])
    expiry_and_size = struct.pack(">QQ", given["expiry_us"], size)
    clear = bytes([1, given["kind"]]) + at + generation + stamp + expiry_and_size + value_hash
    record_key = header_key(keys, at, generation)
    nonce = mac(keys["nonce"], b"kvass v1 nonce", clear, header)[:24]
    cipher = ChaCha20_Poly1305.new(key=record_key, nonce=nonce)
    cipher.update(clear)
    sealed = nonce + b"".join(cipher.encrypt_and_digest(header))
    out = {"value_hash": value_hash, "clear": clear, "header": header, "record_key": record_key, "nonce": nonce}
    return out | {"sealed": sealed, "auth": mac(keys["auth"], b"kvass v1 auth", clear, sealed)}


def header_key(keys: dict[str, bytes], at: bytes, generation: bytes) -> bytes:
    return derive(keys["record"], b"kvass v1 header" + at + generation)


def link(keys: dict[str, bytes], given: dict, records: list[dict]) -> dict:
    """A link to a name or, with `pin`, to the version that is the record of that number."""
    token, name = bytes.fromhex(given["token"]), given["name"].encode()
    target = mac(keys["id"], b"kvass v1 id", name)[:16]
    grant = field(1, target)
    if given["pin"] is None:
        grant += field(3, header_key(keys, target, bytes(4))) + number(4, given["reads"])
    else:
        pinned = records[given["pin"]]
        grant += number(4, given["reads"]) + field(5, bytes.fromhex(pinned["given"]["content_key"]))
        grant += field(6, bytes.fromhex(pinned["gives"]["value_hash"])) + number(7, pinned["given"]["size"])
        grant += field(8, name)
    grant_key = derive(token, b"kvass v1 link grant" + keys["account"])
    sealed_value = b"".join(seal_value(grant_key, grant))
    header = field(1, name) + field(3, token) + number(4, given["reads"]) + number(5, int(given["pin"] is not None))
    out = {"id": derive(token, b"kvass v1 link id", 16), "grant_key": grant_key, "grant": grant}
    out |= {"sealed_value": sealed_value}
    out |= seal(keys, given, out["id"], len(grant), sha256(sha256(sealed_value)), header)
    return {"text": base32(token)} | {name: data.hex() for name, data in out.items()}


def expected(vectors: dict) -> dict:
    keys = account_keys(bytes.fromhex(vectors["key"]))
    derived = {name: data.hex() for name, data in keys.items()} 
    derived |= {"fingerprint": fingerprint(keys["account"]), "server_key": server_key(keys["sync"])}
    records = [
        {"given": one["given"], "gives": {name: data.hex() for name, data in record(keys, one["given"]).items()}}
        for one in vectors["records"]
    ]
    links = [{"given": one["given"], "gives": link(keys, one["given"], records)} for one in vectors["links"]]
    return {"key": vectors["key"], "derived": derived, "records": records, "links": links}


def main() -> int:
    vectors = json.loads(VECTORS.read_text())
    wanted = expected(vectors)
    if sys.argv[1:] == ["--write"]:
        VECTORS.write_text(json.dumps(wanted, indent=2, ensure_ascii=False) + "\n")
    elif vectors != wanted:
        print("format: the vectors and this implementation differ", file=sys.stderr)
        return 1
    print(f"format: {len(wanted['records'])} records and {len(wanted['links'])} links agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
