//! The kernel's side, as seen from here. Nothing else of this crate touches maps, programs or links.
//!
//! | question | module |
//! |---|---|
//! | can this machine run it? | [`probe`] |
//! | where are the pins, and who holds them? | [`pins`] |
//! | how is the program loaded? | [`load`] |
//! | what is in its maps? | [`maps`], [`mapped`], [`read`], [`services`] |
//! | what are fingerprints, and what are they called? | [`exemplar`], [`names`] |
//! | how does a policy get in? | [`apply`] |
//! | how do incident rules get in? | [`incidents`] |
//! | how is it attached, and where? | [`attach`], [`links`] |

pub mod apply;
pub mod attach;
pub mod client_rules;
pub mod exemplar;
pub mod fleets;
pub mod incidents;
pub mod links;
pub mod load;
pub mod mapped;
pub mod maps;
pub mod names;
pub mod pins;
pub mod probe;
pub mod read;
pub mod services;
