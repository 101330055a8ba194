//! `pair` and `join`, against daemons that follow a script.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test program")]

mod common;

use std::path::Path;

use common::{Fake, Run, Script, error, kvass, on_terminal, run, run_with, script};
use kvass_proto::v1::{
    self, Config, Difference, Link, Previewed, Status, error::Code, link, reply::Reply, request::Command,
};

const URL: &str = "http://host.example:8000";

/// The line of the key 000102…1f and of that remote; docs/local.md has it.
const LINE: &str =
    "kvass-pair-040020g30g2gc1r81450p30d1r7h048j2ca1a5gq30chm6rw3mf1yt3mehr3mbsfd1qq6x1ecnw62vbgdhjkme1g60rafjcx98";

const SECRET: &str =
    "kvass: whoever has this line can read and change everything: kvass join on the new device takes it\n";

fn key() -> Vec<u8> {
    (0..32).collect()
}

fn config(key: Vec<u8>, remote: &str) -> Reply {
    let (remote, fingerprint) = (remote.into(), "16f4-4ecd-6097-64ec".into());
    Reply::Config(Config { key, remote, fingerprint, ..Config::default() })
}

/// A device with that key and remote, and how it stands with it.
fn device(remote: &str, link: Link) -> Fake {
    let config = config(key(), remote);
    let configured = script(move |peer| {
        assert!(matches!(peer.request(), Command::Config(_)));
        peer.greet().reply(config);
    });
    let asked = script(move |peer| {
        assert!(matches!(peer.request(), Command::Status(_)));
        peer.greet().reply(Reply::Status(Status { link: Some(link), ..Status::default() }));
    });
    Fake::new(vec![configured, asked])
}

#[test]
fn a_device_that_is_blocked_says_so_as_it_pairs() {
    let blocked = || Link {
        state: link::State::Blocked.into(),
        error: "another key".into(),
        hint: "compare".into(),
        ..Link::default()
    };
    let paired = device(URL, blocked()).kvass(&["pair"]);
    let says = "kvass: this device is not in step with the remote: another key\nkvass: mend that first: compare\n";
    assert_eq!((paired.written(), paired.stderr.as_str()), (format!("{LINE}\n").as_str(), &*format!("{SECRET}{says}")));
    device(URL, blocked()).kvass(&["pair", "-q"]).ok();
    let waiting = Link { state: link::State::Waiting.into(), error: "nothing answers".into(), ..Link::default() };
    assert_eq!(device(URL, waiting).kvass(&["pair"]).stderr, SECRET);
}

#[test]
fn a_pairing_line_carries_key_and_remote() {
    let paired = device(URL, Link::default()).kvass(&["pair"]);
    assert_eq!((paired.written(), paired.stderr.as_str()), (format!("{LINE}\n").as_str(), SECRET));
    assert_eq!(device(URL, Link::default()).kvass(&["pair", "-q"]).ok().text(), format!("{LINE}\n"));
    let own = device("http://127.0.0.1:8000", Link::default()).kvass(&["pair"]);
    let says = "kvass: http://127.0.0.1:8000 means the machine itself on every machine: \
                name the remote by another address\n";
    assert_eq!((own.code, own.stderr), (0, format!("{SECRET}{says}")));
}

#[test]
fn a_store_that_has_nothing_to_give_away_says_why() {
    Fake::answering(config(key(), "")).kvass(&["pair"]).fails(
        2,
        "kvass: there is no remote through which another device could be reached\n\
         hint: name one: kvass config remote HOST\n",
    );
    Fake::answering(config(Vec::new(), URL)).kvass(&["pair"]).fails(
        2,
        "kvass: this store cannot be read here, so it has no key to give away\nhint: run kvass pair on a device\n",
    );
}

#[test]
fn a_terminal_shows_a_code_where_it_is_large_enough() {
    let (shown, code) = on_terminal(&device(URL, Link::default()), &["pair", "-q"], "\0", "");
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!((code, lines[0]), (0, LINE));
    assert_eq!(lines.len(), 1 + 19, "{shown}");
    assert!(
        lines[1..].iter().all(|line| line.starts_with("\u{1b}[38;5;16;48;5;231m  ") && line.ends_with("  \u{1b}[0m"))
    );

    for size in [(36, 24), (80, 19)] {
        let small = device(URL, Link::default());
        let (shown, code) = common::on_terminal_of(size, &small, &["pair"], "\0", "");
        let says = "kvass: the terminal is too small for the QR code: it needs 37 columns and 20 rows";
        assert_eq!((code, shown.replace('\r', "")), (0, format!("{SECRET}{LINE}\n{says}\n")));
    }
}

fn previews(found: Previewed) -> Script {
    script(move |peer| {
        assert!(matches!(peer.request(), Command::Preview(asked) if asked.key == key() && asked.remote == URL));
        peer.greet().reply(Reply::Previewing(v1::Previewing { seen: 7 })).reply(Reply::Previewed(found));
    })
}

fn joins() -> Script {
    script(|peer| {
        assert!(matches!(peer.request(), Command::Join(asked) if asked.key == key() && asked.remote == URL));
        peer.greet().reply(config(key(), URL));
    })
}

fn differing(differing: u64) -> Previewed {
    let first = [("a", true), ("b\n", false)].map(|(key, remote_wins)| Difference { key: key.into(), remote_wins });
    Previewed { differing, first: first.into(), own: 0 }
}

const JOINED: &str = "Joined http://host.example:8000.\nFingerprint: 16f4-4ecd-6097-64ec\n";

fn join_with(fake: &Fake, arguments: &[&str], line: &str) -> Run {
    run_with(kvass(fake.directory.path()).arg("join").args(arguments), line.as_bytes())
}

#[test]
fn a_store_that_loses_nothing_joins_without_a_question() {
    for (arguments, line) in [(&[][..], LINE), (&["-"], &LINE.to_uppercase()), (&["-f"], &format!("\n{LINE}\r\n"))] {
        let fake = Fake::new(vec![previews(Previewed::default()), joins()]);
        assert_eq!(join_with(&fake, arguments, line).ok().text(), JOINED);
        fake.done();
    }
    let fake = Fake::new(vec![previews(Previewed::default()), joins()]);
    let joined = fake.kvass(&["join", LINE]);
    let says = "kvass: a line given as an argument is in the shell's history; `kvass join` alone asks for it\n";
    assert_eq!((joined.written(), joined.stderr.as_str()), (JOINED, says));
}

#[test]
fn entries_that_would_be_replaced_are_named_and_need_a_yes() {
    let list = |count: &str| {
        format!(
            "kvass: {count} between here and {URL}; of each the newer wins, on all devices:\n  \
             the remote's   a\n  this device's  b\n"
        )
    };
    let needs = "kvass: joining would replace entries, so that it needs -f here; nothing was changed\n\
                 hint: on a terminal it asks first\n";
    let fake = Fake::new(vec![previews(differing(2))]);
    join_with(&fake, &[], LINE).fails(2, &format!("{}{needs}", list("2 keys differ")));
    let fake = Fake::new(vec![previews(differing(23))]);
    join_with(&fake, &[], LINE).fails(2, &format!("{}  and 21 more\n{needs}", list("23 keys differ")));
    let fake = Fake::new(vec![previews(differing(2))]);
    join_with(&fake, &["-q"], LINE).fails(2, needs);
    let fake = Fake::new(vec![previews(differing(2)), joins()]);
    assert_eq!(join_with(&fake, &["-f"], LINE).ok().text(), JOINED);
    fake.done();
}

#[test]
fn a_terminal_asks_for_the_line_without_echo_and_then_whether_to_join() {
    let says = format!(
        "Pairing line: \nkvass: 1 key differs between here and {URL}; of each the newer wins, on all devices:\n  \
         the remote's   a\nJoin? [y/N] "
    );
    let found = || Previewed { first: differing(0).first[..1].to_vec(), ..differing(1) };
    let typed = |answer: &str| format!("{LINE}\n{answer}\n");
    // What is typed before it is asked for has no echo.
    let strip = |shown: String| {
        let shown = shown.replace('\r', "");
        // What shows how far the preview is, and is gone again.
        shown.replace("comparing with what the remote holds: 7\u{1b}[K\u{1b}[K", "")
    };
    let fake = Fake::new(vec![previews(found()), joins()]);
    let (shown, code) = on_terminal(&fake, &["join"], "Pairing line: ", &typed("y"));
    assert_eq!((strip(shown), code), (format!("{says}{JOINED}"), 0));
    fake.done();
    let fake = Fake::new(vec![previews(found())]);
    let (shown, code) = on_terminal(&fake, &["join"], "Pairing line: ", &typed(""));
    assert_eq!((strip(shown), code), (format!("{says}kvass: nothing was changed\n"), 0));
    fake.done();
}

#[test]
fn a_device_that_has_entries_is_told_who_gets_them_and_asked_on_a_terminal() {
    let says = format!("kvass: the 3 keys of this device go to {URL}, and all who have this line can read them\n");
    let found = || Previewed { own: 3, ..Previewed::default() };
    let fake = Fake::new(vec![previews(found()), joins()]);
    let joined = join_with(&fake, &[], LINE);
    assert_eq!((joined.written(), joined.stderr.as_str()), (JOINED, says.as_str()));
    fake.done();
    let fake = Fake::new(vec![previews(found())]);
    let (shown, _) = on_terminal(&fake, &["join"], "Pairing line: ", &format!("{LINE}\n\n"));
    let asks = format!("{says}Join? [y/N] kvass: nothing was changed\n");
    assert!(shown.replace('\r', "").ends_with(&asks), "{shown}");
    fake.done();
    let fake = Fake::new(vec![previews(found()), joins()]);
    assert_eq!(join_with(&fake, &["-f"], LINE).ok().text(), JOINED);
    fake.done();
}

#[test]
fn a_line_that_is_none_is_refused_before_anything_is_asked() {
    let hint = "hint: kvass pair on another device shows one\n";
    let join = |line: &str| run_with(kvass(Path::new("/nonexistent/kvass")).arg("join"), line.as_bytes());
    for (line, says) in [
        (String::new(), "no pairing line was given"),
        ("00".repeat(32), "this is no pairing line: that begins with 'kvass-pair-'"),
        (format!("{}x{}", &LINE[..20], &LINE[21..]), "the pairing line has a typing error, or was cut short"),
        (LINE[..60].into(), "the pairing line has a typing error, or was cut short"),
        (format!("{}!", &LINE[..20]), "character '!' at place 21 cannot be in a pairing line"),
        ("kvass-pair-\u{fffd}".into(), "character U+FFFD at place 12 cannot be in a pairing line"),
    ] {
        join(&line).fails(2, &format!("kvass: {says}\n{hint}"));
    }
    run(kvass(Path::new("/nonexistent/kvass")).args(["join", "x"])).fails(
        2,
        &format!(
            "kvass: a line given as an argument is in the shell's history; `kvass join` alone asks for it\n\
             kvass: this is no pairing line: that begins with 'kvass-pair-'\n{hint}"
        ),
    );
}

#[test]
fn a_remote_that_cannot_be_joined_leaves_all_as_it_is() {
    let refuses = |code, exit| {
        let fake = Fake::new(vec![script(move |peer| {
            peer.request();
            peer.greet().reply(Reply::Previewing(v1::Previewing::default())).reply(error(code, "it does not"));
        })]);
        join_with(&fake, &["-f"], LINE).fails(exit, "kvass: nothing was changed: it does not: a cause\nhint: a hint\n");
        fake.done();
    };
    refuses(Code::NotReached, 4);
    refuses(Code::Failed, 3);
    let lost = Fake::new(vec![
        previews(Previewed::default()),
        script(|peer| {
            peer.request();
            peer.greet();
        }),
    ]);
    join_with(&lost, &[], LINE).fails(
        3,
        "kvass: kvassd went away without an answer; the change may have been stored\n\
         hint: try again; `kvass doctor` looks into it\n",
    );
}
