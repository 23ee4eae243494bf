const { fork } = require("child_process");
const crypto = require("crypto");
const dns = require("dns");
const fs = require("fs");
const http = require("http");
const https = require("https");
const os = require("os");
const path = require("path");
const { Worker } = require("worker_threads");
const zlib = require("zlib");
const { pipeline } = require("stream");
const greet = require("greet");

const routes = {
  "/": (request, response) => response.end(greet(os.userInfo().username) + "\n"),
  "/lookup": (request, response, query) =>
    dns.lookup(query.get("name"), { family: 4 }, (error, address) => {
      response.statusCode = error ? 502 : 200;
      response.end(error ? error.code : address);
    }),
  "/resolve": (request, response, query) =>
    dns.resolve4(query.get("name"), (error, addresses) => {
      response.statusCode = error ? 502 : 200;
      response.end(error ? error.code : addresses.join());
    }),
  "/digest": (request, response) => {
    const name = path.join(os.tmpdir(), crypto.randomUUID());
    pipeline(request, fs.createWriteStream(name), (error) => {
      if (error) return response.destroy();
      const hash = crypto.createHash("sha256");
      pipeline(fs.createReadStream(name), hash, () => {
        fs.unlink(name, () => response.end(hash.digest("hex")));
      });
    });
  },
  "/zipped": (request, response) => {
    response.setHeader("Content-Encoding", "gzip");
    fs.createReadStream("/usr/share/common-licenses/GPL-3").pipe(zlib.createGzip()).pipe(response);
  },
  "/work": (request, response) =>
    new Worker(path.join(__dirname, "work.js"), { workerData: 1e6 }).on("message", (sum) => response.end(String(sum))),
  "/child": (request, response) => {
    const child = fork(path.join(__dirname, "child.js"));
    child.on("message", (text) => response.end(text));
    child.send("from the child");
  },
  "/fetch": (request, response, query) =>
    https.get(query.get("url"), (answer) => answer.pipe(response)).on("error", (error) => {
      response.statusCode = 502;
      response.end(error.code);
    }),
  "/key": (request, response) =>
    crypto.scrypt("secret", "salt", 32, (error, key) => response.end(key.toString("hex"))),
  "/date": (request, response) =>
    response.end(new Date(Date.UTC(2026, 6, 1)).toLocaleDateString("de-DE", { timeZone: "UTC", month: "long" })),
  "/throw": () => { throw new Error("as asked"); },
};

function handle(request, response) {
  const url = new URL(request.url, "http://localhost");
  const route = routes[url.pathname];
  response.setHeader("Content-Type", "text/plain");
  if (!route) {
    response.statusCode = 404;
    return response.end("none\n");
  }
  try {
    route(request, response, url.searchParams);
  } catch (error) {
    console.error(error);
    response.statusCode = 500;
    response.end(error.message);
  }
}

const plain = http.createServer(handle).listen(process.env.PORT, "127.0.0.1");
const encrypted = https
  .createServer({ cert: fs.readFileSync("/etc/tls/tls.pem"), key: fs.readFileSync("/etc/tls/tls.key") }, handle)
  .listen(process.env.TLS_PORT, "127.0.0.1");
process.on("SIGHUP", () => console.log("told to reload"));
process.on("SIGTERM", () => {
  plain.closeIdleConnections?.();
  encrypted.closeIdleConnections?.();
  plain.close(() => encrypted.close(() => { console.log("stopped"); process.exit(0); }));
});
