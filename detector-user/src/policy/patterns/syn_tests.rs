use super::*;
use proptest::prelude::*;

const LINUX: &str = "4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0";

fn pattern(text: &str) -> SynPattern {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A SYN of Linux, changed.
fn syn(change: impl FnOnce(&mut Vec<u8>)) -> Syn {
    let mut bytes = vec![0x45, 0, 0, 60, 0x1c, 0x46, 0x40, 0, 57, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    bytes.extend([0xc0, 0, 1, 0xbb, 1, 2, 3, 4, 0, 0, 0, 0, 0xa0, 2, 0xfa, 0xf0, 0, 0, 0, 0]);
    bytes.extend([2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 1, 1, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
    change(&mut bytes);
    Syn::of(&bytes, 20, false).expect("a signature")
}

#[test]
fn fields_are_compared_one_by_one() {
    let linux = syn(|_| {});
    assert_eq!(linux.to_string(), LINUX);
    for text in [
        LINUX,
        "*:*:*:1460:*:*:*:*",
        "4:*:*:*:*,7:*:*:*",
        "*:*:*:*:mss*44,*:*:*:*",
        // The same window in bytes, and quirks in another order.
        "*:*:*:*:64240,*:*:*:*",
        "*:*:*:*:*:*:id+,df:*",
        "*:*:*:*:*:mss,sok,ts,nop,ws:*:0",
    ] {
        assert!(pattern(text).matches(&linux), "{text}");
    }
    for text in [
        "6:*:*:*:*:*:*:*",
        "*:128:*:*:*:*:*:*",
        "*:*:4:*:*:*:*:*",
        "*:*:*:1400:*:*:*:*",
        "*:*:*:*:mss*45,*:*:*:*",
        "*:*:*:*:mtu*44,*:*:*:*",
        "*:*:*:*:44,*:*:*:*",
        "*:*:*:*:*,8:*:*:*",
        "*:*:*:*:*:mss,sok,ts,nop:*:*",
        "*:*:*:*:*::*:*",
        "*:*:*:*:*:*:df:*",
        "*:*:*:*:*:*::*",
        "*:*:*:*:*:*:*:+",
    ] {
        assert!(!pattern(text).matches(&linux), "{text}");
    }
}

#[test]
fn a_pattern_is_told_as_p0f_would() {
    for (written, told) in [
        (LINUX, LINUX),
        ("*:*:*:*:*:*:id+,df:*", "*:*:*:*:*,*:*:df,id+:*"),
        ("*:*:*:*:*,*::*:+", "*:*:*:*:*,*::*:+"),
        ("4:64:0:0:8192,0:?253,eol+11::0", "4:64:0:0:8192,0:?253,eol+11::0"),
    ] {
        assert_eq!(pattern(written).to_string(), told);
    }
}

/// A SYN with some bytes changed and any number of options.
fn any_syn() -> impl Strategy<Value = Syn> {
    let flips = prop::collection::vec((0..60_usize, any::<u8>()), 0..12);
    (flips, 5..=10_u8).prop_map(|(flips, data_offset)| {
        syn(|bytes| {
            for (at, value) in flips {
                bytes[at] = value;
            }
            bytes[0] = 0x45;
            bytes[32] = data_offset << 4;
        })
    })
}

proptest! {
    #[test]
    fn a_syn_matches_its_own_text_and_no_other(syn in any_syn(), other in any_syn()) {
        let own = pattern(&syn.to_string());
        prop_assert!(own.matches(&syn), "{syn}");
        prop_assert_eq!(own.matches(&other), syn.key() == other.key(), "{} {}", syn, other);
        prop_assert_eq!(own.to_string(), syn.to_string());
    }

    #[test]
    fn it_still_matches_with_a_star_in_place_of_a_field(syn in any_syn(), field in 0..8_usize) {
        let text = syn.to_string();
        let fields = text.split(':').enumerate().map(|(place, text)| if place == field { "*" } else { text });
        let wider = pattern(&fields.collect::<Vec<_>>().join(":"));
        prop_assert!(wider.matches(&syn), "{wider} {syn}");
        prop_assert!(wider.literals() <= pattern(&text).literals());
    }

    #[test]
    fn any_text_is_a_pattern_or_a_complaint(
        text in "\\PC*|([*0-9a-z+?,-]{0,5}:){7}[*0+]|(4|6|\\*):(64|\\*):\\*:[0-9*]{1,5}:[mstu0-9*,]{1,8}:[a-z+?0-9,]{0,9}:\\*:0",
        syn in any_syn(),
    ) {
        if let Ok(pattern) = parse(&text) {
            pattern.matches(&syn);
            prop_assert_eq!(&self::pattern(&pattern.to_string()), &pattern);
            let json = serde_json::to_string(&pattern).unwrap();
            prop_assert_eq!(serde_json::from_str::<SynPattern>(&json).unwrap(), pattern);
        }
    }
}
