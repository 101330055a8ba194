//! Real daemons that sync over real sockets: devices and a server, with kills and wrong peers in between.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use common::{Client, Daemon, KEY, PATIENCE, Process, directory, eventually};
use kvass_proto::v1::{self, error::Code, link, reply::Reply, request::Command, sync::Goal};
use kvassd::keys::{EncryptionKey, SyncKey};

#[test]
fn a_write_on_one_device_is_on_the_others_also_after_kills_and_time_apart() {
    let server = Daemon::server();
    let (a, b) = (Daemon::device(), Daemon::device());
    a.set("before", b"set before the remote");
    a.follow(&server);
    b.follow(&server);
    a.sync();
    assert!(a.is_synced("before"));
    assert_eq!(server.get("before").unwrap(), b"set before the remote");
    b.sees("before", Some(b"set before the remote"));
    b.set("hello", b"world");
    a.sees("hello", Some(b"world"));
    server.set("from the server", b"x");
    a.sees("from the server", Some(b"x"));
    let large: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    a.set("large", &large);
    b.sees("large", Some(&large));
    // The acknowledgement may come after the value.
    eventually("nothing to be sent", || (a.link().pending == 0).then_some(()));
    assert_eq!(a.link().state(), link::State::Connected);

    // The server dies; both go on alone, and the newer write of one key wins.
    let server = server.again(&["--server", "--bind", "127.0.0.1:0"]);
    a.set("alone", b"older");
    b.set("alone", b"newer");
    a.set("only a", b"1");
    assert!(!a.is_synced("only a") && a.is_synced("before"));
    b.remove("hello");
    let (a, b) = (a.again(&[]), b.again(&[]));
    assert_eq!(a.get("only a").unwrap(), b"1");
    a.follow(&server);
    b.follow(&server);
    a.sync();
    b.sync();
    a.sync();
    let c = Daemon::device();
    c.follow(&server);
    c.sync();
    for device in [&a, &b, &c, &server] {
        assert_eq!(device.get("alone").unwrap(), b"newer");
        assert_eq!(device.get("only a").unwrap(), b"1");
        assert_eq!(device.get("hello"), None);
        assert_eq!(device.get("large").unwrap(), large);
    }
}

/// Gives a daemon the server key of an encryption key.
fn blind(daemon: &Daemon, key: [u8; 32], confirmed: bool) {
    let server_key = SyncKey::derive(&EncryptionKey::new(key)).to_text().to_string();
    let reply = daemon.ask(Command::SetKey(v1::SetKey { server_key, confirmed, ..v1::SetKey::default() }));
    let Reply::Config(config) = reply else { panic!("{reply:?}") };
    assert!(config.key.is_empty());
}

#[test]
fn a_blind_server_serves_devices_and_another_account_once_it_has_its_key() {
    let (server, a) = (Daemon::server(), Daemon::device());
    let b = Daemon::started(directory(), &[], KEY);
    blind(&server, KEY, false);
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    a.set("small", b"1");
    a.set("large", &large);
    a.set("removed", b"x");
    a.remove("removed");
    a.follow(&server);
    a.sync();
    let Reply::Error(error) = server.ask(Command::Get(v1::Get { key: "small".into() })) else { panic!("it was read") };
    assert_eq!(error.code(), Code::Blind);
    let status = server.status();
    assert!(status.blind && status.fingerprint == a.status().fingerprint);
    assert_eq!((status.keys, status.records), (2, 3));
    b.follow(&server);
    b.sync();
    assert_eq!((b.get("small").unwrap(), b.get("large").unwrap(), b.get("removed")), (b"1".to_vec(), large, None));
    b.set("small", b"2");
    a.sees("small", Some(b"2"));

    // The sessions of the account that goes end, and another one's begin.
    let stranger = Daemon::started(directory(), &[], [1; 32]);
    stranger.set("x", b"y");
    stranger.set_remote(&format!("http://{}", server.status().bind));
    blind(&server, [1; 32], true);
    eventually("a link that is blocked", || (a.link().state() == link::State::Blocked).then_some(()));
    stranger.sync();
    assert_eq!((server.status().keys, server.status().records), (1, 1));
    // And as a device of that account it reads.
    let key = v1::SetKey { key: vec![1; 32], ..v1::SetKey::default() };
    assert!(matches!(server.ask(Command::SetKey(key)), Reply::Config(_)));
    assert_eq!(server.get("x").unwrap(), b"y");
    server.set("from the server", b"z");
    stranger.sees("from the server", Some(b"z"));
    assert_eq!(a.get("small").unwrap(), b"2");
}

#[test]
fn another_key_is_refused_before_anything_is_exchanged() {
    let server = Daemon::server();
    let stranger = Daemon::started(directory(), &[], [1; 32]);
    server.set("secret", b"s");
    stranger.set("x", b"1");
    let set = stranger.set_remote(&format!("http://{}", server.status().bind));
    assert!(!set.reached);
    assert_eq!(set.found, "the remote refuses: it has another key, or no protocol version in common");
    assert!(set.hint.contains("Fingerprint"), "{}", set.hint);
    let link = eventually("a link that is blocked", || {
        Some(stranger.link()).filter(|link| link.state() == link::State::Blocked)
    });
    assert_eq!(link.error, set.found);
    assert_eq!((stranger.get("secret"), server.get("x")), (None, None));
    // Whoever asks for a sync is not told of the last attempt, but of the next.
    let mut client = Client::connect(&stranger.path());
    client.request(Command::Sync(v1::Sync::default()));
    let Reply::Syncing(syncing) = client.reply() else { panic!("no progress") };
    let now = syncing.link.unwrap();
    assert!(now.state() != link::State::Blocked || now.since_us > link.since_us, "{now:?}");
    drop(client);
    eventually("a link that is blocked again", || (stranger.link().state() == link::State::Blocked).then_some(()));
    // The right key mends it, with no restart and nobody asking.
    stranger.ask(Command::SetKey(v1::SetKey { key: KEY.to_vec(), ..v1::SetKey::default() }));
    eventually("a link", || (stranger.link().state() == link::State::Connected).then_some(()));
    assert_eq!(stranger.link().error, "");
    stranger.sync();
    assert_eq!((stranger.get("secret").unwrap(), server.get("x").unwrap()), (b"s".to_vec(), b"1".to_vec()));
}

/// The address of something that takes each connection, says some words and ends it.
fn speaking(words: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1_024]);
            let _ = stream.write_all(words);
            // To close with bytes unread would take back what was said.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    address
}

#[test]
fn a_remote_that_is_something_else_is_named_and_local_commands_go_on() {
    let device = Daemon::device();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let web = speaking(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let (ssh, silent) = (speaking(b"SSH-2.0-OpenSSH_10.0\r\n"), speaking(b""));
    let mail = speaking(b"220 mail.example ESMTP\r\n");
    for (remote, found, hint) in [
        (format!("http://{closed}"), format!("nothing answers at http://{closed}"), "kvass serve has 8000"),
        (format!("http://{web}"), format!("http://{web} is no kvassd server, but a web server"), "https://"),
        (format!("http://{ssh}"), format!("http://{ssh} is no kvassd server, but an SSH server"), ""),
        (format!("http://{mail}"), format!("http://{mail} is no kvassd server, but something else"), ""),
        (format!("http://{silent}"), format!("http://{silent} ends the connection before it has answered"), ""),
        ("http://nothing.invalid".into(), "the name nothing.invalid does not resolve".into(), ""),
    ] {
        let set = device.set_remote(&remote);
        assert!(!set.reached);
        assert_eq!(set.found, found);
        assert!(set.hint.contains(hint), "{found}: {}", set.hint);
        device.set("x", remote.as_bytes());
        assert_eq!(device.get("x").unwrap(), remote.as_bytes());
        assert!(device.link().pending > 0);
    }
    assert_eq!(device.set_remote(""), v1::RemoteSet::default());
    assert_eq!(device.status().link, None);
    let Reply::Error(error) = device.ask(Command::Sync(v1::Sync::default())) else { panic!("no error") };
    assert_eq!((error.code(), error.message.as_str()), (Code::NoRemote, "there is no remote"));
}

#[test]
fn a_black_hole_is_given_up_and_keeps_nobody_waiting() {
    let device = Daemon::device();
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hole.local_addr().unwrap();
    let set = device.set_remote(&format!("http://{address}"));
    assert!(!set.reached);
    assert!(set.found.ends_with("does not answer in time"), "{}", set.found);
    device.set("x", b"1");
    assert_eq!(device.get("x").unwrap(), b"1");
}

#[test]
fn a_remote_whose_disk_is_full_is_named_and_goes_on_when_there_is_space() {
    let (server, device) = (Daemon::server(), Daemon::device());
    let server = server.again(&["--server", "--bind", "127.0.0.1:0", "--reserve", "1000000G"]);
    device.set("x", b"1");
    device.follow(&server);
    eventually("why nothing is sent", || (device.link().error == "the disk of the other side is full").then_some(()));
    assert_eq!(device.link().pending, 1);
    let server = server.again(&["--server", "--bind", "127.0.0.1:0"]);
    device.follow(&server);
    device.sync();
    assert_eq!(server.get("x").unwrap(), b"1");
    assert_eq!(device.link().error, "");
}

#[test]
fn garbage_before_the_handshake_ends_the_connection_and_not_the_server() {
    let server = Daemon::server();
    for garbage in [&b"\0\xff garbage"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 100_000]] {
        let mut stream = std::net::TcpStream::connect(&server.status().bind).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may close in the middle of it.
        let _ = stream.write_all(garbage);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let device = Daemon::device();
    device.follow(&server);
    device.set("x", b"1");
    server.sees("x", Some(b"1"));
}

#[test]
fn an_address_that_is_taken_is_named() {
    let server = Daemon::server();
    let other = directory();
    let bind = server.status().bind;
    let mut second = Process::start(other.path(), &["--server", "--bind", &bind, "--log", "error"]);
    assert_eq!(second.ended().code(), Some(3));
    let words = second.stderr();
    assert!(words.contains(&format!("devices cannot be accepted at {bind}")), "{words}");
}

#[test]
fn a_wait_for_an_entry_ends_once_the_remote_holds_it_also_as_removed() {
    let server = Daemon::server();
    let bind = server.status().bind;
    let device = Daemon::device();
    device.follow(&server);
    device.set("k", b"1");
    device.wait_held("k");
    assert_eq!(server.get("k").unwrap(), b"1");
    device.remove("k");
    device.wait_held("k");
    assert_eq!(server.get("k"), None);

    let mut server = server;
    server.process.child.kill().unwrap();
    server.process.child.wait().unwrap();
    device.set("k", b"2");
    let mut client = Client::connect(&device.path());
    client.request(Command::Sync(v1::Sync { goal: Goal::Held.into(), key: "k".into() }));
    let Reply::Syncing(syncing) = client.reply() else { panic!("no progress") };
    assert_eq!(syncing.pending, 1);
    let server = Daemon::started(server.directory, &["--server", "--bind", &bind], KEY);
    eventually("the end of the wait", || matches!(client.reply(), Reply::Synced(_)).then_some(()));
    assert_eq!(server.get("k").unwrap(), b"2");
}

#[test]
fn a_wait_for_what_the_remote_has_needs_nothing_of_this_device_to_be_there() {
    let server = Daemon::server();
    let device = Daemon::device();
    device.follow(&server);
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 241) as u8).collect();
    for round in 0..10_u8 {
        server.set("small", &[round]);
        server.set("large", &large[usize::from(round)..]);
        device.take();
        assert_eq!(device.get("small").unwrap(), [round]);
        assert!(device.get("large").unwrap() == large[usize::from(round)..], "round {round}");
    }
}

#[test]
fn a_wait_for_nothing_that_is_known_is_refused() {
    let device = Daemon::device();
    let ask = |sync| match device.ask(Command::Sync(sync)) {
        Reply::Error(error) => (error.code(), error.message),
        other => panic!("{other:?}"),
    };
    let (code, message) = ask(v1::Sync { goal: 99, ..v1::Sync::default() });
    assert_eq!((code, message.as_str()), (Code::UnknownRequest, "the daemon does not know this kind of sync"));
    assert_eq!(ask(v1::Sync { goal: Goal::Held.into(), key: String::new() }).0, Code::BadInput);
    for goal in [Goal::Held, Goal::Taken] {
        assert_eq!(ask(v1::Sync { goal: goal.into(), key: "k".into() }).0, Code::NoRemote);
    }
}

#[test]
fn another_remote_gets_everything_and_what_waits_for_it_is_told() {
    let (first, second) = (Daemon::server(), Daemon::server());
    let device = Daemon::device();
    device.set("a", b"1");
    device.set("b", b"2");
    device.remove("b");
    device.follow(&first);
    device.sync();
    assert_eq!(device.link().pending, 0);
    let device = device.restarted(&[]);
    device.sync();

    // Nothing answers there: what the first one holds is not at the second.
    let before = device.status().started_us;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    device.set_remote(&format!("http://{closed}"));
    let link = device.link();
    assert_eq!(link.pending, 2);
    assert!(link.oldest_us > before, "changes wait for a remote since it is the remote");
    assert!(!device.is_synced("a"));
    let device = device.restarted(&[]);
    assert_eq!((device.link().pending, device.link().oldest_us), (2, link.oldest_us));

    device.follow(&second);
    device.sync();
    assert_eq!((second.get("a").unwrap(), second.get("b")), (b"1".to_vec(), None));
    assert!(device.is_synced("a"));

    // What is acknowledged stays so across a restart, also where the remote is away.
    drop(second);
    let device = device.restarted(&[]);
    assert_eq!((device.link().pending, device.link().oldest_us), (0, 0));
    assert!(device.is_synced("a"));
}

#[test]
fn a_server_that_lost_its_store_gets_everything_again() {
    let server = Daemon::server();
    let bind = server.status().bind;
    let device = Daemon::device();
    device.set("a", b"1");
    device.follow(&server);
    device.sync();
    drop(server);
    let server = Daemon::started(directory(), &["--server", "--bind", &bind], KEY);
    server.set("b", b"2");
    device.sync();
    assert_eq!((server.get("a").unwrap(), device.get("b").unwrap()), (b"1".to_vec(), b"2".to_vec()));
    assert_eq!(device.link().pending, 0);
}

#[test]
fn a_blocked_link_is_told_once_an_hour_before_an_answer_to_clients_that_show_it() {
    let server = Daemon::server();
    let stranger = Daemon::started(directory(), &[], [1; 32]);
    stranger.set("k", b"v");
    stranger.set_remote(&format!("http://{}", server.status().bind));
    eventually("a link that is blocked", || (stranger.link().state() == link::State::Blocked).then_some(()));
    let get = Command::Get(v1::Get { key: "k".into() });
    let ask = |notes, command: &Command| {
        let mut client = Client::connect(&stranger.path());
        let (directory, command) = (client.directory.clone(), Some(command.clone()));
        let request = v1::Request { directory, notes, command, ..v1::Request::default() };
        kvass_proto::frame::write_message(&mut client.stream, &request).unwrap();
        (client.reply(), client)
    };
    assert!(matches!(ask(false, &get).0, Reply::Value(_)));
    for shown in [Command::Status(v1::StatusQuery {}), Command::Config(v1::ConfigQuery {})] {
        assert!(matches!(ask(true, &shown).0, Reply::Status(_) | Reply::Config(_)));
    }
    let (Reply::Note(note), mut client) = ask(true, &get) else { panic!("no note") };
    assert_eq!(
        note.text,
        "not in step with the remote: the remote refuses: it has another key, or no protocol version in common; \
         'kvass status' tells more"
    );
    assert!(matches!(client.reply(), Reply::Value(_)));
    assert!(matches!(ask(true, &get).0, Reply::Value(_)), "once an hour");
}
