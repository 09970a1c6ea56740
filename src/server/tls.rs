//! TLS on the listener: certificates that are read again when they change, and callers that are known by
//! theirs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
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
    client_crl: Option<Vec<u8>>,
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
        let read = |setting, path: &Path| std::fs::read(path).map_err(|error| fault(setting, path, error));
        let given = |setting, path: Option<&PathBuf>| path.map(|path| read(setting, path)).transpose();
        let tls = &config.tls;
        Ok(Self {
            cert: given("tls.cert", tls.cert.as_ref())?.unwrap_or_default(),
            key: given("tls.key", tls.key.as_ref())?.unwrap_or_default(),
            client_ca: given("tls.client_ca", tls.client_ca.as_ref())?,
            client_crl: given("tls.client_crl", tls.client_crl.as_ref())?,
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
    let chain = read_pem("tls.cert", path(config.tls.cert.as_ref()), &files.cert, "certificates")?;
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|_| fault("tls.key", path(config.tls.key.as_ref()), "holds no private key in PEM"))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            builder.with_client_cert_verifier(verifier(config, files, authorities, provider)?)
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

/// Verifies clients' certificates: signed by one of the authorities, and not revoked.
fn verifier(
    config: &Config,
    files: &Files,
    authorities: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let file = path(config.tls.client_ca.as_ref());
    let mut roots = RootCertStore::empty();
    for authority in read_pem("tls.client_ca", file, authorities, "certificates")? {
        roots.add(authority).map_err(|why| fault("tls.client_ca", file, why))?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(pem) = &files.client_crl {
        let file = path(config.tls.client_crl.as_ref());
        let lists: Vec<CertificateRevocationListDer<'_>> =
            read_pem("tls.client_crl", file, pem, "revocation list")?;
        verifier = verifier.with_crls(lists);
    }
    if config.tls.client_auth == ClientAuth::Optional {
        verifier = verifier.allow_unauthenticated();
    }
    verifier.build().map_err(|why| match &config.tls.client_crl {
        Some(file) => fault("tls.client_crl", file, why),
        None => mismatch(why),
    })
}

fn path(file: Option<&PathBuf>) -> &Path {
    file.map_or_else(|| Path::new(""), PathBuf::as_path)
}

/// All of the kind `T` in a PEM file, of which there must be one at least.
fn read_pem<T: PemObject>(
    setting: &'static str,
    file: &Path,
    pem: &[u8],
    kind: &str,
) -> Result<Vec<T>, TlsError> {
    match T::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(read) if !read.is_empty() => Ok(read),
        _ => Err(fault(setting, file, format!("holds no {kind} in PEM"))),
    }
}
