//! The daemon's log: lines for people or objects, on standard error.

use tracing_subscriber::EnvFilter;

/// Names the levels to log, as `tracing` filters do; `info` without.
const FILTER_VARIABLE: &str = "DETECTOR_LOG";

/// Starts the log, of lines for people or of JSON. May be called once.
pub fn start(json: bool) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if json {
        builder.json().flatten_event(true).init();
    } else {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(is_terminal).init();
    }
}
