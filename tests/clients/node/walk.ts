// A client of usersd generated for Node: `walk ADDRESS KEY` signs up, signs in and out: a line for each step.

import * as grpc from "@grpc/grpc-js";

import { BadRequest, ErrorInfo } from "./google/rpc/error_details.js";
import { Status } from "./google/rpc/status.js";
import { CreateRequest, ListRequest, UsersClient } from "./users.js";

type Callback<Reply> = (error: grpc.ServiceError | null, reply: Reply) => void;
type Method<Request, Reply> = (request: Request, metadata: grpc.Metadata, options: grpc.CallOptions, done: Callback<Reply>) => unknown;

const [address, key] = process.argv.slice(2);
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${key}`);
const users = new UsersClient(address, grpc.credentials.createInsecure());

/** A call as a promise. */
function call<Request, Reply>(method: Method<Request, Reply>, request: Request): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const done: Callback<Reply> = (error, reply) => (error ? reject(error) : resolve(reply));
    method.call(users, request, metadata, { deadline: Date.now() + 60_000 }, done);
  });
}

/** The code, the reason and the fields at fault of a call that must fail. */
async function refusal(made: Promise<unknown>): Promise<string> {
  const error = await made.then(() => undefined, (error: grpc.ServiceError) => error);
  if (!error) throw new Error("the call should be refused");
  const parts = [String(error.code)];
  const [status] = error.metadata.get("grpc-status-details-bin") as Buffer[];
  for (const detail of Status.decode(status).details) {
    if (detail.typeUrl.endsWith("/google.rpc.ErrorInfo")) {
      parts.push(ErrorInfo.decode(detail.value).reason);
    } else if (detail.typeUrl.endsWith("/google.rpc.BadRequest")) {
      parts.push(BadRequest.decode(detail.value).fieldViolations.map(({ field }) => field).join(","));
    }
  }
  return parts.join(" ");
}

/** Creates four more users and lists all, two at a time. */
async function pages(): Promise<string> {
  for (let number = 1; number <= 4; number++) {
    await call(users.create, CreateRequest.fromPartial({ username: `user${number}`, ssoEnabled: true }));
  }
  const shown: string[] = [];
  let pageToken = "";
  do {
    const page = await call(users.list, ListRequest.fromPartial({ orderBy: "username", limit: 2, pageToken }));
    shown.push(page.users.map(({ username }) => username).join(","));
    pageToken = page.nextPageToken;
  } while (pageToken);
  return shown.join(" ");
}

const ada = { username: "ada", email: "ada@example.com", password: "correct horse" };
const { user } = await call(users.create, CreateRequest.fromPartial(ada));
console.log("created", user!.username, user!.email);
const login = await call(users.login, { username: "ada", email: "", password: "correct horse" });
const token = { sessionId: login.session!.id };
const { session } = await call(users.readSession, token);
console.log("session", session!.username, session!.email);
console.log("pages", await pages());
await call(users.logout, token);
console.log("logged out", await refusal(call(users.readSession, token)));
const wrong = CreateRequest.fromPartial({ username: "é", email: "nobody", password: "short" });
console.log("refused", await refusal(call(users.create, wrong)));
users.close();
