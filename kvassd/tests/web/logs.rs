//! Tokens and names reach no log.

use std::io::{Read, Write};

use crate::program::Program;
use crate::site::{ask, bytes, connect, send};

/// A request of HTTP/2 whose path is no path: the token stands where its library complains.
fn wrong_path(path: &str) -> Vec<u8> {
    let literal = |index: u8, value: &str| [&[index, value.len() as u8], value.as_bytes()].concat();
    // `:method GET` and `:scheme http` of the static table, then `:path` and `:authority` as literals.
    let fields = [vec![0x82, 0x86], literal(0x04, path), literal(0x01, "server")].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    [&preface[..], &[0, 0, fields.len() as u8, 1, 5, 0, 0, 0, 1], &fields].concat()
}

#[test]
fn tokens_and_names_reach_no_log_however_much_is_logged() {
    let program = Program::serving(&[("a name of a key", b"value")], &["--log", "trace"]);
    let link = program.links[0].clone();
    let token = link.strip_prefix("/get?q=").unwrap();
    for (method, headers) in
        [("GET", &[][..]), ("HEAD", &[]), ("POST", &[("Content-Length", "0")]), ("GET", &[("Range", "bytes=9-")])]
    {
        ask(program.address, method, &link, headers);
    }
    ask(program.address, "GET", &format!("/elsewhere?q={token}"), &[]);
    for said in [
        format!("GET {link} \r\n\r\n").into_bytes(),
        format!("GET {link} HTTP/1.1\r\n{token}\r\n\r\n").into_bytes(),
        wrong_path(&link),
        wrong_path(&format!("{token}?\u{1}")),
    ] {
        let mut wire = connect(program.address);
        wire.write_all(&said).unwrap();
        wire.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = wire.read_to_end(&mut Vec::new());
    }
    let log = program.ended();
    assert!(log.contains("DEBUG") && log.contains("a connection"), "nothing is logged: {log}");
    for secret in [token, "a name of a key", "/get"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

/// A stranger with a link could fill the log otherwise.
#[test]
fn a_value_that_cannot_be_read_is_logged_once_however_often_it_is_asked_for() {
    let value = bytes(300_000);
    let program = Program::serving(&[("film.mp4", &value)], &[]);
    let blob = std::fs::read_dir(program.directory().join("blobs")).unwrap().next().unwrap().unwrap().path();
    let get = || {
        let mut wire = connect(program.address);
        send(&mut wire, "GET", &program.links[0], &[("Connection", "close")]);
        let mut answer = Vec::new();
        let _ = wire.read_to_end(&mut answer);
        answer
    };
    let file = std::fs::File::options().write(true).open(&blob).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damage", 200_000).unwrap();
    for _ in 0..3 {
        let answer = get();
        assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.len() < value.len());
    }
    std::fs::remove_file(&blob).unwrap();
    for _ in 0..3 {
        assert!(get().starts_with(b"HTTP/1.1 503 "));
    }
    let log = program.ended();
    for said in ["a value that a link leads to cannot be read on", "a value that a link leads to cannot be read what"] {
        assert_eq!(log.matches(said).count(), 1, "{said}:\n{log}");
    }
}
