"""What an app says to a TinyCloud host, without a TinyCloud package. docs/app.md explains every byte."""

import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone

import cbor2
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account import Account
from eth_account.messages import encode_defunct

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(b: bytes) -> str:
    n, text = int.from_bytes(b, "big"), ""
    while n:
        n, digit = divmod(n, 58)
        text = BASE58[digit] + text
    return "1" * (len(b) - len(b.lstrip(b"\0"))) + text


def base64url(b: bytes) -> str:
    return base64.urlsafe_b64encode(b).decode().rstrip("=")


def cid(token: bytes) -> str:
    """The id of a token: CIDv1 (01), raw (55), BLAKE3 (1e) of 32 bytes (20), in base32."""
    digest = b"\x01\x55\x1e\x20" + blake3(token).digest()
    return "b" + base64.b32encode(digest).decode().lower().rstrip("=")


class Refused(Exception):
    def __init__(self, status: int, text: str):
        super().__init__(f"{status}: {text}")
        self.status = status


def send(method: str, url: str, token: str = "", body: bytes | None = None, kind: str = "") -> bytes:
    """Asks a host; what waits for its history there (503) is asked again for a minute."""
    for attempt in range(60):
        request = urllib.request.Request(url, data=body, method=method)
        if token:
            request.add_header("Authorization", token)
        if kind:
            request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read()
        except urllib.error.HTTPError as e:
            text = e.read().decode(errors="replace")
            if e.code != 503 or attempt == 59:
                raise Refused(e.code, text) from None
            time.sleep(1)
    raise AssertionError


class Wallet:
    """An Ethereum account: it owns Spaces and delegates."""

    def __init__(self, key: str | None = None):
        self.account = Account.from_key(key) if key else Account.create()
        self.did = f"did:pkh:eip155:1:{self.account.address}"

    def space(self, name: str) -> str:
        return f"tinycloud:pkh:eip155:1:{self.account.address}:{name}"

    def delegate(self, audience: str, abilities: dict[str, list[str]], hours: float | None = None) -> str:
        """The Authorization header by which the wallet gives abilities, by resource, to a DID."""
        att = {r: {a: [{}] for a in sorted(abilities[r])} for r in sorted(abilities)}
        recap = "urn:recap:" + base64url(json.dumps({"att": att, "prf": []}, separators=(",", ":")).encode())
        now = datetime.now(timezone.utc)
        p = {
            "iss": self.did,
            "aud": audience,
            "domain": "app.example.com",
            "version": 1,
            "nonce": uuid.uuid4().hex,
            "iat": stamp(now),
            "statement": sentence(att),
            "resources": [recap],
        }
        if hours is not None:
            p["exp"] = stamp(now + timedelta(hours=hours))
        signed = self.account.sign_message(encode_defunct(text=siwe_text(self.account.address, p)))
        cacao = {"h": {"t": "eip4361"}, "p": p, "s": {"t": "eip191", "s": bytes(signed.signature)}}
        self.last = cbor2.dumps(cacao, canonical=True)  # map keys by length, then by bytes
        return base64.urlsafe_b64encode(self.last).decode()  # with its padding


def stamp(t: datetime) -> str:
    return t.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def sentence(att: dict) -> str:
    """What the wallet shows of the abilities; a host refuses another sentence."""
    parts = []
    for resource in att:
        spaces: dict[str, list[str]] = {}
        for ability in att[resource]:
            namespace, name = ability.split("/")
            spaces.setdefault(namespace, []).append(name)
        for namespace, names in spaces.items():
            listed = ", ".join(f"'{n}'" for n in names)
            parts.append(f"({len(parts) + 1}) '{namespace}': {listed} for '{resource}'.")
    return "I further authorize the stated URI to perform the following actions on my behalf: " + " ".join(parts)


def siwe_text(address: str, p: dict) -> str:
    lines = [
        f"{p['domain']} wants you to sign in with your Ethereum account:",
        address,
        "",
        p["statement"],
        "",
        f"URI: {p['aud']}",
        "Version: 1",
        "Chain ID: 1",
        f"Nonce: {p['nonce']}",
        f"Issued At: {p['iat']}",
    ]
    if "exp" in p:
        lines.append(f"Expiration Time: {p['exp']}")
    return "\n".join(lines + ["Resources:"] + [f"- {r}" for r in p["resources"]])


class Session:
    """A key of the app, which the wallet delegated to: it signs what is asked, one token a request."""

    def __init__(self):
        self.key = Ed25519PrivateKey.generate()
        public = self.key.public_key().public_bytes_raw()
        name = "z" + base58(b"\xed\x01" + public)  # base58btc of the multicodec of Ed25519 and the key
        self.did = f"did:key:{name}"
        self.uri = f"{self.did}#{name}"
        self.proof = ""

    def token(self, resource: str, ability: str, audience: str = "", facts: dict | None = None) -> str:
        header = {"alg": "EdDSA", "typ": "JWT", "ucv": "0.10.0"}
        payload = {
            "iss": self.uri,
            "aud": audience or self.did,
            "exp": int(time.time()) + 60,
            "nnc": uuid.uuid4().hex,
            "prf": [self.proof],
            "att": {resource: {ability: [{}]}},
        }
        if facts:
            payload["fct"] = [facts]
        text = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, payload))
        return text + "." + base64url(self.key.sign(text.encode()))


class Space:
    """A Space at one host, for a session."""

    def __init__(self, host: str, wallet: Wallet, name: str, session: Session):
        self.host, self.wallet, self.id, self.session = host.rstrip("/"), wallet, wallet.space(name), session

    def begin(self) -> None:
        """Makes the host one of the Space, and signs the app in."""
        key = send("GET", f"{self.host}/peer/generate/{urllib.parse.quote(self.id, safe='')}").decode()
        self._post(self.wallet.delegate(key, {f"{self.id}/space": ["tinycloud.space/host"]}))
        if not self.session.proof:
            self.header = self.wallet.delegate(
                self.session.uri,
                {
                    f"{self.id}/kv": ["tinycloud.kv/get", "tinycloud.kv/put", "tinycloud.kv/del", "tinycloud.kv/list"],
                    f"{self.id}/sql": ["tinycloud.sql/read", "tinycloud.sql/write"],
                },
                hours=24,
            )
            self.session.header, self.session.proof = self.header, cid(self.wallet.last)
        self._post(self.session.header)

    def _post(self, header: str) -> dict:
        return json.loads(send("POST", f"{self.host}/delegate", header))

    def _invoke(self, path: str, ability: str, body: bytes = b"") -> bytes:
        return send("POST", f"{self.host}/invoke", self.session.token(f"{self.id}/{path}", ability), body)

    def put(self, key: str, value: bytes) -> None:
        self._invoke(f"kv/{key}", "tinycloud.kv/put", value)

    def get(self, key: str) -> bytes:
        return self._invoke(f"kv/{key}", "tinycloud.kv/get")

    def delete(self, key: str) -> None:
        self._invoke(f"kv/{key}", "tinycloud.kv/del")

    def list(self, prefix: str = "") -> list[str]:
        return json.loads(self._invoke(f"kv/{prefix}", "tinycloud.kv/list"))

    def sql(self, database: str, statement: str, *params) -> dict:
        read = statement.lstrip().lower().startswith("select")
        body = {"action": "query" if read else "execute", "sql": statement, "params": list(params)}
        ability = "tinycloud.sql/read" if read else "tinycloud.sql/write"
        return json.loads(self._invoke(f"sql/{database}", ability, json.dumps(body).encode()))
