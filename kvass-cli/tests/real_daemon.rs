//! The program with the real daemon: starting on demand, values, lists, watching, import, repair.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test program")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use common::{Run, Running, kvass, run, run_with, until};
use tempfile::TempDir;

/// A data directory whose daemon is stopped at the end.
struct Store {
    directory: TempDir,
}

impl Store {
    fn new() -> Self {
        let kvassd = Path::new(env!("CARGO_BIN_EXE_kvass")).with_file_name("kvassd");
        assert!(kvassd.is_file(), "build the workspace first: there is no {}", kvassd.display());
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// The data directory, which does not exist until the daemon makes it.
    fn db(&self) -> PathBuf {
        self.directory.path().join("db")
    }

    fn kvass(&self, arguments: &[&str]) -> Run {
        run(kvass(&self.db()).args(arguments))
    }

    fn pid(&self) -> u64 {
        let status: serde_json::Value = serde_json::from_str(self.kvass(&["status", "--json"]).ok().text()).unwrap();
        status["process"].as_u64().unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kvass(&["-q", "daemon", "stop"]);
    }
}

#[test]
fn the_first_command_starts_a_daemon_and_values_come_back_exactly() {
    let store = Store::new();
    store.kvass(&["set", "hello", "world"]).ok();
    assert_eq!(store.kvass(&["get", "hello"]).ok().stdout, b"world");
    assert_eq!(fs::metadata(store.db()).unwrap().permissions().mode() & 0o777, 0o700);
    let long: Vec<u8> = (0..3_000_000u32).map(|number| (number * 7 % 256) as u8).collect();
    for value in [&b""[..], b"\n", b"\0\xff", &long[..65_536], &long[..65_537], &long] {
        run_with(kvass(&store.db()).args(["set", "value"]), value).ok();
        assert!(store.kvass(&["get", "value"]).ok().stdout == value, "{} bytes", value.len());
    }
    store.kvass(&["get", "nothing"]).fails(1, "kvass: no such key: nothing\n");
    assert_eq!(store.kvass(&["get", "nothing", "--default", ""]).ok().stdout, b"");
}

#[test]
fn two_hundred_commands_at_once_from_a_cold_start_have_one_daemon() {
    let store = Store::new();
    let children: Vec<Child> = (0..200)
        .map(|number| {
            let (key, value) = (format!("k{number:03}"), number.to_string());
            kvass(&store.db()).args(["-q", "set", &key, &value]).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        Run::of(child.wait_with_output().unwrap()).ok();
    }
    assert_eq!(store.kvass(&["ls"]).ok().text().lines().count(), 200);
    let pid = store.pid();
    assert_eq!(store.pid(), pid);
    assert_eq!(fs::read_to_string(store.db().join("lock")).unwrap().lines().next().unwrap(), pid.to_string());
}

#[test]
fn lists_are_in_order_and_removals_are_told() {
    let store = Store::new();
    for (key, value) in [("b", "2"), ("a/y", "1"), ("a/x", "0"), ("ä", "3")] {
        store.kvass(&["set", key, value]).ok();
    }
    assert_eq!(store.kvass(&["ls"]).ok().text(), "a/x\na/y\nb\nä\n");
    assert_eq!(store.kvass(&["ls", "-r", "a/"]).ok().text(), "a/y\na/x\n");
    assert_eq!(store.kvass(&["ls", "-v", "a/"]).ok().text(), "a/x\t0\na/y\t1\n");
    assert!(store.kvass(&["ls", "-l", "b"]).ok().text().ends_with("Z  local    b\n"));
    store.kvass(&["rm", "b", "c"]).fails(1, "kvass: no such key: c\n");
    store.kvass(&["rm", "--prefix", "a/", "-f"]).ok();
    assert_eq!(store.kvass(&["ls"]).ok().text(), "ä\n");
}

#[test]
fn a_watch_and_a_wait_survive_a_restart() {
    let store = Store::new();
    store.kvass(&["daemon", "start"]).ok();
    let mut watch = kvass(&store.db()).args(["-q", "watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let wait =
        kvass(&store.db()).args(["-q", "wait", "late", "--timeout", "60s"]).stdout(Stdio::piped()).spawn().unwrap();
    // A watch tells changes from its beginning on; set until the first shows that it has begun.
    let (begun, stop) = std::sync::mpsc::channel::<()>();
    let db = store.db();
    let setter = std::thread::spawn(move || {
        while stop.try_recv().is_err() {
            run(kvass(&db).args(["set", "first", "1"]));
        }
    });
    assert_eq!(lines.next().unwrap().unwrap(), "set\tfirst");
    begun.send(()).unwrap();
    setter.join().unwrap();
    store.kvass(&["daemon", "restart"]).ok();
    store.kvass(&["set", "late", "2"]).ok();
    store.kvass(&["rm", "first"]).ok();
    let mut after = lines.map(Result::unwrap).filter(|line| line != "set\tfirst");
    assert_eq!((after.next().unwrap(), after.next().unwrap()), ("set\tlate".into(), "rm\tfirst".into()));
    assert_eq!(Run::of(wait.wait_with_output().unwrap()).text(), "2");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_watch_survives_the_death_of_the_daemon_that_it_started() {
    let store = Store::new();
    let mut watch = kvass(&store.db()).args(["-q", "watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    until("the watch starts a daemon", || store.db().join("kvassd.sock").exists());
    for _ in 0..3 {
        until("a change is shown", || {
            store.kvass(&["set", "a", "b"]).ok();
            told.try_recv().is_ok()
        });
        let pid = nix::unistd::Pid::from_raw(store.pid().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        until("the daemon is gone", || {
            store.kvass(&["status", "--json"]).code == 0 && store.pid() != pid.as_raw() as u64
        });
        while told.try_recv().is_ok() {}
    }
    assert_eq!(watch.try_wait().unwrap(), None);
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_restart_is_another_process_with_the_same_entries() {
    let store = Store::new();
    store.kvass(&["set", "a", "b"]).ok();
    let before = store.pid();
    store.kvass(&["daemon", "restart"]).ok();
    assert_ne!(store.pid(), before);
    assert_eq!(store.kvass(&["get", "a"]).ok().text(), "b");
    store.kvass(&["daemon", "stop"]).ok();
    assert!(!store.db().join("kvassd.sock").exists());
    assert_eq!(store.kvass(&["daemon", "stop"]).stderr, "kvass: kvassd was not running\n");
}

#[test]
fn a_restart_ends_though_a_watch_starts_the_next_daemon_first() {
    let store = Store::new();
    store.kvass(&["daemon", "start"]).ok();
    let _watches = [(); 3].map(|()| Running::spawn(kvass(&store.db()).args(["-q", "watch"])));
    for round in 0..20 {
        let before = store.pid();
        store.kvass(&["daemon", "restart"]).ok();
        assert_ne!(store.pid(), before, "round {round}");
    }
}

#[test]
fn keys_and_process_ids_can_be_changed_and_entries_stay() {
    let store = Store::new();
    store.kvass(&["set", "a", "b"]).ok();
    let key = "5abf59f5f1a2f3c998a4f592ce081a23e14a68fd8a792259c6ec0fc1e8fb1246";
    run_with(kvass(&store.db()).args(["config", "key"]), key.as_bytes()).ok();
    store.kvass(&["config", "pid", "42"]).ok();
    let shown = store.kvass(&["config", "show"]).ok();
    assert!(shown.text().starts_with(&format!("Encryption Key: {key}\nProcessID: 42\nRemote: (None)\nFingerprint: ")));
    assert_eq!(store.kvass(&["get", "a"]).ok().text(), "b");
}

#[test]
fn a_store_with_a_server_key_alone_says_what_it_cannot_do() {
    let (device, server) = (Store::new(), Store::new());
    let key = device.kvass(&["config", "server-key"]).ok().text().trim().to_owned();
    let config = |store: &Store, arguments: &[&str], input: &str| {
        run_with(kvass(&store.db()).args(["config", "key"]).args(arguments), input.as_bytes())
    };
    let wrong = format!("{}{}{}", &key[..20], if &key[20..21] == "7" { "8" } else { "7" }, &key[21..]);
    config(&server, &[], &wrong).fails(
        2,
        "kvass: this server key has a typing error\n\
         hint: copy it anew: 'kvass config server-key' on a device shows it\n",
    );
    let set = config(&server, &[], &key).ok();
    let (said, fingerprint) = set.text().split_once('\n').unwrap();
    assert_eq!(said, "Set a server key: this store keeps records and cannot read them.");
    assert!(device.kvass(&["config", "show"]).ok().text().contains(fingerprint));
    let blind = "kvass: this store cannot be read here: it was given only a server key\n\
                 hint: ask on a device that has the encryption key; 'kvass config key' with that key makes this one of \
                 them\n";
    let file = server.directory.path().join("export");
    let commands: [&[&str]; 16] = [
        &["get", "a"],
        &["get", "a", "--default", "x"],
        &["set", "a", "b"],
        &["ls"],
        &["ls", "-v"],
        &["rm", "a"],
        &["rm", "-f", "a"],
        &["rm", "-f", "--prefix", "a"],
        &["watch"],
        &["wait", "a"],
        &["export"],
        &["run", "-e", "A=a", "--", "true"],
        &["url", "a"],
        &["url", "--list"],
        &["url", "--revoke", "a"],
        &["qr", "a"],
    ];
    for command in commands {
        server.kvass(command).fails(2, blind);
    }
    run_with(kvass(&server.db()).args(["set", "a"]), &[0; 100_000]).fails(2, blind);
    device.kvass(&["set", "a", "b"]).ok();
    fs::write(&file, device.kvass(&["export"]).ok().stdout).unwrap();
    let import = server.kvass(&["import", file.to_str().unwrap()]);
    assert!(import.code == 2 && import.stderr.contains("it was given only a server key"), "{}", import.stderr);
    let shown = server.kvass(&["config", "show"]).ok();
    assert!(
        shown.text().starts_with("Encryption Key: none (this store has the server key only)\n"),
        "{}",
        shown.text()
    );
    assert_eq!(server.kvass(&["config", "server-key"]).ok().text().trim(), key);
    assert!(server.kvass(&["status"]).ok().text().contains("Entries:     0, which cannot be read here"));
    server.kvass(&["config", "pid", "7"]).ok();
    assert_eq!(server.kvass(&["config", "pid"]).ok().text(), "7\n");
    let doctor = server.kvass(&["doctor"]).ok();
    assert!(doctor.text().contains("ok store: 0 records"), "{}", doctor.text());
}

#[test]
fn a_store_with_entries_becomes_blind_only_when_that_is_meant() {
    let store = Store::new();
    store.kvass(&["set", "a", "b"]).ok();
    let server_key = store.kvass(&["config", "server-key"]).ok();
    let shown = store.kvass(&["config", "show"]).ok();
    let key = shown.text().lines().next().unwrap().strip_prefix("Encryption Key: ").unwrap().to_owned();
    let hint = "hint: on a terminal 'kvass config key' asks whether that is meant; elsewhere -f says so\n";
    let config =
        |arguments: &[&str], input: &[u8]| run_with(kvass(&store.db()).args(["config", "key"]).args(arguments), input);
    config(&[], &server_key.stdout).fails(
        2,
        &format!("kvass: with a server key, the entry that is stored here can no longer be read here\n{hint}"),
    );
    assert_eq!(store.kvass(&["get", "a"]).ok().text(), "b");
    config(&["-f"], &server_key.stdout).ok();
    assert_eq!(store.kvass(&["get", "a"]).code, 2);
    assert!(store.kvass(&["status"]).ok().text().contains("Entries:     1, which"));
    let removed = "this is the key of other entries: the entry that is stored here would be removed from this machine";
    config(&["--new"], b"").fails(2, &format!("kvass: {removed}\n{hint}"));
    config(&[], key.as_bytes()).ok();
    assert_eq!(store.kvass(&["get", "a"]).ok().text(), "b");
}

#[test]
fn links_are_made_found_again_listed_and_revoked() {
    let store = Store::new();
    store.kvass(&["set", "photo", "x"]).ok();
    let nowhere = "kvass: there is neither a remote nor a public URL, so a link would lead nowhere\n\
                   hint: kvass config remote HOST, or kvass config public-url URL\n";
    store.kvass(&["url", "photo"]).fails(2, nowhere);
    store.kvass(&["config", "public-url", "https://Kvass.example.org:443/"]).ok();
    assert_eq!(store.kvass(&["config", "public-url"]).ok().text(), "https://kvass.example.org\n");
    assert!(store.kvass(&["config", "show"]).ok().text().ends_with("\nPublic URL: https://kvass.example.org\n"));
    let made = |arguments: &[&str]| store.kvass(arguments).written().trim_end().to_owned();
    let plain = made(&["url", "photo"]);
    assert!(plain.strip_prefix("https://kvass.example.org/get?q=").is_some_and(|token| token.len() == 26), "{plain}");
    assert_eq!(made(&["url", "photo"]), plain);
    let pinned = made(&["url", "photo", "--pin", "--expires", "30d", "--reads", "2"]);
    assert_ne!(pinned, plain);
    assert_eq!(made(&["-q", "qr", "photo"]).lines().count(), 21);
    store.kvass(&["url", "nothing"]).fails(1, "kvass: no such key: nothing\n");
    store.kvass(&["url", "--list", "nothing"]).fails(1, "kvass: no such key: nothing\n");

    let listed = || {
        let list = store.kvass(&["url", "--list", "--json"]).ok();
        list.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let of = |url: &str| listed().into_iter().find(|link| link["url"] == url).unwrap();
    assert_eq!(listed().len(), 2);
    assert!(of(&plain)["expires"].is_null() && of(&plain)["reads"].is_null() && of(&plain)["pinned"] == false);
    assert!(of(&pinned)["expires"].is_string() && of(&pinned)["reads"] == 2 && of(&pinned)["pinned"] == true);
    store.kvass(&["set", "photo", "y"]).ok();
    assert_eq!((&of(&plain)["state"], &of(&pinned)["state"]), (&"valid".into(), &"replaced".into()));
    assert_eq!(store.kvass(&["ls"]).ok().text(), "photo\n");

    assert_eq!(store.kvass(&["url", "--revoke", &plain]).stderr, "kvass: revoked 1 link\n");
    let again = made(&["url", "photo"]);
    assert_ne!(again, plain);
    let gone = format!("kvass: no such link: {plain}\nhint: kvass url --list shows all links\n");
    store.kvass(&["url", "--revoke", &plain]).fails(1, &gone);
    store.kvass(&["rm", "photo"]).ok();
    assert_eq!(store.kvass(&["url", "--list"]).ok().text(), "");
    store
        .kvass(&["url", "--revoke", "photo"])
        .fails(1, "kvass: there is no link to 'photo'\nhint: kvass url --list shows all links\n");
    store.kvass(&["config", "public-url", ""]).ok();
    assert_eq!(store.kvass(&["config", "public-url"]).ok().text(), "(None)\n");
}

#[test]
fn an_export_fills_another_store_and_newer_entries_are_kept() {
    let (from, to) = (Store::new(), Store::new());
    from.kvass(&["set", "text", "x"]).ok();
    run_with(kvass(&from.db()).args(["set", "long"]), &vec![0xff; 2_500_000]).ok();
    let file = from.directory.path().join("export");
    from.kvass(&["export", file.to_str().unwrap()]).ok();
    let import = |flags: &[&str]| run(kvass(&to.db()).arg("import").arg(&file).args(flags));
    assert_eq!(import(&[]).stderr, "kvass: stored 2, unchanged 0, kept because newer here 0\n");
    assert_eq!(import(&[]).stderr, "kvass: stored 0, unchanged 2, kept because newer here 0\n");
    assert!(to.kvass(&["get", "long"]).ok().stdout == vec![0xff; 2_500_000]);
    to.kvass(&["set", "text", "newer"]).ok();
    assert!(import(&[]).stderr.contains("kept: text"));
    assert_eq!(to.kvass(&["get", "text"]).ok().text(), "newer");
    assert!(import(&["-f", "--dry-run"]).stderr.contains("stored 1"));
    assert_eq!(to.kvass(&["get", "text"]).ok().text(), "newer");
    import(&["-f"]);
    assert_eq!(to.kvass(&["get", "text"]).ok().text(), "x");
}

#[test]
fn a_healthy_store_has_no_findings() {
    let store = Store::new();
    store.kvass(&["set", "a", "b"]).ok();
    let report = store.kvass(&["doctor"]);
    assert_eq!((report.code, report.stderr.as_str()), (0, ""), "{}", report.text());
    assert!(report.text().lines().all(|line| line.starts_with("ok ")), "{}", report.text());
}

#[test]
fn a_program_gets_values_and_a_named_socket_is_used() {
    let store = Store::new();
    let socket = store.directory.path().join("s");
    let named = |arguments: &[&str]| run(kvass(&store.db()).arg("--socket").arg(&socket).args(arguments));
    named(&["set", "k", "v\n"]).ok();
    assert_eq!(named(&["run", "-e", "A=k", "--", "sh", "-c", "printf '[%s]' \"$A\""]).ok().text(), "[v\n]");
    assert!(socket.exists() && !store.db().join("kvassd.sock").exists());
    named(&["daemon", "stop"]).ok();
}
