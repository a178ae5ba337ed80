//! `detector record`: rows of real clients, and nothing that was counted before or twice.

use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use detector_fleets::observation::{Observation, Services};
use detector_tests::{
    daemon::{Site, answer},
    https::Https,
    process::{PATIENCE, Running, code, wait_until},
    stage::{Net, Stage, Who, edge_interface, policy},
};
use detector_user::recording::{Merged, Recording};
use serde_json::Value;

const NET: Net = Net::v4(0);

/// Seconds that a client waits.
const PATIENCE_S: u32 = 2;

/// A recording that goes on.
struct Recorder {
    child: Running,
    said: PathBuf,
}

impl Recorder {
    /// Starts one with epochs of a second, and waits until it has looked.
    fn start(site: &Site<'_>, to: &Path) -> Result<Self> {
        let said = site.files().join("recorded");
        let to = to.to_str().context("a path of text")?;
        let mut command = site.command(&["record", to, "--epoch", "1s", "--node", "edge-7", "--json"])?;
        let child = Running::start(command.stdout(File::create(&said)?))?;
        let recorder = Self { child, said };
        wait_until("the recorder has looked", PATIENCE, || {
            Ok((!recorder.epochs()?.is_empty()).then_some(()))
        })?;
        Ok(recorder)
    }

    /// What it said of epochs that are over.
    fn epochs(&self) -> Result<Vec<Value>> {
        let said = fs::read_to_string(&self.said)?;
        let whole = said.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Waits until an epoch is over that began later than now.
    fn goes_on(&self) -> Result<()> {
        let epochs = self.epochs()?.len();
        wait_until("an epoch is over", PATIENCE, || Ok((self.epochs()?.len() > epochs + 1).then_some(())))
    }

    /// Ends it with SIGTERM.
    fn end(mut self) -> Result<()> {
        self.child.signal(libc::SIGTERM)?;
        ensure!(code(self.child.end(PATIENCE)?)? == 0, "{:?}", self.epochs());
        Ok(())
    }
}

/// All rows of a directory, in order.
fn rows(directory: &Path) -> Result<(Vec<Observation>, Services)> {
    let mut files: Vec<_> = fs::read_dir(directory)?.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    files.sort();
    let (mut services, mut rows, mut some) = (Services::default(), Vec::new(), Vec::new());
    for file in files {
        let mut recording = Recording::open(&file)?;
        while recording.read(&mut services, &mut some)? {
            rows.append(&mut some);
        }
    }
    Ok((rows, services))
}

/// What rows of a source say together.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    packets: u64,
    bytes: u64,
    connections: u32,
    handshakes: u32,
    timed: [u32; 3],
}

fn sum(rows: &[Observation], source: IpAddr) -> Sum {
    let own = rows.iter().filter(|row| row.source.to_string() == format!("{source}/32"));
    own.fold(Sum::default(), |mut sum, row| {
        sum.packets += row.packets;
        sum.bytes += row.bytes;
        sum.connections += row.connections;
        sum.handshakes += row.handshakes;
        let times = [row.rtt, row.hello_gap, row.finish_gap];
        sum.timed.iter_mut().zip(times).for_each(|(sum, bins)| *sum += bins.iter().sum::<u32>());
        sum
    })
}

#[test]
fn rows_are_what_clients_did_since_it_began_also_while_the_daemon_dies_and_comes_again() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let https = Https::start(&stage.edge, &[NET.service()])?;
    let site = Site::new(&stage.edge, &policy("packets = \"10000/s\""))?;
    let mut daemon = site.start(&[&edge_interface(0)], &["--keep"])?;
    let [client, offender] = [Who::Client, Who::Offender].map(|who| NET.source(who));
    let curl = |source: IpAddr| -> Result<()> {
        let mut curl = https.curl(&stage.outside, source, NET.service(), PATIENCE_S)?;
        let (code, _, err) = answer(&mut curl)?;
        ensure!(code == 0, "curl {code}: {err}");
        Ok(())
    };
    for _ in 0..5 {
        curl(client)?;
    }
    let counted = |source: IpAddr| Ok::<_, anyhow::Error>(site.source(&format!("{source}/32"))?.packets);
    wait_until("the client has a name", PATIENCE, || {
        let named = site.ask_json(&["top", "fingerprints"])?.1.to_string();
        Ok(named.contains("t13i").then_some(()))
    })?;
    let before = counted(client)?;
    let directory = site.files().join("observations");
    let recorder = Recorder::start(&site, &directory)?;
    curl(client)?;
    recorder.goes_on()?;
    daemon.signal(libc::SIGKILL)?;
    curl(client)?;
    drop(daemon);
    let daemon = site.start(&[&edge_interface(0)], &["--keep"])?;
    curl(client)?;
    curl(offender)?;
    recorder.goes_on()?;
    let after = counted(client)?;
    recorder.end()?;

    let (rows, services) = rows(&directory)?;
    assert!(rows.is_sorted_by_key(|row| row.time_s), "by time");
    let of_client = sum(&rows, client);
    assert_eq!(of_client.packets, after - before, "{rows:#?}");
    assert!(
        of_client.bytes > 60 * of_client.packets && of_client.bytes < 1000 * of_client.packets,
        "{of_client:?}"
    );
    assert_eq!((of_client.connections, of_client.handshakes, of_client.timed), (3, 3, [3; 3]), "{rows:#?}");
    let packets = counted(offender)?;
    let of_offender = sum(&rows, offender);
    assert_eq!((of_offender.packets, of_offender.connections, of_offender.handshakes), (packets, 1, 1));
    let first = rows.iter().find(|row| row.handshakes > 0).context("a row with a handshake")?;
    assert_eq!((services.name(first.kind.service), first.span_s), ("edge", 1));
    assert!(first.kind.syn_key != 0 && first.kind.tls_key != 0);
    assert!(rows.iter().all(|row| row.kind == first.kind), "one kind of client: {rows:#?}");
    let recorded = Merged::open(&[directory])?;
    let names = (recorded.names().ja4(first.kind.tls_key), recorded.names().syn(first.kind.syn_key));
    assert!(
        names.0.is_some_and(|ja4| ja4.starts_with("t13i"))
            && names.1.is_some_and(|syn| syn.starts_with("4:")),
        "{names:?}"
    );
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn a_recorder_whose_program_is_unloaded_keeps_what_it_has_and_says_so() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy("packets = \"10000/s\""))?;
    let directory = site.files().join("observations");
    let to = directory.to_str().context("a path of text")?;
    let (code_before, _, err) = site.ask(&["record", to])?;
    assert!(code_before == 1 && err.contains("nothing is loaded"), "{code_before}: {err}");
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let mut recorder = Recorder::start(&site, &directory)?;
    daemon.end(libc::SIGTERM)?;
    assert_eq!(code(recorder.child.end(PATIENCE)?)?, 1);
    let said = recorder.epochs();
    let said = fs::read_to_string(&recorder.said)? + &format!("{said:?}");
    assert!(said.contains("are kept"), "{said}");
    Ok(())
}
