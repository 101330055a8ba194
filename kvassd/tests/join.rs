//! Joining the account of a remote: what the look at it finds, and what is so afterwards. Real daemons, real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::net::TcpListener;

use common::{Daemon, KEY, directory, eventually};
use kvass_proto::v1::{self, error::Code, link, reply::Reply, request::Command};

const OWN_KEY: [u8; 32] = [1; 32];

fn url(server: &Daemon) -> String {
    format!("http://{}", server.status().bind)
}

fn preview(device: &Daemon, url: &str, key: [u8; 32]) -> Result<v1::Previewed, v1::Error> {
    let mut client = device.connect();
    client.request(Command::Preview(v1::Preview { key: key.to_vec(), remote: url.into() }));
    loop {
        match client.reply() {
            Reply::Previewing(_) => {}
            Reply::Previewed(found) => return Ok(found),
            Reply::Error(error) => return Err(error),
            other => panic!("{other:?}"),
        }
    }
}

fn join(device: &Daemon, url: &str) -> Reply {
    device.ask(Command::Join(v1::Join { key: KEY.to_vec(), remote: url.into() }))
}

fn device() -> Daemon {
    Daemon::started(directory(), &[], OWN_KEY)
}

/// Names and whether the remote's is newer.
fn first(found: &v1::Previewed) -> Vec<(&str, bool)> {
    found.first.iter().map(|difference| (difference.key.as_str(), difference.remote_wins)).collect()
}

#[test]
fn a_preview_finds_what_differs_and_changes_nothing() {
    let (server, device) = (Daemon::server(), device());
    let large = vec![7; 100_000];
    for (name, value) in
        [("same", &b"x"[..]), ("empty", b""), ("theirs", b"old"), ("gone there", b"x"), ("large", &large)]
    {
        device.set(name, value);
    }
    server.set("ours", b"old");
    server.set("gone here", b"x");
    for (name, value) in
        [("same", &b"x"[..]), ("empty", b""), ("theirs", b"new"), ("gone there", b"x"), ("large", &large)]
    {
        server.set(name, value);
    }
    server.set("only there", b"x");
    device.set("only here", b"x");
    device.set("ours", b"new");
    device.set("gone here", b"x");
    device.remove("gone here");
    server.remove("gone there");
    device.set("gone on both", b"x");
    device.remove("gone on both");
    server.set("gone on both", b"y");
    server.remove("gone on both");

    let found = preview(&device, &url(&server), KEY).unwrap();
    let expected = [("gone here", false), ("gone there", true), ("large", true), ("ours", false), ("theirs", true)];
    assert_eq!((found.differing, first(&found)), (5, expected.to_vec()));

    assert_eq!((device.status().remote, device.get("only there")), (String::new(), None));
    assert_eq!((server.get("only here"), server.get("theirs").unwrap()), (None, b"new".to_vec()));
    assert_eq!(device.get("theirs").unwrap(), b"old");
}

#[test]
fn a_join_sets_key_and_remote_and_the_newer_of_each_wins() {
    let (server, device) = (Daemon::server(), device());
    device.set("theirs", b"old");
    server.set("theirs", b"new");
    server.set("ours", b"old");
    device.set("ours", b"new");
    device.set("only here", b"1");
    server.set("only there", b"2");
    let url = url(&server);
    let Reply::Config(config) = join(&device, &url) else { panic!("not joined") };
    assert_eq!((config.key, config.remote), (KEY.to_vec(), url.clone()));
    assert_eq!(config.fingerprint, server.status().fingerprint);
    device.sync();
    for store in [&device, &server] {
        for (name, value) in [("theirs", b"new"), ("ours", b"new")] {
            assert_eq!(store.get(name).unwrap(), value, "{name}");
        }
        assert_eq!((store.get("only here").unwrap(), store.get("only there").unwrap()), (b"1".to_vec(), b"2".to_vec()));
    }
    // Once more is no harm, and both are the same now.
    assert_eq!(preview(&device, &url, KEY).unwrap(), v1::Previewed { own: 4, ..v1::Previewed::default() });
    assert!(matches!(join(&device, &url), Reply::Config(_)));
    device.sync();
    let device = device.again(&[]);
    assert_eq!((device.status().remote, device.get("ours").unwrap()), (url, b"new".to_vec()));
    device.sync();
}

#[test]
fn many_differences_are_counted_and_the_first_twenty_named() {
    let (server, device) = (Daemon::server(), device());
    let names: Vec<_> = (0..50).map(|number| format!("k{number:02}")).collect();
    // Against their order, so that the first to come are the last by name.
    for name in names.iter().rev() {
        device.set(name, b"1");
        server.set(name, b"2");
    }
    let found = preview(&device, &url(&server), KEY).unwrap();
    assert_eq!(found.differing, 50);
    let expected: Vec<_> = names[..20].iter().map(|name| (name.as_str(), true)).collect();
    assert_eq!(first(&found), expected);
}

#[test]
fn a_store_that_was_never_written_to_has_nothing_that_differs() {
    let (server, device) = (Daemon::server(), device());
    server.set("k", b"v");
    assert_eq!(preview(&device, &url(&server), KEY), Ok(v1::Previewed::default()));
    join(&device, &url(&server));
    device.sync();
    assert_eq!(device.get("k").unwrap(), b"v");
}

#[test]
fn a_server_without_entries_is_looked_at_to_its_end() {
    let (server, device) = (Daemon::server(), device());
    device.set("k", b"v");
    let found = v1::Previewed { own: 1, ..v1::Previewed::default() };
    assert_eq!(preview(&device, &url(&server), KEY), Ok(found));
}

#[test]
fn a_remote_that_cannot_be_joined_is_told_and_nothing_changes() {
    let (server, device) = (Daemon::server(), device());
    device.set("k", b"v");
    let error = preview(&device, &url(&server), [2; 32]).unwrap_err();
    assert_eq!(error.code(), Code::Failed);
    assert_eq!(error.message, "the remote refuses: it has another key, or no protocol version in common");
    assert!(error.hint.contains("kvass pair"), "{}", error.hint);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = preview(&device, &format!("http://{closed}"), KEY).unwrap_err();
    assert_eq!(error.code(), Code::NotReached);
    assert_eq!(error.message, format!("nothing answers at http://{closed}"));
    let error = preview(&server, &url(&server), KEY).unwrap_err();
    assert_eq!((error.code(), error.message.as_str()), (Code::Failed, "the remote is this very store"));
    let short = Command::Preview(v1::Preview { key: vec![1; 31], remote: url(&server) });
    assert!(matches!(device.ask(short), Reply::Error(error) if error.code() == Code::BadInput));
    let nowhere = Command::Join(v1::Join { key: KEY.to_vec(), remote: String::new() });
    assert!(matches!(device.ask(nowhere), Reply::Error(error) if error.code() == Code::BadInput));
    assert_eq!((device.status().remote, device.get("k").unwrap()), (String::new(), b"v".to_vec()));
    assert_ne!(device.status().fingerprint, server.status().fingerprint);
}

#[test]
fn a_device_that_joins_leaves_its_old_remote() {
    let (old, new) = (Daemon::started(directory(), &["--server", "--bind", "127.0.0.1:0"], OWN_KEY), Daemon::server());
    let device = device();
    device.set("k", b"v");
    device.follow(&old);
    device.sync();
    new.set("n", b"1");
    assert!(matches!(join(&device, &url(&new)), Reply::Config(_)));
    device.sync();
    assert_eq!((new.get("k").unwrap(), device.get("n").unwrap()), (b"v".to_vec(), b"1".to_vec()));
    eventually("the new link", || (device.link().state() == link::State::Connected).then_some(()));
    device.set("later", b"x");
    device.sync();
    assert_eq!((old.get("later"), old.get("n"), old.get("k").unwrap()), (None, None, b"v".to_vec()));
}
