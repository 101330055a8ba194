//! QR codes: on a terminal, two modules a character, and as pictures. Pure.

use qrcode::render::svg;
use qrcode::{Color, EcLevel, QrCode};

use crate::png;

/// Light modules around a code, as the standard has it.
const QUIET: usize = 4;

/// Light modules around a code that has to fit a small terminal: readers find it with fewer.
const QUIET_SMALL: usize = 2;

/// The least width of a picture, in pixels.
const PICTURE: usize = 300;

/// A text as a code.
pub(crate) struct Code {
    code: QrCode,
    quiet: usize,
}

/// What a terminal does with a code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Paint {
    /// It has colours, so those of the code are fixed, whatever its own are.
    Colored,
    /// It shows light letters on a dark ground.
    Dark,
    /// It shows dark letters on a light ground.
    Light,
}

/// Of the 256 colours, these are the same in every theme.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const WHITE_ON_BLACK: &str = "\x1b[38;5;231;48;5;16m";

const PLAIN: &str = "\x1b[0m";

impl Code {
    /// A code that bears damage; `None` for a text that is too long for one.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
        Some(Self { code, quiet: QUIET })
    }

    /// A code that takes as little room as can be; `None` for a text that is too long for one.
    ///
    /// Letters, where they are all capitals and digits, take fewer modules.
    pub(crate) fn small(text: &str) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
        Some(Self { code, quiet: QUIET_SMALL })
    }

    /// Modules from side to side, and so columns of a terminal.
    pub(crate) fn columns(&self) -> usize {
        self.code.width() + 2 * self.quiet
    }

    /// Lines of a terminal.
    pub(crate) fn rows(&self) -> usize {
        self.columns().div_ceil(2)
    }

    fn is_light(&self, x: usize, y: usize) -> bool {
        let width = self.code.width();
        let inside = |at: usize| at.checked_sub(self.quiet).filter(|at| *at < width);
        inside(x).zip(inside(y)).is_none_or(|(x, y)| self.code[(x, y)] == Color::Light)
    }

    /// The code as lines of half blocks.
    pub(crate) fn blocks(&self, paint: Paint) -> String {
        let line = |row: usize| match paint {
            Paint::Colored => self.colored(2 * row),
            Paint::Dark => self.plain(2 * row, true),
            Paint::Light => self.plain(2 * row, false),
        };
        (0..self.rows()).map(line).collect()
    }

    /// Two rows of modules, of which the letters draw the light or the dark ones.
    fn plain(&self, y: usize, light: bool) -> String {
        let is_drawn = |x: usize, y: usize| self.is_light(x, y) == light;
        let block = |x: usize| match (is_drawn(x, y), is_drawn(x, y + 1)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        };
        (0..self.columns()).map(block).chain(['\n']).collect()
    }

    /// Two rows of modules on a ground that has the colour of the upper one: the blocks of many fonts leave a line free
    /// above them, and a ground does not.
    fn colored(&self, y: usize) -> String {
        let (mut line, mut ground) = (String::new(), None);
        for x in 0..self.columns() {
            let (upper, lower) = (self.is_light(x, y), self.is_light(x, y + 1));
            if ground.replace(upper) != Some(upper) {
                line.push_str(if upper { BLACK_ON_WHITE } else { WHITE_ON_BLACK });
            }
            line.push(if upper == lower { ' ' } else { '▄' });
        }
        line + PLAIN + "\n"
    }

    /// The code as a picture of lines and areas.
    pub(crate) fn svg(&self) -> String {
        let side = PICTURE as u32;
        self.code.render::<svg::Color>().min_dimensions(side, side).build() + "\n"
    }

    /// The code as a picture of pixels.
    pub(crate) fn png(&self) -> Vec<u8> {
        let scale = PICTURE.div_ceil(self.columns());
        png::encode(self.columns() * scale, |x, y| self.is_light(x / scale, y / scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = "http://host.example:8000/get?q=0123456789abcdefghjkmnpqrs";

    #[test]
    fn a_code_has_a_light_margin_and_its_three_corners() {
        let code = Code::small("KVASS-PAIR-0123").unwrap();
        assert_eq!((code.columns(), code.rows()), (25, 13));
        let drawn = code.blocks(Paint::Dark);
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        assert_eq!(lines.len(), 13);
        assert!(lines.iter().all(|line| line.len() == 25 && line[..2] == ['█'; 2] && line[23..] == ['█'; 2]));
        assert!(lines[0].iter().all(|block| *block == '█'));
        // Below the margin a corner begins: seven dark modules over one dark and five light ones.
        let corner: String = lines[1][2..9].iter().collect();
        assert_eq!(corner, " ▄▄▄▄▄ ");
        assert_eq!(lines[1][16..23].iter().collect::<String>(), corner);
    }

    #[test]
    fn a_link_fits_a_terminal_of_80_columns_and_24_lines() {
        let code = Code::new(LINK).unwrap();
        assert_eq!((code.columns(), code.rows()), (41, 21));
        let blocks = code.blocks(Paint::Dark);
        assert!(blocks.lines().take(2).all(|line| line == "█".repeat(41)));
        assert!(blocks.lines().all(|line| line.starts_with("████") && line.ends_with("████")));
    }

    #[test]
    fn each_terminal_shows_the_same_modules() {
        let code = Code::new(LINK).unwrap();
        let (dark, light) = (code.blocks(Paint::Dark), code.blocks(Paint::Light));
        let other = |block| match block {
            '█' => ' ',
            '▀' => '▄',
            '▄' => '▀',
            ' ' => '█',
            other => other,
        };
        assert_eq!(light, dark.chars().map(other).collect::<String>());
        let mut seen = String::new();
        for line in code.blocks(Paint::Colored).lines() {
            let parts =
                line.strip_suffix(PLAIN).unwrap().split('\x1b').skip(1).map(|part| part.split_once('m').unwrap());
            for (colors, blocks) in parts {
                let upper = colors == &BLACK_ON_WHITE[1..BLACK_ON_WHITE.len() - 1];
                assert!(upper || colors == &WHITE_ON_BLACK[1..WHITE_ON_BLACK.len() - 1], "{colors}");
                seen.extend(blocks.chars().map(|block| match (block, upper) {
                    (' ', true) => '█',
                    (' ', false) => ' ',
                    ('▄', true) => '▀',
                    ('▄', false) => '▄',
                    other => panic!("{other:?}"),
                }));
            }
            seen.push('\n');
        }
        assert_eq!(seen, dark);
    }

    #[test]
    fn pictures_are_at_least_300_pixels_wide_and_each_module_is_a_square() {
        let code = Code::new(LINK).unwrap();
        let svg = code.svg();
        assert!(svg.starts_with("<?xml") && svg.contains(r#"width="328" height="328" viewBox="0 0 328 328""#), "{svg}");
        assert!(svg.contains(r#"M32 32h8v8H32V32"#), "the first module of the first corner");
        assert_eq!(code.png()[16..24], [0, 0, 1, 72, 0, 0, 1, 72]);
        let many = Code::new(&"x".repeat(2_331)).unwrap();
        assert_eq!((many.columns(), many.png()[16..20].to_vec()), (185, vec![0, 0, 1, 114]));
    }

    #[test]
    fn a_text_that_is_too_long_has_no_code() {
        assert!(Code::new(&"x".repeat(2_332)).is_none());
        assert!(Code::small(&"x".repeat(3_000)).is_none());
    }
}
