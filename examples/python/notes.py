"""Puts a note through one host and reads it at another: python3 notes.py http://127.0.0.1:8000 [http://…]"""

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


def main(urls: list[str]) -> None:
    wallet, session = Wallet(), Session()
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
    main(sys.argv[1:] or ["http://127.0.0.1:8000"])
