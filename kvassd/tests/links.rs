//! Links as a client asks for them, over real sockets and between real daemons.
#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

mod common;

use std::fs::{self, File};

use common::{Daemon, KEY, Process, TestDaemon, directory, eventually};
use kvass_proto::v1::error::Code;
use kvass_proto::v1::request::Command;
use kvass_proto::v1::revoke_shares::Which;
use kvass_proto::v1::{self, reply::Reply, share::State};
use kvassd::keys::{EncryptionKey, SyncKey, Token, encode_hex};

const BASE: &str = "https://kv.example/x";

fn make(key: &str) -> v1::MakeShare {
    v1::MakeShare { key: key.into(), ..v1::MakeShare::default() }
}

fn made(reply: Reply) -> v1::Share {
    match reply {
        Reply::Shares(v1::Shares { mut shares, last: true }) if shares.len() == 1 => shares.remove(0),
        other => panic!("{other:?}"),
    }
}

fn failed(reply: Reply) -> v1::Error {
    match reply {
        Reply::Error(error) => error,
        other => panic!("{other:?}"),
    }
}

fn config(reply: Reply) -> v1::Config {
    match reply {
        Reply::Config(config) => config,
        other => panic!("{other:?}"),
    }
}

fn public_url(url: &str) -> Command {
    Command::SetPublicUrl(v1::SetPublicUrl { url: url.into() })
}

fn revoke(which: Which) -> Command {
    Command::RevokeShares(v1::RevokeShares { which: Some(which) })
}

fn list(key: &str) -> Command {
    Command::ListShares(v1::ListShares { key: key.into() })
}

#[test]
fn a_link_is_made_found_again_listed_and_revoked() {
    let daemon = TestDaemon::start();
    daemon.set("a", b"1");
    assert_eq!(failed(daemon.ask(Command::MakeShare(make("a")))).code(), Code::NoBase);
    assert_eq!(config(daemon.ask(public_url("HTTPS://kv.example:443/x/"))).public_url, BASE);
    let link = made(daemon.ask(Command::MakeShare(make("a"))));
    let token = link.url.strip_prefix(&format!("{BASE}/get?q=")).and_then(Token::from_text).unwrap();
    assert!(link.state() == State::Valid && link.key == "a");
    assert_eq!((link.reads, link.pin), (0, false));
    assert_eq!(link.token, token.as_bytes());
    assert_eq!(link.waiting, "there is no remote that could serve it");
    assert_eq!(made(daemon.ask(Command::MakeShare(make("a")))).url, link.url);

    let limited = v1::MakeShare { reads: 3, pin: true, expiry_us: 5, ..make("a") };
    let limited = made(daemon.ask(Command::MakeShare(limited)));
    assert!(limited.state() == State::Expired);
    assert_eq!((limited.reads, limited.pin, limited.expiry_us), (3, true, 5));
    let Reply::Shares(all) = daemon.ask(list("")) else { panic!("no list") };
    assert!(all.last && all.shares.len() == 2 && all.shares == [link.clone(), limited.clone()]);

    let Reply::Revoked(v1::Revoked { count: 1, .. }) = daemon.ask(revoke(Which::Token(link.token.clone()))) else {
        panic!("not revoked")
    };
    assert_eq!(failed(daemon.ask(revoke(Which::Token(link.token.clone())))).code(), Code::NoSuchLink);
    assert!(matches!(daemon.ask(revoke(Which::Key("a".into()))), Reply::Revoked(v1::Revoked { count: 1, .. })));
    assert!(matches!(daemon.ask(revoke(Which::Key("a".into()))), Reply::Revoked(v1::Revoked { count: 0, .. })));
    assert!(made(daemon.ask(Command::MakeShare(make("a")))).url != link.url);
}

#[test]
fn what_is_wrong_with_a_request_about_links_is_told() {
    let daemon = TestDaemon::start();
    daemon.ask(public_url(BASE));
    for (command, code) in [
        (Command::MakeShare(make("none")), Code::NoSuchKey),
        (Command::MakeShare(make("")), Code::BadInput),
        (Command::MakeShare(make("a\n")), Code::BadInput),
        (list("none"), Code::NoSuchKey),
        (list("a\n"), Code::BadInput),
        (revoke(Which::Key("none".into())), Code::NoSuchKey),
        (revoke(Which::Key(String::new())), Code::BadInput),
        (revoke(Which::Token(vec![1; 16])), Code::NoSuchLink),
        (revoke(Which::Token(vec![1; 15])), Code::BadInput),
        (Command::RevokeShares(v1::RevokeShares { which: None }), Code::BadInput),
        (public_url("kv.example"), Code::BadInput),
        (public_url("https://kv.example/?q"), Code::BadInput),
    ] {
        assert_eq!(failed(daemon.ask(command)).code(), code);
    }
    assert_eq!(config(daemon.ask(Command::Config(v1::ConfigQuery {}))).public_url, BASE, "it stays");
    assert_eq!(config(daemon.ask(public_url(""))).public_url, "");
}

#[test]
fn many_links_come_in_parts() {
    let daemon = TestDaemon::start();
    daemon.ask(public_url(BASE));
    daemon.set("a", b"1");
    for _ in 0..300 {
        made(daemon.ask(Command::MakeShare(v1::MakeShare { reads: 9, ..make("a") })));
    }
    let mut client = daemon.connect();
    client.request(list("a"));
    let mut counts = Vec::new();
    loop {
        let Reply::Shares(v1::Shares { shares, last }) = client.reply() else { panic!("no list") };
        counts.push(shares.len());
        if last {
            break;
        }
    }
    assert_eq!(counts, [250, 50]);
    assert!(client.next().is_none());
}

/// The server knows the server key alone, and says what stands before links.
#[test]
fn a_link_goes_by_the_servers_public_url_and_a_blind_server_makes_none() {
    let server = Daemon::server();
    let server_key = SyncKey::derive(&EncryptionKey::new(KEY)).to_text().to_string();
    let blind = v1::SetKey { server_key, confirmed: true, ..v1::SetKey::default() };
    config(server.ask(Command::SetKey(blind)));
    for command in [Command::MakeShare(make("a")), list(""), revoke(Which::Key("a".into()))] {
        assert_eq!(failed(server.ask(command)).code(), Code::Blind);
    }
    let (a, b) = (Daemon::device(), Daemon::device());
    a.set("a", b"1");
    a.follow(&server);
    b.follow(&server);
    a.sync();
    let address = a.status().remote;
    assert!(made(a.ask(Command::MakeShare(make("a")))).url.starts_with(&format!("{address}/get?q=")));
    config(server.ask(public_url(BASE)));
    let show = || config(a.ask(Command::Config(v1::ConfigQuery {}))).public_url;
    eventually("the public URL of the server", || (show() == BASE).then_some(()));
    a.sync();
    let link = made(a.ask(Command::MakeShare(make("a"))));
    assert!(link.url.starts_with(&format!("{BASE}/get?q=")) && link.waiting.is_empty(), "{}", link.waiting);
    b.sync();
    let Reply::Shares(there) = b.ask(list("a")) else { panic!("no list") };
    assert!(there.shares.len() == 1 && there.shares[0].token == link.token);
    b.remove("a");
    b.sync();
    a.sync();
    let Reply::Shares(here) = a.ask(list("")) else { panic!("no list") };
    assert!(here.shares.is_empty());
}

#[test]
fn a_link_that_the_remote_does_not_have_says_what_it_waits_for() {
    let (server, device) = (Daemon::server(), Daemon::device());
    device.set("a", b"1");
    device.follow(&server);
    device.sync();
    let link = made(device.ask(Command::MakeShare(make("a"))));
    device.sync();
    drop(server);
    eventually("the end of the session", || (device.link().state() != v1::link::State::Connected).then_some(()));
    assert_eq!(made(device.ask(Command::MakeShare(make("a")))), link, "the remote has it, whether it answers or not");
    device.set("b", b"2");
    let waiting = made(device.ask(Command::MakeShare(make("b")))).waiting;
    assert_eq!(waiting, "the remote does not have it, and is not connected");
    let revoked = |what| match device.ask(revoke(what)) {
        Reply::Revoked(revoked) => (revoked.count, revoked.waiting),
        other => panic!("{other:?}"),
    };
    let waiting = String::from("the remote does not know that yet, and is not connected");
    assert_eq!(revoked(Which::Token(link.token)), (1, waiting));
    device.ask(Command::SetRemote(v1::SetRemote::default()));
    assert_eq!(revoked(Which::Key("b".into())), (1, String::new()), "without a remote it works nowhere");
}

#[test]
fn no_token_is_logged_at_any_level() {
    let (directory, server) = (directory(), Daemon::server());
    let log = directory.path().join("log");
    let mut command = Process::command(directory.path());
    command.args(["--log", "trace"]).stderr(File::create(&log).unwrap());
    let device = Daemon { process: Process::spawn(&mut command), directory };
    config(device.ask(Command::SetKey(v1::SetKey { key: KEY.to_vec(), ..v1::SetKey::default() })));
    device.set("a", b"1");
    device.follow(&server);
    let link = made(device.ask(Command::MakeShare(make("a"))));
    device.ask(list("a"));
    device.sync();
    device.ask(revoke(Which::Token(link.token.clone())));
    failed(device.ask(revoke(Which::Token(link.token.clone()))));
    device.sync();
    assert!(matches!(device.ask(Command::Stop(v1::Stop {})), Reply::Stopping(_)));
    let text = fs::read_to_string(log).unwrap();
    let token = Token::from_bytes(&link.token).unwrap();
    assert!(text.contains("TRACE") || text.contains("DEBUG"), "nothing was logged");
    for secret in [token.to_text().to_string(), encode_hex(&link.token), format!("{:?}", link.token)] {
        assert!(!text.contains(&secret), "{secret}");
    }
}
