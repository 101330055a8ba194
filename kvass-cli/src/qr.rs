//! QR codes on a terminal, two modules a character.

use qrcode::{Color, EcLevel, QrCode};

/// Light modules around the code; four are asked for, but readers find it with fewer, and terminals are small.
const MARGIN: usize = 2;

/// A code as lines of half blocks, and how many columns they take; `None` for a text that is too long for one.
///
/// Letters, where they are all capitals and digits, take fewer modules.
pub(crate) fn draw(text: &str) -> Option<(String, usize)> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let (width, colors) = (code.width(), code.to_colors());
    let is_light = |x: usize, y: usize| {
        let inside = |at: usize| at.checked_sub(MARGIN).filter(|at| *at < width);
        inside(x).zip(inside(y)).is_none_or(|(x, y)| colors[y * width + x] == Color::Light)
    };
    let columns = width + 2 * MARGIN;
    let block = |x: usize, y: usize| match (is_light(x, y), is_light(x, y + 1)) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    };
    let line = |y: usize| (0..columns).map(|x| block(x, y)).collect::<String>() + "\n";
    Some(((0..columns).step_by(2).map(line).collect(), columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_a_light_margin_and_its_three_corners() {
        let (drawn, columns) = draw("KVASS-PAIR-0123").unwrap();
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        assert_eq!((columns, lines.len()), (25, 13));
        assert!(lines.iter().all(|line| line.len() == columns && line[..2] == ['█'; 2] && line[23..] == ['█'; 2]));
        assert!(lines[0].iter().all(|block| *block == '█'));
        // Below the margin a corner begins: seven dark modules over one dark and five light ones.
        let corner: String = lines[1][2..9].iter().collect();
        assert_eq!(corner, " ▄▄▄▄▄ ");
        assert_eq!(lines[1][16..23].iter().collect::<String>(), corner);
        assert_eq!(draw(&"x".repeat(3_000)), None);
    }
}
