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
  detector events --kind fleet,fingerprint_conflict
  detector events --kind drop --service api --json | jq -r .source";

pub(super) const TOKEN_NOTES: &str = "\
The token is shown once: the file holds its SHA-256. The daemon reads the file again on SIGHUP.

Example:
  detector token grafana --role viewer    # add the line to the file of `run --api-tokens`";

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

/// Who is told of what happens.
#[derive(Debug, Clone, Args)]
pub struct NoticeArgs {
    /// Program to start for each event of the kinds policy_applied, trial_ended (where the policy is taken back), rule_ended,
    /// incident_added, incident_undone, fingerprint_conflict, fleet (found, grown, alarm_again, joined, ended, suggested,
    /// throttled, tightened, released), degraded and recovered: with the kind as its argument and the event as JSON on its standard
    /// input. Killed after 10 s.
    #[arg(long, value_name = "PROGRAM")]
    pub hook: Option<PathBuf>,
    /// Where to post the same events as JSON, `http://` or `https://`; tried six times, for up to 90 s.
    #[arg(long, value_name = "URL")]
    pub webhook: Option<WebhookUrl>,
    /// Milliseconds that a hook may take: for tests.
    #[arg(long, value_name = "MS", hide = true, default_value_t = 10_000)]
    pub hook_patience_ms: u64,
}

/// A URL that events can be posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    /// Whether over TLS.
    pub is_https: bool,
    /// Name or address of the host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What it is asked for there.
    pub path: String,
}

impl FromStr for WebhookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a URL like https://host/path or http://host:port/path".to_owned();
        let uri: hyper::Uri = text.parse().map_err(|_| expected())?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(expected()),
        };
        let authority = uri.authority().ok_or_else(expected)?;
        if authority.as_str().contains('@') {
            return Err("names and passwords in a URL are not sent: put a secret into the path".to_owned());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { is_https, host, port, path })
    }
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
    /// Of drops, fingerprints, fingerprint conflicts and fleets, only those of this service; of other kinds all.
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
