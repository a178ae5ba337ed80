//! `/proc/net/tcp` and `tcp6`: who is connected through which socket.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// `TCP_ESTABLISHED` of the kernel's include/net/tcp_states.h.
const ESTABLISHED: &str = "01";

/// The inode of what a descriptor links to, `socket:[12345]`.
pub(super) fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The other end and this end of the established connections of some sockets.
pub(super) fn established(table: &str, inodes: &BTreeSet<u64>) -> Vec<(IpAddr, SocketAddr)> {
    let connection = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let inode: u64 = fields.get(9)?.parse().ok()?;
        let is_ours = fields[3] == ESTABLISHED && inodes.contains(&inode);
        is_ours.then(|| Some((end(fields[2])?.ip(), end(fields[1])?))).flatten()
    };
    table.lines().skip(1).filter_map(connection).collect()
}

/// `ADDRESS:PORT` in hexadecimal, the address in words of four bytes as this machine reads them.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let words: Option<Vec<[u8; 4]>> = words.collect();
    let address = match words?.as_slice() {
        [word] => IpAddr::V4(Ipv4Addr::from(*word)),
        words @ [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}
