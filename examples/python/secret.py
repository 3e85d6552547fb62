"""Seals a secret at one host and opens it at another: python3 secret.py http://127.0.0.1:8000 [http://…]

The hosts store what is sealed, and never see it: the app seals with a key of its own, seals that to its owner's network, and asks
a host that has the network's key to unseal it for one request. docs/encryption.md says what that protects from.
"""

import base64
import hashlib
import json
import os
import sys
import time
import urllib.parse

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from notes import owner
from tinycloud import Refused, Session, Space, Wallet, cid, send


def canonical(value) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def seal(key: bytes, text: bytes) -> bytes:
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, text, None)


def unseal(key: bytes, sealed: bytes) -> bytes:
    return AESGCM(key).decrypt(sealed[:12], sealed[12:], None)


def b64(b: bytes) -> str:
    return base64.b64encode(b).decode()


class Network:
    """The owner's encryption network: a key pair whose private half hosts of his Space "secrets" have."""

    def __init__(self, wallet: Wallet):
        self.id, self.wallet, self.session = f"urn:tinycloud:encryption:{wallet.did}:default", wallet, Session()
        abilities = ["tinycloud.encryption/decrypt", "tinycloud.encryption/network.create"]
        self.header = wallet.delegate(self.session.uri, {self.id: abilities}, hours=1)
        self.session.proof = cid(wallet.last)

    def _ask(self, host: str, path: str, ability: str, body: dict, facts: dict) -> dict:
        node = json.loads(send("GET", f"{host}/info"))["nodeId"]
        if "targetNode" in body:
            body["targetNode"] = node
        facts = {name: body.get(name, value) for name, value in (facts | {"targetNode": node}).items()} | {"bodyHash": digest(body)}
        token = self.session.token(self.id, ability, node, facts)
        url = f"{host}/encryption/networks{path}"
        return json.loads(send("POST", url, token, canonical(body).encode(), "application/json"))

    def create(self, host: str) -> None:
        ability = "tinycloud.encryption/network.create"
        body = {"name": "default", "ownerDid": self.wallet.did, "threshold": {"n": 1, "t": 1}}
        facts = {"type": "tinycloud.encryption.network-admin/v1", "networkId": self.id, "action": ability}
        send("POST", f"{host}/delegate", self.header)
        self._ask(host, "", ability, body, facts)

    def path(self) -> str:
        return "/" + urllib.parse.quote(self.id, safe="")

    def encrypt(self, host: str, text: bytes) -> bytes:
        """What is stored: the text under a key of its own, and that key under the network's."""
        d = json.loads(send("GET", f"{host}/encryption/networks{self.path()}"))["descriptor"]
        data, ours = os.urandom(32), X25519PrivateKey.generate()
        shared = ours.exchange(X25519PublicKey.from_public_bytes(base64.b64decode(d["publicEncryptionKey"])))
        sealed = b64(ours.public_key().public_bytes_raw() + b"\x01" + seal(shared, data))
        envelope = {"v": 1, "networkId": self.id, "alg": d["alg"], "keyVersion": d["keyVersion"], "encryptedSymmetricKey": sealed}
        envelope |= {"encryptedSymmetricKeyHash": digest(sealed), "ciphertext": b64(seal(data, text))}
        return canonical(envelope).encode()

    def decrypt(self, host: str, stored: bytes) -> bytes:
        envelope, ours = json.loads(stored), X25519PrivateKey.generate()
        sealed, public = envelope["encryptedSymmetricKey"], b64(ours.public_key().public_bytes_raw())
        body = {"type": "tinycloud.encryption.decrypt/v1", "targetNode": "", "networkId": self.id, "alg": "x25519-aes256gcm/v1"}
        body |= {"keyVersion": envelope["keyVersion"], "encryptedSymmetricKey": sealed, "receiverPublicKey": public}
        body |= {"encryptedSymmetricKeyHash": digest(sealed), "receiverPublicKeyHash": digest(public)}
        names = ["type", "networkId", "alg", "keyVersion", "encryptedSymmetricKeyHash", "receiverPublicKeyHash"]
        answer = self._ask(host, self.path() + "/decrypt", "tinycloud.encryption/decrypt", body, {n: body[n] for n in names})
        wrapped = base64.b64decode(answer["wrappedKey"])
        shared = ours.exchange(X25519PublicKey.from_public_bytes(wrapped[:32]))
        return unseal(unseal(shared, wrapped[33:]), base64.b64decode(envelope["ciphertext"]))


def main(urls: list[str]) -> None:
    wallet, session = owner(), Session()
    hosts = [Space(url, wallet, "secrets", session) for url in urls]
    for host in hosts:
        host.begin()
    first, last, network = hosts[0], hosts[-1], Network(wallet)
    network.create(first.host)
    first.put("vault/secrets/WIFI", network.encrypt(first.host, b"correct horse battery staple"))
    for _ in range(200):
        try:
            print("secret", network.decrypt(last.host, last.get("vault/secrets/WIFI")).decode())
            return
        except Refused as e:  # it, or the network's key, is not there yet
            if e.status != 404:
                raise
            time.sleep(0.05)
    raise SystemExit("it did not arrive")


if __name__ == "__main__":
    main(sys.argv[1:] or ["http://127.0.0.1:8000"])
