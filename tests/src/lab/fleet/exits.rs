//! A proxy with many exits, as they are rented: a tunnel (RFC 9110, 9.3.6) leaves by the exit that a header asks for, and what goes
//! through it takes its time to where the exit is, and back.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::netns::Namespace;

/// Where the proxy listens, in the internet's namespace.
pub(super) const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);

/// The header that names the exit.
pub(super) const EXIT_HEADER: &str = "x-exit";

/// From the proxy's customer to an exit: half the world.
const WAY: Duration = Duration::from_millis(70);

/// How long an exit tries to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a request for a tunnel, at most.
const REQUEST_MAX: u64 = 4096;

/// Starts the proxy; it serves as long as this process lives.
///
/// # Errors
///
/// Something else listens there.
pub(super) fn start(internet: &Namespace) -> Result<()> {
    let listener =
        internet.within(|| std::net::TcpListener::bind(PROXY))?.context("the proxy cannot listen")?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Sockets are of the namespace that the thread is in which makes them.
    internet.spawn(move || {
        if let Err(error) = runtime.block_on(serve(listener)) {
            eprintln!("the proxy serves nobody any more: {error:#}");
        }
    })?;
    Ok(())
}

async fn serve(listener: std::net::TcpListener) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (customer, _) = listener.accept().await?;
        // The customer sees how its tunnel ends, and counts that.
        tokio::spawn(async { drop(tunnel(customer).await) });
    }
}

/// Serves a customer.
async fn tunnel(mut customer: TcpStream) -> Result<()> {
    let (exit, to) = asked_for(&mut customer).await?;
    sleep(WAY).await;
    let connected = timeout(CONNECT_PATIENCE, connect(exit, to)).await;
    sleep(WAY).await;
    let Ok(Ok(service)) = connected else {
        return Ok(customer.write_all(b"HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n").await?);
    };
    customer.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?;
    let ((from_customer, to_customer), (from_service, to_service)) =
        (customer.into_split(), service.into_split());
    tokio::try_join!(carry(from_customer, to_service), carry(from_service, to_customer))?;
    Ok(())
}

async fn connect(from: Ipv4Addr, to: SocketAddrV4) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    Ok(socket.connect(to.into()).await?)
}

/// The exit and the target of a request for a tunnel.
async fn asked_for(customer: &mut TcpStream) -> Result<(Ipv4Addr, SocketAddrV4)> {
    // A buffer of one: what comes after the request is the tunnel's.
    let mut lines = BufReader::with_capacity(1, customer.take(REQUEST_MAX)).lines();
    let request = lines.next_line().await?.context("a request")?;
    let to = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let to = to.context("CONNECT")?.parse().context("an address and a port")?;
    let mut exit = None;
    loop {
        let line = lines.next_line().await?.context("an empty line")?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case(EXIT_HEADER))
        {
            ensure!(exit.is_none(), "{name} twice");
            exit = Some(value.trim().parse().context("the address of an exit")?);
        }
    }
    Ok((exit.context("a header that names the exit")?, to))
}

/// Carries what comes from one end to the other one, each piece as long as the way takes.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    let mut piece = vec![0; 16384];
    loop {
        let length = from.read(&mut piece).await?;
        sleep(WAY).await;
        if length == 0 {
            return Ok(to.shutdown().await?);
        }
        to.write_all(&piece[..length]).await?;
    }
}
