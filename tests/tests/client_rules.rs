//! Rules about fingerprints, through the real program: whom they are about, what they charge, and what comes before what.

use std::time::Duration;

use detector_common::{
    fingerprint::{Kind, Name, ja4_bytes, ja4_text},
    generation::Settings,
    limits::{OTHER_SEGMENTS_MAX, SYN_SAMPLE},
    table::Set,
    verdict::{Reason, Verdict},
};
use detector_tests::{
    client::Client,
    hello::Hello,
    packet::{flags, tcp},
    rows::Rig,
};
use detector_user::{
    guard::{Guard, Host, Share, Unselective},
    kernel::{client_rules, incidents, names},
    policy::{
        Budgets,
        compile::compile,
        incident::{Incident, IncidentAction, throttle_of_packets},
        target::{matches, target},
    },
    traffic::Watching,
};

const SERVICE: &str = "version = 1\n[[service]]\nname = \"web\"\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\nprofile = \"p\"\n";
const PROFILES: &str = "[profile.p]\npackets = \"1000000/s\"\n[profile.two]\nhandshakes = { rate = \"6/min\", burst = 2 }\nconnections = { rate = \"6/min\", burst = 2 }\n";

/// Two handshakes of each source at once.
const TIGHT: &str = "[profile.p]\nhandshakes = { rate = \"6/min\", burst = 2 }\n";

/// The first part of the JA4 of [`Hello::browser`].
const BROWSER: &str = "t13d0506h2";

fn policy(rules: &str) -> String {
    format!("{SERVICE}{PROFILES}{rules}")
}

fn rule(name: &str, body: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\n{body}\n")
}

fn browser() -> Vec<u8> {
    Hello::browser(200).stream()
}

/// A ClientHello with a cipher more.
fn other() -> Vec<u8> {
    let mut hello = Hello::browser(200);
    hello.ciphers.push(0xc030);
    hello.stream()
}

/// The reason of a whole ClientHello on a new connection.
fn shake(rig: &mut Rig, source: &str, stream: &[u8]) -> Reason {
    let mut client = Client::new(source);
    client.connect(rig);
    client.reason(rig, 0, stream)
}

/// As [`shake`], and the client goes on, as one does that the server has answered.
fn finish(rig: &mut Rig, source: &str, stream: &[u8]) {
    let mut client = Client::new(source);
    client.connect(rig);
    client.send(rig, stream);
    client.acknowledge(rig, 2000);
    client.send(rig, &[20, 3, 3, 0, 1, 1]);
}

/// A rig under a policy, in which both clients have their names: they were seen from elsewhere, before.
fn seen(policy: &str) -> Rig {
    let mut rig = Rig::under(policy);
    for (stream, source) in [(browser(), "203.0.113.1:1"), (other(), "203.0.113.2:2")] {
        shake(&mut rig, source, &stream);
    }
    rig.name_fingerprints();
    rig
}

fn reasons(rig: &mut Rig, address: &str, ports: std::ops::Range<u16>, stream: &[u8]) -> Vec<Reason> {
    ports.map(|port| shake(rig, &format!("{address}:{port}"), stream)).collect()
}

#[test]
fn a_rule_drops_the_handshakes_of_its_fingerprint_and_no_others() {
    let drop = rule("scraper", &format!("ja4 = \"{BROWSER}_*_*\"\naction = \"drop\""));
    let mut rig = seen(&policy(&drop));
    for address in ["198.51.100.7", "[2001:db8:7::1]"] {
        assert_eq!(reasons(&mut rig, address, 1000..1002, &browser()), [Reason::Fingerprint; 2]);
        assert_eq!(reasons(&mut rig, address, 2000..2002, &other()), [Reason::Conforming; 2]);
        assert_eq!(reasons(&mut rig, address, 3000..3001, b"GET / HTTP/1.1\r\n\r\n"), [Reason::Conforming]);
    }
    assert_eq!(rig.counted("web", Reason::Fingerprint).packets, 4);
    assert_eq!(rig.rule_drops("scraper").dropped, 4);
    // The same in two segments, the second of which is dropped, however often.
    let stream = Hello::browser(700).stream();
    let mut client = Client::new("198.51.100.9:1000");
    client.connect(&mut rig);
    client.send(&mut rig, &stream[..500]);
    for _ in 0..3 {
        assert_eq!(client.reason(&mut rig, 0, &stream[500..]), Reason::Fingerprint);
    }
}

#[test]
fn a_fingerprint_that_appears_later_is_acted_on_once_it_has_a_name() {
    let drop = rule("scraper", &format!("ja4 = \"{BROWSER}_*_*\"\naction = \"drop\""));
    let mut rig = Rig::under(&policy(&drop));
    assert_eq!(shake(&mut rig, "198.51.100.7:1000", &browser()), Reason::Conforming);
    rig.name_fingerprints();
    assert_eq!(shake(&mut rig, "198.51.100.7:1001", &browser()), Reason::Fingerprint);
    // The next policy knows it from the start; one without the rule lets it pass, and so does one that is taken away again.
    rig.apply(&policy(""));
    assert_eq!(shake(&mut rig, "198.51.100.7:1002", &browser()), Reason::Conforming);
    rig.apply(&policy(&drop));
    assert_eq!(shake(&mut rig, "198.51.100.7:1003", &browser()), Reason::Fingerprint);
}

/// The key of [`browser`] is made up by somebody else too: the name stays and no rule acts, at any service, until the fingerprint has
/// left the table.
#[test]
fn a_name_stays_and_disarms_its_rules_when_another_client_has_its_key() {
    let two = SERVICE.replace(", \"2001:db8::1\"", "");
    let two = format!("{two}[[service]]\nname = \"six\"\naddresses = [\"2001:db8::1\"]\nprofile = \"p\"\n");
    let drop = rule("scraper", &format!("ja4 = \"{BROWSER}_*_*\"\naction = \"drop\""));
    let elsewhere = rule("elsewhere", "ja4 = \"t12*_*_*\"\naction = \"drop\"");
    let mut rig = Rig::under(&format!("{two}{PROFILES}{drop}{elsewhere}"));
    change(&mut rig, &[&format!("ja4:{BROWSER}_*_*")], None);
    let acts = |rig: &mut Rig, port: u16| {
        ["198.51.100.7", "[2001:db8:7::1]"]
            .map(|address| shake(rig, &format!("{address}:{port}"), &browser()) == Reason::Fingerprint)
    };
    acts(&mut rig, 1000);
    rig.name_fingerprints();
    assert_eq!(acts(&mut rig, 1001), [true; 2]);
    let browsers = |rig: &Rig| -> Vec<Name> {
        let all = names::standing(&rig.bench().loaded.maps).map(|standing| standing.name);
        all.filter(|name| ja4_text(&name.ja4).is_some_and(|ja4| ja4.starts_with(BROWSER))).collect()
    };
    let before = browsers(&rig);
    let [name, _] = before[..] else { panic!("{before:?}") };
    assert_eq!(before, [name; 2], "one name at both services");

    // Someone else's ClientHello, at one of the services.
    let stranger = Name { stable_ja4: ja4_bytes("t13d_else"), ja4: ja4_bytes("t13d_else"), ..name };
    let maps = &rig.bench().loaded.maps;
    let six = rig.bench().manifest.services["six"];
    for conflicts in 1..3 {
        let given = names::give(maps, &stranger, six).expect("it is counted there");
        assert_eq!((given.is_conflict(), given.is_first_conflict()), (true, conflicts == 1));
        assert_eq!(browsers(&rig), [Name { conflicts, ..name }; 2]);
    }
    assert_eq!(client_rules::rules_about(maps, &name, &[six]).expect("a policy"), ["scraper", "incident 1"]);
    assert!(client_rules::rules_about(maps, &stranger, &[six]).expect("a policy").is_empty());
    client_rules::refresh(&mut rig.bench_mut().loaded.maps).expect("rules");
    assert_eq!(acts(&mut rig, 1002), [false; 2]);
    // What comes later, of the client itself, changes nothing.
    names::give(&rig.bench().loaded.maps, &name, six).expect("it is counted there");
    assert_eq!(browsers(&rig), [Name { conflicts: 2, ..name }; 2]);

    let maps = &rig.bench().loaded.maps;
    names::end_conflicts(maps);
    assert_eq!(browsers(&rig).len(), 2, "it is counted still");
    (0..maps.fingerprints.len()).for_each(|set| maps.fingerprints.write(set, &Set::default()));
    names::end_conflicts(maps);
    acts(&mut rig, 1003);
    rig.name_fingerprints();
    assert_eq!(browsers(&rig), [name; 2]);
    assert_eq!(acts(&mut rig, 1004), [true; 2]);
}

/// A key that is known at one service has its name at the next one, where somebody else shows it first.
#[test]
fn a_name_is_that_of_the_key_at_every_service() {
    let two = SERVICE.replace(", \"2001:db8::1\"", "");
    let two = format!("{two}[[service]]\nname = \"six\"\naddresses = [\"2001:db8::1\"]\n{PROFILES}");
    let mut rig = Rig::under(&two);
    shake(&mut rig, "198.51.100.7:1000", &browser());
    rig.name_fingerprints();
    shake(&mut rig, "[2001:db8:7::1]:1000", &browser());
    let maps = &rig.bench().loaded.maps;
    let known: Vec<Name> = names::standing(maps).map(|standing| standing.name).collect();
    let name = *known.iter().find(|name| name.kind == Kind::Tls as u8).expect("a ClientHello");
    let stranger = Name { stable_ja4: ja4_bytes("t13d_else"), ..name };
    let given = names::give(maps, &stranger, rig.bench().manifest.services["six"]).expect("it is counted");
    assert!(given.is_first_conflict() && given.before.is_none());
    assert_eq!(given.name, Name { conflicts: 1, ..name });
}

#[test]
fn a_rule_that_had_ended_before_leaves_the_next_one_to_decide() {
    let ended =
        rule("ended", &format!("ja4 = \"{BROWSER}_*_*\"\naction = \"allow\"\nuntil = 1970-01-01T00:30:00Z"));
    let drop = rule("wide", "ja4 = \"t13d*_*_*\"\naction = \"drop\"");
    let mut rig = seen(&policy(&(ended.clone() + &drop)));
    assert_eq!(shake(&mut rig, "198.51.100.7:1000", &browser()), Reason::Fingerprint);
    // Also of names that are there before the policy.
    rig.apply(&policy(""));
    rig.apply(&policy(&(ended + &drop)));
    assert_eq!(shake(&mut rig, "198.51.100.7:1001", &browser()), Reason::Fingerprint);
}

#[test]
fn a_limit_is_of_each_source_or_of_all_together() {
    let limit = |shared: &str| {
        rule("slow", &format!("ja4 = \"{BROWSER}_*_*\"\naction = {{ limit = \"two\"{shared} }}"))
    };
    let two_and_no_more = [Reason::Conforming, Reason::Conforming, Reason::FingerprintBudget];
    let mut rig = seen(&policy(&limit("")));
    assert_eq!(reasons(&mut rig, "198.51.100.7", 1000..1003, &browser()), two_and_no_more);
    assert_eq!(reasons(&mut rig, "198.51.100.8", 1000..1003, &browser()), two_and_no_more);
    assert_eq!(reasons(&mut rig, "198.51.100.7", 2000..2003, &other()), [Reason::Conforming; 3]);
    rig.advance(10_000_000_000);
    assert_eq!(shake(&mut rig, "198.51.100.7:3000", &browser()), Reason::Conforming);
    assert_eq!(rig.rule_drops("slow").dropped, 2);

    let mut rig = seen(&policy(&limit(", shared = true")));
    let mut sources = (0..5).map(|host| shake(&mut rig, &format!("198.51.100.{host}:1000"), &browser()));
    assert_eq!(sources.by_ref().take(2).collect::<Vec<_>>(), [Reason::Conforming; 2]);
    assert_eq!(sources.collect::<Vec<_>>(), [Reason::FingerprintBudget; 3]);
    // It stays spent under the next policy that has the rule.
    rig.apply(&policy(&limit(", shared = true")));
    assert_eq!(shake(&mut rig, "198.51.100.9:1000", &browser()), Reason::FingerprintBudget);
}

#[test]
fn a_rule_about_syns_acts_at_the_syn() {
    // The one of `Client`: options mss, sok, ts, nop, ws; another system has none.
    let syn = "syn = \"4:64:0:1460:*:mss,sok,ts,nop,ws:*:0\"\naction =";
    let mut rig = seen(&policy(&rule("system", &format!("{syn} \"drop\""))));
    assert_eq!(rig.reason(&Client::new("198.51.100.7:1000").syn().frame()), Reason::Fingerprint);
    let bare = tcp("198.51.100.7:1001", "192.0.2.1:443", flags::SYN);
    assert_eq!(rig.reason(&bare.frame()), Reason::Conforming);
    assert_eq!(rig.rule_drops("system").dropped, 1);

    let mut rig = seen(&policy(&rule("system", &format!("{syn} {{ limit = \"two\" }}"))));
    let syns: Vec<_> = (1000..1003)
        .map(|port| rig.reason(&Client::new(&format!("198.51.100.7:{port}")).syn().frame()))
        .collect();
    assert_eq!(syns, [Reason::Conforming, Reason::Conforming, Reason::FingerprintBudget]);
}

#[test]
fn a_rule_about_both_needs_both_and_comes_first() {
    let syn = "syn = \"4:64:0:1460:*:mss,sok,ts,nop,ws:*:0\"";
    let both = rule("both", &format!("ja4 = \"{BROWSER}_*_*\"\n{syn}\naction = \"drop\""));
    let allow = rule("browsers", &format!("ja4 = \"{BROWSER}_*_*\"\naction = \"allow\""));
    let mut rig = seen(&policy(&(allow + &both)));
    assert_eq!(shake(&mut rig, "198.51.100.7:1000", &browser()), Reason::Fingerprint);
    assert_eq!(shake(&mut rig, "198.51.100.7:1001", &other()), Reason::Conforming);
    // The same ClientHello from another system.
    let plain = tcp("198.51.100.7:1002", "192.0.2.1:443", flags::SYN).sequence(1);
    rig.send(&plain.frame());
    let mut client = Client::new("198.51.100.7:1002");
    client.sequence = 2;
    client.send(&mut rig, &[]);
    assert_eq!(client.reason(&mut rig, 0, &browser()), Reason::Conforming);
}

#[test]
fn what_comes_before_what() {
    let drop = |name: &str, pattern: &str| rule(name, &format!("ja4 = \"{pattern}\"\naction = \"drop\""));
    let allow = |name: &str, pattern: &str| rule(name, &format!("ja4 = \"{pattern}\"\naction = \"allow\""));
    // The narrower pattern, wherever it stands.
    let mut rig = seen(&policy(&(drop("wide", "t13d*_*_*") + &allow("narrow", &format!("{BROWSER}_*_*")))));
    assert_eq!(shake(&mut rig, "198.51.100.7:1000", &browser()), Reason::Conforming);
    assert_eq!(shake(&mut rig, "198.51.100.7:1001", &other()), Reason::Fingerprint);
    // A rule that allows the source, and defaults.allow.
    let partner = "[[rule]]\nname = \"partner\"\nsource = [\"198.51.100.7\"]\naction = \"allow\"\n";
    let defaults = SERVICE.replace("version = 1", "version = 1\ndefaults.allow = [\"198.51.100.8\"]");
    let mut rig = seen(&format!("{defaults}{PROFILES}{partner}{}", drop("all", "t13d*_*_*")));
    for source in ["198.51.100.7:1000", "198.51.100.8:1000"] {
        assert_eq!(shake(&mut rig, source, &browser()), Reason::Allowed);
    }
    assert_eq!(shake(&mut rig, "198.51.100.9:1000", &browser()), Reason::Fingerprint);
    // What is allowed costs no budget of handshakes.
    let mut rig = seen(&format!("{SERVICE}{TIGHT}{}", allow("browsers", &format!("{BROWSER}_*_*"))));
    assert_eq!(reasons(&mut rig, "198.51.100.7", 1000..1010, &browser()), [Reason::Conforming; 10]);
    let two_and_no_more = [Reason::Conforming, Reason::Conforming, Reason::Handshakes];
    assert_eq!(reasons(&mut rig, "198.51.100.7", 2000..2003, &other()), two_and_no_more);
}

#[test]
fn a_rule_about_another_service_or_in_shadow_drops_nothing() {
    let second = "[[service]]\nname = \"other\"\naddresses = [\"192.0.2.2\"]\nprofile = \"p\"\n";
    let elsewhere =
        rule("elsewhere", &format!("service = \"other\"\nja4 = \"{BROWSER}_*_*\"\naction = \"drop\""));
    let mut rig = seen(&format!("{SERVICE}{second}{PROFILES}{elsewhere}"));
    assert_eq!(shake(&mut rig, "198.51.100.7:1000", &browser()), Reason::Conforming);

    let shadow = rule("trial", &format!("ja4 = \"{BROWSER}_*_*\"\nmode = \"shadow\"\naction = \"drop\""));
    let mut rig = seen(&policy(&shadow));
    let mut client = Client::new("198.51.100.7:1000");
    client.connect(&mut rig);
    let judged = rig.send(&client.segment(0, &browser()));
    assert!(judged.verdict == Verdict::Pass && judged.trace.tls_key != 0, "it passes");
    assert_eq!(rig.shadowed("web", Reason::Fingerprint).packets, 1);
    assert_eq!(rig.rule_drops("trial").shadowed, 1);
}

fn guard() -> Guard {
    Guard {
        host: Host::own(),
        max_drop: Share(0.05),
        watching: Watching { directory: "/nowhere".into(), sample: Some(Duration::ZERO) },
        tells_waiting: |_, _| (),
    }
}

/// A rule by hand that lets nothing of a target through.
fn block(text: &str) -> Incident {
    Incident {
        id: 1,
        action: IncidentAction::Block,
        matches: matches(vec![target(text).expect("a target")]).expect("one"),
        service: None,
        until_s: None,
        reason: "test".to_owned(),
        by: "nobody".to_owned(),
        at_s: 0,
        counter: 0,
    }
}

/// Adds rules by hand that let nothing of these targets through, and takes one back.
fn change(rig: &mut Rig, added: &[&str], undone: Option<u64>) {
    let (clocks, added) = (rig.bench().clocks(), added.iter().copied().map(block).collect());
    let maps = &mut rig.bench_mut().loaded.maps;
    incidents::change(maps, clocks, added, |rule| Some(rule.id) == undone).expect("it fits");
}

/// What a source spent under a rule is kept beside its counter, which the next rule does not get.
#[test]
fn a_rule_by_hand_does_not_inherit_what_sources_spent_under_the_one_before() {
    let mut rig = seen(&policy(""));
    let budget = throttle_of_packets("6/min", Some(2)).expect("a rate");
    let action = IncidentAction::Throttle(Budgets { handshakes: Some(budget), ..Budgets::default() });
    let throttle = Incident { action, ..block(&format!("ja4:{BROWSER}_*_*")) };
    for round in 0..4_u16 {
        let clocks = rig.bench().clocks();
        let maps = &mut rig.bench_mut().loaded.maps;
        // In place of the one before.
        incidents::change(maps, clocks, vec![throttle.clone()], |_| true).expect("it fits");
        let ports = 1000 + 10 * round..1003 + 10 * round;
        let expected = [Reason::Conforming, Reason::Conforming, Reason::FingerprintBudget];
        assert_eq!(reasons(&mut rig, "198.51.100.7", ports, &browser()), expected, "round {round}");
    }
}

#[test]
fn only_rules_about_fingerprints_have_every_syn_of_a_flood_looked_at() {
    let mut rig = Rig::under(&policy(""));
    let settings = &rig.bench().loaded.maps.settings;
    settings.write(0, &Settings { syn_flood_until: u64::MAX, ..settings.read(0) });
    // How many were looked at, by the key that was made of them.
    let looked_at = |rig: &mut Rig| {
        let ports = 1000..1000 + 8 * SYN_SAMPLE as u16;
        let syns = ports.map(|port| Client::new(&format!("198.51.100.7:{port}")).syn().frame());
        syns.filter(|syn| rig.send(syn).trace.syn_key != 0).count()
    };
    assert_eq!(looked_at(&mut rig), 8);
    change(&mut rig, &["203.0.113.0/24"], None);
    assert_eq!(looked_at(&mut rig), 8, "the rule is about a source");
    change(&mut rig, &["syn:4:128:0:*:*:*:*:*"], None);
    assert_eq!(looked_at(&mut rig), 8 * SYN_SAMPLE as usize);
    change(&mut rig, &[], Some(2));
    assert_eq!(looked_at(&mut rig), 8);
}

/// Whom rules are about that are refused: a rule of a policy in place of the one in force, and the same by hand.
fn refused(rig: &Rig, pattern: &str) -> [Vec<Unselective>; 2] {
    let bench = rig.bench();
    let drop = rule("scraper", &format!("ja4 = \"{pattern}\"\naction = \"drop\""));
    let text = format!("{SERVICE}{TIGHT}{drop}");
    let tables =
        compile(&detector_tests::rows::policy(&text), &bench.manifest, bench.clocks()).expect("tables");
    let maps = &bench.loaded.maps;
    let of_policy = guard().check(maps, &tables, None).expect("no look is needed");
    let incident = block(&format!("ja4:{pattern}"));
    let by_hand = guard().check_incidents(maps, Some(&incident), &[], None).expect("no look is needed");
    [of_policy.unselective, by_hand.unselective]
}

#[test]
fn a_rule_that_ordinary_clients_match_is_refused() {
    let mut rig = Rig::under(&format!("{SERVICE}{TIGHT}"));
    for number in 0..1200 {
        finish(&mut rig, &format!("198.18.{}.{}:1000", number / 256, number % 256), &other());
    }
    finish(&mut rig, "198.51.100.7:1000", &browser());
    rig.name_fingerprints();
    let browsers = format!("{BROWSER}_*_*");
    assert_eq!(refused(&rig, &browsers), [vec![], vec![]], "one of 1,201");
    shake(&mut rig, "198.51.100.8:1000", &browser());
    assert_eq!(refused(&rig, &browsers), [vec![], vec![]], "it did not go on");
    finish(&mut rig, "198.51.100.8:1001", &browser());
    for (found, name) in
        refused(&rig, &browsers).into_iter().zip(["rule scraper", &format!("`ja4:{browsers}`")])
    {
        let [found] = &found[..] else { panic!("two of 1,202: {found:?}") };
        assert_eq!((found.rule.as_str(), found.service.as_str(), found.matching), (name, "web", 2));
        assert!((1190..=1202).contains(&found.known_good), "{found:?}");
    }
    // Of one something was refused: it is no known-good source any more.
    for port in 1002..1005 {
        shake(&mut rig, &format!("198.51.100.8:{port}"), &browser());
    }
    assert_eq!(refused(&rig, &browsers), [vec![], vec![]]);
    // What nobody has is about nobody; what is allowed, or in shadow, stops nobody.
    assert_eq!(refused(&rig, "t12*_*_*"), [vec![], vec![]]);
    let allow = rule("browsers", "ja4 = \"t13*_*_*\"\naction = \"allow\"");
    let shadow = rule("trial", "ja4 = \"t13*_*_*\"\nmode = \"shadow\"\naction = \"drop\"");
    let bench = rig.bench();
    let tables = compile(
        &detector_tests::rows::policy(&format!("{SERVICE}{TIGHT}{allow}{shadow}")),
        &bench.manifest,
        bench.clocks(),
    );
    let refusal =
        guard().check(&bench.loaded.maps, &tables.expect("tables"), None).expect("no look is needed");
    assert!(refusal.unselective.is_empty());
}

/// A SYN and a ClientHello are sent blind under any address: many of them make a fingerprint's part of the sources no smaller.
#[test]
fn spoofed_clients_are_not_known_good() {
    let mut rig = Rig::under(&format!("{SERVICE}{TIGHT}"));
    for number in 0..400 {
        finish(&mut rig, &format!("198.18.{}.{}:1000", number / 256, number % 256), &other());
    }
    finish(&mut rig, "198.51.100.7:1000", &browser());
    for number in 0..700 {
        shake(&mut rig, &format!("198.19.{}.{}:1000", number / 256, number % 256), &other());
    }
    rig.name_fingerprints();
    for found in refused(&rig, &format!("{BROWSER}_*_*")) {
        let [found] = &found[..] else { panic!("one of 401: {found:?}") };
        assert!(found.matching == 1 && (390..=401).contains(&found.known_good), "{found:?}");
    }
}

#[test]
fn clients_without_a_client_hello_are_known_good_for_rules_about_syns() {
    let mut rig = Rig::under(&format!("{SERVICE}{TIGHT}"));
    for address in 1..21 {
        let mut client = Client::new(&format!("203.0.113.{address}:1000"));
        client.connect(&mut rig);
        for _ in 0..=OTHER_SEGMENTS_MAX {
            client.send(&mut rig, b"GET / HTTP/1.1\r\n\r\n");
        }
    }
    rig.name_fingerprints();
    let everybody = block("syn:4:*:*:*:*:*:*:*");
    let refusal = guard().check_incidents(&rig.bench().loaded.maps, Some(&everybody), &[], None);
    let found = refusal.expect("no look is needed").unselective;
    assert!(matches!(found[..], [Unselective { matching: 20, known_good: 20, .. }]), "{found:?}");
}
