//! A frame as two methods, so that one parser runs over an XDP context and over a slice.

use network_types::{
    eth::EthHdr,
    icmp::Icmpv6Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
    vlan::VlanHdr,
};

/// A header that may be copied out of a packet: no padding, no invalid bit pattern.
///
/// # Safety
///
/// Every byte pattern of the type's size must be a valid value.
pub unsafe trait Wire: Copy {}

/// The first eight bytes of an IPv6 extension header (RFC 8200, 4.3 to 4.6; RFC 4302, 2).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ExtensionHdr {
    /// Protocol of the header that follows.
    pub next_header: u8,
    /// Length in units of 8 bytes without the first 8; AH: units of 4 bytes without the first 8; fragment: reserved.
    pub length: u8,
    /// Fragment header: 13 bits of offset, two reserved, one *more fragments*. Else options.
    pub fragment: [u8; 2],
    /// Fragment header: identification. Else options.
    pub rest: [u8; 4],
}

impl ExtensionHdr {
    /// Bytes.
    pub const LEN: usize = 8;
}

/// The first bytes of a TCP or UDP header, which a first fragment is sure to carry (RFC 791: fragments have 8 bytes).
pub type PortBytes = [u8; 4];

/// A TCP header up to its flags.
pub type TcpStart = [u8; 14];

// SAFETY: bytes.
unsafe impl<const LENGTH: usize> Wire for [u8; LENGTH] {}
// SAFETY: byte arrays and a u16, no padding.
unsafe impl Wire for EthHdr {}
// SAFETY: two bytes and a u16, no padding.
unsafe impl Wire for VlanHdr {}
// SAFETY: bytes and byte arrays.
unsafe impl Wire for Ipv4Hdr {}
// SAFETY: bytes and byte arrays.
unsafe impl Wire for Ipv6Hdr {}
// SAFETY: byte arrays.
unsafe impl Wire for UdpHdr {}
// SAFETY: bytes and byte arrays.
unsafe impl Wire for Icmpv6Hdr {}
// SAFETY: bytes and byte arrays.
unsafe impl Wire for ExtensionHdr {}

/// The bytes of a frame, from the Ethernet header on.
pub trait Frame {
    /// Length of the whole frame in bytes, fragments of its buffer included.
    fn length(&self) -> usize;

    /// A header at an offset from the frame's start; `None` where the frame's first buffer ends before the header does.
    fn read<T: Wire>(&self, offset: usize) -> Option<T>;
}

/// A frame in memory.
#[derive(Clone, Copy, Debug)]
pub struct SliceFrame<'a>(pub &'a [u8]);

impl Frame for SliceFrame<'_> {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..)?.get(..size_of::<T>())?;
        // SAFETY: `bytes` holds as many bytes as a `T`, which is valid for every bit pattern.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}
