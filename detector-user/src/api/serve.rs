//! Listeners and connections: how many there are, and how slow they may be.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Extension, Router};
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_io_timeout::TimeoutStream;

use super::{
    App, Secrets, Tokens,
    caller::{Credentials, Groups, Peer},
    limits::{
        CONNECTIONS_MAX, CONNECTIONS_OF_ADDRESS_MAX, CONNECTIONS_OF_ONE_MAX, HEAD_BYTES_MAX,
        STRANGER_TIME_MAX, WRITE_TIME_MAX,
    },
    router, socket,
    tls::Certificate,
};
use crate::{
    cli::{ApiArgs, ApiPath, TcpArgs},
    commands::Failure,
    daemon::Shared,
};

/// Where the API is to be served. Nobody is answered yet.
pub struct Listeners {
    unix: Option<(UnixListener, socket::SocketFile)>,
    tcp: Option<Tcp>,
    groups: Groups,
    head_time_max: Duration,
}

struct Tcp {
    listener: TcpListener,
    secrets: Secrets,
}

impl Listeners {
    /// Listens where the command line says.
    ///
    /// # Errors
    ///
    /// A place is taken, or a file cannot be used.
    pub(crate) async fn bind(args: &ApiArgs) -> Result<Self, Failure> {
        let groups = Groups::look_up(args.group.as_deref(), args.viewer_group.as_deref())?;
        let tcp = match &args.tcp {
            None => None,
            Some(tcp) => Some(bind_tcp(tcp).await?),
        };
        let unix = match &args.path {
            ApiPath::Off => None,
            ApiPath::At(path) => Some(socket::bind(path, groups).await?),
        };
        Ok(Self { unix, tcp, groups, head_time_max: Duration::from_millis(args.patience_ms) })
    }

    /// Answers until the daemon ends. What may change meanwhile of the files of the listener.
    pub(crate) fn serve(self, running: &Shared) -> Option<Secrets> {
        let secrets = self.tcp.as_ref().map(|tcp| tcp.secrets.clone());
        let tokens = secrets.as_ref().map(|secrets| secrets.tokens.clone());
        let app = Arc::new(App::new(running.clone(), tokens, self.groups, self.head_time_max));
        // Places of its own for each listener: who has no token yet takes none of those of this machine.
        let router = router(app);
        let server = || Server {
            router: router.clone(),
            places: Places::default(),
            head_time_max: self.head_time_max,
        };
        if let Some((listener, file)) = self.unix {
            tokio::spawn(server().serve_unix(listener, file));
        }
        if let Some(Tcp { listener, secrets }) = self.tcp {
            tokio::spawn(server().serve_tcp(listener, secrets.certificate));
        }
        secrets
    }
}

async fn bind_tcp(args: &TcpArgs) -> Result<Tcp, Failure> {
    let tokens = Tokens::read(&args.tokens)?;
    let certificate = Certificate::read(&args.certificate, &args.key)?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::failed(format_args!(
            "cannot serve the API at {}: {error}; choose another address with --api-listen",
            args.listen
        ))
    })?;
    tracing::info!(address = %args.listen, "the API is served over TLS");
    Ok(Tcp { listener, secrets: Secrets { tokens, certificate } })
}

/// Time after which a connection is accepted again, where the last one could not be: no descriptor was left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told before anything is read, where there are too many connections.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
content-length: 83\r\n\r\n{\"error\":\"too many connections to the API: close some, or try later\",\"exit_code\":1}";

#[derive(Clone)]
struct Server {
    router: Router,
    places: Places,
    head_time_max: Duration,
}

impl Server {
    async fn serve_unix(self, listener: UnixListener, _file: socket::SocketFile) {
        loop {
            let accepted =
                listener.accept().await.and_then(|(stream, _)| Ok((Credentials::of(&stream)?, stream)));
            let (credentials, stream) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            match self.places.take(Origin::User(credentials.uid)) {
                Some(place) => {
                    let (server, peer) = (self.clone(), Peer::Local(Arc::new(credentials)));
                    tokio::spawn(server.converse(stream, peer, place, Instant::now() + self.head_time_max));
                }
                // It has room for so little, or nobody reads it.
                None => {
                    if let Ok(Ok(())) = timeout(ACCEPT_PAUSE, stream.writable()).await {
                        let _ = stream.try_write(FULL);
                    }
                }
            }
        }
    }

    async fn serve_tcp(self, listener: TcpListener, certificate: Certificate) {
        let patience = self.head_time_max.min(STRANGER_TIME_MAX);
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            // Gone before it was accepted, else.
            let Ok(local) = stream.local_addr() else { continue };
            // Without a place the connection is closed: there is nobody to tell why before the handshake.
            let Some(place) = self.places.take(Origin::of(address.ip())) else { continue };
            let (server, acceptor) = (self.clone(), certificate.acceptor());
            let until = Instant::now() + patience;
            tokio::spawn(async move {
                let peer = Peer::Remote { address, local };
                match timeout_at(until, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => server.converse(stream, peer, place, until).await,
                    Ok(Err(error)) => tracing::debug!(%address, "no TLS: {error}"),
                    Err(_) => tracing::debug!(%address, "no TLS: the handshake took too long"),
                }
            });
        }
    }

    /// Answers the requests of a connection, of which the first has its head until some time.
    async fn converse<S>(self, stream: S, peer: Peer, _place: Place, until: Instant)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIME_MAX));
        let heard = Notify::new();
        let router = TowerToHyperService::new(self.router.layer(Extension(peer)));
        let service = service_fn(|request| {
            heard.notify_one();
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_time_max)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!("a connection to the API ended: {error}");
                }
            }
            // Once it was heard, only the first arm is left.
            Err(_) = timeout_at(until, heard.notified()) => {
                tracing::debug!("a connection to the API ended: no request came in time");
            }
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(
        "cannot accept a connection to the API: {error}; look at the limit of open files (`ulimit -n`)"
    );
    sleep(ACCEPT_PAUSE).await;
}

/// Where connections come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    User(u32),
    Address(IpAddr),
}

impl Origin {
    /// An IPv4 address, or the IPv6 /64 around one: whoever has one of its addresses has all.
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Address(address.into()),
            IpAddr::V6(address) => Self::Address(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
        }
    }

    const fn places_max(self) -> usize {
        match self {
            Self::User(_) => CONNECTIONS_OF_ONE_MAX,
            Self::Address(_) => CONNECTIONS_OF_ADDRESS_MAX,
        }
    }
}

/// The connections to a listener.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<HashMap<Origin, usize>>>);

/// The place of a connection; free again when this is dropped.
#[derive(Debug)]
struct Place {
    places: Places,
    origin: Origin,
}

impl Places {
    fn take(&self, origin: Origin) -> Option<Place> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all: usize = places.values().sum();
        let of_one = places.entry(origin).or_default();
        if of_all >= CONNECTIONS_MAX || *of_one >= origin.places_max() {
            places.retain(|_, count| *count > 0);
            return None;
        }
        *of_one += 1;
        Some(Place { places: self.clone(), origin })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = places.get_mut(&self.origin) {
            *count -= 1;
        }
        places.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_all() {
        let places = Places::default();
        let of = |user| std::iter::from_fn(move || Some(user)).map(Origin::User);
        let one: Vec<_> = of(1).map_while(|origin| places.take(origin)).collect();
        assert_eq!(one.len(), CONNECTIONS_OF_ONE_MAX);
        let other: Vec<_> = of(2).map_while(|origin| places.take(origin)).collect();
        assert_eq!(other.len(), CONNECTIONS_OF_ONE_MAX);
        let third: Vec<_> = of(3).map_while(|origin| places.take(origin)).collect();
        assert_eq!(third.len(), CONNECTIONS_MAX - 2 * CONNECTIONS_OF_ONE_MAX);
        drop((one, third));
        assert!(places.take(Origin::User(3)).is_some());
        let address = Origin::of([192, 0, 2, 1].into());
        let strange: Vec<_> =
            std::iter::repeat_with(|| places.take(address)).map_while(|place| place).collect();
        assert_eq!(strange.len(), CONNECTIONS_OF_ADDRESS_MAX);
        drop(strange);
        drop(other);
        assert!(places.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_origin() {
        let of = |address: &str| Origin::of(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn the_answer_to_one_too_many_is_whole() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let failure: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(failure["exit_code"], 1);
    }
}
