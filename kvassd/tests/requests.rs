//! What a daemon answers, over a real socket.
#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;

use common::{TestDaemon, VALUE_MAX, eventually};
use kvass_proto::frame::{self, DATA_MAX, Kind};
use kvass_proto::v1::error::Code;
use kvass_proto::v1::list::Detail;
use kvass_proto::v1::request::Command;
use kvass_proto::v1::{self, greeting, reply::Reply};

fn set_streamed(key: &str, size: Option<u64>) -> Command {
    Command::Set(v1::Set { key: key.into(), size, ..Default::default() })
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn the_greeting_says_who_the_daemon_is() {
    let daemon = TestDaemon::start();
    drop(daemon.connect());
    let greeting = common::Client::raw(&daemon.path()).greeting();
    assert_eq!(greeting.state(), greeting::State::Serving);
    assert_eq!(greeting.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(greeting.directory, daemon.path().to_str().unwrap());
    assert_eq!(greeting.process, std::process::id());
    assert_eq!(greeting.arguments, ["--flag"]);
    assert!(!greeting.on_demand);
}

#[test]
fn values_of_every_length_come_back_as_they_were_set() {
    let daemon = TestDaemon::start();
    for length in [0, 1, 4_096, 4_097, 65_536, 65_537, DATA_MAX, (1 << 20) - 1, (3 << 20) + 17] {
        let value = bytes(length);
        let mut client = daemon.connect();
        client.request(set_streamed("k", (length % 2 == 0).then_some(length as u64)));
        frame::write_data(&mut client.stream, &value).unwrap();
        frame::write_end(&mut client.stream).unwrap();
        assert!(matches!(client.reply(), Reply::Stored(_)));
        assert!(client.next().is_none(), "a connection carries one request");
        assert!(daemon.get("k").unwrap() == value, "{length} bytes");
    }
    daemon.set("inline", b"short");
    assert_eq!(daemon.get("inline").unwrap(), b"short");
    assert_eq!(daemon.get("missing"), None);
}

#[test]
fn a_set_that_is_cut_short_stores_nothing() {
    let daemon = TestDaemon::start();
    daemon.set("k", b"old");
    for how in [Shutdown::Write, Shutdown::Both] {
        let mut client = daemon.connect();
        client.request(set_streamed("k", None));
        frame::write_data(&mut client.stream, &bytes(100_000)).unwrap();
        client.stream.shutdown(how).unwrap();
        // The daemon has closed its side once it has seen the end.
        let _ = client.stream.read_to_end(&mut Vec::new());
        assert_eq!(daemon.get("k").unwrap(), b"old");
    }
}

#[test]
fn a_value_of_another_size_than_announced_is_refused() {
    let daemon = TestDaemon::start();
    let mut client = daemon.connect();
    client.request(set_streamed("k", Some(5)));
    frame::write_data(&mut client.stream, b"four").unwrap();
    frame::write_end(&mut client.stream).unwrap();
    assert_eq!(client.error().code(), Code::BadInput);
    assert_eq!(daemon.get("k"), None);
}

#[test]
fn a_value_over_the_limit_is_refused_before_it_is_read_and_the_client_can_read_why() {
    let daemon = TestDaemon::start();
    let mut client = daemon.connect();
    client.request(set_streamed("k", Some(VALUE_MAX + 1)));
    assert_eq!(client.error().code(), Code::TooLarge);
    assert!(client.next().is_none());

    let mut client = daemon.connect();
    client.request(set_streamed("k", None));
    let part = bytes(DATA_MAX);
    // Far more than the limit: the daemon closes somewhere on the way.
    let written = (0..1_000).try_for_each(|_| frame::write_data(&mut client.stream, &part));
    assert!(written.is_err(), "the daemon read all of it");
    assert_eq!(client.error().code(), Code::TooLarge);
    assert_eq!(daemon.get("k"), None);
}

#[test]
fn a_value_over_the_limit_is_refused_while_its_sender_pauses() {
    let daemon = TestDaemon::start();
    let mut client = daemon.connect();
    client.request(set_streamed("k", None));
    // The daemon may close before the last of it is written. Neither an end frame nor a closed connection follows.
    let _ = frame::write_data(&mut client.stream, &bytes(VALUE_MAX as usize + (400 << 10)));
    assert_eq!(client.error().code(), Code::TooLarge);
}

#[test]
fn another_directory_is_refused() {
    let daemon = TestDaemon::start();
    let mut client = daemon.connect();
    client.directory = "/nowhere".into();
    client.request(Command::Status(v1::StatusQuery {}));
    let error = client.error();
    assert_eq!(error.code(), Code::OtherDirectory);
    assert!(error.message.contains("/nowhere") && error.message.contains(daemon.path().to_str().unwrap()));
}

#[test]
fn the_same_directory_by_another_path_is_accepted() {
    let daemon = TestDaemon::start();
    let base = tempfile::tempdir().unwrap();
    let link = base.path().join("link");
    std::os::unix::fs::symlink(daemon.path(), &link).unwrap();
    let mut client = daemon.connect();
    client.directory = link.to_str().unwrap().into();
    client.request(Command::Status(v1::StatusQuery {}));
    assert!(matches!(client.reply(), Reply::Status(_)));
}

#[test]
fn a_request_that_the_daemon_does_not_know_is_named_so() {
    let daemon = TestDaemon::start();
    let mut client = daemon.connect();
    let request = v1::Request { directory: client.directory.clone(), version: "99".into(), ..Default::default() };
    frame::write_message(&mut client.stream, &request).unwrap();
    assert_eq!(client.error().code(), Code::UnknownRequest);
}

#[test]
fn bad_keys_are_refused() {
    let daemon = TestDaemon::start();
    for key in ["", "a\nb", &"x".repeat(1_025)] {
        for command in [
            Command::Get(v1::Get { key: key.into() }),
            Command::Set(v1::Set { key: key.into(), value: Some(Vec::new()), ..Default::default() }),
            Command::Remove(v1::Remove { keys: vec!["fine".into(), key.into()], prefix: None }),
            Command::Wait(v1::Wait { key: key.into(), ..Default::default() }),
        ] {
            let mut client = daemon.connect();
            client.request(command);
            assert_eq!(client.error().code(), Code::BadInput);
        }
    }
}

#[test]
fn garbage_and_oversized_frames_are_answered_by_an_error_and_a_clean_close() {
    let daemon = TestDaemon::start();
    let oversized = frame::header(Kind::Message, frame::MESSAGE_MAX + 1);
    let data = frame::header(Kind::Data, 3);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &oversized, &[0, 0, 0, 3, 0, 255, 255, 255], &data] {
        let mut client = daemon.connect();
        client.stream.write_all(garbage).unwrap();
        assert_eq!(client.error().code(), Code::BadInput);
        assert!(client.next().is_none());
    }
    assert_eq!(daemon.get("k"), None);
}

#[test]
fn removing_says_what_was_not_there() {
    let daemon = TestDaemon::start();
    daemon.set("a", b"1");
    daemon.set("n/b", b"2");
    daemon.set("n/c", b"3");
    let keys = vec!["a".into(), "missing".into(), "a".into()];
    let Reply::Removed(removed) = daemon.ask(Command::Remove(v1::Remove { keys, prefix: None })) else { panic!() };
    assert_eq!((removed.count, removed.missing), (1, vec!["missing".to_owned()]));
    let prefix = Some("n/".into());
    let Reply::Removed(removed) = daemon.ask(Command::Remove(v1::Remove { keys: vec![], prefix })) else { panic!() };
    assert_eq!(removed.count, 2);
}

#[test]
fn lists_of_many_keys_come_in_order_whatever_the_detail() {
    let daemon = TestDaemon::start();
    let names: Vec<_> = (0..1_203).map(|number| format!("n/{number:05}")).collect();
    for name in &names {
        daemon.set(name, name.as_bytes());
    }
    daemon.set("other", b"");
    let list =
        |detail: Detail, reverse| v1::List { prefix: "n/".into(), detail: detail.into(), reverse, terminator: 10 };

    let mut client = daemon.connect();
    client.request(Command::List(list(Detail::Names, false)));
    assert_eq!(String::from_utf8(client.data()).unwrap().lines().collect::<Vec<_>>(), names);

    let mut client = daemon.connect();
    client.request(Command::List(list(Detail::Entries, true)));
    let mut seen = Vec::new();
    while let (Kind::Message, payload) = client.frame().unwrap() {
        let Some(Reply::Listing(part)) = frame::decode::<v1::Reply>(&payload).unwrap().reply else { panic!() };
        seen.extend(part.entries.into_iter().map(|entry| entry.key));
    }
    assert!(seen.iter().rev().eq(&names));

    let mut client = daemon.connect();
    client.request(Command::List(list(Detail::Values, false)));
    for name in &names {
        let Reply::Value(value) = client.reply() else { panic!() };
        assert_eq!(value.entry.unwrap().key, *name);
        assert_eq!(value.inline.unwrap(), name.as_bytes());
    }
    assert_eq!(client.frame().unwrap().0, Kind::End);
}

#[test]
fn a_watch_sees_what_changes_and_goes_on_where_it_stopped() {
    let daemon = TestDaemon::start();
    daemon.set("n/before", b"");
    let watch = |after: &[u8]| Command::Watch(v1::Watch { prefix: "n/".into(), after: after.to_vec() });
    let mut client = daemon.connect();
    client.request(watch(b""));
    let Reply::Position(_) = client.reply() else { panic!() };
    daemon.set("other", b"");
    daemon.set("n/a", b"1");
    let Reply::Change(change) = client.reply() else { panic!() };
    assert_eq!((change.removed, change.entry.unwrap().key), (false, "n/a".to_owned()));
    drop(client);

    daemon.ask(Command::Remove(v1::Remove { keys: vec!["n/a".into()], prefix: None }));
    let mut client = daemon.connect();
    client.request(watch(&change.position));
    let Reply::Position(_) = client.reply() else { panic!() };
    let Reply::Change(change) = client.reply() else { panic!() };
    assert!(change.removed);
    assert_eq!(change.entry.unwrap().key, "n/a");
}

#[test]
fn a_wait_ends_when_the_key_exists_or_changes() {
    let daemon = TestDaemon::start();
    let wait = |change| Command::Wait(v1::Wait { key: "k".into(), change, ..Default::default() });
    let mut client = daemon.connect();
    client.request(wait(false));
    let Reply::Position(_) = client.reply() else { panic!() };
    daemon.set("other", b"");
    daemon.set("k", b"1");
    let Reply::Value(value) = client.reply() else { panic!() };
    assert_eq!(value.inline.unwrap(), b"1");

    let mut client = daemon.connect();
    client.request(wait(true));
    let Reply::Position(_) = client.reply() else { panic!() };
    daemon.ask(Command::Remove(v1::Remove { keys: vec!["k".into()], prefix: None }));
    assert_eq!(client.error().code(), Code::NoSuchKey);
}

#[test]
fn a_stop_ends_watches_answers_last_and_takes_the_socket_away() {
    let daemon = TestDaemon::start();
    let mut watching = daemon.connect();
    watching.request(Command::Watch(v1::Watch::default()));
    let Reply::Position(_) = watching.reply() else { panic!() };
    assert!(matches!(daemon.ask(Command::Stop(v1::Stop {})), Reply::Stopping(_)));
    assert!(!daemon.socket().exists());
    assert!(watching.next().is_none());
}

#[test]
fn what_has_begun_is_answered_and_nothing_new_is_taken_while_stopping() {
    let daemon = TestDaemon::start();
    let mut setting = daemon.connect();
    setting.request(set_streamed("k", None));
    frame::write_data(&mut setting.stream, &bytes(10)).unwrap();
    // Begun for certain only once a part of it has been taken: the rest fills more than the socket holds.
    frame::write_data(&mut setting.stream, &bytes(2 << 20)).unwrap();
    let mut idle = daemon.connect();
    let mut stopping = daemon.connect();
    stopping.request(Command::Stop(v1::Stop {}));
    assert_eq!(idle.greeting().state(), greeting::State::Stopping);
    assert!(idle.next().is_none());
    let mut late = common::Client::raw(&daemon.path());
    assert_eq!(late.greeting().state(), greeting::State::Stopping);
    assert!(late.next().is_none());
    frame::write_end(&mut setting.stream).unwrap();
    assert!(matches!(setting.reply(), Reply::Stored(_)));
    assert!(matches!(stopping.reply(), Reply::Stopping(_)));
}

#[test]
fn a_client_that_stops_reading_holds_nobody_up() {
    let daemon = TestDaemon::start();
    let value = bytes(4 << 20);
    let mut client = daemon.connect();
    client.request(set_streamed("large", None));
    frame::write_data(&mut client.stream, &value).unwrap();
    frame::write_end(&mut client.stream).unwrap();
    assert!(matches!(client.reply(), Reply::Stored(_)));

    let mut stuck: Vec<_> = (0..100).map(|_| daemon.connect()).collect();
    for client in &mut stuck {
        client.request(Command::Get(v1::Get { key: "large".into() }));
        let Reply::Value(_) = client.reply() else { panic!() };
    }
    assert!(daemon.get("large").unwrap() == value);
}

#[test]
fn settings_are_checked_before_they_reach_the_store() {
    let daemon = TestDaemon::start();
    let mut client = daemon.connect();
    client.request(Command::SetKey(v1::SetKey { key: vec![1; 31] }));
    assert_eq!(client.error().code(), Code::BadInput);
    let mut client = daemon.connect();
    client.request(Command::SetPid(v1::SetPid { pid: 0 }));
    assert_eq!(client.error().code(), Code::BadInput);
    assert!(matches!(daemon.ask(Command::Config(v1::ConfigQuery {})), Reply::Config(_)));
}

#[test]
fn a_check_reports_to_its_end() {
    let daemon = TestDaemon::start();
    daemon.set("k", b"v");
    let mut client = daemon.connect();
    client.request(Command::Check(v1::Check {}));
    eventually("the end of the check", || matches!(client.reply(), Reply::Checked(_)).then_some(()));
}
