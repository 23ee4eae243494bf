import hashlib, json, socket, sqlite3, ssl, zoneinfo, datetime
def application(env, start):
    path = env["PATH_INFO"]
    try:
        if path == "/": body = "hello"
        elif path == "/digest": body = hashlib.sha256(env["wsgi.input"].read()).hexdigest()
        elif path == "/db": body = str(sqlite3.connect(":memory:").execute("select 6*7").fetchone()[0])
        elif path == "/lookup": body = socket.gethostbyname("some.corpus.test")
        elif path == "/ssl": body = str(ssl.create_default_context().cert_store_stats()["x509"] >= 0)
        else: raise KeyError(path)
    except KeyError:
        start("404 no", []); return [b""]
    start("200 OK", [("Content-Length", str(len(body)))]); return [body.encode()]
