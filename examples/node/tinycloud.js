// What an app says to a TinyCloud host, without a TinyCloud package. docs/app.md explains every byte.

import { encode } from "@ipld/dag-cbor";
import { ed25519 } from "@noble/curves/ed25519";
import { secp256k1 } from "@noble/curves/secp256k1";
import { blake3 } from "@noble/hashes/blake3";
import { keccak_256 } from "@noble/hashes/sha3";
import { bytesToHex, randomBytes, utf8ToBytes } from "@noble/hashes/utils";

const base64url = (b) => Buffer.from(b).toString("base64url");

function base58(bytes) {
  const digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
  let n = BigInt("0x" + bytesToHex(bytes)), text = "";
  for (; n > 0n; n /= 58n) text = digits[Number(n % 58n)] + text;
  return text; // no key begins with a zero byte
}

function base32(bytes) {
  const digits = "abcdefghijklmnopqrstuvwxyz234567";
  let bits = "";
  for (const b of bytes) bits += b.toString(2).padStart(8, "0");
  return bits.replace(/.{1,5}/g, (five) => digits[parseInt(five.padEnd(5, "0"), 2)]);
}

// The id of a token: CIDv1 (01), raw (55), BLAKE3 (1e) of 32 bytes (20), in base32.
const cid = (token) => "b" + base32(Uint8Array.of(1, 0x55, 0x1e, 0x20, ...blake3(token)));

export class Refused extends Error {
  constructor(status, text) {
    super(`${status}: ${text}`);
    this.status = status;
  }
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Asks a host; what waits for its history there (503) is asked again for a minute.
async function send(method, url, token, body) {
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch(url, { method, body, headers: token ? { Authorization: token } : {} });
    if (answer.ok) return Buffer.from(await answer.arrayBuffer());
    if (answer.status !== 503 || attempt === 59) throw new Refused(answer.status, await answer.text());
    await pause(1000);
  }
}

// An Ethereum account: it owns Spaces and delegates. In a browser, window.ethereum signs the text by personal_sign.
export class Wallet {
  constructor(key = secp256k1.utils.randomPrivateKey()) {
    this.key = key;
    const hex = bytesToHex(keccak_256(secp256k1.getPublicKey(key, false).slice(1)).slice(12));
    const sum = bytesToHex(keccak_256(utf8ToBytes(hex)));
    this.address = "0x" + [...hex].map((c, i) => (sum[i] >= "8" ? c.toUpperCase() : c)).join(""); // EIP-55
    this.did = `did:pkh:eip155:1:${this.address}`;
  }

  space(name) {
    return `tinycloud:pkh:eip155:1:${this.address}:${name}`;
  }

  personalSign(text) {
    const message = utf8ToBytes(text);
    const digest = keccak_256(Buffer.concat([utf8ToBytes(`\x19Ethereum Signed Message:\n${message.length}`), message]));
    const signature = secp256k1.sign(digest, this.key); // s is in the lower half
    return Uint8Array.of(...signature.toCompactRawBytes(), 27 + signature.recovery);
  }

  // The Authorization header by which the wallet gives abilities, by resource, to a DID; and the id of that delegation.
  delegate(audience, abilities, hours) {
    const att = {};
    for (const resource of Object.keys(abilities).sort()) {
      att[resource] = Object.fromEntries([...abilities[resource]].sort().map((a) => [a, [{}]]));
    }
    const now = new Date();
    const p = {
      iss: this.did, aud: audience, domain: "app.example.com", version: 1,
      nonce: bytesToHex(randomBytes(16)), iat: now.toISOString(), statement: sentence(att),
      resources: ["urn:recap:" + base64url(JSON.stringify({ att, prf: [] }))],
    };
    if (hours) p.exp = new Date(now.getTime() + hours * 3600e3).toISOString();
    const s = this.personalSign(siweText(this.address, p));
    const token = encode({ h: { t: "eip4361" }, p, s: { t: "eip191", s } });
    return { header: Buffer.from(token).toString("base64").replaceAll("+", "-").replaceAll("/", "_"), id: cid(token) };
  }
}

// What the wallet shows of the abilities; a host refuses another sentence.
function sentence(att) {
  const parts = [];
  for (const [resource, abilities] of Object.entries(att)) {
    const names = {};
    for (const ability of Object.keys(abilities)) {
      const [namespace, name] = ability.split("/");
      (names[namespace] ??= []).push(`'${name}'`);
    }
    for (const [namespace, list] of Object.entries(names)) {
      parts.push(`(${parts.length + 1}) '${namespace}': ${list.join(", ")} for '${resource}'.`);
    }
  }
  return "I further authorize the stated URI to perform the following actions on my behalf: " + parts.join(" ");
}

function siweText(address, p) {
  return [
    `${p.domain} wants you to sign in with your Ethereum account:`, address, "", p.statement, "",
    `URI: ${p.aud}`, "Version: 1", "Chain ID: 1", `Nonce: ${p.nonce}`, `Issued At: ${p.iat}`,
    ...(p.exp ? [`Expiration Time: ${p.exp}`] : []),
    "Resources:", ...p.resources.map((r) => `- ${r}`),
  ].join("\n");
}

// A key of the app, which the wallet delegated to: it signs what is asked, one token a request.
export class Session {
  constructor(seed = ed25519.utils.randomPrivateKey()) {
    this.seed = seed;
    const name = "z" + base58(Uint8Array.of(0xed, 0x01, ...ed25519.getPublicKey(seed)));
    this.did = `did:key:${name}`;
    this.uri = `${this.did}#${name}`;
  }

  token(resource, ability) {
    const header = { alg: "EdDSA", typ: "JWT", ucv: "0.10.0" };
    const payload = {
      iss: this.uri, aud: this.did, exp: Math.floor(Date.now() / 1000) + 60, nnc: bytesToHex(randomBytes(16)),
      prf: [this.delegation.id], att: { [resource]: { [ability]: [{}] } },
    };
    const text = [header, payload].map((part) => base64url(JSON.stringify(part))).join(".");
    return `${text}.${base64url(ed25519.sign(utf8ToBytes(text), this.seed))}`;
  }
}

// A Space at one host, for a session.
export class Space {
  constructor(host, wallet, name, session) {
    Object.assign(this, { host: host.replace(/\/$/, ""), wallet, id: wallet.space(name), session });
  }

  // Makes the host one of the Space, and signs the app in.
  async begin() {
    const key = (await send("GET", `${this.host}/peer/generate/${encodeURIComponent(this.id)}`)).toString();
    await this.#post(this.wallet.delegate(key, { [`${this.id}/space`]: ["tinycloud.space/host"] }).header);
    this.session.delegation ??= this.wallet.delegate(this.session.uri, {
      [`${this.id}/kv`]: ["tinycloud.kv/get", "tinycloud.kv/put", "tinycloud.kv/del", "tinycloud.kv/list"],
      [`${this.id}/sql`]: ["tinycloud.sql/read", "tinycloud.sql/write"],
    }, 24);
    await this.#post(this.session.delegation.header);
  }

  #post(header) {
    return send("POST", `${this.host}/delegate`, header);
  }

  #invoke(path, ability, body) {
    return send("POST", `${this.host}/invoke`, this.session.token(`${this.id}/${path}`, ability), body);
  }

  put = (key, value) => this.#invoke(`kv/${key}`, "tinycloud.kv/put", value);
  get = (key) => this.#invoke(`kv/${key}`, "tinycloud.kv/get");
  delete = (key) => this.#invoke(`kv/${key}`, "tinycloud.kv/del");
  list = async (prefix = "") => JSON.parse(await this.#invoke(`kv/${prefix}`, "tinycloud.kv/list"));

  async sql(database, statement, ...params) {
    const read = /^\s*select/i.test(statement);
    const body = JSON.stringify({ action: read ? "query" : "execute", sql: statement, params });
    return JSON.parse(await this.#invoke(`sql/${database}`, `tinycloud.sql/${read ? "read" : "write"}`, body));
  }
}
