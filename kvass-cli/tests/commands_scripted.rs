//! What each command asks and prints, against daemons that follow a script.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test program")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::{Fake, Run, entry, error, inline, kvass, on_terminal, run, run_with, script, stored, streamed};
use kvass_proto::v1::list::Detail;
use kvass_proto::v1::stored::Outcome;
use kvass_proto::v1::{self, Change, Listing, Position, error::Code, reply::Reply, request::Command};

fn names(terminator: u8) -> Fake {
    Fake::new(vec![script(move |peer| {
        let Command::List(list) = peer.request() else { panic!("no list") };
        assert_eq!((list.detail(), list.terminator), (Detail::Names, terminator.into()));
        peer.greet().data(&[b'a', terminator, b'b', terminator]).end();
    })])
}

#[test]
fn names_are_copied_as_the_daemon_ends_them() {
    assert_eq!(names(b'\n').kvass(&["ls"]).ok().text(), "a\nb\n");
    assert_eq!(names(0).kvass(&["list", "-0"]).ok().text(), "a\0b\0");
}

#[test]
fn entries_have_columns_or_fields() {
    let listing = || {
        let pending = v1::Entry { sync: 1, ..entry("a b", 12) };
        Fake::new(vec![script(move |peer| {
            let Command::List(list) = peer.request() else { panic!("no list") };
            assert!(list.detail() == Detail::Entries && list.prefix == "p" && list.reverse);
            peer.greet().reply(Reply::Listing(Listing { entries: vec![pending] })).end();
        })])
    };
    assert_eq!(listing().kvass(&["ls", "-lr", "p"]).ok().text(), "         12  2000-02-28T23:59:59Z  pending  a b\n");
    assert_eq!(listing().kvass(&["ls", "-lr", "p", "-d", ","]).ok().text(), "12,2000-02-28T23:59:59Z,pending,a b\n");
    assert_eq!(
        listing().kvass(&["ls", "-r", "p", "--json"]).ok().text(),
        "{\"key\":\"a b\",\"size\":12,\"time\":\"2000-02-28T23:59:59.000001Z\",\"sync\":\"pending\"}\n"
    );
}

fn values() -> Fake {
    Fake::new(vec![script(|peer| {
        peer.greet().reply(inline("a", b"x")).reply(inline("b", b"\xff"));
        peer.reply(streamed("c", 5)).data(b"hel").data(b"lo").end().end();
    })])
}

#[test]
fn values_follow_their_keys_exactly() {
    assert_eq!(values().kvass(&["ls", "-v"]).ok().stdout, b"a\tx\nb\t\xff\nc\thello\n");
    assert_eq!(values().kvass(&["ls", "-v0", "-d", "="]).ok().stdout, b"a=x\0b=\xff\0c=hello\0");
    let lines = values().kvass(&["ls", "-v", "--json"]).ok();
    let values: Vec<serde_json::Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&values[0]["value"], &values[1]["value_base64"]), (&"x".into(), &"/w==".into()));
    assert_eq!(values[2]["value"], "hello");
}

#[test]
fn a_long_value_in_json_is_base64_and_whole() {
    let fake = Fake::new(vec![script(|peer| {
        peer.greet().reply(streamed("a", 2_000_000)).data(&vec![b'x'; 2_000_000]).end().end();
    })]);
    let line = fake.kvass(&["ls", "-v", "--json"]).ok();
    let object: serde_json::Value = serde_json::from_str(line.text()).unwrap();
    let expected = format!("{}eHg=", "eHh4".repeat(666_666));
    assert!(object["value_base64"] == expected);
}

#[test]
fn every_missing_key_is_named_after_the_others_are_removed() {
    let removed = || {
        Fake::new(vec![script(|peer| {
            let Command::Remove(remove) = peer.request() else { panic!("no remove") };
            assert_eq!(remove.keys, ["a", "b", "c"]);
            peer.greet().reply(Reply::Removed(v1::Removed { missing: vec!["a".into(), "c".into()], count: 1 }));
        })])
    };
    removed().kvass(&["rm", "a", "b", "c"]).fails(1, "kvass: no such key: a\nkvass: no such key: c\n");
    removed().kvass(&["del", "-f", "a", "b", "c"]).ok();
}

#[test]
fn a_namespace_is_removed_only_with_force_where_nobody_can_be_asked() {
    let directory = tempfile::tempdir().unwrap();
    run(kvass(directory.path()).args(["rm", "--prefix", "w/"]))
        .fails(2, "kvass: removing every key that begins with 'w/' needs -f here\nhint: on a terminal it asks first\n");
    let fake = Fake::new(vec![script(|peer| {
        let Command::Remove(remove) = peer.request() else { panic!("no remove") };
        assert!(remove.keys.is_empty() && remove.prefix.as_deref() == Some("w/"));
        peer.greet().reply(Reply::Removed(v1::Removed { missing: vec![], count: 3 }));
    })]);
    fake.kvass(&["rm", "--prefix", "w/", "-f"]).ok();
}

fn change(key: &str, removed: bool, position: &[u8]) -> Reply {
    Reply::Change(Change { removed, entry: Some(entry(key, 3)), position: position.to_vec() })
}

#[test]
fn a_watch_goes_on_where_it_was_when_the_daemon_is_back() {
    let fake = Fake::new(vec![
        script(|peer| {
            assert!(matches!(peer.request(), Command::Watch(watch) if watch.after.is_empty() && watch.prefix == "p"));
            peer.greet().reply(Reply::Position(Position { position: vec![1] })).reply(change("pa", false, &[2]));
        }),
        script(|peer| {
            assert!(matches!(peer.request(), Command::Watch(watch) if watch.after == [2]));
            peer.greet().reply(Reply::Position(Position { position: vec![2] })).reply(change("pb", true, &[3]));
            peer.reply(error(Code::Failed, "that is all"));
        }),
    ]);
    let watched = fake.kvass(&["watch", "p"]);
    assert_eq!(watched.text(), "set\tpa\nrm\tpb\n");
    watched.fails(3, "kvass: that is all: a cause\nhint: a hint\n");
}

#[test]
fn a_watch_writes_each_line_at_once() {
    let (seen, wait) = std::sync::mpsc::channel::<()>();
    let fake = Fake::new(vec![script(move |peer| {
        peer.greet().reply(Reply::Position(Position::default())).reply(change("a", false, &[1]));
        wait.recv().unwrap();
    })]);
    let mut child = kvass(fake.directory.path()).args(["watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "{\"event\":\"set\",\"key\":\"a\",\"size\":3,\"time\":\"2000-02-28T23:59:59.000001Z\"}\n");
    child.kill().unwrap();
    child.wait().unwrap();
    seen.send(()).unwrap();
}

#[test]
fn a_wait_ends_with_the_value_or_in_time() {
    let fake = Fake::new(vec![
        script(|peer| {
            peer.greet().reply(Reply::Position(Position { position: vec![7] }));
        }),
        script(|peer| {
            assert!(matches!(peer.request(), Command::Wait(wait) if wait.after == [7] && wait.change));
            peer.greet().reply(Reply::Position(Position { position: vec![8] })).reply(inline("a", b"new"));
        }),
    ]);
    assert_eq!(fake.kvass(&["wait", "a", "--change", "--timeout", "1h"]).ok().text(), "new");
    for (flags, says) in [(&[][..], "appear"), (&["--change"], "change")] {
        let fake = Fake::new(vec![script(|peer| {
            peer.greet().reply(Reply::Position(Position::default()));
            peer.hold();
        })]);
        let waited = run(kvass(fake.directory.path()).args(["wait", "a", "--timeout", "50ms"]).args(flags));
        waited.fails(4, &format!("kvass: 'a' did not {says} in the time allowed\n"));
    }
    let fake = Fake::new(vec![script(|peer| {
        peer.greet().reply(Reply::Position(Position::default())).reply(error(Code::NoSuchKey, "gone"));
    })]);
    fake.kvass(&["wait", "a", "--change"]).fails(1, "kvass: no such key: a\n");
}

#[test]
fn the_status_is_lines_or_an_object() {
    let status = || {
        Reply::Status(v1::Status {
            version: "1.2.3".into(),
            directory: "/d".into(),
            keys: 4,
            fingerprint: "ab12".into(),
            process: 5,
            ..v1::Status::default()
        })
    };
    let text = Fake::answering(status()).kvass(&["status"]).ok();
    assert!(text.text().contains("Daemon:      kvassd 1.2.3 (process 5)\n"), "{}", text.text());
    assert!(text.text().contains("Remote:      none\n"));
    let object: serde_json::Value =
        serde_json::from_str(Fake::answering(status()).kvass(&["status", "--json"]).ok().text()).unwrap();
    assert_eq!((&object["keys"], &object["remote"]), (&4.into(), &serde_json::Value::Null));
}

#[test]
fn a_key_is_set_from_standard_input_or_with_a_warning_from_an_argument() {
    let key = "5abf59f5f1a2f3c998a4f592ce081a23e14a68fd8a792259c6ec0fc1e8fb1246";
    let set = |length: usize| {
        Fake::new(vec![script(move |peer| {
            assert!(matches!(peer.request(), Command::SetKey(set) if set.key.len() == length));
            let config = v1::Config { fingerprint: "ab12".into(), ..v1::Config::default() };
            peer.greet().reply(Reply::Config(config));
        })])
    };
    let says = "Set an encryption key.\nFingerprint: ab12\n";
    let piped = |arguments: &[&str]| {
        let fake = set(32);
        run_with(kvass(fake.directory.path()).args(arguments), format!("{key}\n").as_bytes())
    };
    assert_eq!(piped(&["config", "key"]).ok().text(), says);
    assert_eq!(piped(&["config", "key", "-"]).ok().text(), says);
    assert_eq!(set(0).kvass(&["config", "key", "--new"]).ok().text(), says);
    let warned = set(32).kvass(&["config", "key", key]);
    assert_eq!((warned.code, warned.text()), (0, says));
    assert!(warned.stderr.contains("shell's history"), "{}", warned.stderr);

    let directory = tempfile::tempdir().unwrap();
    let wrong = run(kvass(directory.path()).args(["-q", "config", "key", &key[1..]]));
    wrong.fails(
        2,
        "kvass: a key has 64 hex digits, this has 63\n\
         hint: a key is what `kvass config show` calls Encryption Key, or what `kvass config server-key` shows\n",
    );
}

/// Answers a change of key, once it is confirmed where `confirmed` says so.
fn rekeyed(confirmed: bool, dropped: u64) -> common::Script {
    script(move |peer| {
        let Command::SetKey(set) = peer.request() else { panic!("no key") };
        assert_eq!((set.server_key.as_str(), set.confirmed), ("kvass-server-x", confirmed));
        let config = v1::Config { fingerprint: "ab12".into(), dropped, ..v1::Config::default() };
        peer.greet().reply(Reply::Config(config));
    })
}

fn unconfirmed() -> common::Script {
    script(|peer| {
        let Command::SetKey(v1::SetKey { confirmed: false, .. }) = peer.request() else { panic!("confirmed") };
        peer.greet().reply(error(Code::Unconfirmed, "all goes"));
    })
}

#[test]
fn a_server_key_is_told_to_be_one_and_what_was_dropped_is_counted() {
    let says = "Set a server key: this store keeps records and cannot read them.\nFingerprint: ab12\n";
    let set =
        |script| run_with(kvass(Fake::new(vec![script]).directory.path()).args(["config", "key"]), b"kvass-server-x");
    assert_eq!(set(rekeyed(false, 0)).ok().text(), says);
    let dropped = set(rekeyed(false, 2));
    assert_eq!(dropped.written(), says);
    assert_eq!(dropped.stderr, "kvass: 2 records did not verify with this key, and were removed\n");
    let config = v1::Config { server_key: "kvass-server-x".into(), ..v1::Config::default() };
    assert_eq!(Fake::answering(Reply::Config(config)).kvass(&["config", "server-key"]).ok().text(), "kvass-server-x\n");
}

#[test]
fn a_key_that_takes_entries_away_needs_force_where_nobody_can_be_asked() {
    let fake = Fake::new(vec![unconfirmed(), rekeyed(true, 0)]);
    let key = |arguments: &[&str]| {
        run_with(kvass(fake.directory.path()).args(["config", "key"]).args(arguments), b"kvass-server-x")
    };
    key(&[]).fails(2, "kvass: all goes: a cause\nhint: a hint\n");
    key(&["-f"]).ok();
    fake.done();
}

#[test]
fn a_key_that_takes_entries_away_is_asked_about_on_a_terminal() {
    let question = "kvass: all goes: a cause. Is that meant? [y/N] ";
    let key = ["-q", "config", "key", "kvass-server-x"];
    let (shown, code) = on_terminal(&Fake::new(vec![unconfirmed()]), &key[1..], question, "n\r");
    assert!(code == 0 && shown.contains("the key was not changed"), "{shown}");
    let fake = Fake::new(vec![unconfirmed(), rekeyed(true, 0)]);
    let (shown, code) = on_terminal(&fake, &key, question, "y\r");
    assert!(code == 0 && shown.contains("Set a server key"), "{shown}");
    fake.done();
}

#[test]
fn a_blind_store_counts_entries_and_says_why_it_knows_no_keys() {
    let status = || Reply::Status(v1::Status { keys: 4, records: 6, blind: true, ..v1::Status::default() });
    let text = Fake::answering(status()).kvass(&["status"]).ok();
    let line = "Entries:     4, which cannot be read here: this store has the server key only\n";
    assert!(text.text().contains(line) && !text.text().contains("Keys:"), "{}", text.text());
    let object: serde_json::Value =
        serde_json::from_str(Fake::answering(status()).kvass(&["status", "--json"]).ok().text()).unwrap();
    let fields = ["blind", "keys", "records"].map(|name| object[name].clone());
    assert_eq!(serde_json::Value::from(fields.to_vec()), serde_json::json!([true, 4, 6]));
}

#[test]
fn records_that_did_not_verify_are_counted_with_and_without_a_remote() {
    for link in [None, Some(v1::Link::default())] {
        let status = || Reply::Status(v1::Status { refused: 3, link: link.clone(), ..v1::Status::default() });
        let text = Fake::answering(status()).kvass(&["status"]).ok();
        let line = "Refused:     3 records of other stores, which did not verify\n";
        assert!(text.text().contains(line), "{}", text.text());
        let object: serde_json::Value =
            serde_json::from_str(Fake::answering(status()).kvass(&["status", "--json"]).ok().text()).unwrap();
        assert_eq!(object["refused"], 3);
    }
}

#[test]
fn a_process_id_is_shown_or_set() {
    let config = || Reply::Config(v1::Config { pid: 17, ..v1::Config::default() });
    assert_eq!(Fake::answering(config()).kvass(&["config", "pid"]).ok().text(), "17\n");
    let fake = Fake::new(vec![script(move |peer| {
        assert!(matches!(peer.request(), Command::SetPid(set) if set.pid == u32::MAX));
        peer.greet().reply(config());
    })]);
    fake.kvass(&["config", "pid", "4294967295"]).ok();
    fake.done();
}

fn environment(value: &'static [u8], arguments: &[&str]) -> Run {
    let fake = Fake::answering(inline("k", value));
    let mut command = kvass(fake.directory.path());
    run(command.args(["run", "-e", "VALUE=k", "--"]).args(arguments))
}

#[test]
fn a_program_runs_with_values_in_its_environment_and_keeps_its_exit_code() {
    let shown = environment(b"a\n\n", &["sh", "-c", "printf '[%s]' \"$VALUE\"; exit 7"]);
    assert_eq!((shown.code, shown.text()), (7, "[a\n\n]"));
    environment(b"x", &["/nonexistent/x"]).fails(127, "kvass: cannot run /nonexistent/x: No such file or directory\n");
    assert_eq!(environment(b"x", &["/"]).code, 126);
    environment(b"a\0b", &["true"]).fails(2, "kvass: the value of 'k' holds a NUL byte, which no variable can\n");
    Fake::answering(error(Code::NoSuchKey, "none"))
        .kvass(&["run", "-e", "A=k", "--", "touch", "/nonexistent/x"])
        .fails(1, "kvass: no such key: k\n");
}

#[test]
fn an_export_is_lines_with_a_beginning_and_an_end() {
    let long: Vec<u8> = (0..2_500_000u32).map(|number| number as u8).collect();
    let sent = long.clone();
    let fake = Fake::new(vec![script(move |peer| {
        peer.greet().reply(inline("a", b"x")).reply(inline("b", b"\xff"));
        peer.reply(streamed("c", 2_500_000)).data(&sent).end().end();
    })]);
    let file = fake.directory.path().join("out");
    fs::write(&file, "old").unwrap();
    fake.kvass(&["export", file.to_str().unwrap()]).ok();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[0], "{\"kvass_export\":1}");
    assert_eq!(lines[1], "{\"key\":\"a\",\"size\":1,\"time\":\"2000-02-28T23:59:59.000001Z\",\"value\":\"x\"}");
    let part = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    assert_eq!((&part(lines[3])["part"], &part(lines[5])["parts"]), (&1.into(), &3.into()));
    assert_eq!(lines[6], "{\"entries\":3}");

    // What was exported comes back.
    let receive = Fake::new(vec![
        script(|peer| import_of(peer, "a", Some(b"x"))),
        script(|peer| import_of(peer, "b", Some(b"\xff"))),
        script(move |peer| {
            import_of(peer, "c", None);
            assert!(peer.value() == Some(long));
            peer.reply(stored());
        }),
    ]);
    let imported = receive.kvass(&["import", file.to_str().unwrap()]);
    assert_eq!(
        (imported.code, imported.stderr.as_str()),
        (0, "kvass: stored 3, unchanged 0, kept because newer here 0\n")
    );
    receive.done();
}

fn import_of(peer: &mut common::Peer, key: &str, value: Option<&[u8]>) {
    let Command::Set(set) = peer.request() else { panic!("no set") };
    assert_eq!((set.key.as_str(), set.value.as_deref()), (key, value));
    assert_eq!(set.import.unwrap().time_us, 951_782_399_000_001);
    peer.greet();
    if value.is_some() {
        peer.reply(stored());
    }
}

#[test]
fn an_export_that_fails_leaves_the_file_as_it_was() {
    let fake = Fake::new(vec![script(|peer| {
        peer.greet().reply(inline("a", b"x")).reply(error(Code::Damaged, "'b' is damaged"));
    })]);
    let file = fake.directory.path().join("out");
    fs::write(&file, "old").unwrap();
    fake.kvass(&["export", file.to_str().unwrap()]).fails(3, "kvass: 'b' is damaged: a cause\nhint: a hint\n");
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert_eq!(fs::read_dir(fake.directory.path()).unwrap().count(), 2);
}

fn import(text: &str, outcomes: Vec<Outcome>, arguments: &[&str]) -> Run {
    let answer = |outcome: Outcome| {
        script(move |peer| {
            peer.request();
            peer.greet().reply(Reply::Stored(v1::Stored { outcome: outcome.into() }));
        })
    };
    let fake = Fake::new(outcomes.into_iter().map(answer).collect());
    run_with(kvass(fake.directory.path()).arg("import").args(arguments), text.as_bytes())
}

#[test]
fn a_dash_is_standard_output_or_input() {
    let fake = Fake::new(vec![
        script(|peer| _ = peer.greet().reply(inline("a", b"1"))),
        script(|peer| _ = peer.greet().end()),
        script(|peer| {
            assert!(matches!(peer.request(), Command::Set(set) if set.value.as_deref() == Some(b"in")));
            peer.greet().reply(stored());
        }),
    ]);
    let run_here = |arguments: &[&str], input: &[u8]| {
        run_with(kvass(fake.directory.path()).args(arguments).current_dir(fake.directory.path()), input)
    };
    assert_eq!(run_here(&["get", "a", "-o", "-"], b"").ok().text(), "1");
    assert_eq!(run_here(&["export", "-"], b"").ok().text(), "{\"kvass_export\":1}\n{\"entries\":0}\n");
    run_here(&["set", "a", "--file", "-"], b"in").ok();
    assert!(!fake.directory.path().join("-").exists());
    fake.done();
    assert_eq!(import("{\"key\":\"a\",\"value\":\"1\"}", vec![Outcome::Stored], &["-"]).code, 0);
}

#[test]
fn an_import_reports_what_it_did() {
    use Outcome::{KeptNewer, Stored, Unchanged};
    let text = "{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"b\",\"value\":\"2\"}\n{\"key\":\"c\",\"value\":\"3\"}";
    let done = import(text, vec![Stored, Unchanged, KeptNewer], &[]);
    assert_eq!(done.code, 0);
    assert_eq!(
        done.stderr,
        "kvass: stored 1, unchanged 1, kept because newer here 1\n  kept: c\n  (-f replaces them)\n"
    );
    assert!(import(text, vec![Stored, Stored, Stored], &["--dry-run"]).stderr.contains("nothing was done"));
    import(text, vec![Stored, Unchanged, KeptNewer], &["-q"]).ok();
}

#[test]
fn a_wrong_line_is_named_and_what_stood_before_it_stays() {
    let report = "kvass: stored 1, unchanged 0, kept because newer here 0\n";
    let hint = "hint: docs/export.md describes the lines\n";
    let cases = [
        ("nonsense", "line 2: not JSON, at column 2"),
        ("[1]", "line 2: not an object"),
        ("{\"value\":\"1\"}", "line 2: no 'key'"),
        ("{\"key\":\"b\"}", "line 2: neither 'value' nor 'value_base64'"),
        ("{\"key\":\"b\",\"value\":\"1\",\"value_base64\":\"MQ==\"}", "line 2: both 'value' and 'value_base64'"),
        ("{\"key\":\"b\",\"value\":1}", "line 2: the value is no text"),
        ("{\"key\":\"b\",\"value_base64\":\"?\"}", "line 2: 'value_base64' is no base64"),
        ("{\"key\":\"\",\"value\":\"1\"}", "line 2: a key cannot be empty"),
        ("{\"key\":1,\"value\":\"1\"}", "line 2: 'key' is no text"),
        ("{\"key\":\"b\",\"size\":2,\"value\":\"1\"}", "line 2: 'b' has 1 bytes, not the size that it gives"),
        ("{\"key\":\"b\",\"size\":\"x\",\"value\":\"1\"}", "line 2: 'size' is no number"),
        ("{\"key\":\"b\",\"time\":\"yesterday\",\"value\":\"1\"}", "line 2: 'time' is no time as 2024-02-29T12:00:00Z"),
        ("{\"key\":\"b\",\"part\":2,\"parts\":2,\"value\":\"1\"}", "line 2: part 2 of 2 of 'b' does not begin it"),
        ("{\"entries\":2}", "line 2: the export has 2 entries, but 1 were read"),
        ("{\"kvass_export\":1}", "line 2: a second header"),
    ];
    for (line, says) in cases {
        let text = format!("{{\"key\":\"a\",\"value\":\"1\"}}\n{line}\n");
        import(&text, vec![Outcome::Stored], &[]).fails(2, &format!("{report}kvass: {says}\n{hint}"));
    }
    import("{\"kvass_export\":9}\n", vec![], &["-q"])
        .fails(2, &format!("kvass: line 1: format 9 is not known, only 1\n{hint}"));
    let behind = "{\"kvass_export\":1}\n{\"entries\":0}\n{\"key\":\"a\",\"value\":\"1\"}\n";
    import(behind, vec![], &["-q"])
        .fails(2, &format!("kvass: line 3: something stands behind the last line of the export\n{hint}"));
    let long = format!("{{\"key\":\"a\",\"value\":\"{}\"}}\n", "x".repeat(16 << 20));
    import(&long, vec![], &["-q"]).fails(2, &format!("kvass: line 1: longer than 16 MiB\n{hint}"));
}

#[test]
fn a_cut_export_is_noticed() {
    let text = "{\"kvass_export\":1}\n{\"key\":\"a\",\"value\":\"1\"}\n";
    import(text, vec![Outcome::Stored], &["-q"]).fails(
        2,
        "kvass: the export is cut short: it ends after line 2 without its last line\n\
         hint: what stands before that was imported; export again for the rest\n",
    );
    let text = "{\"key\":\"a\",\"part\":1,\"parts\":2,\"value\":\"1\"}\n";
    let fake = Fake::new(vec![script(|peer| {
        peer.request();
        assert_eq!(peer.greet().value(), None);
    })]);
    run_with(kvass(fake.directory.path()).args(["import", "-q"]), text.as_bytes())
        .fails(2, "kvass: the export is cut short: 'a' has 1 of 2 parts\n");
    fake.done();
    for (size, second) in [(3, ""), (2, "xyz")] {
        let text = format!(
            "{{\"key\":\"a\",\"size\":{size},\"part\":1,\"parts\":2,\"value\":\"1\"}}\n\
             {{\"key\":\"a\",\"part\":2,\"parts\":2,\"value\":\"{second}\"}}\n"
        );
        let fake = Fake::new(vec![script(|peer| {
            peer.request();
            assert_eq!(peer.greet().value(), None);
        })]);
        let said = format!(
            "kvass: line 2: the parts of 'a' have {} bytes so far, not the size that it gives\n\
             hint: docs/export.md describes the lines\n",
            1 + second.len()
        );
        run_with(kvass(fake.directory.path()).args(["import", "-q"]), text.as_bytes()).fails(2, &said);
        fake.done();
    }
}

#[test]
fn completion_offers_the_keys_of_a_daemon_that_runs_and_starts_none() {
    let complete = |fake: &Fake, words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kvass"));
        command.env("KVASS_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true").env("_CLAP_IFS", "\n");
        command.env("KVASS_DB", fake.directory.path()).env_remove("KVASS_SOCKET");
        run(command.arg("--").args(words))
    };
    let fake = Fake::new(vec![script(|peer| {
        assert!(matches!(peer.request(), Command::List(list) if list.prefix == "w"));
        peer.greet().data(b"wa\nwb\n").end();
    })]);
    assert_eq!(complete(&fake, &["kvass", "get", "w"]).ok().text(), "wa\nwb");
    assert_eq!(complete(&fake, &["kvass", "get", "w"]).ok().text(), "");
    // It holds the connection until the other side gives up.
    let hung = Fake::new(vec![script(|peer| peer.hold())]);
    assert_eq!(complete(&hung, &["kvass", "get", "w"]).ok().text(), "");
    assert!(complete(&hung, &["kvass", "sta"]).ok().text().contains("status"));
}

/// What bash offers for `line`, whose words are `words`, and of whose last word readline would replace `replaced`.
fn bash_offers(line: &str, words: &str, replaced: &str, keys: &'static [u8]) -> Vec<String> {
    let fake = Fake::new(vec![script(|peer| _ = peer.greet().data(keys).end())]);
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_kvass"));
    let mut bash = std::process::Command::new("bash");
    let script = format!(
        "source <(kvass completions bash)
        COMP_LINE=$1; COMP_POINT=${{#1}}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9
        _kvass kvass \"$2\" get
        printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    bash.args(["--norc", "-c", &script, "bash", line, replaced]);
    bash.env("PATH", format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap()));
    bash.env("KVASS_DB", fake.directory.path()).env_remove("KVASS_SOCKET").env_remove("KVASS_COMPLETE");
    let shown = run(&mut bash).ok();
    shown.text().lines().map(str::to_owned).collect()
}

#[test]
fn the_script_for_bash_completes_for_real() {
    assert_eq!(bash_offers("kvass get wo", "kvass get wo", "wo", b"work/a\nwork/b\n"), ["work/a", "work/b"]);
}

#[test]
fn a_key_that_a_shell_would_obey_is_offered_in_quotes() {
    assert_eq!(bash_offers("kvass get x", "kvass get x", "x", b"x;y\nx $z\nx'*\n"), [r"x\;y", r"x\ \$z", r"x\'\*"]);
    assert_eq!(bash_offers(r"kvass get \(", r"kvass get '\('", r"\(", b"(a)\n"), [r"\(a\)"]);
    assert_eq!(bash_offers("kvass get 'x", r#"kvass get "'x""#, "x", b"x'y $z\n"), [r"x'\''y $z"]);
    assert_eq!(bash_offers("kvass get \"x", r#"kvass get '"x'"#, "x", b"x\"y $z`\n"), [r#"x\"y \$z\`"#]);
}

#[test]
fn a_key_that_readline_cuts_is_completed_from_the_cut_on() {
    assert_eq!(bash_offers("kvass get a:b", "kvass get a : b", "b", b"a:bc\na:bd\n"), ["bc", "bd"]);
    assert_eq!(bash_offers("kvass get a:", "kvass get a :", "", b"a:b\n"), ["b"]);
    assert_eq!(bash_offers("kvass get a@b", "kvass get a @ b", "@b", b"a@bc\n"), ["@bc"]);
    assert_eq!(bash_offers("kvass --quiet get 'a:b", r#"kvass --quiet get "'a:b""#, "a:b", b"a:bc\n"), ["a:bc"]);
}

#[test]
fn a_doctor_has_a_line_for_each_check() {
    let directory = tempfile::tempdir().unwrap();
    let absent = run(kvass(&directory.path().join("none")).arg("doctor")).ok();
    assert!(absent.text().starts_with("ok directory: ") && absent.text().contains("not there yet"));

    let answer = |reply: Reply| {
        script(move |peer| {
            peer.greet().reply(reply);
        })
    };
    let doctor = |scripts| {
        let fake = Fake::new(scripts);
        let path = fake.directory.path().to_path_buf();
        fs::write(path.join("key"), "").unwrap();
        fs::set_permissions(path.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        (fake, path)
    };
    let well = || {
        vec![
            answer(Reply::Status(v1::Status::default())),
            answer(Reply::Checked(v1::Checked { records: 3, bytes: 4 })),
            script(|peer| {
                peer.greet().reply(Reply::Listing(Listing { entries: vec![entry("a", 1)] })).end();
            }),
        ]
    };
    let (fake, _) = doctor(well());
    let lines = fake.kvass(&["doctor"]).ok();
    let words: Vec<&str> = lines.text().lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        words,
        ["ok directory", "ok key", "ok socket", "ok daemon", "ok store", "ok clock", "ok remote", "ok log"]
    );

    let (fake, path) = doctor(well());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(path.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let found = fake.kvass(&["doctor"]);
    assert_eq!((found.code, found.stderr.as_str()), (1, ""));
    assert!(found.text().contains("has mode 755; mend: chmod 700 "), "{}", found.text());
    assert!(found.text().contains("has mode 644; mend: chmod 600 "), "{}", found.text());

    let (fake, _) = doctor(vec![answer(error(Code::Damaged, "the store is damaged"))]);
    let found = fake.kvass(&["doctor"]);
    assert_eq!(found.code, 1);
    assert!(found.text().contains("!! store: the store is damaged: a cause; mend: kvass doctor --repair\n"));

    let (fake, path) = doctor(vec![answer(error(Code::Damaged, "the store is damaged"))]);
    fs::remove_file(path.join("key")).unwrap();
    fs::create_dir(path.join("store")).unwrap();
    let missing = format!("!! key: {}: No such file or directory; mend:", path.join("key").display());
    let found = fake.kvass(&["doctor"]);
    assert!(found.text().contains(&missing), "{}", found.text());
}

#[test]
fn a_prompt_shows_no_echo_and_an_interrupt_ends_it() {
    let fake = Fake::new(vec![script(|peer| {
        assert!(matches!(peer.request(), Command::Set(set) if set.value.as_deref() == Some(b"s3cret")));
        peer.greet().reply(stored());
    })]);
    let (shown, code) = on_terminal(&fake, &["set", "a", "--prompt"], "Value of a: ", "s3cret\r");
    assert_eq!((shown.as_str(), code), ("Value of a: \r\n", 0));
    fake.done();
    let (shown, code) = on_terminal(&names(0), &["set", "a", "--prompt"], "Value of a: ", "s3c\u{3}");
    assert_eq!((shown.as_str(), code), ("Value of a: \r\n", 130));
    let (shown, code) = on_terminal(&names(0), &["set", "a", "--prompt"], "Value of a: ", "\u{4}");
    let said = "Value of a: \r\nkvass: nothing was read from the terminal: it ended before a line began\r\n";
    assert_eq!((shown.as_str(), code), (said, 2));
}

#[test]
fn a_terminal_gets_a_newline_and_no_binary_data() {
    let shown =
        |value: &[u8], arguments: &[&str]| on_terminal(&Fake::answering(inline("a", value)), arguments, "\0", "");
    assert_eq!(shown(b"x", &["get", "a"]), ("x\r\n".into(), 0));
    assert_eq!(shown(b"x\n", &["get", "a"]), ("x\r\n".into(), 0));
    assert_eq!(shown(b"\x1b[0m", &["get", "a", "--raw"]), ("\u{1b}[0m\r\n".into(), 0));
    assert_eq!(
        shown(b"\x1b[0m", &["get", "a"]),
        (
            "kvass: the value is binary data, which would garble the terminal\r\n\
             hint: write it to a file with -o FILE, or show it all the same with --raw\r\n"
                .into(),
            2
        )
    );
    let fake = Fake::new(vec![script(|peer| {
        peer.greet().reply(inline("a", b"\0")).reply(inline("b", b"x")).end();
    })]);
    assert_eq!(on_terminal(&fake, &["ls", "-v"], "\0", "").0, "a\t(binary, 1 bytes)\r\nb\tx\r\n");
}

#[test]
fn a_namespace_is_removed_after_a_question() {
    let count = || script(|peer| _ = peer.greet().data(b"w/a\nw/b\n").end());
    let question = "Remove 2 keys beginning with 'w/'? [y/N] ";
    let (shown, code) = on_terminal(&Fake::new(vec![count()]), &["rm", "--prefix", "w/"], question, "n\r");
    assert!(code == 0 && shown.contains("nothing was removed"), "{shown}");
    let fake = Fake::new(vec![
        count(),
        script(|peer| {
            peer.greet().reply(Reply::Removed(v1::Removed { missing: vec![], count: 2 }));
        }),
    ]);
    let (shown, code) = on_terminal(&fake, &["rm", "--prefix", "w/"], question, "y\r");
    assert!(code == 0 && !shown.contains("nothing"), "{shown}");
    fake.done();
}
