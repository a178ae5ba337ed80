//! The generator: live frames (Documentation/bpf/bpf_prog_run.rst) from random sources, out of a veth interface.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, XdpMode},
};
use bytes::BytesMut;
use detector_tests::{
    netns::Namespace,
    packet::{ETHERNET_BYTES, patched, udp},
};

use crate::drive::{OBJECT, program};

/// Frames that are made before the receiver has its turn: a quarter of a veth's queue.
const BATCH: u32 = 64;

/// Bytes of an IPv4 header without options, and where in it the checksum is.
const IPV4_BYTES: usize = 20;
const IPV4_CHECKSUM_AT: usize = 10;

/// The program that sends, and the receivers that are of the same object.
pub(super) struct Generator {
    ebpf: Ebpf,
    state: Array<MapData, u64>,
    frame: BytesMut,
}

impl Generator {
    /// Loads it for a number of sources and a namespace to send from.
    pub(super) fn new(near: &Namespace, sources: u32) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global("SOURCES", &sources, true)
            .override_global("RATE_PER_HOUR", &1_u32, true)
            .override_global("BURST", &1_u32, true)
            .map_max_entries("BUCKETS", (sources + sources / 4).max(16_384))
            .load(OBJECT)
            .context("loading the object of the bench")?;
        for name in ["transmit", "discard", "lru"] {
            program(&mut ebpf, name)?.load().with_context(|| format!("loading the program {name}"))?;
        }
        let state = ebpf.take_map("STATE").context("the map STATE")?.try_into()?;
        let frame = with_checksum(udp("10.0.0.1:4000", "203.0.113.10:443").frame());
        let mut generator = Self { ebpf, state, frame };
        // A test run puts a program that is attached nowhere into the kernel's dispatcher of XDP programs and takes it
        // out again, which waits for grace periods. No packet comes to this interface.
        generator.attach("transmit", near, "lo", XdpMode::Skb)?;
        Ok(generator)
    }

    /// Attaches one of the programs as long as this lives.
    pub(super) fn attach(
        &mut self,
        name: &str,
        to: &Namespace,
        interface: &str,
        mode: XdpMode,
    ) -> Result<()> {
        let program = program(&mut self.ebpf, name)?;
        to.within(|| program.attach(interface, mode))?.with_context(|| format!("attaching {name}"))?;
        Ok(())
    }

    /// Sends packets out of an interface of the calling thread's namespace, the same ones for the same number.
    pub(super) fn send(&mut self, interface_index: u32, packets: u32, number: u32) -> Result<()> {
        // Far enough from each other: the state moves on by an odd constant with each packet.
        self.state.set(0, u64::from(number) << 32, 0).context("seeding the generator")?;
        // `struct xdp_md`: the frame starts at 0.
        let frame_bytes = self.frame.len() as u32;
        let context = [0, frame_bytes, 0, interface_index, 0, 0].map(u32::to_ne_bytes);
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(context.as_flattened()),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        program(&mut self.ebpf, "transmit")?.test_run(options).context("sending live frames")?;
        Ok(())
    }
}

/// The frame with the checksum of its IPv4 header, which must be 0 so far.
fn with_checksum(frame: BytesMut) -> BytesMut {
    let header = &frame[ETHERNET_BYTES..ETHERNET_BYTES + IPV4_BYTES];
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !(sum as u16);
    patched(frame, ETHERNET_BYTES + IPV4_CHECKSUM_AT, &checksum.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_and_its_checksum_sum_to_ones() {
        let frame = with_checksum(udp("10.0.0.1:4000", "203.0.113.10:443").frame());
        let header = &frame[ETHERNET_BYTES..ETHERNET_BYTES + IPV4_BYTES];
        let sum: u32 =
            header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
