//! The least of PNG (<https://www.w3.org/TR/png-3/>): a square of black and white pixels, not compressed. Pure.

use crate::crc32::crc32;

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// One bit a pixel, grey, nothing interlaced.
const FORMAT: [u8; 5] = [1, 0, 0, 0, 0];

/// The most that one block of deflate holds uncompressed.
const BLOCK: usize = 65_535;

/// A picture as the bytes of a file.
pub(crate) fn encode(side: usize, is_light: impl Fn(usize, usize) -> bool) -> Vec<u8> {
    let length = (side as u32).to_be_bytes();
    let header = [&length[..], &length, &FORMAT].concat();
    let pixel = |x: usize, y: usize| u8::from(x < side && is_light(x, y));
    let byte = |x: usize, y: usize| (x..x + 8).fold(0, |bits, x| bits << 1 | pixel(x, y));
    // Each line begins with its filter, which is none.
    let line = |y: usize| std::iter::once(0).chain((0..side).step_by(8).map(move |x| byte(x, y)));
    let lines: Vec<u8> = (0..side).flat_map(line).collect();
    let chunks = [chunk(b"IHDR", &header), chunk(b"IDAT", &zlib(&lines)), chunk(b"IEND", &[])];
    [&SIGNATURE[..], &chunks.concat()].concat()
}

/// Length, name and content, the last two with a sum.
fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [name, content].concat();
    let (length, sum) = ((content.len() as u32).to_be_bytes(), crc32(&named).to_be_bytes());
    [&length[..], &named, &sum].concat()
}

/// A stream of zlib (RFC 1950) whose blocks are stored as they are (RFC 1951).
fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks = bytes.chunks(BLOCK);
    let last = blocks.len().saturating_sub(1);
    for (number, block) in blocks.enumerate() {
        let length = block.len() as u16;
        stream.push(u8::from(number == last));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    stream.extend(adler32(bytes).to_be_bytes());
    stream
}

fn adler32(bytes: &[u8]) -> u32 {
    let step = |(a, b), byte: &u8| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    };
    let (a, b) = bytes.iter().fold((1, 0), step);
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_that_of_the_standard() {
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn a_small_picture_is_as_the_standard_says() {
        // A light pixel in each corner but the last, of nine by nine.
        let picture = encode(9, |x, y| matches!((x, y), (0, 0) | (8, 0) | (0, 8)));
        let (head, rest) = picture.split_at(41);
        assert_eq!(&head[..16], b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR");
        assert_eq!(head[16..29], [0, 0, 0, 9, 0, 0, 0, 9, 1, 0, 0, 0, 0]);
        assert_eq!(&head[33..], b"\0\0\0\x26IDAT");
        let lines = &rest[7..7 + 27];
        assert_eq!(rest[..7], [0x78, 0x01, 1, 27, 0, !27, 0xff]);
        assert_eq!((&lines[..3], &lines[24..]), (&[0, 0x80, 0x80][..], &[0, 0x80, 0][..]));
        assert!(lines[3..24].iter().all(|byte| *byte == 0));
        assert_eq!(&picture[picture.len() - 12..], b"\0\0\0\0IEND\xae\x42\x60\x82");
    }

    #[test]
    fn a_large_picture_has_several_blocks() {
        let stream = zlib(&vec![7; BLOCK + 1]);
        assert_eq!(stream[2..7], [0, 0xff, 0xff, 0, 0]);
        assert_eq!(stream[7 + BLOCK..][..6], [1, 1, 0, 0xfe, 0xff, 7]);
    }
}
