//! TLS on the listener: certificates that are read again when they change, and callers that are known by
//! theirs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use crate::auth::keyring::Principal;
use crate::config::{ClientAuth, Config};

/// Why there can be no TLS, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is missing or invalid.
    #[error("{setting} ({file}): {why}")]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// Its path.
        file: String,
        /// The fault.
        why: String,
    },
    /// The files are in order and do not fit together.
    #[error("tls: {0}")]
    Mismatch(String),
}

/// The contents of the files, to see whether they have changed.
#[derive(PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Makes TLS connections of plain ones.
#[derive(Clone)]
pub struct Tls {
    settings: Arc<Config>,
    now: Arc<RwLock<(Arc<Files>, TlsAcceptor)>>,
    callers: Arc<HashMap<String, Arc<Principal>>>,
}

impl Tls {
    /// The time between checks of the files.
    pub(super) const REFRESH: Duration = Duration::from_secs(1);

    /// As the settings say; `None` if they ask for no TLS.
    pub fn open(config: &Config) -> Result<Option<Self>, TlsError> {
        if config.tls.cert.is_none() {
            return Ok(None);
        }
        let files = Files::read(config)?;
        let acceptor = acceptor(config, &files)?;
        let callers = config.tls.callers.iter().map(|caller| {
            let known = Principal::new(&caller.san, caller.namespaces.clone(), caller.scopes);
            (caller.san.clone(), Arc::new(known))
        });
        Ok(Some(Self {
            settings: Arc::new(config.clone()),
            now: Arc::new(RwLock::new((Arc::new(files), acceptor))),
            callers: Arc::new(callers.collect()),
        }))
    }

    /// Uses the files as they are now for the connections to come.
    /// Fails with [`TlsError`]; then nothing changes.
    pub(super) fn refresh(&self) -> Result<(), TlsError> {
        let files = Files::read(&self.settings)?;
        if *self.now.read().unwrap_or_else(PoisonError::into_inner).0 == files {
            return Ok(());
        }
        let acceptor = acceptor(&self.settings, &files)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(files), acceptor);
        tracing::info!("TLS certificates reloaded");
        Ok(())
    }

    /// The handshake, and who the other end's certificate says it is.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> std::io::Result<(TlsStream<TcpStream>, Option<Arc<Principal>>)> {
        let acceptor = self.now.read().unwrap_or_else(PoisonError::into_inner).1.clone();
        let stream = acceptor.accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = certificate.and_then(|certificate| self.caller(certificate));
        Ok((stream, peer))
    }

    /// The caller that one of the certificate's names stands for. A certificate with the names of two stands
    /// for none.
    fn caller(&self, certificate: &CertificateDer<'_>) -> Option<Arc<Principal>> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        // A URI has a colon and a DNS name none: one kind cannot pass for the other.
        let hosts =
            certificate.valid_dns_names().filter(|name| !name.contains(':')).map(str::to_ascii_lowercase);
        let uris = certificate.valid_uri_names().filter(|name| name.contains(':')).map(str::to_owned);
        let names = hosts.chain(uris);
        let mut found: Vec<&Arc<Principal>> = names.filter_map(|name| self.callers.get(&name)).collect();
        found.dedup_by(|a, b| Arc::ptr_eq(a, b));
        match found[..] {
            [one] => Some(Arc::clone(one)),
            [] => None,
            _ => {
                tracing::warn!("a client certificate names several callers and is ignored");
                None
            }
        }
    }
}

impl Files {
    fn read(config: &Config) -> Result<Self, TlsError> {
        let read = |setting, path: Option<&Path>| {
            let path = path.unwrap_or_else(|| Path::new(""));
            std::fs::read(path).map_err(|error| fault(setting, path, error))
        };
        Ok(Self {
            cert: read("tls.cert", config.tls.cert.as_deref())?,
            key: read("tls.key", config.tls.key.as_deref())?,
            client_ca: match config.tls.client_ca.as_deref() {
                Some(path) => Some(read("tls.client_ca", Some(path))?),
                None => None,
            },
        })
    }
}

fn fault(setting: &'static str, path: &Path, why: impl std::fmt::Display) -> TlsError {
    TlsError::File { setting, file: path.display().to_string(), why: why.to_string() }
}

fn mismatch(why: impl std::fmt::Display) -> TlsError {
    TlsError::Mismatch(why.to_string())
}

fn acceptor(config: &Config, files: &Files) -> Result<TlsAcceptor, TlsError> {
    let path = |file: &Option<std::path::PathBuf>| file.clone().unwrap_or_default();
    let chain = certificates("tls.cert", &path(&config.tls.cert), &files.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|_| fault("tls.key", &path(&config.tls.key), "holds no private key in PEM"))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let file = path(&config.tls.client_ca);
            let mut roots = RootCertStore::empty();
            for authority in certificates("tls.client_ca", &file, authorities)? {
                roots.add(authority).map_err(|why| fault("tls.client_ca", &file, why))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match config.tls.client_auth {
                ClientAuth::Required => verifier,
                ClientAuth::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(mismatch)?)
        }
    };
    let mut tls = builder.with_single_cert(chain, key).map_err(mismatch)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if files.client_ca.is_some() {
        // A session that is taken up again is not checked again: its certificate may have expired since.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

fn certificates(
    setting: &'static str,
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(fault(setting, file, "holds no certificates in PEM")),
    }
}
