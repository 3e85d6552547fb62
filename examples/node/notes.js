// Puts a note through one host and reads it at another: node notes.js http://127.0.0.1:8000 [http://…]
//
// $OWNER_KEY names a file with the owner's private key; without it the owner is a new one. `notes.js put KEY TEXT URL` and
// `notes.js get KEY URL` do one thing alone.

import { readFileSync } from "node:fs";
import { pause, Refused, Session, Space, Wallet } from "./tinycloud.js";

// Reads at another host, where a write arrives a moment later.
async function waitFor(read) {
  for (let i = 0; i < 200; i++) {
    try {
      return await read();
    } catch (e) {
      if (!(e instanceof Refused && e.status === 404)) throw e;
      await pause(50);
    }
  }
  throw new Error("it did not arrive");
}

function owner() {
  const file = process.env.OWNER_KEY;
  return file ? new Wallet(Buffer.from(readFileSync(file, "utf8").trim(), "hex")) : new Wallet();
}

async function one(verb, key, ...rest) {
  const space = new Space(rest.at(-1), owner(), "default", new Session());
  await space.begin();
  if (verb === "put") await space.put(key, rest[0]);
  else console.log((await waitFor(() => space.get(key))).toString());
}

async function all(urls) {
  const wallet = owner(), session = new Session();
  const hosts = (urls.length ? urls : ["http://127.0.0.1:8000"]).map((url) => new Space(url, wallet, "notes", session));
  for (const host of hosts) await host.begin();
  const first = hosts[0], last = hosts.at(-1);
  console.log("space", first.id);
  await first.put("note/1", "written with JavaScript");
  console.log("read ", (await waitFor(() => last.get("note/1"))).toString());
  console.log("keys ", await first.list("note/"));
  await first.sql("tasks", "CREATE TABLE task (name TEXT)");
  await first.sql("tasks", "INSERT INTO task VALUES (?)", "water the plants");
  console.log("rows ", (await first.sql("tasks", "SELECT name FROM task")).rows);
}

const args = process.argv.slice(2);
await (args[0] === "put" || args[0] === "get" ? one(...args) : all(args));
