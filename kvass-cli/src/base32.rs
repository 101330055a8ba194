//! Bytes as letters that people can read aloud and type: Douglas Crockford's base 32
//! (<https://www.crockford.com/base32.html>), in lower case, without its check symbol. Pure.

pub(crate) const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Why letters are no bytes.
#[derive(Debug, PartialEq)]
pub(crate) enum Base32Error {
    /// One that is not in the alphabet; the first letter has place 1.
    Letter { letter: char, place: usize },
    /// What is over behind the last whole byte is more than it should be, or not zero.
    Rest,
}

/// Five bits a letter, the first bits first; what is missing of the last five is zero.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| usize::from(byte >> (7 - at % 8) & 1));
    let letter = |at: usize| (at..at + 5).fold(0, |number, at| number << 1 | bit(at));
    (0..bytes.len() * 8).step_by(5).map(|at| char::from(ALPHABET[letter(at)])).collect()
}

/// Reads letters in either case.
pub(crate) fn decode(letters: &str) -> Result<Vec<u8>, Base32Error> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for (at, letter) in letters.chars().enumerate() {
        let number = number(letter).ok_or(Base32Error::Letter { letter, place: at + 1 })?;
        (held, bits) = (held << 5 | number, bits + 5);
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    if bits >= 5 || held != 0 { Err(Base32Error::Rest) } else { Ok(bytes) }
}

/// The number of a letter; those that look like a digit are read as that digit.
fn number(letter: char) -> Option<u32> {
    let letter = match letter.to_ascii_lowercase() {
        'o' => '0',
        'i' | 'l' => '1',
        other => other,
    };
    ALPHABET.iter().position(|known| char::from(*known) == letter).map(|number| number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_whatever_the_case_and_the_letters_that_look_alike() {
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).map(|at: u8| at.wrapping_mul(37) ^ length).collect();
            let letters = encode(&bytes);
            assert_eq!(letters.len(), (bytes.len() * 8).div_ceil(5));
            let alike = letters.replace('0', "O").replace('1', "l");
            for text in [&letters, &letters.to_uppercase(), &alike, &alike.replace('l', "I")] {
                assert_eq!(decode(text).as_ref(), Ok(&bytes), "{text}");
            }
        }
        assert_eq!(encode(&[0xff, 0x00, 0xaa]), "zw0am");
    }

    #[test]
    fn what_no_bytes_are_written_as_is_refused() {
        assert_eq!(decode("0u"), Err(Base32Error::Letter { letter: 'u', place: 2 }));
        assert_eq!(decode("é"), Err(Base32Error::Letter { letter: 'é', place: 1 }));
        assert_eq!(decode("000"), Err(Base32Error::Rest), "a letter too many");
        assert_eq!(decode("01"), Err(Base32Error::Rest), "bits behind the last byte");
        assert_eq!(decode("00"), Ok(vec![0]));
    }
}
