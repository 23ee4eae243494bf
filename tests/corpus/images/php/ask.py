"""Asks a FastCGI server: ask.py PORT SCRIPT QUERY, with the body on standard input. Prints what it answers."""

import socket
import struct
import sys


def record(kind, content):
    return struct.pack(">BBHHBx", 1, kind, 1, len(content), 0) + content


def pair(name, value):
    return b"".join(struct.pack(">I", len(text) | 1 << 31) for text in (name, value)) + name + value


def main():
    port, script, query = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    body = sys.stdin.buffer.read()
    parameters = {
        "REQUEST_METHOD": "POST" if body else "GET",
        "SCRIPT_FILENAME": script,
        "SCRIPT_NAME": script,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "application/octet-stream",
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection, connection.makefile("rb") as answers:
        request = record(1, struct.pack(">HB5x", 1, 0))
        request += record(4, b"".join(pair(name.encode(), value.encode()) for name, value in parameters.items()))
        request += record(4, b"")
        for start in range(0, len(body), 65000):
            request += record(5, body[start : start + 65000])
        connection.sendall(request + record(5, b""))
        while head := answers.read(8):
            _, kind, _, length, padding = struct.unpack(">BBHHBx", head)
            content = answers.read(length + padding)[:length]
            if kind == 6:
                sys.stdout.buffer.write(content)
            elif kind == 7:
                sys.stderr.buffer.write(content)
            elif kind == 3:
                return
    sys.exit("the connection ended before the answer did")


main()
