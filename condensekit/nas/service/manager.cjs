// Loaded into NNI's manager before it starts (NODE_OPTIONS=--require): NNI itself has no option for either.
"use strict";

// Listen on the loopback interface only: the portal has no login.
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (first, ...rest) {
  if (first !== null && typeof first === "object" && "port" in first && !first.host) {
    return listen.call(this, { ...first, host: "127.0.0.1" }, ...rest);
  }
  if (!isNaN(Number(first)) && typeof rest[0] !== "string") {
    return listen.call(this, Number(first), "127.0.0.1", ...rest);
  }
  return listen.call(this, first, ...rest);
};

// The local service looks for waiting trials every 5 s: make it 0.1 s.
const timers = require("timers/promises");
const pause = timers.setTimeout;
timers.setTimeout = (ms, ...rest) => pause(ms === 5000 ? 100 : ms, ...rest);
