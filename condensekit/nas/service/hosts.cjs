// Loaded into NNI's manager before it starts: a web page that the user visits must not reach the manager.
"use strict";

// The portal has no login. A page whose host name an attacker points at this machine (DNS rebinding) sends that name as
// Host; a page of any other origin sends its own as Origin. NNI itself calls by IP address or localhost, without Origin.
const http = require("http");
const net = require("net");

function allowed(host) {
  const name = String(host || "").replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  return name === "localhost" || net.isIP(name) !== 0;
}

function refused({ headers }) {
  const origin = headers.origin;
  return !allowed(headers.host) || (origin !== undefined && origin !== `http://${headers.host}`);
}

const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, answer, ...rest) {
  if ((event !== "request" && event !== "upgrade") || !refused(request)) {
    return emit.call(this, event, request, answer, ...rest);
  }
  if (event === "upgrade") {
    answer.destroy(); // the socket
  } else {
    answer.writeHead(403, { "Content-Type": "text/plain", Connection: "close" });
    answer.end("open the portal by IP address or as localhost\n");
  }
  return true;
};
