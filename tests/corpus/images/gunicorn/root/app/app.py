import hashlib
import logging
import os
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import urllib.request
import zoneinfo
from datetime import datetime

import flask
import lxml.etree
import ujson

import fast

app = flask.Flask(__name__)
logging.basicConfig(level=logging.INFO)


@app.get("/")
def index():
    return flask.render_template_string("hello <b>{{ name }}</b>", name=flask.request.args.get("name", "nobody"))


@app.get("/fast/<text>")
def checksum(text):
    return str(fast.checksum(text))


@app.post("/xml")
def xml():
    tree = lxml.etree.fromstring(flask.request.get_data())
    return ujson.dumps({"tag": tree.tag, "children": [child.tag for child in tree]})


@app.post("/digest")
def digest():
    with tempfile.NamedTemporaryFile() as file:
        file.write(flask.request.get_data())
        file.flush()
        with open(file.name, "rb") as again:
            return hashlib.file_digest(again, "sha256").hexdigest()


@app.get("/upstream")
def upstream():
    context = ssl.create_default_context(cafile=os.environ["CA"])
    with urllib.request.urlopen(os.environ["UPSTREAM"], context=context, timeout=10) as answer:
        return answer.read()


@app.get("/database")
def database():
    with sqlite3.connect(":memory:") as connection:
        return str(connection.execute("SELECT sum(value) FROM json_each('[1,2,3]')").fetchone()[0])


@app.get("/zone")
def zone():
    return datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("UTC")).isoformat()


@app.get("/lookup/<name>")
def lookup(name):
    return socket.getaddrinfo(name, 80, socket.AF_INET)[0][4][0]


@app.get("/error")
def error():
    raise RuntimeError("as asked")
