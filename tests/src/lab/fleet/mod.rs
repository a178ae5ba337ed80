//! `cargo xtask run --fleet`: people and one actor behind hundreds of exits at an HTTPS service, each of them far below every limit.
//! detector learns what is usual, and then finds the actor, says why, and throttles it as one, while people get their answers. An epoch takes a
//! tenth of a second instead of a minute, so all of detection's time passes 600 times as fast; nothing else of it is different.

mod account;
mod crowd;
mod curl;
mod exits;
mod scene;
mod screen;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;

use self::{
    account::{Account, Summary, Who},
    crowd::{Actor, PAGES, People},
    curl::Request,
    scene::{Addresses, INTERFACE, SERVICE, Scene},
    screen::Moment,
};
use super::{Options, Verdict, print, say, view::Style};
use crate::{
    api::Api,
    daemon::{Daemon, Site},
    https::Https,
    netns::is_root,
    random::Random,
};

/// The policy that it runs under.
pub const POLICY: &str = include_str!("policy.toml");

/// The length of an epoch, a minute of detection's time.
const EPOCH: Duration = Duration::from_millis(100);
const EPOCH_OPTION: &str = "100ms";

/// Time between two lots of requests.
const TICK: Duration = Duration::from_millis(200);

/// Where no terminal is, a table comes after so many seconds.
const SECONDS_OF_TABLE: u64 = 10;

/// Exits of the fleet when it has grown, and how many come when it is throttled.
const EXITS: usize = 300;
const NEWCOMERS: usize = 100;

/// Times of detection, in minutes: from the throttle to the newcomers, to the end, and from the fleet's beginning to when it is too late to
/// find it.
const NEWCOMERS_AFTER_MIN: f64 = 180.0;
const END_AFTER_MIN: f64 = 600.0;
const TOO_LATE_MIN: f64 = 24.0 * 60.0;

/// Chance, the same each time.
const SEED: u64 = 6;

/// Runs it until it is over, its time is, or `stop` is set, and prints what happens.
///
/// # Errors
///
/// It cannot be set up, or detector ends before it.
pub fn run(options: Options, stop: &AtomicBool) -> Result<Verdict> {
    if !is_root() {
        bail!("network namespaces and XDP need root: run this as root, or with `sudo`");
    }
    say(
        "setting up: namespaces edge and internet; nginx with HTTPS on the edge; a proxy with exits all over the internet",
    );
    let scene = Scene::new()?;
    let https = Https::start(&scene.edge, &[SERVICE])?;
    for (name, bytes) in PAGES.into_iter().enumerate() {
        https.page(&name.to_string(), bytes)?;
    }
    exits::start(&scene.internet)?;
    let site = Site::new(&scene.edge, POLICY)?;
    let mut daemon = site.start(&[INTERFACE], &["--fleet-epoch", EPOCH_OPTION])?;
    say("detector is attached to wan0 of the edge, its policy is tests/src/lab/fleet/policy.toml");
    say(
        "what is usual is learned for 60 hours of detection's time, which are 6 minutes here; then a fleet comes",
    );
    let account = Account::default();
    let mut play = Play::new(options, &scene, &https, &site, &account);
    thread::scope(|scope| play.go(scope, stop, &mut daemon))?;
    let summary = Summary::new(&site, &account, &play.story)?;
    let style = Style::of_stdout();
    print(&if options.json {
        format!("{:#}\n", summary.json())
    } else {
        format!("{}\n", summary.text(style))
    })?;
    Ok(summary.verdict())
}

/// What has happened so far, in minutes of detection's time since the start.
#[derive(Debug, Clone, Default)]
struct Story {
    now_min: f64,
    learned: Option<f64>,
    found: Option<f64>,
    throttled: Option<f64>,
    newcomers: Option<f64>,
    /// What detector says of fleets.
    told: Value,
    /// Addresses that were the actor's.
    exits: Vec<String>,
}

struct Play<'a> {
    options: Options,
    scene: &'a Scene,
    https: &'a Https,
    site: &'a Site<'a>,
    account: &'a Account,
    addresses: Addresses,
    people: People,
    actor: Actor,
    start: Instant,
    story: Story,
}

impl<'a> Play<'a> {
    fn new(
        options: Options,
        scene: &'a Scene,
        https: &'a Https,
        site: &'a Site<'a>,
        account: &'a Account,
    ) -> Self {
        let mut random = Random::new(SEED);
        let mut addresses = Addresses::new(&mut random);
        let people = People::new(&mut addresses, Random::new(SEED + 1));
        let actor = Actor::new(0.0, Random::new(SEED + 2));
        let (start, story) = (Instant::now(), Story::default());
        Self { options, scene, https, site, account, addresses, people, actor, start, story }
    }

    /// Plays until it is over.
    fn go<'scope>(
        &mut self,
        scope: &'scope thread::Scope<'scope, '_>,
        stop: &AtomicBool,
        daemon: &mut Daemon<'_>,
    ) -> Result<()>
    where
        'a: 'scope,
    {
        let (mut ticks, mut seconds) = (0, 0);
        let last = self.options.seconds.unwrap_or(u64::MAX);
        while seconds < last && !self.is_over() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            ticks += 1;
            self.story.now_min = self.start.elapsed().as_secs_f64() / EPOCH.as_secs_f64();
            let now_min = self.story.now_min;
            let people = self.people.due(now_min, &mut self.addresses);
            let actor = self.actor.due(now_min, &mut self.addresses);
            for (who, requests) in [(Who::People, people), (Who::Actor, actor)] {
                self.send(scope, who, requests);
            }
            if self.start.elapsed() >= Duration::from_secs(seconds + 1) {
                seconds += 1;
                if !daemon.is_running()? {
                    bail!("detector ended while the lab ran; its log:\n{}", daemon.log());
                }
                self.look(seconds)?;
            }
            thread::sleep((self.start + TICK * ticks).saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn send<'scope>(&self, scope: &'scope thread::Scope<'scope, '_>, who: Who, requests: Vec<Request>)
    where
        'a: 'scope,
    {
        if requests.is_empty() {
            return;
        }
        let (scene, https, account) = (self.scene, self.https, self.account);
        scope.spawn(move || {
            let curl = scene.internet.command("curl");
            let answers = curl.and_then(|curl| curl::fetch(curl, &https.certificate(), &requests));
            account.add(who, requests.len(), answers);
        });
    }

    /// Whether everything was shown, or it is too late for it.
    fn is_over(&self) -> bool {
        let Story { now_min, learned, throttled, .. } = self.story;
        let is_shown = throttled.is_some_and(|at| now_min > at + END_AFTER_MIN);
        is_shown || throttled.is_none() && learned.is_some_and(|at| now_min > at + TOO_LATE_MIN)
    }

    /// Sees what detector says, lets happen what is to happen then, and shows it.
    fn look(&mut self, seconds: u64) -> Result<()> {
        let told = Api::new(self.site.api()).get("/v1/fleets")?.body;
        let story = &mut self.story;
        let now_min = story.now_min;
        if story.learned.is_none() && told["detection"]["state"] == "watching" {
            story.learned = Some(now_min);
            self.actor.grow(now_min, EXITS);
        }
        if story.found.is_none() && told["fleets"].get(0).is_some() {
            story.found = Some(now_min);
        }
        let is_throttled = !told["actions"][0]["throttle"].is_null();
        if story.throttled.is_none() && is_throttled {
            story.throttled = Some(now_min);
            self.account.throttled();
        }
        if story.newcomers.is_none() && story.throttled.is_some_and(|at| now_min > at + NEWCOMERS_AFTER_MIN) {
            story.newcomers = Some(now_min);
            self.actor.grow(now_min, EXITS + NEWCOMERS);
        }
        story.exits = self.actor.exits().map(|exit| format!("{exit}/32")).collect();
        story.told = told;
        let second = self.account.second();
        let style = Style::of_stdout();
        if self.options.json || !style.is_terminal() && !seconds.is_multiple_of(SECONDS_OF_TABLE) {
            return Ok(());
        }
        let fleet = self.story.told["fleets"][0]["id"].as_str();
        let explained = fleet.map(|fleet| self.site.ask(&["fleets", fleet])).transpose()?;
        let explained = explained.map(|(_, out, _)| out).unwrap_or_default();
        let people = self.people.count();
        print(&screen::table(
            style,
            seconds,
            &Moment { story: &self.story, second, people, explained: &explained },
        ))
    }
}

/// What others count while we look.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
