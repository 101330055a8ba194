//! The program against daemons that follow a script: waiting, breaking off, starting, replacing.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test program")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{
    Fake, Installed, Run, error, greeting, inline, kvass, run, run_with, script, serve, stored, streamed, until,
};
use kvass_proto::v1::greeting::State;
use kvass_proto::v1::{self, Greeting, error::Code, reply::Reply, request::Command};

#[test]
fn a_request_names_the_canonical_directory_and_the_version() {
    let fake = Fake::new(vec![script(|peer| {
        let request = peer.whole_request();
        peer.greet().reply(inline("a", request.directory.as_bytes()));
        assert_eq!(request.version, env!("CARGO_PKG_VERSION"));
    })]);
    let link = fake.directory.path().join("link");
    std::os::unix::fs::symlink(fake.directory.path(), &link).unwrap();
    let shown = run(kvass(&link).args(["get", "a"])).ok();
    assert_eq!(shown.text(), fake.directory.path().canonicalize().unwrap().to_str().unwrap());
    fake.done();
}

#[test]
fn a_silent_holder_of_the_socket_is_named_after_two_seconds() {
    let fake = Fake::new(vec![script(|peer| peer.hold())]);
    fs::write(fake.directory.path().join("lock"), "12345\n").unwrap();
    let begun = Instant::now();
    let silent = fake.kvass(&["get", "a"]);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let socket = fake.directory.path().canonicalize().unwrap().join("kvassd.sock");
    silent.fails(
        3,
        &format!(
            "kvass: no answer within 2 s from {}, held by process 12345\nhint: stop what holds it: kvass daemon stop\n",
            socket.display()
        ),
    );
}

#[test]
fn a_daemon_that_starts_is_waited_for_with_a_note() {
    let slow = |until: Receiver<()>, most: Duration| {
        Fake::new(vec![script(move |peer| {
            let starting = Greeting { state: State::Starting.into(), doing: "opening the store".into(), ..greeting() };
            peer.reply(Reply::Greeting(starting));
            let _ = until.recv_timeout(most);
            peer.greet().reply(inline("a", b"x"));
        })])
    };
    let (noted, until) = channel();
    let fake = slow(until, Duration::from_secs(20));
    let mut get = kvass(fake.directory.path());
    let mut get = get.args(["get", "a"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut note = String::new();
    BufReader::new(get.stderr.as_mut().unwrap()).read_line(&mut note).unwrap();
    assert_eq!(note, "kvass: waiting for kvassd (opening the store)…\n");
    drop(noted);
    assert_eq!(Run::of(get.wait_with_output().unwrap()).ok().text(), "x");

    // That nothing is said can only be seen after the time at which it would have been.
    let (_noted, until) = channel();
    let fake = slow(until, Duration::from_millis(1_300));
    assert_eq!(fake.kvass(&["get", "a", "-q"]).ok().text(), "x");
}

#[test]
fn a_question_is_asked_again_once_where_the_daemon_went_away() {
    let fake = Fake::new(vec![
        script(|peer| {
            peer.greet();
        }),
        script(|peer| {
            peer.greet().reply(inline("a", b"x"));
        }),
    ]);
    assert_eq!(fake.kvass(&["get", "a"]).ok().text(), "x");
    let fake = Fake::new((0..2).map(|_| script(|peer| _ = peer.greet())).collect());
    fake.kvass(&["get", "a"])
        .fails(3, "kvass: kvassd went away without an answer\nhint: try again; `kvass doctor` looks into it\n");
}

#[test]
fn a_change_is_not_sent_twice_and_may_have_been_stored() {
    let says = "kvass: kvassd went away without an answer; the change may have been stored\n\
                hint: try again; `kvass doctor` looks into it\n";
    for arguments in [&["set", "a", "b"][..], &["rm", "a"], &["config", "pid", "5"]] {
        let fake = Fake::new(vec![script(|peer| {
            peer.request();
            peer.greet();
        })]);
        fake.kvass(arguments).fails(3, says);
    }
}

#[test]
fn a_daemon_that_stops_is_followed_by_the_next() {
    let fake = Fake::new(vec![
        script(|peer| {
            peer.reply(Reply::Greeting(Greeting { state: State::Stopping.into(), ..greeting() }));
        }),
        script(|_| {}),
        script(|peer| {
            peer.greet().reply(error(Code::Stopping, "kvassd is stopping"));
        }),
        script(|peer| {
            assert!(matches!(peer.request(), Command::Set(_)));
            peer.greet().reply(stored());
        }),
    ]);
    fake.kvass(&["set", "a", "b"]).ok();
    fake.done();
}

#[test]
fn what_the_daemon_says_is_shown_with_its_causes_and_hint() {
    for (code, exit) in [(Code::BadInput, 2), (Code::TooLarge, 2), (Code::DiskFull, 3), (Code::OtherDirectory, 3)] {
        Fake::answering(error(code, "it failed"))
            .kvass(&["set", "a", "b"])
            .fails(exit, "kvass: it failed: a cause\nhint: a hint\n");
    }
    Fake::answering(error(Code::NoSuchKey, "no such key: a")).kvass(&["get", "a"]).fails(1, "kvass: no such key: a\n");
    Fake::answering(Reply::Stopping(v1::Stopping {})).kvass(&["get", "a"]).fails(
        3,
        "kvass: kvassd gave an answer that this kvass does not understand\n\
         hint: restart it, so that both are of one version: kvass daemon restart\n",
    );
}

#[test]
fn what_a_daemon_says_in_place_of_a_greeting_is_shown() {
    let refusing = || {
        Fake::new(vec![script(|peer| {
            peer.reply(error(Code::CannotOpen, "this store belongs to another user"));
        })])
    };
    for arguments in [&["get", "a"][..], &["set", "a", "b"], &["daemon", "stop"]] {
        let said = "kvass: this store belongs to another user: a cause\nhint: a hint\n";
        refusing().kvass(arguments).fails(3, said);
    }
}

#[test]
fn what_does_not_speak_the_protocol_is_said_to_be_so() {
    let fake = Fake::new(vec![script(|peer| {
        use std::io::Write;
        peer.request();
        peer.stream.write_all(b"SSH-2.0-OpenSSH\r\n").unwrap();
    })]);
    let refused = fake.kvass(&["get", "a"]);
    assert_eq!(refused.code, 3);
    assert!(refused.stderr.starts_with("kvass: cannot reach kvassd at "), "{}", refused.stderr);
}

#[test]
fn a_long_value_is_streamed_with_its_size_where_it_is_known() {
    let value: Vec<u8> = (0..700_001u32).map(|number| (number % 251) as u8).collect();
    let expected = value.clone();
    let receive = |size: Option<u64>, expected: Vec<u8>| {
        Fake::new(vec![script(move |peer| {
            let Command::Set(set) = peer.request() else { panic!("no set") };
            assert_eq!((set.value, set.size), (None, size));
            peer.greet();
            assert!(peer.value() == Some(expected));
            peer.reply(stored());
        })])
    };
    let fake = receive(Some(700_001), expected.clone());
    let file = fake.directory.path().join("file");
    fs::write(&file, &value).unwrap();
    fake.kvass(&["set", "a", "--file", file.to_str().unwrap()]).ok();
    fake.done();
    let fake = receive(None, expected);
    run_with(kvass(fake.directory.path()).args(["set", "a"]), &value).ok();
    fake.done();
}

#[test]
fn values_arrive_exactly() {
    use std::os::unix::ffi::OsStrExt;
    type Case = (&'static [&'static [u8]], &'static [u8], &'static [u8]);
    let cases: [Case; 7] = [
        (&[b"x\n"], b"", b"x\n"),
        (&[b""], b"", b""),
        (&[b"-5"], b"", b"-5"),
        (&[b"-1.5"], b"", b"-1.5"),
        (&[b"--", b"-x"], b"", b"-x"),
        (&[b"\xff\xfe"], b"", b"\xff\xfe"),
        (&[b"-"], b"\0in\n", b"\0in\n"),
    ];
    for (arguments, input, expected) in cases {
        let fake = Fake::new(vec![script(move |peer| {
            let Command::Set(set) = peer.request() else { panic!("no set") };
            assert_eq!(set.value.as_deref(), Some(expected));
            peer.greet().reply(stored());
        })]);
        let mut command = kvass(fake.directory.path());
        command.args(["set", "k"]).args(arguments.iter().map(|word| std::ffi::OsStr::from_bytes(word)));
        run_with(&mut command, input).ok();
        fake.done();
    }
}

#[test]
fn an_early_refusal_of_a_long_value_is_what_is_shown() {
    let fake = Fake::new(vec![script(|peer| {
        peer.request();
        peer.greet().reply(error(Code::TooLarge, "a value of 9 bytes is too large"));
    })]);
    run_with(kvass(fake.directory.path()).args(["set", "a"]), &vec![1; 8 << 20])
        .fails(2, "kvass: a value of 9 bytes is too large: a cause\nhint: a hint\n");
}

#[test]
fn an_input_that_fails_stores_nothing() {
    let directory = tempfile::tempdir().unwrap();
    run(kvass(directory.path()).args(["set", "a", "--file", "/nonexistent"]))
        .fails(2, "kvass: cannot read /nonexistent, nothing was stored: No such file or directory\n");
    run(kvass(directory.path()).args(["set", "a", "--file", "/"]))
        .fails(2, "kvass: cannot read /, nothing was stored: Is a directory\n");
    run(kvass(directory.path()).args(["set", "a", "--prompt"]))
        .fails(2, "kvass: --prompt needs a terminal\nhint: without it, standard input is the value\n");
}

#[test]
fn get_writes_bytes_exactly_and_a_default_only_for_a_missing_key() {
    assert_eq!(Fake::answering(inline("a", b"\0x\xff")).kvass(&["get", "a"]).ok().stdout, b"\0x\xff");
    let missing = || Fake::answering(error(Code::NoSuchKey, "no such key"));
    assert_eq!(missing().kvass(&["get", "a", "--default", "-d"]).ok().text(), "-d");
    Fake::answering(error(Code::Damaged, "damaged"))
        .kvass(&["get", "a", "--default", "d"])
        .fails(3, "kvass: damaged: a cause\nhint: a hint\n");
}

#[test]
fn a_file_is_replaced_only_by_a_whole_value() {
    let send = |whole: bool| {
        Fake::new(vec![script(move |peer| {
            peer.greet().reply(streamed("a", 600_000)).data(&vec![b'x'; 300_000]);
            if whole {
                peer.data(&vec![b'x'; 300_000]).end();
            } else {
                peer.reply(error(Code::Damaged, "the value of 'a' is damaged"));
            }
        })])
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    fs::write(&path, "old").unwrap();
    let get = ["get", "a", "-o", path.to_str().unwrap()];
    send(false).kvass(&get).fails(3, "kvass: the value of 'a' is damaged: a cause\nhint: a hint\n");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    send(true).kvass(&get).ok();
    assert_eq!(fs::read(&path).unwrap(), vec![b'x'; 600_000]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn an_interrupted_download_leaves_the_old_file_alone() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let fake = Fake::new(vec![script(move |peer| {
        peer.greet().reply(streamed("a", 600_000)).data(&[b'x'; 100]);
        let _ = wait.recv();
    })]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    fs::write(&path, "old").unwrap();
    let mut child = kvass(fake.directory.path()).args(["get", "a", "-o", path.to_str().unwrap()]).spawn().unwrap();
    until("a temporary file", || fs::read_dir(directory.path()).unwrap().count() == 2);
    // The file is made before the signal is watched for, so the signal may have to come twice.
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let mut code = None;
    until("its end", || {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        code = child.try_wait().unwrap();
        code.is_some()
    });
    drop(go);
    assert_eq!(code.unwrap().code(), Some(130));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_reader_that_has_enough_ends_the_program_quietly() {
    let fake = Fake::new(vec![script(|peer| {
        peer.greet().reply(streamed("a", 8 << 20)).data(&vec![b'x'; 8 << 20]).end();
    })]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "(\"$0\" --db \"$1\" get a; echo \"exit $?\" >&2) | head -c 10"]);
    let shown = run(command.arg(env!("CARGO_BIN_EXE_kvass")).arg(fake.directory.path()));
    assert_eq!((shown.text(), shown.stderr.as_str()), ("xxxxxxxxxx", "exit 0\n"));
}

#[test]
fn a_daemon_that_refuses_to_start_is_quoted() {
    let bin = Installed::new("echo noise >&2; echo 'kvassd: the store at /x is damaged: bad tree' >&2; exit 1");
    bin.kvass(&["get", "a"]).fails(3, "kvass: the store at /x is damaged: bad tree\n");
    let bin = Installed::new("printf 'kvassd: it failed\\nhint: mend it\\n' >&2; exit 1");
    bin.kvass(&["get", "a"]).fails(3, "kvass: it failed\nhint: mend it\n");
    let bin = Installed::new("exit 7");
    bin.kvass(&["get", "a"]).fails(3, "kvass: kvassd ended before it served: exit status: 7\n");
}

#[test]
fn a_daemon_that_lost_the_race_leaves_the_field_to_the_winner() {
    let bin = Installed::new(
        "pwd > \"$(dirname \"$0\")/args.new\"; echo \"$*\" >> \"$(dirname \"$0\")/args.new\"
        mv \"$(dirname \"$0\")/args.new\" \"$(dirname \"$0\")/args\"",
    );
    let child = bin.command().args(["get", "a"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("a start", || bin.path("args").exists());
    let winner = serve(
        &bin.path("db/kvassd.sock"),
        vec![script(|peer| {
            peer.greet().reply(inline("a", b"x"));
        })],
    );
    let output = common::Run::of(child.wait_with_output().unwrap());
    assert_eq!((output.code, output.text()), (0, "x"));
    let db = bin.path("db").canonicalize().unwrap();
    assert_eq!(fs::read_to_string(bin.path("args")).unwrap(), format!("/\n--db {} --on-demand\n", db.display()));
    winner.join().unwrap();
}

#[test]
fn a_missing_kvassd_is_said_to_be_missing() {
    let bin = Installed::new("");
    fs::remove_file(bin.path("kvassd")).unwrap();
    run(bin.command().env("PATH", ".:").current_dir(bin.root.path()).args(["get", "a"]))
        .fails(3, "kvass: kvassd was found neither beside kvass nor in PATH\nhint: install both programs together\n");
}

#[test]
fn an_older_daemon_on_demand_is_replaced_by_a_newer_one() {
    let bin = Installed::new(
        "if [ \"$1\" = --version ]; then echo 'kvassd 99.0.0'; else echo \"$*\" > \"$(dirname \"$0\")/args.new\"
         mv \"$(dirname \"$0\")/args.new\" \"$(dirname \"$0\")/args\"; fi",
    );
    let older = Greeting {
        version: "0.0.1".into(),
        on_demand: true,
        arguments: vec!["--as".into(), "before".into()],
        ..greeting()
    };
    let socket = bin.path("db/kvassd.sock");
    let (first, second, gone) = (older.clone(), older, socket.clone());
    let old = serve(
        &socket,
        vec![
            script(move |peer| {
                peer.reply(Reply::Greeting(first));
                peer.request();
            }),
            script(move |peer| {
                peer.reply(Reply::Greeting(second));
                assert!(matches!(peer.request(), Command::Stop(_)));
                fs::remove_file(gone).unwrap();
                peer.reply(Reply::Stopping(v1::Stopping {}));
            }),
        ],
    );
    let child = bin.command().args(["get", "a"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("a start", || bin.path("args").exists());
    old.join().unwrap();
    let new = serve(
        &socket,
        vec![script(|peer| {
            peer.greet().reply(inline("a", b"x"));
        })],
    );
    assert_eq!(common::Run::of(child.wait_with_output().unwrap()).written(), "x");
    assert_eq!(fs::read_to_string(bin.path("args")).unwrap(), "--as before\n");
    new.join().unwrap();
}

#[test]
fn an_older_daemon_of_a_service_is_left_alone_with_a_note() {
    let older = Greeting { version: "0.0.1".into(), ..greeting() };
    let fake = Fake::new(vec![script(move |peer| {
        peer.reply(Reply::Greeting(older)).reply(inline("a", b"x"));
    })]);
    let noted = fake.kvass(&["get", "a"]);
    assert_eq!((noted.code, noted.text()), (0, "x"));
    let says = format!(
        "kvass: kvassd is of version 0.0.1, older than this kvass {}: a restart of kvassd is due\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(noted.stderr, says);
    let newer = Greeting { version: "99.0.0".into(), ..greeting() };
    let fake = Fake::new(vec![script(move |peer| {
        peer.reply(Reply::Greeting(newer)).reply(inline("a", b"x"));
    })]);
    fake.kvass(&["get", "a"]).ok();
}

#[test]
fn stopping_what_does_not_run_is_done_with_a_note() {
    let directory = tempfile::tempdir().unwrap();
    let stopped = run(kvass(directory.path()).args(["daemon", "stop"]));
    assert_eq!((stopped.code, stopped.stderr.as_str()), (0, "kvass: kvassd was not running\n"));
    let fake = Fake::new(vec![script(|peer| {
        peer.greet();
        assert!(matches!(peer.request(), Command::Stop(_)));
        peer.reply(Reply::Stopping(v1::Stopping {}));
    })]);
    fake.kvass(&["daemon", "stop"]).ok();
}

#[test]
fn a_daemon_that_cannot_open_its_store_ends_by_itself_when_it_is_stopped() {
    // A repair stops what runs; the daemon that has just found the damage may still be there.
    for greets in [true, false] {
        let fake = Fake::new(vec![script(move |peer| {
            if greets {
                peer.greet();
            }
            assert!(matches!(peer.request(), Command::Stop(_)));
            peer.reply(error(Code::Damaged, "the store is damaged"));
        })]);
        fake.kvass(&["daemon", "stop"]).ok();
        fake.done();
    }
}

#[test]
fn a_lock_that_is_held_by_another_program_is_not_signalled() {
    let fake = Fake::new(vec![script(|peer| peer.hold())]);
    let path = fake.directory.path().join("lock");
    fs::write(&path, format!("{}\n", std::process::id())).unwrap();
    let lock = fs::File::open(&path).unwrap();
    lock.lock().unwrap();
    let refused = fake.kvass(&["daemon", "stop"]);
    assert_eq!(refused.code, 3);
    let pid = std::process::id();
    assert!(refused.stderr.contains(&format!("process {pid} holds ")), "{}", refused.stderr);
    assert!(refused.stderr.contains("is no kvassd of yours"), "{}", refused.stderr);
}
