//! What the command line says of the API.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::Args;

use crate::{api::caller::Role, daemon::feed::EventKind};

/// Where the API is served unless another place is asked for.
pub const DEFAULT_SOCKET: &str = "/run/detector/api.sock";

pub(super) const EVENTS_NOTES: &str = "\
Ends when the daemon does, or on Ctrl-C. Drops are sampled in the kernel, at most `run --events` a second.
Exit codes: 0 interrupted by a reader that went away, 1 no daemon answers, or it ended.

Examples:
  detector events
  detector events --kind drop --service api --json | jq -r .source";

pub(super) const TOKEN_NOTES: &str = "\
The token is shown once: the file holds its SHA-256. The daemon reads the file again on SIGHUP.

Example:
  detector token grafana --role viewer    # append the line to the file of `run --api-tokens`";

/// Where and to whom `run` serves the API.
#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    /// The unix socket that the API is served on, or `off`.
    #[arg(long = "api", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub path: ApiPath,
    /// Group whose members may read and change everything over the socket; without it, `detector` if that group exists.
    #[arg(long = "api-group", value_name = "GROUP")]
    pub group: Option<String>,
    /// Group whose members may read over the socket; without it, `detector-viewer` if that group exists.
    #[arg(long = "api-viewer-group", value_name = "GROUP")]
    pub viewer_group: Option<String>,
    /// Where else the API is served.
    #[command(flatten)]
    pub tcp: Option<TcpArgs>,
    /// Milliseconds that the head of a request may take, and its body three times that: for tests.
    #[arg(long = "api-patience-ms", value_name = "MS", hide = true, default_value_t = 10_000)]
    pub patience_ms: u64,
}

/// The API over TCP: with TLS and tokens, or not at all.
#[derive(Debug, Clone, Args)]
#[group(requires_all = ["listen", "certificate", "key", "tokens"])]
pub struct TcpArgs {
    /// Serve the API also there, over TLS 1.2 and 1.3, to holders of a token.
    #[arg(id = "listen", long = "api-listen", value_name = "ADDR:PORT", required = false)]
    pub listen: SocketAddr,
    /// Its certificate and those that lead to the root, as PEM.
    #[arg(id = "certificate", long = "api-cert", value_name = "FILE", required = false)]
    pub certificate: PathBuf,
    /// The certificate's private key, as PEM.
    #[arg(id = "key", long = "api-key", value_name = "FILE", required = false)]
    pub key: PathBuf,
    /// Who may use it: the lines of `detector token`; read again on SIGHUP.
    #[arg(id = "tokens", long = "api-tokens", value_name = "FILE", required = false)]
    pub tokens: PathBuf,
}

/// A unix socket, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiPath {
    /// None.
    Off,
    /// There.
    At(PathBuf),
}

impl FromStr for ApiPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("expected the path of a socket, or `off`".to_owned()),
            "off" => Ok(Self::Off),
            path => Ok(Self::At(path.into())),
        }
    }
}

/// `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only these kinds of events.
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    pub kinds: Vec<EventKind>,
    /// Of drops, only those of this service.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// The socket of the daemon.
    #[arg(long = "api", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub path: PathBuf,
    /// An object a line.
    #[arg(long)]
    pub json: bool,
}

/// `token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Whose it is: the name that changes are logged under.
    pub name: String,
    /// What its holder may do.
    #[arg(long, default_value = "viewer")]
    pub role: Role,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}
