//! What software is known to say such ClientHellos.
//!
//! A table of our own, of what `tests/tests/clients` captured in November 2026 with curl 7.88 and OpenSSL 3.0.19 of Debian 12, CPython
//! 3.10 to 3.13 on that OpenSSL, Go 1.19 and 1.27, Node 20.20 (OpenSSL 3.0) and 24.19 (OpenSSL 3.5), GnuTLS 3.7.9, rustls 0.23 with ring,
//! Chromium 156, and aioquic 1.7. Nothing is taken from databases of others.
//!
//! A label tells which software speaks like that, not who is there: others use the same library, and anybody may imitate it.
//!
//! To refresh: install the versions, run `cargo xtask test -- -p detector-tests --test clients`, which prints the stable JA4 of each
//! client, and write it down here, with `?` for what the application and its target decide.

/// Stable JA4s and what has them; `?` stands for any character. Part a tells whether there is a server name, how many extensions there
/// are with it and with application protocols, and the first of these: none of it is the library's, and part c is without it.
const KNOWN: &[(&str, &str)] = &[
    ("t13?31????_e8f1e7e78f70_375ca2c5e164", "curl/OpenSSL 3"),
    ("t13?31????_e8f1e7e78f70_c9e58cc61e36", "OpenSSL 3"),
    ("t13?18????_85036bcba153_c9e58cc61e36", "Python ssl/OpenSSL 3"),
    ("t13?19????_9dc949149365_97f8aa674fd9", "Go crypto/tls"),
    ("t13?13????_f57a46bbacb6_f50d94e863eb", "Go crypto/tls"),
    ("t13?59????_a33745022dd6_c9e58cc61e36", "Node"),
    ("t13?52????_b262b3658495_c3976d268853", "Node"),
    ("t13?29????_723694b0fccc_a03b17b91aa0", "GnuTLS"),
    ("t13?10????_61a7ad8aa9b6_6a7d638fc319", "rustls"),
    ("t13?15????_8daaf6152771_22db41f7518f", "Chromium"),
    ("q13?03????_55b375c5d22e_178839b6cec1", "Chromium"),
    ("q13?03????_55b375c5d22e_1cecd519fee8", "aioquic"),
];

/// The label of a stable JA4 in its usual form; `None` where none is known.
pub fn label(stable_ja4: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(pattern, _)| matches(pattern, stable_ja4)).map(|(_, label)| *label)
}

fn matches(pattern: &str, text: &str) -> bool {
    pattern.len() == text.len()
        && pattern.bytes().zip(text.bytes()).all(|(expected, found)| expected == b'?' || expected == found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pattern_is_one_of_a_stable_ja4_and_decides_alone() {
        for (number, (pattern, _)) in KNOWN.iter().enumerate() {
            let parts: Vec<_> = pattern.split('_').map(str::len).collect();
            assert_eq!(parts, [10, 12, 12], "{pattern}");
            // Where all is left out that may be, the library is still told.
            let example = pattern.replace('?', "0");
            let decided: Vec<_> =
                (0..KNOWN.len()).filter(|&other| matches(KNOWN[other].0, &example)).collect();
            assert_eq!(decided, [number], "{pattern}");
        }
    }

    #[test]
    fn the_application_does_not_count_and_the_library_does() {
        assert_eq!(label("t13d1910h2_9dc949149365_97f8aa674fd9"), Some("Go crypto/tls"));
        assert_eq!(label("t13i190800_9dc949149365_97f8aa674fd9"), Some("Go crypto/tls"));
        for other in [
            "q13d1910h2_9dc949149365_97f8aa674fd9",
            "t13d1910h2_9dc949149365_97f8aa674fd8",
            "t13d1910h2_9dc949149365_97f8aa674fd",
            "",
        ] {
            assert_eq!(label(other), None, "{other}");
        }
    }
}
