"""Puts a note through one host and reads it at another: python3 notes.py http://127.0.0.1:8000 [http://…]

$OWNER_KEY names a file with the owner's private key; without it the owner is a new one. `notes.py put KEY TEXT URL` and
`notes.py get KEY URL` do one thing alone.
"""

import os
import sys
import time

from tinycloud import Refused, Session, Space, Wallet


def wait_for(read):
    """Reads at another host, where a write arrives a moment later."""
    for _ in range(200):
        try:
            return read()
        except Refused as e:
            if e.status != 404:
                raise
            time.sleep(0.05)
    raise SystemExit("it did not arrive")


def owner() -> Wallet:
    file = os.environ.get("OWNER_KEY")
    if not file:
        return Wallet()
    with open(file) as f:
        return Wallet(f.read().strip())


def one(verb: str, key: str, *rest: str) -> None:
    space = Space(rest[-1], owner(), "default", Session())
    space.begin()
    if verb == "put":
        space.put(key, rest[0].encode())
    else:
        print(wait_for(lambda: space.get(key)).decode())


def main(urls: list[str]) -> None:
    wallet, session = owner(), Session()
    hosts = [Space(url, wallet, "notes", session) for url in urls]
    for host in hosts:
        host.begin()
    first, last = hosts[0], hosts[-1]
    print("space", first.id)
    first.put("note/1", b"written with Python")
    print("read ", wait_for(lambda: last.get("note/1")).decode())
    print("keys ", first.list("note/"))
    first.sql("tasks", "CREATE TABLE task (name TEXT)")
    first.sql("tasks", "INSERT INTO task VALUES (?)", "water the plants")
    print("rows ", first.sql("tasks", "SELECT name FROM task")["rows"])


if __name__ == "__main__":
    if sys.argv[1:2] in (["put"], ["get"]):
        one(*sys.argv[1:])
    else:
        main(sys.argv[1:] or ["http://127.0.0.1:8000"])
