//! How large the tables are for so many active sources.

use crate::limits::{
    CLIENT_BUDGETS_MIN, CLIENTS_MIN, PARENTS_MIN, SOURCES_PER_CLIENT, SOURCES_PER_CLIENT_BUDGET,
    SOURCES_PER_PARENT, SOURCES_PER_SET_HUNDREDTHS,
};

/// Sets of a table for so many active sources, so that fewer than 0.1 % of them meet a full set.
pub const fn sets_for_sources(sources: u32) -> u32 {
    let sets = (sources as u64 * 100).div_ceil(SOURCES_PER_SET_HUNDREDTHS);
    if sets == 0 { 1 } else { sets as u32 }
}

/// How many active sources a table of so many sets is for: what [`sets_for_sources`] was asked for, or a few more.
pub const fn sources_for_sets(sets: u64) -> u64 {
    sets * SOURCES_PER_SET_HUNDREDTHS / 100
}

/// Sets of the table of parents beside a table for so many active sources.
pub const fn sets_for_parents(sources: u32) -> u32 {
    let parents = sources / SOURCES_PER_PARENT;
    sets_for_sources(if parents < PARENTS_MIN { PARENTS_MIN } else { parents })
}

/// Sets of the table of clients beside a table for so many active sources.
pub const fn sets_for_clients(sources: u32) -> u32 {
    let clients = sources / SOURCES_PER_CLIENT;
    sets_for_sources(if clients < CLIENTS_MIN { CLIENTS_MIN } else { clients })
}

/// Sets of the table of budgets of handshakes beside a table for so many active sources.
pub const fn sets_for_client_budgets(sources: u32) -> u32 {
    let budgets = sources / SOURCES_PER_CLIENT_BUDGET;
    sets_for_sources(if budgets < CLIENT_BUDGETS_MIN { CLIENT_BUDGETS_MIN } else { budgets })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::Address,
        hash::Seed,
        limits::WAYS,
        table::{Key, Set, Unit, set_of},
    };
    use std::vec;

    #[test]
    fn a_planned_table_turns_away_less_than_one_in_a_thousand() {
        let seed = Seed::new([1, 2, 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93]);
        for sources in [10_000_u32, 500_000] {
            let sets = sets_for_sources(sources);
            let mut load = vec![0_u8; sets as usize];
            let mut turned_away = 0;
            for number in 0..sources {
                let address = Address::v4(number.wrapping_mul(2_654_435_761).to_be_bytes());
                let set = set_of(Key::new(address, Unit::V4Source, 1).hash(&seed), sets) as usize;
                if load[set] as usize == WAYS { turned_away += 1 } else { load[set] += 1 }
            }
            assert!(turned_away * 1000 < sources, "{turned_away} of {sources}");
            assert!(turned_away > 0, "the table is larger than it need be");
        }
    }

    #[test]
    fn the_default_table_fits_its_budget() {
        let sources = sets_for_sources(crate::limits::SOURCES_DEFAULT) as usize * size_of::<Set>();
        let parents = sets_for_parents(crate::limits::SOURCES_DEFAULT) as usize * size_of::<Set>();
        assert!(sources + parents < 64_000_000, "{sources} + {parents}");
    }
}
