//! Bytes as hexadecimal digits, as digests and tokens are written.

use std::fmt::Write as _;

/// The digits of bytes, lowercase.
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut digits, byte| {
        // Writing to a text cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// The bytes of digits of either case; `None`: not as many, or others.
pub fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_as_they_are_written() {
        assert_eq!(digits(&[0, 0x0f, 0xa5]), "000fa5");
        assert_eq!(bytes("000Fa5"), Some([0, 0x0f, 0xa5]));
        for wrong in ["000fa", "000fa5a", "000fag", "+00fa5", "0ü0fa"] {
            assert_eq!(bytes::<3>(wrong), None, "{wrong}");
        }
    }
}
