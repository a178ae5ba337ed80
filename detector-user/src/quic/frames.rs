//! Frames of an Initial (RFC 9000, 12.4 and 19).

use super::packet::Reader;

/// Frames of one packet that are read. A packet has room for as many bytes.
const FRAMES_MAX: usize = 2048;

/// Ranges of an ACK frame.
const ACK_RANGES_MAX: u64 = 1024;

/// Types of frames that an Initial may carry.
mod kind {
    pub(super) const PADDING: u64 = 0x00;
    pub(super) const PING: u64 = 0x01;
    pub(super) const ACK: u64 = 0x02;
    pub(super) const ACK_ECN: u64 = 0x03;
    pub(super) const CRYPTO: u64 = 0x06;
    pub(super) const CONNECTION_CLOSE: u64 = 0x1c;
}

/// Gives the content of every CRYPTO frame with its offset to `sink`, up to the first frame that has no place in an Initial.
pub(super) fn crypto(payload: &[u8], mut sink: impl FnMut(u64, &[u8])) {
    let mut rest = Reader { bytes: payload, at: 0 };
    for _ in 0..FRAMES_MAX {
        // Padding is most of many packets.
        let padding = payload.get(rest.at..).unwrap_or_default();
        rest.at += padding.iter().take_while(|byte| u64::from(**byte) == kind::PADDING).count();
        if next(&mut rest, &mut sink).is_none() {
            return;
        }
    }
}

fn next(rest: &mut Reader<'_>, sink: &mut impl FnMut(u64, &[u8])) -> Option<()> {
    match rest.number()? {
        kind::PADDING | kind::PING => {}
        kind @ (kind::ACK | kind::ACK_ECN) => {
            // Largest number, delay, how many ranges, the first one; gap and length of each; three counts.
            rest.number()?;
            rest.number()?;
            let ranges = rest.number()?;
            if ranges > ACK_RANGES_MAX {
                return None;
            }
            let counts = if kind == kind::ACK_ECN { 3 } else { 0 };
            for _ in 0..1 + 2 * ranges + counts {
                rest.number()?;
            }
        }
        kind::CRYPTO => {
            let offset = rest.number()?;
            let length = usize::try_from(rest.number()?).ok()?;
            sink(offset, rest.take(length)?);
        }
        kind::CONNECTION_CLOSE => {
            rest.number()?;
            rest.number()?;
            let length = usize::try_from(rest.number()?).ok()?;
            rest.take(length)?;
        }
        _ => return None,
    }
    Some(())
}
