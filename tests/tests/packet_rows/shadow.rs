//! Mode `shadow`: for everything, for one rule, and its opposite.

use detector_tests::{
    packet::{flags, tcp},
    rows::Rig,
};

use crate::*;

#[test]
fn shadow_decides_and_counts_and_drops_nothing() {
    let mut rig = Rig::under(
        r#"
        version = 1
        [defaults]
        mode = "shadow"
        [[service]]
        name = "api"
        addresses = ["203.0.113.10"]
        profile = "customer"
        [profile.customer]
        packets = { rate = "1/s", burst = 1 }
        [profile.customer.parents]
        v4_24 = { new_sources = { rate = "1/s", burst = 2 } }
        [[rule]]
        name = "shadowed-by-default"
        source = ["10.2.0.0/16"]
        action = "drop"
        [[rule]]
        name = "enforced"
        source = ["10.3.0.0/16"]
        action = "drop"
        mode = "enforce"
    "#,
    );
    let over = "pass packets (shadow); api.packets.shadow 1; 10.1.2.3/32@api packets 1 refused 1";
    let new = "pass conforming; api.conforming 1; source_created 1; ";
    rig.check_sequence(&[
        (
            0,
            "within",
            &ack_from("10.1.2.3"),
            &format!("{new}parent_created 1; 10.1.2.3/32@api packets 1; 10.1.2.0/24@api new"),
        ),
        (0, "over", &ack_from("10.1.2.3"), over),
        (999, "over, and nothing was charged for it", &ack_from("10.1.2.3"), over),
        (
            1,
            "within again",
            &ack_from("10.1.2.3"),
            "pass conforming; api.conforming 1; 10.1.2.3/32@api packets 1",
        ),
        (0, "another", &ack_from("10.1.2.4"), &format!("{new}10.1.2.4/32@api packets 1")),
        (0, "and one more", &ack_from("10.1.2.5"), &format!("{new}10.1.2.5/32@api packets 1")),
        (0, "one too many", &ack_from("10.1.2.6"), "pass new_sources (shadow); api.new_sources.shadow 1"),
    ]);
    rig.check_each(&[
        (
            "a rule without a mode",
            &ack_from("10.2.0.1"),
            "pass denied (shadow); api.denied.shadow 1; source_created 1; 10.2.0.1/32@api packets 1 refused 1",
        ),
        ("a rule that enforces", &ack_from("10.3.0.1"), &first("drop", "denied", "10.3.0.1/32", "api")),
    ]);
}

#[test]
fn a_rule_may_be_shadowed_alone() {
    let mut rig = Rig::under(
        r#"
        version = 1
        [[service]]
        name = "api"
        addresses = ["203.0.113.10"]
        [profile.strict]
        connections = { rate = "1/s", burst = 1 }
        [[rule]]
        name = "tried-out"
        source = ["10.2.0.0/16"]
        action = "drop"
        mode = "shadow"
        [[rule]]
        name = "tried-out-too"
        source = ["10.3.0.0/16"]
        action = { limit = "strict" }
        mode = "shadow"
        [[rule]]
        name = "in-force"
        source = ["10.4.0.0/16"]
        action = "drop"
    "#,
    );
    rig.check_each(&[
        (
            "drop",
            &ack_from("10.2.0.1"),
            "pass denied (shadow); api.denied.shadow 1; source_created 1; 10.2.0.1/32@api packets 1 refused 1",
        ),
        ("no profile, no rule", &ack_from("10.5.0.1"), &first("pass", "unlimited", "10.5.0.1/32", "api")),
        ("in force", &ack_from("10.4.0.1"), &first("drop", "denied", "10.4.0.1/32", "api")),
    ]);
    let syn = tcp("10.3.0.1:4000", API, flags::SYN).frame();
    rig.check_sequence(&[
        (
            0,
            "limit, within",
            &syn,
            "pass conforming; api.conforming 1; source_created 1; followed 1; fingerprint_created 1; 10.3.0.1/32@api packets 1 connections 1",
        ),
        (
            0,
            "limit, over",
            &syn,
            "pass connections (shadow); api.connections.shadow 1; 10.3.0.1/32@api packets 1 refused 1 connections 1",
        ),
    ]);
}
