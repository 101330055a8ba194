//! What fuzzing begins with: bytes of each kind as kvass writes them. What is only found by trying is not here.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use kvass_proto::frame::{self, Kind};
use kvass_proto::v1::{self, request::Command, sync_frame::Frame};
use kvassd::fuzz;
use kvassd::keys::{Key, SyncKey, Token};
use prost::Message;

use crate::place::{PEER, random};
use crate::{KEYS, key};

/// Before a target begins: where `FUZZ_SEEDS` names a directory, its seeds are written into that, and it ends.
pub fn begin(target: &str) {
    let Some(directory) = std::env::var_os("FUZZ_SEEDS").filter(|name| name != OsStr::new("")) else { return };
    let directory = Path::new(&directory);
    fs::create_dir_all(directory).expect("a directory");
    for (number, bytes) in seeds(target).into_iter().enumerate() {
        fs::write(directory.join(format!("seed-{number}")), bytes).expect("a file");
    }
    std::process::exit(0);
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "record" => PEER
            .records
            .iter()
            .map(|it| [&it.record.clear[..], &it.record.sealed, &it.record.auth.0].concat())
            .collect(),
        "rows" => rows(),
        "protobuf" => protobuf(),
        "frames" => frames(),
        "import" => import(),
        "arguments" => arguments(),
        "keys" => keys(),
        "link" => texts(LINKS),
        "proxy" => texts(PROXIES),
        "http" => requests().into_iter().chain(talks(5)).collect(),
        "session" => talks(4),
        "local" => talks(1),
        "remote" => talks(5),
        "handshake" | "chunks" | "blob" | "header" => talks(0),
        _ => Vec::new(),
    }
}

/// Long inputs for targets that read what is to be done from them, behind a beginning of so many bytes. An odd byte in
/// the place where a list may end means that it goes on, so these are of odd bytes: else few would say more than one
/// thing, and the fuzzer, which tries short inputs first, would hardly come to a second one.
fn talks(beginning: usize) -> Vec<Vec<u8>> {
    let random = random(11);
    let bytes = |length: usize| {
        let mut bytes = vec![0; beginning + length];
        random.fill(&mut bytes).expect("randomness");
        bytes[beginning..].iter_mut().for_each(|byte| *byte |= 1);
        bytes
    };
    [60, 200, 600, 1_500].into_iter().cycle().take(24).map(bytes).collect()
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const LINKS: &[&str] = &[
    "host",
    "Host.Example.:8000",
    "http://[2001:db8::1]:8000/",
    "https://kvass.example.org/~me/kvass//",
    "me@host/path?query#fragment",
    "http://host:8000/get?from=chat&q=000g40r40m30e209185gr38e1w#top",
    "000g40r40m30e209185gr38e1w",
    "2024-02-29T12:00:00.123456Z",
    "1996-12-19T16:39:57-08:00",
    "9999-12-31T23:59:60+00:00",
    "500ms",
    "10s",
    "2d",
];

const PROXIES: &[&str] = &[
    "abcd10.0.0.0/8, 2001:db8::/32\n1.1.1.1, 198.51.100.7, 97.98.99.100",
    "abcd97.98.99.0/24,::1\n198.51.100.7\nnonsense, [2001:dead::1]:4711",
    "abcd0.0.0.0/0\n[::ffff:1.2.3.4], 198.51.100.7:4711",
];

fn rows() -> Vec<Vec<u8>> {
    let records = PEER.records.iter().zip(1..);
    let mut rows: Vec<_> = records.map(|(it, seq)| fuzz::record_row(it.record.clone(), seq, KEYS.account())).collect();
    let value = |sealed: &Vec<u8>| [b"kvassV1\n", &[7; 32][..], &(sealed.len() as u16).to_be_bytes(), sealed].concat();
    rows.extend(PEER.records.iter().filter_map(|it| it.value.as_ref().map(value)));
    rows.push(fuzz::reads_row([7; 16], 3, KEYS.account()));
    rows
}

fn protobuf() -> Vec<Vec<u8>> {
    let record = |it: &kvassd::store::Travelling| v1::LogRecord {
        clear: it.record.clear.clone(),
        sealed: it.record.sealed.clone(),
        auth: it.record.auth.0.to_vec(),
        value: it.value.clone(),
        seq: 1,
    };
    let records = PEER.records.iter().take(2).map(record).collect();
    let log = v1::Log { records, run: Some(vec![4; 16]), seq: 2, number: 0 };
    let hello =
        v1::Hello { version: 1, store: vec![3; 16], run: vec![4; 16], clock_us: 5, public_url: "http://a".into() };
    let places = v1::Places { first: 3, last: 4 };
    let sync = [
        Frame::Hello(hello),
        Frame::Resume(v1::Resume { run: Some(vec![4; 16]), seq: 9, number: 1, all: true }),
        Frame::Acknowledge(v1::Acknowledge { seq: 2, beyond: vec![places], full: true }),
        Frame::BlobWant(v1::BlobWant { hash: vec![1; 32], offset: 4, length: 5 }),
        Frame::BlobPart(v1::BlobPart { hash: vec![1; 32].into(), offset: 4, data: vec![0; 9].into() }),
        Frame::Digest(v1::Digest { digest: vec![1; 32], head: 4, held: 5 }),
        Frame::End(v1::End { reason: 2 }),
        Frame::Log(log.clone()),
    ];
    let sync = sync.into_iter().map(|frame| (2, v1::SyncFrame { frame: Some(frame) }.encode_to_vec()));
    let header = v1::Header { name: "name".into(), content_key: vec![3; 32], token: vec![4; 16], reads: 5, pin: true };
    let mut grant = v1::Grant::default();
    (grant.target, grant.record_key, grant.reads) = (vec![1; 16], vec![2; 32], 3);
    let others = [(3, header.encode_to_vec()), (4, grant.encode_to_vec()), (5, log.encode_to_vec())];
    let requests = commands().into_iter().map(|command| (0, request(command).encode_to_vec()));
    sync.chain(others).chain(requests).map(|(which, bytes)| [vec![which], bytes].concat()).collect()
}

fn commands() -> Vec<Command> {
    vec![
        Command::Set(v1::Set {
            key: "name".into(),
            value: Some(b"value".to_vec()),
            size: None,
            expiry_us: 9,
            import: Some(v1::Import { time_us: 1, force: true, dry_run: true }),
        }),
        Command::List(v1::List { prefix: "a/".into(), detail: 2, reverse: true, terminator: 10 }),
        Command::Remove(v1::Remove { keys: vec!["a".into(), "b".into()], prefix: Some("c".into()) }),
        Command::Wait(v1::Wait { key: "name".into(), change: true, after: vec![1; 24] }),
        Command::MakeShare(v1::MakeShare { key: "name".into(), expiry_us: 1, reads: 2, pin: true }),
        Command::Join(v1::Join { key: vec![5; 32], remote: "http://host:8000".into() }),
        Command::Status(v1::StatusQuery {}),
    ]
}

fn request(command: Command) -> v1::Request {
    v1::Request {
        directory: "/home/me/.local/share/kvass".into(),
        version: "0.1.0".into(),
        notes: true,
        command: Some(command),
    }
}

fn frames() -> Vec<Vec<u8>> {
    let value = [&frame::header(Kind::Data, 5)[..], b"value", &frame::header(Kind::End, 0)].concat();
    let one = |command| [&[3][..], &frame::encode(&request(command)), &value].concat();
    commands().into_iter().map(one).collect()
}

fn import() -> Vec<Vec<u8>> {
    texts(&[
        "{\"kvass_export\":1}\n{\"key\":\"a\",\"size\":1,\"time\":\"2024-02-29T12:00:00.000001Z\",\"value\":\"x\"}\n{\"entries\":1}\n",
        "{\"key\":\"b\",\"size\":2,\"time\":\"2024-02-29T12:00:00Z\",\"expires\":\"2030-01-01T00:00:00Z\",\"value_base64\":\"/w==\"}\n",
        "{\"key\":\"c\",\"size\":4,\"part\":1,\"parts\":2,\"value_base64\":\"AAA=\"}\n{\"key\":\"c\",\"part\":2,\"parts\":2,\"value_base64\":\"AAA=\"}\n",
        "{\"key\":\"d\",\"value\":\"\\u0000\\ud83d\\ude00\",\"expires\":null}",
    ])
}

fn arguments() -> Vec<Vec<u8>> {
    texts(&[
        "0set\nname\n--wait=10s\n--\n-x",
        "0get\nname\n-o\nfile\n--fresh=1m\n--default\nx",
        "0ls\na/\n-lvr0\n-d\n:",
        "0rm\n--prefix\na/\n-f",
        "0url\nname\n--expires\n1h\n--reads\n3\n--pin",
        "0url\n--list\n--json",
        "0config\nremote\nhttps://host:8000",
        "0config\nkey\n--new",
        "0config\npublic-url\nhttps://host/a",
        "0join\nkvass-pair-0",
        "0run\n-e\nA=b\n--\ncmd\n-x",
        "0import\nfile\n--dry-run",
        "0completions\nbash",
        "0help\nset",
        "0sotre\n--quite",
        "0serve\n--bind\n0.0.0.0:8000",
        "1--db\n/a\n--server\n--bind\n0.0.0.0:9\n--proxy\n10.0.0.0/8\n--connections\n9",
        "1--db\n/a\n--value-max\n10MiB\n--reserve\n64M\n--log\ndebug",
        "1@T/a\n@Zyes\n@[0.0.0.0:9\n@_10.0.0.0/8",
        "1--tls-cert\na\n--tls-key\nb\n--server\n--db\n/a",
        "1--repair\n--on-demand",
        "1--version",
    ])
}

fn keys() -> Vec<Vec<u8>> {
    let server = Key::Server(SyncKey::derive(&key())).to_text().as_bytes().to_vec();
    let full = Key::Encryption(key()).to_text().as_bytes().to_vec();
    let token = Token::from_bytes(&[7; 16]).expect("a token").to_text().as_bytes().to_vec();
    let pair = b"kvass-pair-040020g30g2gc1r81450p30d1r7h048j2ca1a5gq30chm6rw3mf1yt3mehr3mbsfd1qq6x1ecnw62vbgdhjkme1g60rafjcx98".to_vec();
    vec![server, full, token, pair, [&[5; 32][..], b"http://host:8000"].concat()]
}

fn requests() -> Vec<Vec<u8>> {
    // No proxy, and the third of the four kinds of visits: bytes as they are.
    let raw = |bytes: &[u8]| [&[0, 0, 0, 0, 0x90][..], bytes].concat();
    vec![
        raw(b"GET /get?q=000g40r40m30e209185gr38e1w HTTP/1.1\r\nRange: bytes=0-1\r\nIf-Range: \"x\"\r\n\r\n"),
        raw(b"POST /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"),
        raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ]
}
