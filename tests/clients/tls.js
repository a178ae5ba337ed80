// Requests over HTTPS, one connection after the other, the later ones resumed: HOST PORT NAME CONNECTIONS.
"use strict";
const https = require("node:https");

const [host, port, servername, connections] = process.argv.slice(2);
const agent = new https.Agent({ keepAlive: false, rejectUnauthorized: false });

function connect(left) {
  if (left === 0) return;
  const request = https.get({ host, port, servername, agent }, (response) => {
    response.resume();
    response.on("close", () => connect(left - 1));
  });
  request.on("error", (error) => {
    throw error;
  });
}

connect(Number(connections));
