"""The shop's application: items are in PostgreSQL, the list of them and the count of visits in Redis."""
import http.server
import json
import os
import pathlib
import signal
import socket
import threading
from contextlib import closing

import psycopg2
import redis

CACHED = 5  # seconds that a list of items may be old
cache = redis.Redis(os.environ["CACHE_HOST"], socket_timeout=3, socket_connect_timeout=3)


def query(text, *values):
    """Rows that a statement gives, if any."""
    password = pathlib.Path(os.environ["DB_PASSWORD_FILE"]).read_text().rstrip("\n")
    with closing(psycopg2.connect(host=os.environ["DB_HOST"], dbname=os.environ["DB_NAME"], user=os.environ["DB_USER"],
                                  password=password, connect_timeout=3)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []


def items():
    known = cache.get("items")
    if known is None:
        known = json.dumps([name for (name,) in query("SELECT name FROM items ORDER BY id")])
        cache.set("items", known, ex=CACHED)
    return json.loads(known)


class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/healthz":
            cache.ping()
            query("SELECT 1")
            self.answer(200, {"ok": True})
        elif self.path == "/items":
            self.answer(200, {"greeting": os.environ["GREETING"], "visits": cache.incr("visits"), "items": items(),
                              "by": socket.gethostname()})
        else:
            self.answer(404, {"error": "no such page"})

    def do_POST(self):
        if self.path != "/items":
            return self.answer(404, {"error": "no such page"})
        length = int(self.headers.get("Content-Length", 0))
        name = self.rfile.read(min(length, 320)).decode(errors="replace").strip()[:80]
        if not name:
            return self.answer(400, {"error": "an item has a name"})
        query("INSERT INTO items (name) VALUES (%s)", name)
        cache.delete("items")
        self.answer(201, {"added": name})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # closing waits for the requests that are being answered


def main():
    # Two replicas that start at once would both make it: only one may at a time.
    query("SELECT pg_advisory_xact_lock(1);"
          "CREATE TABLE IF NOT EXISTS items (id SERIAL PRIMARY KEY, name TEXT NOT NULL)")
    server = Server(("", 8000), Shop)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
