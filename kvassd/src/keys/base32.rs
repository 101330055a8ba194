//! Bytes as letters and digits that cannot be mistaken for others: Crockford's base 32, in lower case.

use zeroize::Zeroizing;

/// 32 of the letters and digits, each for five bits: none of i, l, o and u.
pub(super) const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// How many digits stand for that many bytes; the bits that are left over of the last one are zero.
pub(super) const fn length(bytes: usize) -> usize {
    (8 * bytes).div_ceil(5)
}

/// Appends the digits of `bytes`.
pub(super) fn encode(bytes: &[u8], to: &mut Zeroizing<String>) {
    to.reserve(length(bytes.len()));
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte << (at % 8) & 0x80 != 0);
    for digit in 0..length(bytes.len()) {
        let five = (0..5).fold(0, |five, at| five << 1 | usize::from(bit(5 * digit + at)));
        to.push(DIGITS[five].into());
    }
}

/// Reads digits of either case, with 0 for o and 1 for i and l; `None` where they are not exactly `N` bytes.
pub(super) fn decode<const N: usize>(digits: &str) -> Option<Zeroizing<[u8; N]>> {
    if digits.len() != length(N) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; N]);
    for (at, digit) in digits.bytes().enumerate() {
        let five = value(digit)?;
        for bit in 0..5 {
            let (place, is_set) = (5 * at + bit, five >> (4 - bit) & 1 == 1);
            match bytes.get_mut(place / 8) {
                Some(byte) => *byte |= u8::from(is_set) << (7 - place % 8),
                None if is_set => return None,
                None => {}
            }
        }
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<usize> {
    let digit = match digit.to_ascii_lowercase() {
        b'o' => b'0',
        b'i' | b'l' => b'1',
        other => other,
    };
    DIGITS.iter().position(|known| *known == digit)
}
