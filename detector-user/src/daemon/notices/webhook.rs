//! The webhook: a server that each event is posted to, in the order in which they happened.

use std::{sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::handshake,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc::Receiver,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{Counts, Target, note};
use crate::{cli::WebhookUrl, commands::Failure, daemon::feed::Entry};

/// The time one attempt may take.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);

/// The pauses between attempts.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

/// TLS with the machine's root certificates.
///
/// # Errors
///
/// It has none.
pub(super) fn connector() -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(Failure::failed(
            "no root certificate is known here, which --webhook needs for https: install ca-certificates, or name a file \
             with the variable SSL_CERT_FILE",
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::failed(format_args!("cannot use TLS: {error}")))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Posts each event, again after a pause where it is not taken.
pub(super) async fn run(
    url: WebhookUrl,
    tls: Option<TlsConnector>,
    mut entries: Receiver<Entry>,
    counts: Arc<Counts>,
) {
    while let Some(entry) = entries.recv().await {
        let mut result = post(&url, tls.as_ref(), &entry).await;
        for pause in PAUSES {
            if result.is_ok() {
                break;
            }
            sleep(pause).await;
            result = post(&url, tls.as_ref(), &entry).await;
        }
        note(&counts, Target::Webhook, &entry, result);
    }
}

async fn post(url: &WebhookUrl, tls: Option<&TlsConnector>, entry: &Entry) -> Result<(), String> {
    let attempt = async {
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
        let stream = stream.map_err(|error| format!("cannot reach {}: {error}", url.host))?;
        let Some(tls) = tls else { return send(stream, url, entry).await };
        let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
        let stream = tls.connect(name, stream).await;
        send(stream.map_err(|error| format!("no TLS with {}: {error}", url.host))?, url, entry).await
    };
    let late = |_| format!("{} took longer than {} s", url.host, ATTEMPT_TIME_MAX.as_secs());
    timeout(ATTEMPT_TIME_MAX, attempt).await.map_err(late)?
}

async fn send<S>(stream: S, url: &WebhookUrl, entry: &Entry) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let wrong = |error: hyper::Error| format!("{} does not answer: {error}", url.host);
    let json = serde_json::to_vec(entry).map_err(|error| error.to_string())?;
    let (mut sender, connection) = handshake(TokioIo::new(Box::pin(stream))).await.map_err(wrong)?;
    let request = Request::post(&url.path)
        .header(HOST, host(url))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(json)))
        .map_err(|error| error.to_string())?;
    // Ends when the sender is dropped.
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(wrong);
    connection.abort();
    let response = response?;
    match response.status() {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED => Err(format!("{} answers 401: look at the URL", url.host)),
        status => Err(format!("{} answers {status}", url.host)),
    }
}

fn host(url: &WebhookUrl) -> String {
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    format!("{host}:{}", url.port)
}
