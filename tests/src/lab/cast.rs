//! Who does what: clients below their limits, offenders above.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::scene::{SERVICE, SERVICE_V6, Scene, client, client_v6, offender};
use crate::{https::Https, process::run};

/// What somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A request every half second.
    Client,
    /// Datagrams, as many as [`FLOOD_PER_SECOND`].
    Flood,
    /// TCP connections, as many as fit.
    Connections,
    /// curl in a loop, without a pause.
    Hammer,
}

/// Datagrams of the flood.
pub(super) const FLOOD_PER_SECOND: u32 = 200_000;

/// Time between the beginnings of a client's requests.
const CLIENT_INTERVAL: Duration = Duration::from_millis(500);

/// How long a client waits for its answer, seconds: longer than two retransmissions of a lost packet.
const CLIENT_PATIENCE_S: u32 = 5;

/// Threads of the connection flood, and how long each waits before it tries anew.
const CONNECTING: usize = 8;
const CONNECT_PATIENCE: Duration = Duration::from_millis(50);

/// curl loops of the hammer, and how long each waits for a connection.
const HAMMERING: usize = 10;
const HAMMER_PATIENCE_S: &str = "0.2";

/// One of the cast, and how it fares by its own account.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    pub(super) source: IpAddr,
    pub(super) part: Part,
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    /// What went wrong first.
    pub(super) complaint: Mutex<Option<String>>,
}

impl Actor {
    fn new(name: &'static str, does: &'static str, source: IpAddr, part: Part) -> Self {
        let (succeeded, failed) = <(AtomicU64, AtomicU64)>::default();
        Self { name, does, source, part, succeeded, failed, complaint: Mutex::default() }
    }

    /// Requests or connections that succeeded and that failed.
    pub(super) fn fared(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    fn count(&self, result: Result<()>) {
        let Err(error) = result else {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        complaint.get_or_insert_with(|| format!("{error:#}"));
    }

    /// Plays the part until told to stop. The flood has no thread: it is a [`crate::traffic::Flood`].
    pub(super) fn play<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        scene: &'scope Scene,
        https: &'scope Https,
        stop: &'scope AtomicBool,
    ) {
        let count = match self.part {
            Part::Flood => 0,
            Part::Client => 1,
            Part::Connections => CONNECTING,
            Part::Hammer => HAMMERING,
        };
        for _ in 0..count {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let result = self.act(scene, https);
                    // What is cut off by the end of the lab says nothing.
                    if !stop.load(Ordering::Relaxed) || result.is_ok() {
                        self.count(result);
                    }
                    if self.part == Part::Client {
                        rest(begin + CLIENT_INTERVAL, stop);
                    }
                }
            });
        }
    }

    fn act(&self, scene: &Scene, https: &Https) -> Result<()> {
        let service = if self.source.is_ipv6() { SERVICE_V6 } else { SERVICE };
        match self.part {
            Part::Client => https.request(&scene.clients, self.source, service, CLIENT_PATIENCE_S),
            Part::Connections => scene.offenders.within(|| connect(service))?,
            Part::Hammer => {
                let mut curl = https.curl(&scene.offenders, self.source, service, CLIENT_PATIENCE_S)?;
                run(curl.args(["--connect-timeout", HAMMER_PATIENCE_S])).map(drop)
            }
            Part::Flood => Ok(()),
        }
    }
}

fn connect(service: SocketAddr) -> Result<()> {
    TcpStream::connect_timeout(&service, CONNECT_PATIENCE)?;
    Ok(())
}

/// Sleeps until then, in short naps.
fn rest(until: Instant, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Everybody.
pub(super) fn cast() -> Vec<Actor> {
    let calm = "2 requests/s";
    vec![
        Actor::new("client 1", calm, client(11), Part::Client),
        Actor::new("client 2", calm, client(12), Part::Client),
        Actor::new("client 3", calm, client(13), Part::Client),
        Actor::new("client 4", calm, client_v6(4), Part::Client),
        Actor::new("UDP flood", "200,000 packets/s", offender(66), Part::Flood),
        Actor::new("connection flood", "TCP connects, 8 at a time", offender(77), Part::Connections),
        Actor::new("hammering curl", "10 loops of requests", offender(88), Part::Hammer),
    ]
}
