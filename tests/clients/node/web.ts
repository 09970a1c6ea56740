// A client of usersd generated for browsers: `walk` signs up, signs in and out, and returns a line for each step.

import { Code, ConnectError, createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

import { BadRequestSchema, ErrorInfoSchema } from "./web/google/rpc/error_details_pb";
import { Users } from "./web/users_pb";

const transports = { connect: createConnectTransport, "grpc-web": createGrpcWebTransport };

/** The code, the reason and the fields at fault of a call that must fail. */
async function refusal(made: Promise<unknown>): Promise<string> {
  const error = await made.then(() => undefined, ConnectError.from);
  if (!error) throw new Error("the call should be refused");
  const parts = [String(error.code satisfies Code)];
  parts.push(...error.findDetails(ErrorInfoSchema).map(({ reason }) => reason));
  for (const { fieldViolations } of error.findDetails(BadRequestSchema)) {
    parts.push(fieldViolations.map(({ field }) => field).join(","));
  }
  return parts.join(" ");
}

/** Creates four more users and lists all, two at a time. */
async function pages(users: Client<typeof Users>): Promise<string> {
  for (let number = 1; number <= 4; number++) {
    await users.create({ username: `user${number}`, ssoEnabled: true });
  }
  const shown: string[] = [];
  let pageToken = "";
  do {
    const page = await users.list({ orderBy: "username", limit: 2n, pageToken });
    shown.push(page.users.map(({ username }) => username).join(","));
    pageToken = page.nextPageToken;
  } while (pageToken);
  return shown.join(" ");
}

/** A page that many people open must not hold a key: this one is a test. */
async function walk(baseUrl: string, key: string, protocol: keyof typeof transports): Promise<string> {
  const withKey: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${key}`);
    return next(request);
  };
  const users = createClient(Users, transports[protocol]({ baseUrl, interceptors: [withKey], defaultTimeoutMs: 60_000 }));
  const lines: string[] = [];
  const { user } = await users.create({ username: "ada", email: "ada@example.com", password: "correct horse" });
  lines.push(`created ${user!.username} ${user!.email}`);
  const login = await users.login({ username: "ada", password: "correct horse" });
  const token = { sessionId: login.session!.id };
  const { session } = await users.readSession(token);
  lines.push(`session ${session!.username} ${session!.email}`);
  lines.push(`pages ${await pages(users)}`);
  await users.logout(token);
  lines.push(`logged out ${await refusal(users.readSession(token))}`);
  lines.push(`refused ${await refusal(users.create({ username: "é", email: "nobody", password: "short" }))}`);
  return lines.map((line) => `${line}\n`).join("");
}

Object.assign(globalThis, { walk });
