// Express middleware that checks sessions with usersd: a request with a session gets its user, any other one is refused.

import grpc from "@grpc/grpc-js";

// How long a request waits for usersd, in milliseconds.
const DEADLINE = 2000;

// The cookie that holds the token; `authorization: Bearer` does, too.
const COOKIE = "session";

/** Middleware that asks by `users`, a client whose connection all requests share. The key needs the scope `sessions.read`. */
export function sessions(users, key) {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${key}`);
  return (request, response, next) => {
    const token = tokenOf(request.headers);
    if (!token) {
      response.sendStatus(401);
      return;
    }
    users.readSession({ sessionId: token }, metadata, { deadline: Date.now() + DEADLINE }, (error, reply) => {
      if (!error) {
        request.user = { id: reply.session.userId, username: reply.session.username };
        next();
      } else if (error.code === grpc.status.NOT_FOUND || error.code === grpc.status.INVALID_ARGUMENT) {
        response.sendStatus(401);
      } else {
        // Also a key of ours that usersd refuses. Whatever is not certain is refused.
        console.error(`usersd: ${error.message}`);
        response.sendStatus(503);
      }
    });
  };
}

/** What `authorization` holds, or else the cookie. */
function tokenOf({ authorization = "", cookie = "" }) {
  if (authorization.startsWith("Bearer ")) return authorization.slice("Bearer ".length);
  for (const pair of cookie.split(";")) {
    const [name, value] = pair.trim().split("=");
    if (name === COOKIE) return value;
  }
  return undefined;
}
