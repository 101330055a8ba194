//! The server's port, in the hands of strangers: requests for links, and any bytes.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use kvassd::accept::{Door, Proxies};
use kvassd::http;
use kvassd::store::{ShareOptions, Store};
use kvassd::sync::server;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::place::{OWN, PATIENCE, Place, THREADS, bytes};
use crate::wire::{Ask, Frame, METHODS, One};

/// How long a client whose request may not be whole waits for the end of an answer before it leaves.
const MOMENT: Duration = Duration::from_millis(100);

/// What no stranger may see: a value that no link leads to, and its name.
const SECRET: &str = "the value that no link leads to";
const HIDDEN: &str = "hidden/name";

/// A store with links, and what each leads to.
struct Site {
    place: Place,
    links: Vec<String>,
    values: Vec<Vec<u8>>,
    tag: String,
}

static SITE: LazyLock<Site> = LazyLock::new(Site::make);

impl Site {
    fn make() -> Self {
        let place = OWN.copy();
        place.set(HIDDEN, SECRET.as_bytes());
        let values = [
            ("notes/plain.txt", b"plain text".to_vec()),
            ("page.html", b"<script>x</script>".to_vec()),
            ("empty", Vec::new()),
            ("pictures/\u{e4}\u{202e} \"large\".png", bytes(200_000)),
            ("edge.bin", bytes(4_096)),
        ];
        let mut links: Vec<_> = values.iter().map(|(name, value)| place.share_value(name, value)).collect();
        let plain = ShareOptions::default();
        links.push(place.link("edge.bin", ShareOptions { reads: u64::from(u32::MAX), ..plain.clone() }));
        links.push(place.link("edge.bin", ShareOptions { reads: 1, ..plain.clone() }));
        links.push(place.link("edge.bin", ShareOptions { pin: true, ..plain }));
        let tag = tag(&place.store, &links[0]);
        let values = values.into_iter().map(|(_, value)| value).collect();
        Self { place, links, values, tag }
    }
}

impl Place {
    fn share_value(&self, name: &str, value: &[u8]) -> String {
        self.set(name, value);
        self.link(name, ShareOptions::default())
    }

    fn link(&self, name: &str, options: ShareOptions) -> String {
        let share = self.store.share(name, options).expect("a commit").expect("an entry");
        http::link("", &share.token)
    }
}

/// The tag of what a link leads to, as a client learns it.
fn tag(store: &Store, link: &str) -> String {
    let request = format!("HEAD {link} HTTP/1.1\r\nConnection: close\r\n\r\n");
    let (answer, _) = THREADS.block_on(visit(store.clone(), Proxies::default(), request.as_bytes(), Some(PATIENCE)));
    head(&answer, "etag").expect("a tag").to_owned()
}

#[derive(Arbitrary, Debug)]
enum Visit {
    Ask(Ask),
    Again(Ask),
    /// Any bytes.
    Raw(Vec<u8>),
    /// HTTP/2, with its preface.
    Frames(Vec<Frame>),
}

/// Sends a request, or any bytes: what comes back is an answer of kvass, and has nothing in it but what the link that
/// was asked for leads to.
pub fn http(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok(is_proxied) = bool::arbitrary(&mut input) else { return };
    let Ok(visit) = Visit::arbitrary_take_rest(input) else { return };
    let proxies = if is_proxied { "192.0.2.0/24" } else { "" }.parse().expect("a range");
    let send = |bytes: &[u8], wait| THREADS.block_on(self::visit(SITE.place.store.clone(), proxies, bytes, wait));
    let (answer, _) = match visit {
        Visit::Raw(bytes) => send(&bytes, None),
        Visit::Ask(ask) | Visit::Again(ask) => {
            let (answer, is_whole) = send(&ask.write(&SITE.links, &SITE.tag), Some(MOMENT));
            if is_whole {
                check(&ask, &answer);
            }
            (answer, is_whole)
        }
        Visit::Frames(frames) => {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            frames.iter().for_each(|frame| frame.write(&mut bytes));
            send(&bytes, None)
        }
    };
    for hidden in [SECRET, HIDDEN] {
        assert!(!holds(&answer, hidden.as_bytes()), "what no link leads to is shown");
    }
}

/// One connection to a server of its own, and whether the server ended it. Its client waits so long for the end of an
/// answer before it says that nothing more comes; without `wait` it says so right behind these bytes.
async fn visit(store: Store, proxies: Proxies, bytes: &[u8], wait: Option<Duration>) -> (Vec<u8>, bool) {
    let (near, far) = duplex(1 << 16);
    let stop = CancellationToken::new();
    let door = Door { proxies, ..Door::default() };
    let listener = One(Some((far, IpAddr::from([192, 0, 2, 1]))));
    let serving = tokio::spawn(server::serve(door, store, listener, stop.clone()));
    let answer = timeout(PATIENCE, exchange(near, bytes, wait)).await.expect("a connection that ends");
    stop.cancel();
    let served = timeout(PATIENCE, serving).await.expect("a server that stops");
    served.expect("a server without a panic").expect("a server");
    answer
}

async fn exchange(near: DuplexStream, bytes: &[u8], wait: Option<Duration>) -> (Vec<u8>, bool) {
    let (mut from, mut to) = tokio::io::split(near);
    let mut answer = Vec::new();
    let write = async {
        // The server may close before it has read all.
        let _ = to.write_all(bytes).await;
        if wait.is_none() {
            let _ = to.shutdown().await;
        }
        to
    };
    let (mut to, read) = tokio::join!(write, timeout(wait.unwrap_or(MOMENT), from.read_to_end(&mut answer)));
    if read.is_err() {
        let _ = to.shutdown().await;
        // A server may end in the middle of an answer to somebody who leaves.
        let _ = from.read_to_end(&mut answer).await;
    }
    (answer, read.is_ok() && wait.is_some())
}

/// Looks whether an answer is one to what was asked.
fn check(ask: &Ask, answer: &[u8]) {
    let Some(end) = answer.windows(4).position(|part| part == b"\r\n\r\n") else {
        assert!(answer.is_empty(), "an answer without an end of its head");
        return;
    };
    let (head_part, body) = (&answer[..end], &answer[end + 4..]);
    let text = std::str::from_utf8(head_part).expect("a head of ASCII");
    assert!(text.is_ascii() && text.starts_with("HTTP/1.1 "), "{text}");
    let status: u16 = text[9..12].parse().expect("a status");
    let known = [100, 200, 206, 304, 400, 404, 405, 410, 412, 413, 414, 416, 417, 429, 431, 501, 503, 505];
    assert!(known.contains(&status), "{text}");
    let is_head = METHODS[usize::from(ask.method) % METHODS.len()] == "HEAD";
    let length: Option<usize> = head(answer, "content-length").and_then(|length| length.parse().ok());
    if let (Some(length), false) = (length, is_head || status == 100) {
        assert_eq!(body.len(), length, "{text}");
    }
    match (status, head(answer, "content-range")) {
        (206, Some(range)) => part(range, body, is_head),
        (206, None) => panic!("a part without a range"),
        (200, _) if head(answer, "etag").is_some() && !is_head => {
            assert!(SITE.values.iter().any(|value| value == body), "a value that no link leads to");
        }
        _ => {}
    }
}

fn part(range: &str, body: &[u8], is_head: bool) {
    let numbers: Vec<usize> =
        range.trim_start_matches("bytes ").split(['-', '/']).map(|number| number.parse().expect("a number")).collect();
    let [first, last, size] = numbers[..] else { panic!("{range}") };
    assert!(first <= last && last < size && !is_head, "{range}");
    let is_of = |value: &Vec<u8>| value.len() == size && value[first..=last] == *body;
    assert!(SITE.values.iter().any(is_of), "another part than {range}");
}

/// The value of a head of an answer.
fn head<'a>(answer: &'a [u8], name: &str) -> Option<&'a str> {
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
    let lines = std::str::from_utf8(&answer[..end]).ok()?.lines();
    let mut heads = lines.filter_map(|line| line.split_once(": "));
    heads.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn holds(answer: &[u8], text: &[u8]) -> bool {
    answer.windows(text.len()).any(|part| part == text)
}
