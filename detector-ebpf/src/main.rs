//! The way of a packet: parse → service → source → budgets → verdict → (handshake) → account.
//!
//! Nothing is decided here that `detector-common` does not test on the host; this crate brings the maps, the clock
//! and the atomic operations. See `docs/architecture.md`.
#![no_std]
#![no_main]
// Compare-and-swap and fetch-and-add for BPF exist only as intrinsics: `core::sync::atomic` has none for this target.
#![feature(core_intrinsics)]
// One instruction that the verifier needs to see; see `source::ways`.
#![feature(asm_experimental_arch)]
#![expect(internal_features, reason = "see above")]

mod account;
mod admission;
mod atomic;
mod charge;
mod client;
mod clock;
mod event;
mod exemplar;
mod fingerprint;
mod fleet;
mod flows;
mod frame;
mod handshake;
mod hello;
mod initial;
mod judge;
mod maps;
mod parent;
mod pending;
mod policy;
mod sighting;
mod source;
mod syn_flood;

use core::mem::MaybeUninit;

use aya_ebpf::{macros::xdp, programs::XdpContext};

use detector_common::packet::Parsed;

use crate::{frame::Read, judge::Decision, policy::Policy};

/// Decides on one frame. Marked for frames in several buffers, so that jumbo frames do not force generic mode.
#[xdp(frags)]
#[inline(always)]
fn detector(ctx: XdpContext) -> u32 {
    let now = clock::now();
    let mut room = MaybeUninit::uninit();
    let Read { bytes, parsed } = frame::read(&ctx, &mut room);
    let decision = match parsed {
        Err(reason) => Decision::unjudged(reason),
        Ok(Parsed { packet, layout }) => match Policy::at(now) {
            Some(policy) => {
                let decision = judge::judge(&ctx, &policy, packet, bytes, now);
                handshake::hand_over(&ctx, &policy, &decision, *layout, bytes, now);
                decision
            }
            None => Decision::no_policy(packet),
        },
    };
    account::settle(&ctx, &decision, bytes, now)
}

/// Goes on with a packet that may be part of a handshake; see [`handshake`].
// Into the entry that the macro makes, which else has a frame of its own.
#[xdp(frags)]
#[inline(always)]
fn handshakes(ctx: XdpContext) -> u32 {
    handshake::follow(&ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Lets GPL-only helpers be called; see the licences beside this workspace for what it means.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
