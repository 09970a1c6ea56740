// A service that tells who is signed in: `main.mjs PROTO USERSD KEY`. Prints the address that it serves on.

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import express from "express";

import { sessions } from "./session.mjs";

const [proto, address, key] = process.argv.slice(2);
const { Users } = grpc.loadPackageDefinition(loadSync("users.proto", { includeDirs: [proto], longs: String })).users;
// Connects with the first call, and again whenever the connection is lost.
const users = new Users(address, grpc.credentials.createInsecure());

const app = express();
app.use(sessions(users, key));
app.get("/whoami", (request, response) => response.send(`${request.user.id} ${request.user.username}`));
const server = app.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));
