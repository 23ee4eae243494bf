# What of an API server Assay needs: lets the right token patch a node and make Events, says no to others, and writes down
# each request as a line. A file LOG.status has the status that it answers instead. Arguments: certificate, key, token, log.
import http.server, json, os, ssl, sys

certificate, key, token, log = sys.argv[1:]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_PATCH(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        allowed = self.headers["Authorization"] == f"Bearer {token}"
        with open(log, "a") as lines:
            lines.write(f'{"allowed" if allowed else "refused"} {self.path} {self.headers["Content-Type"]} {body}\n')
        answer = json.dumps({"kind": "Node"} if allowed else {"kind": "Status", "message": "nodes is forbidden"}).encode()
        status = 200 if allowed else 403
        if os.path.exists(log + ".status"):
            status = int(open(log + ".status").read())
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PATCH

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
