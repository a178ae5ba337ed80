//! What happens to populations without anybody meaning harm: negatives, most of them hard.

use crate::scenario::parameters::parameters;

parameters! {
    /// Many who never came before come at once, with browsers and the app as everybody has them.
    pub struct FlashCrowd {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        start_h: f64 = 110.0, 0.0..=9_600.0, "h", "When it begins.";
        length_h: f64 = 6.0, 0.1..=9_600.0, "h", "How long it lasts.";
        times: f64 = 10.0, 1.0..=100.0, "", "Activity of homes, as a multiple of what it is otherwise.";
    }
}

parameters! {
    /// Browsers get a new release: their fingerprints change, host by host.
    pub struct BrowserRelease {
        start_h: f64 = 96.0, 0.0..=9_600.0, "h", "When the first hosts have it.";
        length_h: f64 = 48.0, 0.0..=9_600.0, "h", "Until all have it.";
        first_rank: u32 = 0, 0.0..=63.0, "", "The first fingerprint of the catalogue that changes, by how common it is.";
        ranks: u32 = 1, 1.0..=64.0, "", "How many change.";
    }
}

parameters! {
    /// An SDK of API customers gets a new release: its fingerprint changes, customer by customer.
    pub struct SdkRelease {
        start_h: f64 = 96.0, 0.0..=9_600.0, "h", "When the first customers have it.";
        length_h: f64 = 12.0, 0.0..=9_600.0, "h", "Until all have it.";
        first_rank: u32 = 0, 0.0..=13.0, "", "The first SDK that changes, by how common it is.";
        ranks: u32 = 1, 1.0..=14.0, "", "How many change.";
    }
}

parameters! {
    /// Another node fails, and its homes come to this one: everybody is new at once, and further away.
    pub struct RegionalFailover {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        start_h: f64 = 110.0, 0.0..=9_600.0, "h", "When it begins.";
        length_h: f64 = 6.0, 0.1..=9_600.0, "h", "How long it lasts.";
        share: f64 = 1.0, 0.01..=20.0, "", "Homes of the other node, as a multiple of this one's.";
        further_ms: f64 = 28.0, 0.0..=500.0, "ms", "Round trip that is added.";
    }
}

parameters! {
    /// This node's own limiter acts on heavy sources: packets are dropped, and exchanges do not happen.
    pub struct OwnLimiter {
        service: Option<String> = None, 0.0..=0.0, "", "Service that is limited; otherwise the first one.";
        start_h: f64 = 100.0, 0.0..=9_600.0, "h", "When it begins.";
        length_h: f64 = 24.0, 0.1..=9_600.0, "h", "How long it lasts.";
        packets_a_minute: f64 = 60.0, 1.0..=1e7, "packets", "What a client of a source may send.";
    }
}

parameters! {
    /// Scripts on many servers, all at the full hour, with SDKs as everybody has them.
    pub struct CronBursts {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        start_h: f64 = 96.0, 0.0..=9_600.0, "h", "When it begins.";
        length_h: f64 = 48.0, 0.1..=9_600.0, "h", "How long it lasts.";
        servers: u32 = 2_000, 1.0..=1e6, "servers", "How many there are.";
        period_s: f64 = 3_600.0, 60.0..=86_400.0, "s", "Between two exchanges of a server.";
        jitter_s: f64 = 12.0, 0.0..=3_600.0, "s", "Mean of how late each is.";
    }
}

parameters! {
    /// A legitimate app with one SDK, launched in homes: one fingerprint of TLS, people behind it.
    pub struct AppLaunch {
        service: Option<String> = None, 0.0..=0.0, "", "Service that it uses; otherwise the first one.";
        start_h: f64 = 100.0, 0.0..=9_600.0, "h", "When the first homes have it.";
        ramp_h: f64 = 12.0, 0.0..=9_600.0, "h", "Until all have it.";
        homes: u32 = 25_000, 1.0..=1e7, "homes", "How many have it.";
        daily: f64 = 0.6, 0.0..=0.97, "share", "Homes that come on a day.";
        exchanges: f64 = 5.0, 1.0..=1_000.0, "", "Median of a visit.";
    }
}

parameters! {
    /// People with browsers move behind a VPN, which carries packets: addresses that many share, and another segment size.
    pub struct VpnRollout {
        start_h: f64 = 96.0, 0.0..=9_600.0, "h", "When the first hosts are behind it.";
        ramp_h: f64 = 24.0, 0.0..=9_600.0, "h", "Until all that will be are.";
        share: f64 = 0.25, 0.0..=1.0, "share", "Hosts with browsers that will be.";
        exits: u32 = 2_000, 1.0..=1e6, "addresses", "That they share.";
    }
}

parameters! {
    /// People with Safari move behind a privacy relay, which ends TCP at its egress and carries TLS through: a gap, and nobody means harm.
    pub struct PrivacyRelay {
        start_h: f64 = 96.0, 0.0..=9_600.0, "h", "When the first hosts are behind it.";
        ramp_h: f64 = 24.0, 0.0..=9_600.0, "h", "Until all that will be are.";
        share: f64 = 0.6, 0.0..=1.0, "share", "Hosts with Safari that will be.";
        egresses: u32 = 3_000, 1.0..=1e6, "addresses", "That they share.";
    }
}

parameters! {
    /// Identical devices launched at once: one fingerprint, the same polls from all, straight from homes.
    pub struct DeviceLaunch {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        start_h: f64 = 108.0, 0.0..=9_600.0, "h", "When the first ones are on.";
        ramp_h: f64 = 1.0, 0.0..=9_600.0, "h", "Until all are.";
        devices: u32 = 25_000, 1.0..=1e7, "devices", "How many there are.";
        period_s: f64 = 3_600.0, 10.0..=86_400.0, "s", "Between two polls of a device.";
        jitter_s: f64 = 45.0, 0.0..=3_600.0, "s", "Standard deviation of their times.";
    }
}

parameters! {
    /// Mobile networks give their translators other addresses: the same users, all from sources that were never seen.
    pub struct CgnatRenumbering {
        start_h: f64 = 110.0, 0.0..=9_600.0, "h", "When that happens.";
    }
}
