//! The commands that have to do with a remote, against daemons that follow a script.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test program")]

mod common;

use std::fs;
use std::path::Path;

use common::{Fake, Installed, Run, entry, error, kvass, on_terminal, run, script};
use kvass_proto::v1::link::State;
use kvass_proto::v1::{self, Link, Listing, Syncing, error::Code, reply::Reply, request::Command};

const TIME: u64 = 951_782_399_000_001;

fn link(state: State, error: &str) -> Link {
    Link { state: state.into(), since_us: TIME, error: error.into(), ..Link::default() }
}

/// Sets a remote at a daemon that has to be sent `url`, and finds `found`.
fn set_remote(arguments: &[&str], url: &'static str, found: v1::RemoteSet) -> Run {
    let fake = Fake::new(vec![script(move |peer| {
        assert!(matches!(peer.request(), Command::SetRemote(set) if set.remote == url));
        peer.greet().reply(Reply::RemoteSet(found));
    })]);
    let run = fake.kvass(&[&["config", "remote"], arguments].concat());
    fake.done();
    run
}

#[test]
fn a_remote_is_sent_as_a_url_and_what_was_found_is_shown() {
    let found = || v1::RemoteSet { reached: true, found: "kvassd 1.2.3, the same key".into(), hint: String::new() };
    for (typed, url) in [
        ("host", "http://host:80"),
        ("host:8000", "http://host:8000"),
        ("https://host/", "https://host:443"),
        ("[::1]:8000", "http://[::1]:8000"),
    ] {
        assert_eq!(set_remote(&[typed], url, found()).ok().text(), "kvassd 1.2.3, the same key\n");
    }
    assert_eq!(set_remote(&[""], "", v1::RemoteSet::default()).ok().text(), "");
}

#[test]
fn a_remote_that_is_not_reached_is_set_all_the_same() {
    let found = || v1::RemoteSet {
        reached: false,
        found: "nothing answers\nat port 80".into(),
        hint: "a kvassd answers at port 8000: kvass config remote host:8000".into(),
    };
    let set = set_remote(&["host"], "http://host:80", found());
    assert_eq!((set.code, set.text()), (0, "nothing answers at port 80\n"));
    assert_eq!(set.stderr, "kvass: a kvassd answers at port 8000: kvass config remote host:8000\n");
    set_remote(&["host", "-q"], "http://host:80", found()).ok();
}

#[test]
fn the_present_remote_is_shown() {
    let config = |remote: &str| Reply::Config(v1::Config { remote: remote.into(), ..v1::Config::default() });
    let url = "http://host:8000";
    assert_eq!(Fake::answering(config(url)).kvass(&["config", "remote"]).ok().text(), "http://host:8000\n");
    assert_eq!(Fake::answering(config("")).kvass(&["config", "remote"]).ok().text(), "(None)\n");
    let shown = Fake::answering(config(url)).kvass(&["config", "show"]).ok();
    assert!(shown.text().contains("\nRemote: http://host:8000\n"), "{}", shown.text());
}

#[test]
fn what_is_no_remote_is_told_with_the_part_that_is_wrong() {
    for (typed, says) in [
        ("ftp://host", "'ftp://' is no scheme for a remote: that is http:// or https://"),
        ("me:secret@host", "a remote is a host and a port, without a user: 'me@'"),
        ("host/kvass", "a remote is a host and a port, without a path: '/kvass'"),
        ("host?a=b", "a remote is a host and a port, without a query: '?a=b'"),
        ("host#a", "a remote is a host and a port, without a fragment: '#a'"),
        (":8000", "':8000' names no host"),
        ("a b", "'a b' is no host: that is a name, an IPv4 address, or an IPv6 address in brackets"),
        ("::1", "an IPv6 address stands in brackets: [::1]"),
        ("[host]", "'host' is no IPv6 address"),
        ("host:65536", "'65536' is no port: that is a number from 1 to 65535"),
    ] {
        run(kvass(Path::new("/nonexistent/kvass")).args(["config", "remote", typed]))
            .fails(2, &format!("kvass: {says}\nhint: kvass help config\n"));
    }
}

#[test]
fn a_remote_that_the_daemon_refuses_is_an_error_and_a_lost_answer_says_so() {
    let refused = Fake::answering(error(Code::BadInput, "https is not supported yet"));
    refused
        .kvass(&["config", "remote", "https://host"])
        .fails(2, "kvass: https is not supported yet: a cause\nhint: a hint\n");
    let lost = Fake::new(vec![script(|peer| {
        peer.request();
        peer.greet();
    })]);
    lost.kvass(&["config", "remote", "host"]).fails(
        3,
        "kvass: kvassd went away without an answer; the change may have been stored\n\
         hint: try again; `kvass doctor` looks into it\n",
    );
}

fn syncing(pending: u64, link: Link) -> Reply {
    Reply::Syncing(Syncing { pending, link: Some(link) })
}

#[test]
fn a_sync_ends_when_both_hold_the_same() {
    let fake = || {
        Fake::new(vec![script(|peer| {
            assert!(matches!(peer.request(), Command::Sync(_)));
            peer.greet().reply(syncing(12, link(State::Connecting, ""))).reply(syncing(1, link(State::Connected, "")));
            peer.reply(syncing(0, link(State::Connected, ""))).reply(Reply::Synced(v1::Synced {}));
        })])
    };
    assert_eq!(fake().kvass(&["sync"]).ok().text(), "");
    assert_eq!(fake().kvass(&["sync", "--timeout", "10s"]).ok().text(), "");
    let (shown, code) = on_terminal(&fake(), &["sync"], "\0", "");
    let lines = [
        "\r12 changes to go (connecting)\u{1b}[K",
        "\r1 change to go\u{1b}[K",
        "\rtaking what the remote has\u{1b}[K",
        "\r\u{1b}[K",
    ];
    assert_eq!((shown, code), (lines.concat(), 0));
    assert_eq!(on_terminal(&fake(), &["sync", "-q"], "\0", ""), (String::new(), 0));
}

#[test]
fn a_sync_that_takes_too_long_says_what_went_wrong_last() {
    let fake = |error: &'static str| {
        Fake::new(vec![script(move |peer| {
            peer.greet().reply(syncing(3, link(State::Waiting, error))).hold();
        })])
    };
    fake("host:8000: connection refused")
        .kvass(&["sync", "--timeout", "1s"])
        .fails(4, "kvass: not synced within 1 s: host:8000: connection refused\n");
    fake("").kvass(&["sync", "--timeout", "200ms"]).fails(4, "kvass: not synced within 200 ms\n");
    let silent = Fake::new(vec![script(|peer| peer.greet().hold())]);
    silent.kvass(&["sync", "--timeout", "200ms"]).fails(4, "kvass: not synced within 200 ms\n");
    silent.done();
}

#[test]
fn a_sync_that_cannot_succeed_ends_at_once() {
    let blocked = Fake::new(vec![script(|peer| {
        peer.greet().reply(syncing(3, link(State::Blocked, "the remote has another key"))).hold();
    })]);
    blocked.kvass(&["sync", "--timeout", "1h"]).fails(4, "kvass: cannot sync: the remote has another key\n");
    let none = v1::Error { code: Code::NoRemote.into(), message: "no remote is set".into(), ..v1::Error::default() };
    Fake::answering(Reply::Error(none))
        .kvass(&["sync"])
        .fails(4, "kvass: no remote is set\nhint: name one: kvass config remote HOST\n");
    Fake::answering(error(Code::NoRemote, "no remote is set"))
        .kvass(&["sync"])
        .fails(4, "kvass: no remote is set: a cause\nhint: a hint\n");
    Fake::answering(error(Code::Failed, "it failed"))
        .kvass(&["sync"])
        .fails(3, "kvass: it failed: a cause\nhint: a hint\n");
}

#[test]
fn a_sync_goes_on_with_the_next_daemon() {
    let fake = Fake::new(vec![
        script(|peer| {
            peer.request();
            peer.greet().reply(syncing(3, link(State::Connected, "")));
        }),
        script(|peer| _ = peer.greet().reply(error(Code::Stopping, "kvassd is stopping"))),
        script(|peer| _ = peer.greet().reply(Reply::Synced(v1::Synced {}))),
    ]);
    fake.kvass(&["sync"]).ok();
    fake.done();
}

fn status(link: Option<Link>, bind: &str) -> Fake {
    let remote = if link.is_some() { "http://host:8000" } else { "" };
    Fake::answering(Reply::Status(v1::Status {
        remote: remote.into(),
        link,
        bind: bind.into(),
        ..v1::Status::default()
    }))
}

#[test]
fn a_status_says_how_it_stands_with_the_remote() {
    let shown = |link: Link| {
        let run = status(Some(link), "").kvass(&["status"]).ok();
        run.text().split_once("Remote:      http://host:8000\n").unwrap().1.to_owned()
    };
    let since = "2000-02-28T23:59:59Z";
    assert_eq!(
        shown(Link { pending: 1, skew_us: -1_500_000, ..link(State::Connected, "") }),
        format!("Link:        connected since {since}\nNot sent:    1 change\nIts clock:   1.500 s behind\n")
    );
    let troubled = shown(Link { differs: true, full: true, ..link(State::Connected, "") });
    assert!(
        troubled.ends_with(
            "Differs:     the remote holds other records, though all are sent; run 'kvass doctor' on both\n\
             Disk:        full; nothing is taken from the remote until there is space\n"
        ),
        "{troubled}"
    );
    let none = "Not sent:    0 changes\n";
    assert_eq!(shown(link(State::Connecting, "")), format!("Link:        connecting since {since}\n{none}"));
    assert_eq!(shown(link(State::Waiting, "")), format!("Link:        waiting since {since}\n{none}"));
    assert_eq!(shown(link(State::Waiting, "a\nb")), format!("Link:        waiting since {since}: a b\n{none}"));
    let blocked = Link { hint: "set\nanother".into(), ..link(State::Blocked, "other key") };
    assert_eq!(
        shown(blocked),
        format!("Link:        blocked since {since}: other key\nMend:        set another\n{none}")
    );
    let waiting = |pending| Link { pending, oldest_us: TIME + 61_000_000, ..link(State::Waiting, "") };
    let oldest = "2000-02-29T00:01:00Z";
    assert!(shown(waiting(1)).ends_with(&format!("Not sent:    1 change, since {oldest}\n")));
    assert!(shown(waiting(2)).ends_with(&format!("Not sent:    2 changes, the oldest since {oldest}\n")));
    let server = status(None, "0.0.0.0:8000").kvass(&["status"]).ok();
    assert!(server.text().ends_with("Remote:      none\nServing at:  0.0.0.0:8000\n"), "{}", server.text());
}

#[test]
fn clocks_that_are_a_minute_apart_are_warned_about() {
    let fake = |skew_us| status(Some(Link { skew_us, ..link(State::Connected, "") }), "");
    fake(59_999_999).kvass(&["status"]).ok();
    fake(60_000_000).kvass(&["status", "-q"]).ok();
    let warned = fake(-3_660_000_000).kvass(&["status"]);
    assert!(warned.written().contains("Its clock:   1 h 1 min behind\n"), "{}", warned.text());
    assert_eq!(
        warned.stderr,
        "kvass: the remote's clock is 1 h 1 min behind, so that an older write may win: \
         set the clock that is wrong, as with `timedatectl set-ntp true`\n"
    );
}

#[test]
fn a_status_has_fields_for_the_link() {
    let object = |link: Option<Link>, bind: &str| -> serde_json::Value {
        serde_json::from_str(status(link, bind).kvass(&["status", "--json"]).ok().text()).unwrap()
    };
    let waiting = link(State::Waiting, "refused");
    let waiting = Link { pending: 4, oldest_us: TIME + 1, skew_us: -5, hint: "mend it".into(), ..waiting };
    let shown = object(Some(waiting), "");
    let names = ["remote", "link", "since", "error", "mend", "pending", "pending_since", "skew_us"];
    let (since, oldest) = ("2000-02-28T23:59:59.000001Z", "2000-02-28T23:59:59.000002Z");
    let expected = serde_json::json!(["http://host:8000", "waiting", since, "refused", "mend it", 4, oldest, -5]);
    assert_eq!(serde_json::Value::from(names.map(|name| shown[name].clone()).to_vec()), expected);
    assert_eq!((&shown["differs"], &shown["full"]), (&false.into(), &false.into()));
    assert_eq!(shown.get("bind"), None);
    let shown = object(Some(link(State::Connected, "")), "");
    assert_eq!(
        (&shown["link"], shown["error"].is_null(), shown["skew_us"].is_null()),
        (&"connected".into(), true, true)
    );
    assert!(shown["mend"].is_null() && shown["pending_since"].is_null());
    let shown = object(None, "[::]:8000");
    assert!(shown["remote"].is_null() && shown["link"].is_null() && shown.get("since").is_none());
    assert_eq!(shown["bind"], "[::]:8000");
}

#[test]
fn a_doctor_tries_the_remote_and_has_a_mend_for_what_is_wrong_with_it() {
    let answer = |reply: Reply| script(move |peer| _ = peer.greet().reply(reply));
    let doctor = |refused: u64, links: Vec<Link>| {
        let status = v1::Status { remote: "http://host:8000".into(), refused, ..v1::Status::default() };
        let fake = Fake::new(vec![
            answer(Reply::Status(status)),
            answer(Reply::Checked(v1::Checked::default())),
            script(|peer| _ = peer.greet().reply(Reply::Listing(Listing { entries: vec![entry("a", 1)] })).end()),
            script(move |peer| {
                assert!(matches!(peer.request(), Command::Sync(sync) if sync.goal() == v1::sync::Goal::Taken));
                peer.greet();
                for link in links {
                    peer.reply(syncing(0, link));
                }
                peer.hold();
            }),
        ]);
        fs::write(fake.directory.path().join("key"), "").unwrap();
        let run = fake.kvass(&["doctor"]);
        fake.done();
        let about = [" remote: ", " clocks: ", " refused: "];
        let lines = run.text().lines().filter(|line| about.iter().any(|name| line.contains(name)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let waiting = || link(State::Waiting, "");
    let ok = "ok remote: http://host:8000 answers, with the same key";
    let mend = "mend: kvass config remote http://host:8000";
    assert_eq!(doctor(0, vec![waiting(), link(State::Connected, "")]), [ok]);
    assert_eq!(
        doctor(0, vec![link(State::Connecting, "")]),
        [format!("!! remote: http://host:8000: it does not answer within 2 s; {mend}")]
    );
    let absent = Link { hint: "is it running?".into(), ..link(State::Waiting, "nothing answers") };
    assert_eq!(doctor(0, vec![absent]), ["!! remote: http://host:8000: nothing answers; mend: is it running?"]);
    let blocked = link(State::Blocked, "other key");
    assert_eq!(doctor(0, vec![blocked]), [format!("!! remote: http://host:8000: other key; {mend}")]);
    let skewed = Link { skew_us: 60_000_000, ..link(State::Connected, "") };
    assert_eq!(
        doctor(3, vec![skewed]),
        [
            "!! refused: 3 records of other stores did not verify, and were not taken; \
             mend: kvass doctor on the other devices",
            "!! clocks: the remote's clock is 1 min 0 s ahead, so that an older write may win; \
             mend: set the clock that is wrong, as with `timedatectl set-ntp true`",
            ok
        ]
    );
}

#[test]
fn serve_becomes_the_daemon() {
    let bin = Installed::new("echo \"$*\"; exit 7");
    let db = bin.path("db").canonicalize().unwrap();
    let served = bin.kvass(&["serve"]);
    assert_eq!((served.code, served.text()), (7, format!("--db {} --server\n", db.display()).as_str()));
    let served = bin.kvass(&["serve", "--bind", "[::]:8000", "--socket", "/s"]);
    let arguments = format!("--db {} --socket /s --server --bind [::]:8000\n", db.display());
    assert_eq!((served.code, served.text()), (7, arguments.as_str()));
    let served = bin.kvass(&["serve", "--tls-key", "k.pem", "--tls-cert", "c.pem"]);
    let arguments = format!("--db {} --server --tls-cert c.pem --tls-key k.pem\n", db.display());
    assert_eq!((served.code, served.text()), (7, arguments.as_str()));
}

#[test]
fn serve_without_a_daemon_says_what_is_missing() {
    let bin = Installed::new("");
    fs::remove_file(bin.path("kvassd")).unwrap();
    run(bin.command().env("PATH", "").arg("serve"))
        .fails(3, "kvass: kvassd was found neither beside kvass nor in PATH\nhint: install both programs together\n");
    let broken = bin.path("kvassd");
    fs::write(&broken, "#!/nonexistent/interpreter\n").unwrap();
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let root = bin.root.path().canonicalize().unwrap();
    bin.kvass(&["serve"])
        .fails(3, &format!("kvass: cannot start {}: No such file or directory\n", root.join("kvassd").display()));
}

#[test]
fn what_the_daemon_notes_is_one_line_beside_the_answer_and_not_where_notes_are_unwanted() {
    let note = || Reply::Note(v1::Note { text: "changes wait\nfor 2 h".into() });
    let noting = |wanted: bool, reply: fn() -> Reply| {
        Fake::new(vec![script(move |peer| {
            assert_eq!(peer.whole_request().notes, wanted);
            peer.greet().reply(note()).reply(reply());
        })])
    };
    let got = noting(true, || common::inline("k", b"v")).kvass(&["get", "k"]);
    assert_eq!((got.written(), got.stderr.as_str()), ("v", "kvass: changes wait for 2 h\n"));
    let set = noting(true, common::stored).kvass(&["set", "k", "v"]);
    assert_eq!((set.written(), set.stderr.as_str()), ("", "kvass: changes wait for 2 h\n"));
    noting(true, || error(Code::NoSuchKey, "no such key: k"))
        .kvass(&["get", "k"])
        .fails(1, "kvass: changes wait for 2 h\nkvass: no such key: k\n");
    assert_eq!(noting(false, || common::inline("k", b"v")).kvass(&["-q", "get", "k"]).ok().text(), "v");
    let waited = noting(true, || common::inline("k", b"v")).kvass(&["wait", "k", "--timeout", "1m"]);
    assert_eq!((waited.written(), waited.stderr.as_str()), ("v", "kvass: changes wait for 2 h\n"));
}

#[test]
fn a_note_is_shown_beside_a_value_that_is_streamed() {
    let fake = Fake::new(vec![script(|peer| {
        peer.whole_request();
        peer.greet().reply(Reply::Note(v1::Note { text: "changes wait".into() }));
        assert_eq!(peer.value().unwrap().len(), 100_000);
        peer.reply(common::stored());
    })]);
    let set = common::run_with(kvass(fake.directory.path()).args(["set", "k"]), &[0; 100_000]);
    assert_eq!((set.code, set.stderr.as_str()), (0, "kvass: changes wait\n"));
    fake.done();
}
