//! Clients with few fingerprints between them, whose connections go on as their packets pass.

use bytes::BytesMut;
use detector_common::fingerprint::{Kind, Name, ja4_text};
use detector_tests::{
    hello::Hello,
    packet::{flags, tcp},
    random::Random,
    rows::Rig,
};
use detector_user::kernel::names;

use crate::policies::{DESTINATIONS, PORTS, SOURCES};

/// As many services as a random policy has at most, each with the port of its number: a rule acts where a fingerprint was seen.
const SERVICES: u16 = 6;

/// Under it each fingerprint is seen once at each service.
fn open() -> String {
    let service = |number: u16| {
        format!(
            "[[service]]\nname = \"{number}\"\naddresses = [\"0.0.0.0/0\", \"::/0\"]\nports = [\"tcp/{}\"]\n",
            443 + number
        )
    };
    (0..SERVICES).map(service).fold("version = 1\n".to_owned(), |text, service| text + &service)
}

/// Where they are seen: nowhere among [`SOURCES`].
const ENDS: [[&str; 2]; 2] =
    [["198.51.100.1:1000", "203.0.113.10:443"], ["[2001:db9::1]:1000", "[2001:db8::10]:443"]];

/// TCP options and hop limits of systems.
const SYSTEMS: [(&[u8], u8); 3] = [
    (&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0, 1, 3, 3, 7], 64),
    (&[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2], 128),
    (&[], 64),
];

/// What clients have, and how it is called.
pub(crate) struct Fingerprints {
    hellos: Vec<Vec<u8>>,
    /// Of each ClientHello the full JA4 and the stable one.
    pub(crate) ja4s: Vec<[String; 2]>,
    /// Of each system the SYN over IPv4 and over IPv6.
    pub(crate) syns: Vec<[String; 2]>,
}

/// ClientHellos, of which no two have a key in common.
fn hellos() -> Vec<Vec<u8>> {
    let browser = Hello::browser(200);
    let (mut cipher, mut extension, mut padded) = (browser.clone(), browser.clone(), browser.clone());
    cipher.ciphers.push(0xc030);
    extension.extensions.retain(|(kind, _)| *kind != 0x0010);
    padded.ciphers.pop();
    // One of those that come and go: its stable JA4 is another than its full one.
    padded.extensions.push((0x0015, vec![0; 40]));
    [browser, cipher, extension, padded].iter().map(Hello::stream).collect()
}

impl Fingerprints {
    /// Has a program see each of them, and gives them their names.
    pub(crate) fn seen_by(rig: &mut Rig) -> Self {
        rig.apply(&open());
        let hellos = hellos();
        let mut keys = (vec![0; hellos.len()], [[0; 2]; SYSTEMS.len()]);
        let mut port = 1000;
        for system in 0..SYSTEMS.len() {
            for (hello, stream) in hellos.iter().enumerate() {
                for (is_v6, [from, to]) in ENDS.iter().enumerate() {
                    for service in 0..SERVICES {
                        port += 1;
                        let from = from.replace("1000", &port.to_string());
                        let to = to.replace("443", &(443 + service).to_string());
                        let mut connection = Connection::new(&from, &to, system, hello);
                        keys.1[system][is_v6] = rig.send(&connection.syn()).trace.syn_key;
                        connection.sequence += 1;
                        keys.0[hello] = rig.send(&connection.segment(stream)).trace.tls_key;
                    }
                }
            }
        }
        rig.name_fingerprints();
        let all: Vec<Name> = names::all(&rig.bench().loaded.maps).collect();
        let name = |kind: Kind, key: u64| {
            let name = all.iter().find(|name| name.kind == kind as u8 && name.key == key);
            name.expect("a fingerprint that was seen has a name")
        };
        let ja4 = |bytes| ja4_text(bytes).expect("a JA4").to_owned();
        let ja4s = keys.0.iter().map(|&key| name(Kind::Tls, key));
        let ja4s = ja4s.map(|name| [ja4(&name.ja4), ja4(&name.stable_ja4)]).collect();
        let syns = keys.1.map(|keys| keys.map(|key| name(Kind::Syn, key).syn.to_string())).to_vec();
        Self { hellos, ja4s, syns }
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Syn,
    Acknowledgement,
    /// With so many bytes of the ClientHello sent.
    Hello(usize),
    /// The ClientHello once more.
    Again,
    Finish,
    End,
}

/// What a packet asks for beside its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A connection.
    Syn,
    /// That a handshake goes on: a part of its ClientHello has come.
    Part,
    /// … it is complete.
    ClientHello,
}

/// A client's side of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    from: String,
    to: String,
    /// Of the SYN, in [`Fingerprints::syns`].
    system: usize,
    /// In [`Fingerprints::ja4s`].
    pub(crate) hello: usize,
    sequence: u32,
    stage: Stage,
    /// Bytes of the ClientHello that come in a segment of their own, at first.
    split: usize,
    refused: u8,
    /// Its handshake has been charged.
    pub(crate) is_charged: bool,
}

/// Times that a packet is sent.
const TRIES: u8 = 4;

impl Connection {
    fn new(from: &str, to: &str, system: usize, hello: usize) -> Self {
        let (from, to) = (from.to_owned(), to.to_owned());
        Self {
            from,
            to,
            system,
            hello,
            sequence: 1000,
            stage: Stage::Syn,
            split: 0,
            refused: 0,
            is_charged: false,
        }
    }

    /// One from a port that no other has.
    pub(crate) fn random(random: &mut Random, fingerprints: &Fingerprints, port: u16) -> Self {
        let is_v4 = random.once_in(2);
        let of_family = |address: &&&str| address.contains('.') == is_v4;
        let sources: Vec<_> = SOURCES.iter().filter(of_family).collect();
        let destinations: Vec<_> = DESTINATIONS.iter().filter(of_family).collect();
        let (source, destination, to) =
            (random.pick(&sources), random.pick(&destinations), random.pick(PORTS));
        let (from, to) = if is_v4 {
            (format!("{source}:{port}"), format!("{destination}:{to}"))
        } else {
            (format!("[{source}]:{port}"), format!("[{destination}]:{to}"))
        };
        let hello = random.index(fingerprints.hellos.len());
        let mut connection = Self::new(&from, &to, random.index(SYSTEMS.len()), hello);
        if random.once_in(3) {
            // Not in its last extension, whose content says nothing.
            connection.split = 1 + random.index(fingerprints.hellos[hello].len() - 64);
        }
        connection
    }

    /// Its SYN, as it is called.
    pub(crate) fn syn_name<'f>(&self, fingerprints: &'f Fingerprints) -> &'f str {
        &fingerprints.syns[self.system][usize::from(self.from.starts_with('['))]
    }

    fn syn(&self) -> BytesMut {
        let (options, hop_limit) = SYSTEMS[self.system];
        let packet = tcp(&self.from, &self.to, flags::SYN).sequence(self.sequence);
        packet.hop_limit(hop_limit).tcp_options(options).frame()
    }

    fn segment(&self, content: &[u8]) -> BytesMut {
        let packet = tcp(&self.from, &self.to, flags::ACK).sequence(self.sequence).acknowledged(77);
        packet.content(content).frame()
    }

    /// Its next packet, and what that asks for.
    pub(crate) fn packet(&self, fingerprints: &Fingerprints) -> (BytesMut, Option<Moment>) {
        let hello = &fingerprints.hellos[self.hello];
        match self.stage {
            Stage::Syn => (self.syn(), Some(Moment::Syn)),
            Stage::Acknowledgement => (self.segment(&[]), None),
            Stage::Hello(0) if self.split > 0 => (self.segment(&hello[..self.split]), Some(Moment::Part)),
            Stage::Hello(sent) => (self.segment(&hello[sent..]), Some(Moment::ClientHello)),
            Stage::Again => {
                let before = Self {
                    sequence: self.sequence - hello.len() as u32,
                    ..Self::new(&self.from, &self.to, 0, 0)
                };
                (before.segment(hello), None)
            }
            Stage::Finish => (self.segment(b"finished"), None),
            Stage::End => {
                (tcp(&self.from, &self.to, flags::FIN | flags::ACK).sequence(self.sequence).frame(), None)
            }
        }
    }

    /// Takes what became of the packet; whether there is another one.
    pub(crate) fn goes_on(&mut self, random: &mut Random, fingerprints: &Fingerprints, passed: bool) -> bool {
        if !passed && self.stage != Stage::Acknowledgement {
            self.refused += 1;
            return self.refused < TRIES;
        }
        let bytes = fingerprints.hellos[self.hello].len();
        let (stage, sent) = match self.stage {
            Stage::Syn => (Stage::Acknowledgement, 1),
            Stage::Acknowledgement => (Stage::Hello(0), 0),
            Stage::Hello(0) if self.split > 0 => (Stage::Hello(self.split), self.split),
            Stage::Hello(sent) => {
                (if random.once_in(8) { Stage::Again } else { Stage::Finish }, bytes - sent)
            }
            Stage::Again => (Stage::Finish, 0),
            Stage::Finish => (Stage::End, b"finished".len()),
            Stage::End => return false,
        };
        (self.stage, self.refused) = (stage, 0);
        self.sequence += sent as u32;
        true
    }
}
