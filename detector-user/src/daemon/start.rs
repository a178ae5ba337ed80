//! From nothing, or from what a predecessor left, to a program that filters. All of it or nothing.

use std::{
    fs,
    io::{self, Read as _},
    mem::offset_of,
    path::{Path, PathBuf},
};

use aya::maps::{MapData, RingBuf};
use detector_common::{
    budget::{TICKS_PER_NS, ticks},
    generation::Settings,
    hash::Seed,
    limits::WAYS,
    table_size::{sets_for_client_budgets, sets_for_clients, sets_for_parents, sets_for_sources},
};

use super::{events, exemplars, warnings};
use crate::{
    change::{Applied, Change, apply_to, clocks},
    cli::RunArgs,
    clock,
    commands::{Failure, PolicyFile, read_policy, rules::idle_incidents, version_name},
    guard::{self, Host, Openings},
    history::{Author, History, Origin},
    kernel::{
        attach::{Attachment, attach, detach, index_of},
        incidents::{reserve, restore},
        links::{LinkMode, Namespace, Place},
        load::{Clock, LoadOptions, Loaded, chain, load},
        mapped::Access,
        maps::Maps,
        pins::{Lock, Pins, remove_file},
        probe::probe,
        read,
    },
    policy::incident::{Incident, Incidents},
};

/// A program that filters.
pub(super) struct Started {
    pub(super) maps: Maps,
    pub(super) attachments: Vec<Attachment>,
    pub(super) pins: Pins,
    pub(super) history: History,
    pub(super) author: Author,
    pub(super) lock: Lock,
    pub(super) events: Option<events::Events>,
    pub(super) exemplars: Option<exemplars::Exemplars>,
    pub(super) log: Option<events::ProgramLog>,
    pub(super) ebpf: aya::Ebpf,
}

/// What can be refused without touching a packet.
pub(super) struct Prepared {
    file: PolicyFile,
    /// Whether it is applied though it needs to be forced.
    force: bool,
    pins: Pins,
    history: History,
    author: Author,
    lock: Lock,
    namespace: Namespace,
    /// The settings of the maps that are adopted.
    predecessor: Option<Settings>,
}

/// Reads the policy, looks for the interfaces, and becomes the only daemon here.
pub(super) fn prepare(args: &RunArgs) -> Result<Prepared, Failure> {
    let file = read_policy(&args.policy)?;
    for interface in &args.interfaces {
        index_of(interface)?;
    }
    probe()?;
    let pins = Pins::new(&args.pins);
    let lock = pins.prepare()?;
    let namespace = Namespace::own()?;
    pins.check_namespace(namespace)?;
    let predecessor = predecessor(&pins)?;
    let history = History::new(&args.state.state, &args.pins);
    let author = Author::current();
    Ok(Prepared { file, force: args.force, pins, history, author, lock, namespace, predecessor })
}

/// What a predecessor filters with. Maps are pinned before the verifier has seen the program, the seed is written after it
/// and the policy last: where one of them is missing, the predecessor was ended before it filtered anything.
fn predecessor(pins: &Pins) -> Result<Option<Settings>, Failure> {
    if !pins.is_loaded() {
        return Ok(None);
    }
    let settings = Maps::pinned(&pins.directory(), Access::Read)?.settings.read(0);
    let is_whole =
        settings.active != 0 && settings.seed.multipliers.iter().all(|multiplier| multiplier & 1 == 1);
    if !is_whole {
        tracing::warn!("a daemon was ended before it had a policy: its maps are made anew");
    }
    Ok(is_whole.then_some(settings))
}

impl Prepared {
    const fn adopted(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Leaves nothing behind, where nothing was.
    pub(super) fn abandon(self) -> Result<(), Failure> {
        if !self.adopted() {
            self.pins.remove()?;
        }
        Ok(())
    }
}

/// Starts filtering. The order: the maps, the policy, and the interfaces last, so that no packet meets a program without
/// a policy.
pub(super) fn start(args: &RunArgs, prepared: Prepared) -> Result<Started, Failure> {
    if !prepared.adopted() {
        prepared.pins.remove_maps()?;
    }
    let result = load_and_attach(args, &prepared);
    let adopted = prepared.adopted();
    let Prepared { pins, history, author, lock, .. } = prepared;
    match result {
        Ok(Filtering { loaded: Loaded { ebpf, maps }, attachments, events, exemplars, log }) => {
            Ok(Started { maps, attachments, pins, history, author, lock, events, exemplars, log, ebpf })
        }
        Err(failure) => {
            if !adopted {
                pins.remove()?;
            }
            Err(failure)
        }
    }
}

struct Filtering {
    loaded: Loaded,
    attachments: Vec<Attachment>,
    events: Option<events::Events>,
    exemplars: Option<exemplars::Exemplars>,
    log: Option<events::ProgramLog>,
}

fn load_and_attach(args: &RunArgs, prepared: &Prepared) -> Result<Filtering, Failure> {
    let adopted = prepared.adopted();
    let directory = prepared.pins.directory();
    let settings = prepared.predecessor.map_or_else(fresh_settings, Ok)?;
    let (map_pins, replaced) = map_pins(args.sources, &directory, adopted)?;
    let options = LoadOptions {
        sources: args.sources,
        clock: Clock::Kernel,
        seed: settings.seed,
        pins: Some(map_pins),
        log_level: args.kernel_log,
        follows_handshakes: true,
    };
    let mut switched = false;
    let result = load(&options).map_err(Failure::from).and_then(|mut loaded| {
        if !adopted {
            loaded.maps.settings.write(0, &settings);
        }
        configure(&loaded.maps, args);
        let events = ring_of(&mut loaded.ebpf, "EVENTS", events::Events::new)?;
        let exemplars = ring_of(&mut loaded.ebpf, "EXEMPLARS", exemplars::Exemplars::new)?;
        let log = if args.kernel_log > 0 { Some(events::program_log(&mut loaded.ebpf)?) } else { None };
        let attachments = switch(&mut loaded, args, prepared, &mut switched)?;
        Ok(Filtering { loaded, attachments, events, exemplars, log })
    });
    finish_replacement(&replaced, switched)?;
    result
}

/// Writes the words of the settings that are this daemon's to say. Not the epoch: another process may apply a policy.
fn configure(maps: &Maps, args: &RunArgs) {
    let interval = match args.events {
        0 => 0,
        events => 1_000_000_000 * TICKS_PER_NS / u64::from(events),
    };
    let word = |offset: usize| offset / size_of::<u64>();
    maps.settings.write_word(0, word(offset_of!(Settings, event_interval)), interval);
    maps.settings.write_word(0, word(offset_of!(Settings, event_tat)), ticks(clock::kernel_ns()));
    maps.settings.write_word(0, word(offset_of!(Settings, clock_tick_ns)), clock::kernel_tick_ns());
}

/// Puts policy and program in place. What is most likely refused comes first, and can be taken back: a new program goes
/// to interfaces that no predecessor held (over adopted maps they have a policy already); then the policy is applied;
/// the links of a predecessor are replaced last.
fn switch(
    loaded: &mut Loaded,
    args: &RunArgs,
    prepared: &Prepared,
    switched: &mut bool,
) -> Result<Vec<Attachment>, Failure> {
    let Prepared { pins, namespace, .. } = prepared;
    let adopted = prepared.adopted();
    let held: Vec<u32> = pins.places(*namespace)?.iter().filter_map(|(_, place)| index_here(place)).collect();
    let mut interfaces = Vec::new();
    for interface in &args.interfaces {
        let index = index_of(interface)?;
        if !interfaces.iter().any(|&(known, _)| known == index) {
            interfaces.push((index, interface.as_str()));
        }
    }
    let (kept, new): (Vec<_>, Vec<_>) = interfaces.into_iter().partition(|(index, _)| held.contains(index));
    let mut attachments = Vec::new();
    let result = (|| {
        if !adopted {
            put_policy(loaded, prepared)?;
        }
        attach_each(loaded, &new, prepared, &mut attachments)?;
        if adopted {
            put_policy(loaded, prepared)?;
        }
        attach_each(loaded, &kept, prepared, &mut attachments)
    })();
    *switched = result.is_ok() || attachments.iter().any(|attachment| attachment.adopted);
    if let Err(failure) = result {
        for attachment in attachments.iter().filter(|attachment| !attachment.adopted) {
            detach(&attachment.pin)?;
        }
        return Err(failure);
    }
    let_go(prepared, &attachments)?;
    Ok(attachments)
}

const fn index_here(place: &Place) -> Option<u32> {
    match place {
        Place::Here { index, .. } => Some(*index),
        Place::Elsewhere | Place::Gone => None,
    }
}

fn put_policy(loaded: &mut Loaded, prepared: &Prepared) -> Result<(), Failure> {
    let Prepared { file, pins, history, author, force, .. } = prepared;
    if let Some(left_s) = read::confirm_in_s(&loaded.maps) {
        tracing::warn!(
            "a policy waits to be confirmed for {left_s} s more: {} is not applied; SIGHUP applies it after that",
            file.name
        );
        return Ok(());
    }
    let change = Change { force: *force, ..Change::new(file, author, Origin::Start) };
    let applied = apply_to(&mut loaded.maps, pins, history, &change)?;
    warn_of(file);
    warn_of_lockouts(&loaded.maps)?;
    tell_applied(file, &applied, prepared.adopted());
    if !prepared.adopted() {
        restore_incidents(&mut loaded.maps, prepared);
    }
    Ok(())
}

/// Brings back the incident rules that were in force when the program was loaded last. A node comes up without them rather
/// than not at all.
fn restore_incidents(maps: &mut Maps, prepared: &Prepared) {
    let restored = prepared.pins.lock_policy().map_err(Failure::from).and_then(|_lock| {
        let kept = prepared.history.kept_incidents()?;
        // Also where they do not come back: they stay kept, under their numbers.
        reserve(maps, kept.rules.iter().map(|incident| incident.id).max().unwrap_or_default());
        let clocks = clocks(maps);
        Ok(restore(maps, clocks, kept)?)
    });
    match restored {
        Ok(rules) => {
            let incidents = Incidents { rules };
            for Incident { id, action, reason, by, .. } in &incidents.rules {
                tracing::info!(incident = id, %action, by, reason, "an incident rule is in force again");
            }
            let services = &prepared.file.checked.policy.services;
            let has_service = |name: &str| services.iter().any(|service| service.name == name);
            for idle in idle_incidents(&incidents, has_service) {
                tracing::warn!("{idle}");
            }
        }
        Err(failure) => tracing::error!(
            "incident rules are kept and not in force again: {}; add them anew, or start again",
            failure.message
        ),
    }
}

fn fresh_settings() -> Result<Settings, Failure> {
    let mut bytes = [0_u8; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|error| Failure::failed(format_args!("cannot draw a seed from /dev/urandom: {error}")))?;
    let mut words = [0_u64; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    }
    let seed = Seed::new(words);
    Ok(Settings { seed, ..Settings::default() })
}

/// A pin under another name until the new program is attached.
struct Replaced {
    new: PathBuf,
    old: PathBuf,
}

type MapPins = Vec<(&'static str, PathBuf)>;

/// Where each map is pinned. Tables of another size than asked for are made anew beside the old ones, which go on
/// serving the old program until the new one is attached.
fn map_pins(sources: u32, directory: &Path, adopted: bool) -> Result<(MapPins, Vec<Replaced>), Failure> {
    let mut pins = LoadOptions::pins_in(directory);
    let mut replaced = Vec::new();
    if !adopted {
        return Ok((pins, replaced));
    }
    let sizes = [
        ("SOURCES", sets_for_sources(sources)),
        ("PARENTS", sets_for_parents(sources)),
        ("CLIENT_BUDGETS", sets_for_client_budgets(sources)),
        ("CLIENTS", sets_for_clients(sources)),
        ("CLIENT_COUNTS", sets_for_clients(sources) * WAYS as u32),
    ];
    for (name, path) in &mut pins {
        let Some((_, wanted)) = sizes.iter().find(|(sized, _)| sized == name) else { continue };
        let found = MapData::from_pin(&*path)?.info()?.max_entries();
        if found == *wanted {
            continue;
        }
        tracing::warn!(
            map = *name,
            found,
            wanted,
            "--sources differs from the adopted table's: it is made anew, its sources start with full budgets"
        );
        let new = directory.join(format!("{name}-next"));
        remove_file(&new)?;
        replaced.push(Replaced { new: new.clone(), old: path.clone() });
        *path = new;
    }
    Ok((pins, replaced))
}

fn finish_replacement(replaced: &[Replaced], switched: bool) -> Result<(), Failure> {
    for Replaced { new, old } in replaced {
        if !switched {
            remove_file(new)?;
            continue;
        }
        fs::rename(new, old).map_err(|error| {
            Failure::failed(format_args!(
                "cannot move the pin {} to {}: {error}",
                new.display(),
                old.display()
            ))
        })?;
    }
    Ok(())
}

fn attach_each(
    loaded: &mut Loaded,
    interfaces: &[(u32, &str)],
    prepared: &Prepared,
    attachments: &mut Vec<Attachment>,
) -> Result<(), Failure> {
    for (_, interface) in interfaces {
        let program = loaded.program().map_err(|error| Failure::failed(chain(&error)))?;
        let attachment = attach(program, interface, &prepared.pins, prepared.namespace)?;
        tell(&attachment);
        attachments.push(attachment);
    }
    Ok(())
}

/// Detaches from interfaces that a predecessor held and that are not asked for, and from those that are gone.
fn let_go(prepared: &Prepared, attachments: &[Attachment]) -> Result<(), Failure> {
    for (link, place) in prepared.pins.places(prepared.namespace)? {
        if attachments.iter().any(|attachment| attachment.pin == link) {
            continue;
        }
        detach(&link)?;
        let index = link.interface_index;
        match place {
            Place::Here { name, .. } => {
                tracing::warn!(
                    interface = %name,
                    "detached: a predecessor had it, --iface does not name it"
                );
            }
            Place::Elsewhere => {
                tracing::warn!(
                    index,
                    "detached from an interface that was moved to another network namespace"
                );
            }
            Place::Gone => tracing::info!(index, "removed the pin of an interface that was deleted"),
        }
    }
    Ok(())
}

fn tell(attachment: &Attachment) {
    let Attachment { interface, adopted, .. } = attachment;
    let mode = attachment.pin.mode;
    tracing::info!(interface = %interface, mode = mode.name(), adopted, "attached");
    if mode == LinkMode::Generic {
        let reason = attachment.fallback.as_deref().unwrap_or("a predecessor fell back to it");
        tracing::warn!(
            interface = %interface, reason,
            "attached in generic mode, several times slower: the driver does not take the program"
        );
    }
}

/// What waits at a ring buffer of the program.
fn ring_of<R>(
    ebpf: &mut aya::Ebpf,
    name: &str,
    wait: impl FnOnce(RingBuf<MapData>) -> io::Result<R>,
) -> Result<Option<R>, Failure> {
    let Some(map) = ebpf.take_map(name) else { return Ok(None) };
    let ring = wait(RingBuf::try_from(map)?).map_err(|error| {
        Failure::failed(format_args!(
            "cannot wait for what the program sends ({name}): {error}; look at the limit of open files (`ulimit -n`)"
        ))
    })?;
    Ok(Some(ring))
}

/// Logs that a policy was applied.
pub(super) fn tell_applied(file: &PolicyFile, applied: &Applied, adopted: bool) {
    let Applied { version, epoch, idle_incidents, unrecorded, .. } = applied;
    if let Some(why) = unrecorded {
        tracing::warn!("what was applied is not recorded: {why}");
    }
    let name = version_name(*version, *epoch);
    tracing::info!(version, epoch, file = %file.name, adopted, "applied the policy: {name}");
    for idle in idle_incidents {
        tracing::warn!("{idle}");
    }
}

/// Says whom the policy locks out of this host. It is no reason not to start: a node has to come up.
fn warn_of_lockouts(maps: &Maps) -> Result<(), Failure> {
    let loaded = guard::Loaded::read(maps)?;
    let Some(judge) = loaded.judge() else { return Ok(()) };
    // Of a program that was just loaded nobody has opened a connection.
    let openings = Openings::counted(maps).without_doubts();
    for lockout in guard::peers_locked_out(&Host::of_everybody(), &openings, None, &judge) {
        tracing::warn!("the policy locks out {lockout}: add it to `allow` in [defaults], unless it is meant");
    }
    Ok(())
}

/// Logs the warnings of a policy.
pub(super) fn warn_of(file: &PolicyFile) {
    if let Some(warnings) = warnings(file) {
        tracing::warn!("the policy has warnings:\n{warnings}");
    }
}
