//! What a value is, as its key and its first bytes tell, and what a browser may do with it.
//!
//! The ending of the key decides; where it says nothing, the content. HTML, SVG and the like are never taken from the
//! content alone, so that nothing is run as a document which its owner has not called one.

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Media(&'static str);

/// What a browser may do with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// It has a viewer of its own for it, which runs nothing that is in the value.
    Viewer,
    /// It could run what is in the value, or nobody knows: without scripts, origin and network.
    Sandbox,
    /// Likewise, and it has nothing to show: it saves a file.
    Save,
}

/// What nothing is known about.
const UNKNOWN: Media = Media("application/octet-stream");

const PLAIN: Media = Media("text/plain");

/// Bytes from a value's beginning that tell what it is.
const BEGINNING: usize = 4_096;

impl Media {
    /// What a value is, from its key and the bytes that it begins with, which may be none where [`Media::by_key`] is
    /// enough. `is_whole`: nothing comes behind them.
    pub(super) fn of(key: &str, beginning: &[u8], is_whole: bool) -> Self {
        Self::by_key(key).or_else(|| by_mark(beginning)).unwrap_or_else(|| by_text(beginning, is_whole))
    }

    /// What the ending of a key says.
    pub(super) fn by_key(key: &str) -> Option<Self> {
        let (stem, ending) = super::last_part(key).rsplit_once('.')?;
        let known = |known: &&(&str, &str)| known.0.eq_ignore_ascii_case(ending);
        let found = if stem.is_empty() { None } else { ENDINGS.iter().find(known) };
        found.map(|(_, media)| Self(media))
    }

    /// Whether the value's beginning is needed to say how its text is encoded.
    pub(super) fn is_text(self) -> bool {
        self.0.starts_with("text/")
    }

    /// The value of a `Content-Type`; the beginning says whether a text is UTF-8.
    pub(super) fn header(self, beginning: &[u8], is_whole: bool) -> String {
        let encoding = if self.is_text() && is_utf_8(beginning, is_whole) { "; charset=utf-8" } else { "" };
        format!("{}{encoding}", self.0)
    }

    /// Whether browsers play it, and so ask for it in parts.
    pub(super) fn is_played(self) -> bool {
        self.0.starts_with("audio/") || self.0.starts_with("video/")
    }

    pub(super) fn show(self) -> Show {
        let kind = self.0.split_once('/').map_or("", |(kind, _)| kind);
        match (kind, self.0) {
            (_, "image/svg+xml") => Show::Sandbox,
            ("image" | "audio" | "video", _) | (_, "application/pdf" | "text/plain") => Show::Viewer,
            ("text", _) | (_, "application/json" | "application/xml" | "application/xhtml+xml") => Show::Sandbox,
            _ => Show::Save,
        }
    }
}

/// What a mark at the beginning says.
fn by_mark(beginning: &[u8]) -> Option<Media> {
    let at = |at: usize, mark: &[u8]| beginning.get(at..).is_some_and(|rest| rest.starts_with(mark));
    let found = match beginning {
        _ if at(0, b"\x89PNG\r\n\x1a\n") => "image/png",
        _ if at(0, b"\xff\xd8\xff") => "image/jpeg",
        _ if at(0, b"GIF87a") || at(0, b"GIF89a") => "image/gif",
        _ if at(0, b"RIFF") && at(8, b"WEBP") => "image/webp",
        _ if at(0, b"RIFF") && at(8, b"WAVE") => "audio/wav",
        _ if at(4, b"ftypavif") || at(4, b"ftypavis") => "image/avif",
        _ if at(4, b"ftypM4A ") => "audio/mp4",
        _ if at(4, b"ftypqt  ") => "video/quicktime",
        _ if at(4, b"ftyp") => "video/mp4",
        _ if at(0, b"\x1a\x45\xdf\xa3") => matroska(beginning),
        _ if at(0, b"OggS") => "audio/ogg",
        _ if at(0, b"fLaC") => "audio/flac",
        _ if at(0, b"ID3") => "audio/mpeg",
        _ if at(0, b"%PDF-") => "application/pdf",
        _ if at(0, b"PK\x03\x04") || at(0, b"PK\x05\x06") => "application/zip",
        _ if at(0, b"\x1f\x8b\x08") => "application/gzip",
        [0xff, second, third, ..] if is_mpeg_frame(*second, *third) => "audio/mpeg",
        _ => return None,
    };
    Some(Media(found))
}

/// WebM is Matroska that says so near its beginning.
fn matroska(beginning: &[u8]) -> &'static str {
    let head = &beginning[..beginning.len().min(64)];
    if head.windows(4).any(|name| name == b"webm") { "video/webm" } else { "video/x-matroska" }
}

/// Whether a frame of MPEG audio of layer 3 begins so, whose bit rate and sampling rate there are.
fn is_mpeg_frame(second: u8, third: u8) -> bool {
    second & 0xe6 == 0xe2 && second & 0x18 != 0x08 && !matches!(third >> 4, 0 | 15) && third >> 2 & 3 != 3
}

fn by_text(beginning: &[u8], is_whole: bool) -> Media {
    let is_cut = beginning.len() > BEGINNING;
    let beginning = &beginning[..beginning.len().min(BEGINNING)];
    let is_binary = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    let is_text = is_utf_8(beginning, is_whole && !is_cut) && !beginning.iter().any(is_binary);
    if is_text { PLAIN } else { UNKNOWN }
}

/// Whether this is UTF-8, but for a character that may be cut off at the end.
fn is_utf_8(beginning: &[u8], is_whole: bool) -> bool {
    match std::str::from_utf8(beginning) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && !is_whole,
    }
}

/// Endings of keys. What is written as text and has no type that browsers show is plain text.
const ENDINGS: &[(&str, &str)] = &[
    ("aac", "audio/aac"),
    ("apng", "image/apng"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("c", "text/plain"),
    ("conf", "text/plain"),
    ("cpp", "text/plain"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("diff", "text/plain"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("go", "text/plain"),
    ("gz", "application/gzip"),
    ("h", "text/plain"),
    ("heic", "image/heic"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar"),
    ("ini", "text/plain"),
    ("java", "text/plain"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonl", "text/plain"),
    ("jxl", "image/jxl"),
    ("log", "text/plain"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("markdown", "text/plain"),
    ("md", "text/plain"),
    ("mjs", "text/javascript"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("patch", "text/plain"),
    ("pdf", "application/pdf"),
    ("pem", "text/plain"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("py", "text/plain"),
    ("rs", "text/plain"),
    ("rtf", "application/rtf"),
    ("sh", "text/plain"),
    ("sql", "text/plain"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("toml", "text/plain"),
    ("ts", "text/plain"),
    ("tsv", "text/tab-separated-values"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain"),
    ("vcf", "text/vcard"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("xz", "application/x-xz"),
    ("yaml", "text/plain"),
    ("yml", "text/plain"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(key: &str, value: &[u8]) -> String {
        Media::of(key, value, true).header(value, true)
    }

    #[test]
    fn the_ending_of_the_key_decides_in_either_case() {
        assert_eq!(header("a/logo.PNG", b"hello"), "image/png");
        assert_eq!(header("a.b/notes.md", b"# Hello"), "text/plain; charset=utf-8");
        assert_eq!(header("page.html", b"\x89PNG\r\n\x1a\n"), "text/html");
        assert_eq!(header("page.html", "é".as_bytes()), "text/html; charset=utf-8");
        assert_eq!(header("data.json", b"{}"), "application/json");
        assert_eq!(header("backup.tar.gz", b""), "application/gzip");
    }

    #[test]
    fn without_an_ending_that_is_known_the_content_decides() {
        for (value, media) in [
            (&b"\x89PNG\r\n\x1a\n...."[..], "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a...", "image/gif"),
            (b"RIFF....WEBPVP8 ", "image/webp"),
            (b"RIFF....WAVEfmt ", "audio/wav"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "image/avif"),
            (b"\0\0\0\x20ftypisom\0\0\x02\0", "video/mp4"),
            (b"\0\0\0\x20ftypM4A \0\0\x02\0", "audio/mp4"),
            (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", "video/webm"),
            (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x88matroska", "video/x-matroska"),
            (b"OggS\0\x02", "audio/ogg"),
            (b"ID3\x04\0", "audio/mpeg"),
            (b"\xff\xfb\x90\x64", "audio/mpeg"),
            (b"fLaC\0\0\0\x22", "audio/flac"),
            (b"%PDF-1.7\n", "application/pdf"),
            (b"PK\x03\x04\x14\0", "application/zip"),
            (b"\x1f\x8b\x08\0", "application/gzip"),
            (b"", "text/plain; charset=utf-8"),
            (b"hello\n", "text/plain; charset=utf-8"),
            (b"<html><script>", "text/plain; charset=utf-8"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'>", "text/plain; charset=utf-8"),
            (b"a\0b", "application/octet-stream"),
            (b"caf\xe9", "application/octet-stream"),
            (b"\xff\xff\xff\xff", "application/octet-stream"),
        ] {
            for key in ["value", "a.b/value", "value.unknown", ".png", "x/.html"] {
                assert_eq!(header(key, value), media, "{key}: {value:?}");
            }
        }
    }

    #[test]
    fn a_character_that_is_cut_off_at_the_end_of_the_beginning_is_text() {
        let (text, cut) = ("aé".as_bytes(), &"aé".as_bytes()[..2]);
        assert_eq!(Media::of("k", cut, false).header(cut, false), "text/plain; charset=utf-8");
        assert_eq!(Media::of("k", cut, true).header(cut, true), "application/octet-stream");
        let long = text.repeat(BEGINNING);
        assert_eq!(header("k", &long), "text/plain; charset=utf-8");
        assert_eq!(header("k", &[&b"a"[..], &long].concat()), "text/plain; charset=utf-8");
    }

    #[test]
    fn the_own_viewers_of_browsers_are_for_what_runs_nothing() {
        for (_, media) in ENDINGS {
            let is_passive = media.starts_with("image/") || media.starts_with("audio/") || media.starts_with("video/");
            let is_passive = is_passive || matches!(*media, "application/pdf" | "text/plain");
            let expected = is_passive && !media.contains("xml");
            assert_eq!(Media(media).show() == Show::Viewer, expected, "{media}");
        }
        assert_eq!(UNKNOWN.show(), Show::Save);
        assert!(ENDINGS.is_sorted(), "so that each is found where it is looked for");
    }

    proptest! {
        #[test]
        fn any_key_and_content_have_a_type(key: String, value: Vec<u8>, is_whole: bool) {
            let media = Media::of(&key, &value, is_whole);
            prop_assert!(hyper::header::HeaderValue::from_str(&media.header(&value, is_whole)).is_ok());
        }
    }
}
