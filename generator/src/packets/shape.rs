//! What software looks like on the wire: a SYN and a ClientHello for each key of the rows.
//!
//! A key of the rows is a hash of a name. From its bits come what stacks differ in: of a SYN the window, its scale, the largest segment, the
//! hop limit and the order of the options; of a ClientHello which cipher suites, extensions and signature algorithms it offers. So different
//! keys look different, all of them look like clients, and none is the fingerprint of real software.

/// What a stack writes into its SYN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Syn {
    pub(super) hops: u8,
    pub(super) window: u16,
    pub(super) options: Vec<u8>,
}

/// Takes bits of a key, the lowest first.
struct Bits(u64);

impl Bits {
    /// A number from 0 to below `end`; ends multiply to less than 2^64 over all numbers of a key.
    const fn below(&mut self, end: u64) -> u64 {
        let number = self.0 % end;
        self.0 /= end;
        number
    }

    const fn flag(&mut self) -> bool {
        self.below(2) == 1
    }
}

/// Largest segments that links and tunnels give.
const SEGMENT_BYTES: [u16; 8] = [1360, 1380, 1400, 1412, 1430, 1440, 1452, 1460];

impl Syn {
    pub(super) fn of(key: u64) -> Self {
        let mut bits = Bits(key);
        let hops = if bits.flag() { 116 } else { 53 };
        let [high, low] = SEGMENT_BYTES[bits.below(8) as usize].to_be_bytes();
        let scale = 1 + bits.below(13) as u8;
        let window = 8192 + bits.below(57_344) as u16;
        let time = [8, 10, 0x3a, 0x91, 0x0c, 0x55, 0, 0, 0, 0];
        let options = match bits.below(3) {
            // As Linux orders them, as macOS does, and as Windows does.
            0 => [&[2, 4, high, low, 4, 2][..], &time, &[1, 3, 3, scale]].concat(),
            1 => [&[2, 4, high, low, 1, 3, 3, scale, 1, 1][..], &time, &[4, 2, 0, 0]].concat(),
            _ => vec![2, 4, high, low, 1, 3, 3, scale, 1, 1, 4, 2],
        };
        Self { hops, window, options }
    }
}

/// Cipher suites that every client offers, those of TLS 1.3.
const SUITES: [u16; 3] = [0x1301, 0x1302, 0x1303];

/// Older ones that stacks differ in.
const SUITES_OF_SOME: [u16; 16] = [
    0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035, 0xc009,
    0xc00a, 0x009e, 0x009f,
];

/// Signature algorithms that stacks differ in, behind the one that all offer.
const SIGNATURES_OF_SOME: [u16; 10] =
    [0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601, 0x0603, 0x0807, 0x0201];

/// Extensions that stacks differ in, with what is in them.
const EXTENSIONS_OF_SOME: [(u16, &[u8]); 8] = [
    (0x0005, &[1, 0, 0, 0, 0]),
    (0x0012, &[]),
    (0x0017, &[]),
    (0xff01, &[0]),
    (0x001b, &[2, 0, 2]),
    (0x0016, &[]),
    (0x001c, &[0x40, 0x01]),
    (0x3374, &[]),
];

/// The record with the ClientHello of a key, for a server of that name.
pub(super) fn hello(key: u64, server_name: &str) -> Vec<u8> {
    let mut bits = Bits(key);
    let mut chosen = |all: &[u16], always: &[u16]| -> Vec<u16> {
        let of_some: Vec<u16> = all.iter().copied().filter(|_| bits.flag()).collect();
        [always, &of_some].concat()
    };
    let suites = chosen(&SUITES_OF_SOME, &SUITES);
    let signatures = chosen(&SIGNATURES_OF_SOME, &[0x0403]);
    let name = server_name.as_bytes();
    let listed = [&[0][..], &(name.len() as u16).to_be_bytes(), name].concat();
    let share = [&[0, 0x1d, 0, 32][..], &[0x9d; 32]].concat();
    let mut extensions = vec![
        (0x0000, sized(&listed)),
        (0x000a, sized(&numbers(&[0x001d, 0x0017, 0x0018]))),
        (0x000b, vec![1, 0]),
        (0x000d, sized(&numbers(&signatures))),
        (0x0033, sized(&share)),
        (0x002d, vec![1, 1]),
        (0x002b, vec![4, 3, 4, 3, 3]),
    ];
    let of_some = EXTENSIONS_OF_SOME.iter().filter(|_| bits.flag());
    extensions.extend(of_some.map(|(kind, content)| (*kind, content.to_vec())));
    let protocols: &[u8] = if bits.flag() { b"\x02h2\x08http/1.1" } else { b"\x08http/1.1" };
    extensions.push((0x0010, sized(protocols)));
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, content): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &sized(content)].concat())
        .collect();
    let mut body = vec![3, 3];
    body.extend([0x71; 32]); // random
    body.push(32);
    body.extend([0x72; 32]); // session
    body.extend(sized(&numbers(&suites)));
    body.extend([1, 0]); // no compression
    body.extend(sized(&extensions));
    let message = [&(1 << 24 | body.len() as u32).to_be_bytes()[..], &body].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// The same, damaged: its message says that it ends within the session.
pub(super) fn unreadable(mut hello: Vec<u8>) -> Vec<u8> {
    hello[6..9].copy_from_slice(&[0, 0, 48]);
    hello
}

/// Content behind its length of two bytes.
fn sized(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

fn numbers(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// The datagram with the first Initial of a key. Its size is what stacks differ in; nobody can open what is in it.
pub(super) fn initial(key: u64, connection: u64) -> Vec<u8> {
    let bytes = 1200 + (key % 253) as usize;
    // Long header, version 1, a connection id of eight bytes, none of the client's own, no token.
    let mut datagram = vec![0xc3, 0, 0, 0, 1, 8];
    datagram.extend(connection.to_be_bytes());
    datagram.extend([0, 0]);
    let length = bytes - datagram.len() - 2;
    datagram.extend((0x4000 | length as u16).to_be_bytes());
    datagram.resize(bytes, 0xa5);
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn different_keys_look_different() {
        let keys = || (1..4000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let syns: HashSet<_> = keys().map(|key| format!("{:?}", Syn::of(key))).collect();
        let hellos: HashSet<_> = keys().map(|key| hello(key, "api")).collect();
        assert_eq!((syns.len(), hellos.len()), (3999, 3999));
        assert!(keys().all(|key| Syn::of(key).options.len().is_multiple_of(4)));
        assert!(hellos.iter().all(|hello| (200..300).contains(&hello.len())), "as those of libraries");
    }

    #[test]
    fn initials_have_the_size_of_their_key() {
        let [one, other] = [7, 8].map(|key| initial(key, 1));
        assert_eq!((one.len(), other.len(), one[5]), (1207, 1208, 8));
    }
}
