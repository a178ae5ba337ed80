//! Comparisons without branches: a branch for each element of a loop would be thousands of paths to the verifier.

/// All ones if `a < b`, else 0.
#[inline(always)]
pub const fn is_less(a: u64, b: u64) -> u64 {
    // The borrow of a − b (Warren, "Hacker's Delight", 2-13).
    ((((!a & b) | ((!a | b) & a.wrapping_sub(b))) as i64) >> 63) as u64
}

/// All ones if `a == b`, else 0.
#[inline(always)]
pub const fn is_equal(a: u64, b: u64) -> u64 {
    let differs = a ^ b;
    !(((differs | differs.wrapping_neg()) as i64 >> 63) as u64)
}

/// All ones if the condition holds, else 0.
#[inline(always)]
pub const fn all_ones_if(condition: bool) -> u64 {
    (condition as u64).wrapping_neg()
}

/// All ones if the first of two times comes before the second, else 0. Cheaper than [`is_less`], since times have 63 bits:
/// see [`ticks`](crate::budget::ticks).
#[inline(always)]
pub fn is_before(a: u64, b: u64) -> u64 {
    sign(a.wrapping_sub(b))
}

/// The later of two times.
#[inline(always)]
pub fn later(a: u64, b: u64) -> u64 {
    let ahead = a.wrapping_sub(b);
    a.wrapping_sub(ahead & sign(ahead))
}

/// All ones if the highest bit is set, else 0, out of the compiler's sight: what is masked by such a word it would choose by
/// a branch.
#[inline(always)]
fn sign(word: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut word = word;
        // SAFETY: one operation on one register.
        unsafe {
            core::arch::asm!("{0} s>>= 63", inout(reg) word, options(pure, nomem, nostack, preserves_flags))
        };
        word
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        (word as i64 >> 63) as u64
    }
}

/// A place that is at most `MOST`, one less than a power of two, in a way that the verifier sees: where the compiler knows
/// that every place is, it would drop a mask written in Rust.
#[inline(always)]
pub fn bounded<const MOST: usize>(place: u64) -> usize {
    const { assert!((MOST + 1).is_power_of_two()) };
    #[cfg(target_arch = "bpf")]
    let place = {
        let mut place = place;
        // SAFETY: one operation on one register.
        unsafe {
            core::arch::asm!("{0} &= {1}", inout(reg) place, const MOST, options(pure, nomem, nostack, preserves_flags));
        }
        place
    };
    place as usize & MOST
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..3_u64, u64::MAX - 2..=u64::MAX, (1 << 63) - 2..(1_u64 << 63) + 2]
    }

    proptest! {
        #[test]
        fn words_compare_as_numbers(a in word(), b in word()) {
            prop_assert_eq!(is_less(a, b), if a < b { u64::MAX } else { 0 });
            prop_assert_eq!(is_equal(a, b), if a == b { u64::MAX } else { 0 });
            let (early, late) = (a >> 1, b >> 1);
            prop_assert_eq!(is_before(early, late), is_less(early, late));
            prop_assert_eq!(later(early, late), early.max(late));
            prop_assert_eq!(bounded::<7>(a), (a % 8) as usize);
        }
    }
}
