//! `cargo xtask run`: detector at work among clients and offenders. See `detector_tests::lab`.

use std::{
    io,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use clap::Parser;
use detector_tests::lab::{Options, Verdict, run};

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
    match run(options, &STOP) {
        Ok(summary) if summary.verdict == Verdict::Kept => ExitCode::SUCCESS,
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
