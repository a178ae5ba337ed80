//! `cargo xtask run`: detector at work among clients and offenders. See `detector_tests::lab`.

use std::{
    io,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use clap::Parser;
use detector_tests::lab::{self, Options, Verdict};

/// Shows detector at work, in network namespaces of its own that are removed at the end.
#[derive(Debug, Parser)]
#[command(
    name = "lab",
    after_help = "Exit codes: 0 the clients lost nothing and the offenders were cut, 1 otherwise."
)]
struct Arguments {
    /// End by itself after so many seconds; otherwise Ctrl-C ends it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Print the summary as JSON, and nothing before it.
    #[arg(long)]
    json: bool,
    /// Grow a fleet instead: one actor behind hundreds of addresses, each below every limit, beside ordinary people. It is found and
    /// throttled after about eight minutes, most of which it takes to learn what is usual; then it ends by itself.
    #[arg(long)]
    fleet: bool,
}

/// Set by a signal.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        if let Err(error) = stop_on(signal) {
            eprintln!("error: cannot listen for signal {signal}: {error}");
            return ExitCode::FAILURE;
        }
    }
    let options = Options { seconds: arguments.seconds, json: arguments.json };
    let verdict = if arguments.fleet {
        lab::fleet::run(options, &STOP)
    } else {
        lab::run(options, &STOP).map(|summary| summary.verdict)
    };
    match verdict {
        Ok(Verdict::Kept) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

extern "C" fn stop(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

fn stop_on(signal: libc::c_int) -> io::Result<()> {
    let handler = stop as extern "C" fn(libc::c_int);
    // SAFETY: the handler only stores to an atomic, which is allowed at any moment.
    let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
