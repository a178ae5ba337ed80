//! Counters that are not verdicts, declared once: number, name, help.

macro_rules! counters {
    ($(#[$meta:meta])* $list:ident $type:ident { $( $variant:ident $name:literal $help:literal )* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $type {
            $( #[doc = $help] $variant, )*
        }

        /// Names and help texts, in the order of the numbers.
        pub const $list: &[($type, &str, &str)] = &[$( ($type::$variant, $name, $help), )*];
    };
}

counters! {
    /// Kinds of frames that are handled on purpose. Counter *i* belongs to bit *i* of [`crate::packet::notes`].
    FRAME_KINDS FrameKind {
        Vlan "vlan" "One VLAN tag, read through."
        Qinq "qinq" "Two VLAN tags, read through."
        Ipv4Options "ipv4_options" "IPv4 header with options, skipped."
        Ipv6Extensions "ipv6_extensions" "IPv6 extension headers, walked."
        FirstFragment "first_fragment" "First fragment, judged by its ports."
        LaterFragment "later_fragment" "Later fragment, judged by source (IPv4: and protocol)."
        ExtensionLimit "extension_limit" "More IPv6 extension headers than are walked, judged by source, as a new connection."
        TinyFragment "tiny_fragment" "First fragment that ends before the TCP flags, judged as a new connection."
        SplitHeaders "split_headers" "Headers beyond the frame's first buffer, judged by what was read, as a new connection."
    }
}

counters! {
    /// What happens inside the tables.
    TABLE_EVENTS TableEvent {
        SourceCreated "source_created" "A source without an entry was given a way."
        SourceReplaced "source_replaced" "… and that way held an idle source before."
        SourceRefreshed "source_refreshed" "The class of a known source was looked up again after a policy change."
        CreationRaced "creation_raced" "Another CPU took the chosen way first; the set was searched again."
        ParentCreated "parent_created" "A parent prefix was given a way."
        ParentsFull "parents_full" "No way for a parent prefix: its budgets were not charged."
        ClientBudgetsFull "client_budgets_full" "No way for a budget of handshakes: it was not charged."
        ClientsFull "clients_full" "No way for a client: it is not counted."
        Contended "contended" "A budget changed under four attempts to charge it; the wait-free way was taken."
        EventsLost "events_lost" "A sampled event found the ring buffer full."
    }
}

counters! {
    /// What becomes of handshakes that are followed.
    HANDSHAKE_EVENTS HandshakeEvent {
        Followed "followed" "A connection was given room to follow its handshake."
        FlowsFull "flows_full" "A connection that had said something in the last ten seconds gave way to another one: there are more than are followed."
        FlowReplaced "flow_replaced" "A connection that said nothing after its SYN gave way to another one."
        SynsSkipped "syns_skipped" "A SYN was not followed: there are more than there is room for, and it is not in the sample."
        FlowRaced "flow_raced" "Two CPUs had packets of one handshake at once; one of them was not looked at."
        HelloRead "hello_read" "A ClientHello was read to its key."
        HelloMalformed "hello_malformed" "A ClientHello contradicts itself: no key."
        HelloTooLong "hello_too_long" "A ClientHello, or a segment of it, is longer than is read: no key."
        HelloStrayed "hello_strayed" "Segments of a ClientHello overlap or came out of order: no key."
        HelloUnfinished "hello_unfinished" "A connection ended inside its ClientHello: no key."
        FingerprintCreated "fingerprint_created" "A fingerprint that was not there was given room in the table."
        FingerprintsFull "fingerprints_full" "… and this one was not: it is not counted."
        ExemplarsHeld "exemplars_held" "An exemplar was not sent: there have been as many as may be in this time."
        ExemplarsLost "exemplars_lost" "An exemplar found the ring buffer full."
        NoHello "no_hello" "A connection began with something else than a ClientHello."
        InitialRead "initial_read" "A connection of QUIC began, and the shape of its Initial was counted."
        InitialMalformed "initial_malformed" "A datagram began as an Initial of QUIC does, and contradicts itself: no shape."
        InitialLate "initial_late" "An Initial of a connection whose first one was not seen: not counted."
    }
}

/// Number of counters of one CPU: frame kinds, then table events, then those of handshakes.
pub const COUNTERS: usize = FRAME_KINDS.len() + TABLE_EVENTS.len() + HANDSHAKE_EVENTS.len();

/// Place of what became of a handshake among a CPU's counters.
#[inline(always)]
pub const fn handshake_event_slot(event: HandshakeEvent) -> u32 {
    (FRAME_KINDS.len() + TABLE_EVENTS.len()) as u32 + event as u32
}

/// Place of a frame kind among a CPU's counters.
#[inline(always)]
pub const fn frame_kind_slot(bit: u32) -> u32 {
    bit
}

/// Place of a table event among a CPU's counters.
#[inline(always)]
pub const fn table_event_slot(event: TableEvent) -> u32 {
    FRAME_KINDS.len() as u32 + event as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::notes;

    #[test]
    fn notes_and_frame_kinds_agree() {
        let bits = [
            (FrameKind::Vlan, notes::VLAN),
            (FrameKind::Qinq, notes::QINQ),
            (FrameKind::Ipv4Options, notes::IPV4_OPTIONS),
            (FrameKind::Ipv6Extensions, notes::IPV6_EXTENSIONS),
            (FrameKind::FirstFragment, notes::FIRST_FRAGMENT),
            (FrameKind::LaterFragment, notes::LATER_FRAGMENT),
            (FrameKind::ExtensionLimit, notes::EXTENSION_LIMIT),
            (FrameKind::TinyFragment, notes::TINY_FRAGMENT),
            (FrameKind::SplitHeaders, notes::SPLIT_HEADERS),
        ];
        assert_eq!(bits.len(), FRAME_KINDS.len());
        for (kind, bit) in bits {
            assert_eq!(1 << kind as u32, bit);
        }
    }
}
