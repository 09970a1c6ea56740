//! A tower layer: a request with a session gets its user, any other one is refused.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::pb::users_client::UsersClient;
use crate::pb::{ReadSessionRequest, Session};

/// How long a request waits for usersd.
const DEADLINE: Duration = Duration::from_secs(2);

/// The cookie that holds the token; `authorization: Bearer` does, too.
const COOKIE: &str = "session";

/// The user who is signed in, among the extensions of each request that passes.
#[derive(Clone, Debug)]
pub struct User {
    /// Names the user for good, as usernames do not.
    pub id: String,
    /// The username as it is now.
    pub username: String,
}

/// Checks the session of each request. Clones share the channel, and so its connection.
#[derive(Clone)]
pub struct SessionLayer {
    users: UsersClient<Channel>,
    key: MetadataValue<Ascii>,
}

impl SessionLayer {
    /// A layer that asks by `channel`, with a key that has the scope `sessions.read`.
    ///
    /// # Errors
    ///
    /// The key has characters that no key has.
    pub fn new(channel: Channel, key: &str) -> Result<Self, tonic::metadata::errors::InvalidMetadataValue> {
        Ok(Self { users: UsersClient::new(channel), key: format!("Bearer {key}").parse()? })
    }

    /// The user whom the token signs in; or the status of the refusal. Whatever is not certain is refused.
    async fn user(mut self, token: Option<String>) -> Result<User, StatusCode> {
        let session_id = token.ok_or(StatusCode::UNAUTHORIZED)?;
        let mut request = tonic::Request::new(ReadSessionRequest { session_id, max_age: None });
        request.set_timeout(DEADLINE);
        request.metadata_mut().insert("authorization", self.key);
        let reply = self.users.read_session(request).await.map_err(|status| refusal(&status))?;
        let Session { user_id, username, .. } =
            reply.into_inner().session.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        Ok(User { id: user_id, username })
    }
}

/// A token that opens no session is the end user's fault, all else is not: also a key of ours that usersd refuses.
fn refusal(status: &Status) -> StatusCode {
    match status.code() {
        Code::NotFound | Code::InvalidArgument => StatusCode::UNAUTHORIZED,
        _ => {
            eprintln!("usersd: {status}");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// The token of a request, from its `authorization` or else its cookie.
fn token<B>(request: &Request<B>) -> Option<String> {
    let texts = |name| request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let bearer = texts(header::AUTHORIZATION).find_map(|value| value.strip_prefix("Bearer "));
    let cookie = || {
        let mut pairs =
            texts(header::COOKIE).flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| name.trim() == COOKIE).map(|(_, value)| value.trim())
    };
    bearer.or_else(cookie).map(str::to_owned)
}

impl<S> Layer<S> for SessionLayer {
    type Service = WithSession<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WithSession { inner, layer: self.clone() }
    }
}

/// A service behind a [`SessionLayer`].
#[derive(Clone)]
pub struct WithSession<S> {
    inner: S,
    layer: SessionLayer,
}

impl<S, B, R> Service<Request<B>> for WithSession<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The one that is ready goes with the request, its clone stays.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            match layer.user(token(&request)).await {
                Ok(user) => {
                    request.extensions_mut().insert(user);
                    inner.call(request).await
                }
                Err(status) => {
                    let mut refused = Response::new(R::default());
                    *refused.status_mut() = status;
                    Ok(refused)
                }
            }
        })
    }
}
