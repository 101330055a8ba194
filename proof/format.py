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


def server_key(sync: bytes) -> str:
    """K_sync as people copy it, in Crockford's base 32 with a checksum of four bytes."""
    data = sync + sha256(b"kvass v1 server key" + sync)[:4]
    bits = "".join(f"{byte:08b}" for byte in data) + "00"
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    return "kvass-server-" + "".join(digits[int(bits[at : at + 5], 2)] for at in range(0, len(bits), 5))


def field(number: int, data: bytes) -> bytes:
    """A protobuf field of bytes, left out where it is empty."""
    varint, rest = bytearray(), len(data)
    while rest > 127:
        varint.append(rest & 127 | 128)
        rest >>= 7
    varint.append(rest)
    return bytes([number << 3 | 2]) + bytes(varint) + data if data else b""


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
    generation = struct.pack(">I", given["generation"])
    stamp = struct.pack(">QQI", given["time_us"], given["counter"], given["pid"])
    expiry_and_size = struct.pack(">QQ", given["expiry_us"], given["size"])
    clear = bytes([1, given["kind"]]) + out["id"] + generation + stamp + expiry_and_size + value_hash
    header = field(1, name) + field(2, content_key)
    record_key = derive(keys["record"], b"kvass v1 header" + out["id"] + generation)
    nonce = mac(keys["nonce"], b"kvass v1 nonce", clear, header)[:24]
    cipher = ChaCha20_Poly1305.new(key=record_key, nonce=nonce)
    cipher.update(clear)
    sealed = nonce + b"".join(cipher.encrypt_and_digest(header))
    out |= {"value_hash": value_hash, "clear": clear, "header": header, "record_key": record_key, "nonce": nonce}
    return out | {"sealed": sealed, "auth": mac(keys["auth"], b"kvass v1 auth", clear, sealed)}


def expected(vectors: dict) -> dict:
    keys = account_keys(bytes.fromhex(vectors["key"]))
    derived = {name: data.hex() for name, data in keys.items()} 
    derived |= {"fingerprint": fingerprint(keys["account"]), "server_key": server_key(keys["sync"])}
    records = [
        {"given": one["given"], "gives": {name: data.hex() for name, data in record(keys, one["given"]).items()}}
        for one in vectors["records"]
    ]
    return {"key": vectors["key"], "derived": derived, "records": records}


def main() -> int:
    vectors = json.loads(VECTORS.read_text())
    wanted = expected(vectors)
    if sys.argv[1:] == ["--write"]:
        VECTORS.write_text(json.dumps(wanted, indent=2, ensure_ascii=False) + "\n")
    elif vectors != wanted:
        print("format: the vectors and this implementation differ", file=sys.stderr)
        return 1
    print(f"format: {len(wanted['records'])} records agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
