//! The program on several devices with real daemons: what one sees of the other's changes.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test program")]

mod common;

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{Run, Running, kvass, run, run_with, until};
use tempfile::TempDir;

/// A device or a server, whose daemon is stopped at the end.
struct Device {
    directory: TempDir,
    server: Option<Child>,
}

impl Device {
    fn new() -> Self {
        let device = Self { directory: tempfile::tempdir().unwrap(), server: None };
        device.kvass(&["daemon", "start"]).ok();
        device
    }

    /// One that accepts devices.
    fn server() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kvassd = Path::new(env!("CARGO_BIN_EXE_kvass")).with_file_name("kvassd");
        let mut command = Command::new(kvassd);
        command.arg("--db").arg(directory.path().join("db")).args([
            "--log",
            "error",
            "--server",
            "--bind",
            "127.0.0.1:0",
        ]);
        let server = Self { directory, server: Some(command.stdin(Stdio::null()).spawn().unwrap()) };
        until("a server", || server.db().join("kvassd.sock").exists());
        server
    }

    fn db(&self) -> PathBuf {
        self.directory.path().join("db")
    }

    fn kvass(&self, arguments: &[&str]) -> Run {
        run(kvass(&self.db()).args(arguments))
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(self.kvass(&["-q", "status", "--json"]).ok().text()).unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}", self.status()["bind"].as_str().unwrap())
    }

    /// Joins with the line of `other`.
    fn join(&self, other: &Self) {
        let line = other.kvass(&["-q", "pair"]).ok().stdout;
        run_with(kvass(&self.db()).args(["-q", "join"]), &line).ok();
    }

    /// Begins to write what `kvass watch` or `kvass wait` shows.
    fn spawn(&self, arguments: &[&str]) -> Running {
        Running::spawn(kvass(&self.db()).arg("-q").args(arguments))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kvass(&["-q", "daemon", "stop"]);
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A server and two devices that follow it.
fn three() -> (Device, Device, Device) {
    let (server, a, b) = (Device::server(), Device::new(), Device::new());
    let key = run(kvass(&server.db()).args(["config", "show"])).ok();
    let key = key.text().lines().next().unwrap().strip_prefix("Encryption Key: ").unwrap().to_owned();
    run_with(kvass(&a.db()).args(["config", "key"]), key.as_bytes()).ok();
    let found = a.kvass(&["config", "remote", &server.url()]);
    assert!(found.written().contains("the same key"), "{}", found.text());
    b.join(&a);
    (server, a, b)
}

/// The lines of a watch, from the first change on that it shows.
fn begun(watch: &mut Running, other: &Device) -> Lines<BufReader<ChildStdout>> {
    let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    // A watch tells changes from its beginning on; set until the first shows that it has begun.
    std::thread::scope(|scope| {
        let (begun, stop) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while stop.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                other.kvass(&["set", "first", "1"]).ok();
            }
        });
        assert_eq!(lines.next().unwrap().unwrap(), "set\tfirst");
        drop(begun);
    });
    lines
}

#[test]
fn a_watch_shows_changes_of_another_device_also_after_a_restart_of_the_daemon() {
    let (_server, a, b) = three();
    let mut watch = b.spawn(&["watch"]);
    let lines = begun(&mut watch, &a);
    let mut lines = lines.map(Result::unwrap).filter(|line| line != "set\tfirst");
    a.kvass(&["set", "one", "1"]).ok();
    assert_eq!(lines.next().unwrap(), "set\tone");
    b.kvass(&["daemon", "stop"]).ok();
    a.kvass(&["set", "while it was away", "2"]).ok();
    run_with(kvass(&a.db()).args(["set", "large"]), &vec![7; 3_000_000]).ok();
    a.kvass(&["rm", "one"]).ok();
    // Small changes do not wait for large ones.
    let mut seen = [lines.next().unwrap(), lines.next().unwrap(), lines.next().unwrap()];
    seen.sort();
    assert_eq!(seen, ["rm\tone", "set\tlarge", "set\twhile it was away"]);
    assert!(b.kvass(&["get", "large"]).ok().stdout == vec![7; 3_000_000], "a key shows once its value is whole");
}

#[test]
fn a_wait_ends_by_a_change_of_another_device_also_after_a_restart_of_the_daemon() {
    let (_server, a, b) = three();
    let wait = b.spawn(&["wait", "k", "--timeout", "60s"]);
    b.kvass(&["daemon", "restart"]).ok();
    a.kvass(&["set", "k", "1"]).ok();
    assert_eq!(wait.ended().ok().text(), "1");

    let mut change = b.spawn(&["wait", "k", "--change", "--timeout", "60s"]);
    b.kvass(&["daemon", "restart"]).ok();
    // It may begin only after a change, and then waits for the next.
    let mut number = 1;
    until("a change", || {
        number += 1;
        a.kvass(&["set", "k", &number.to_string(), "--wait"]).ok();
        change.0.try_wait().unwrap().is_some()
    });
    let shown = change.ended().ok();
    assert!(shown.text().parse::<u32>().unwrap() > 1, "{}", shown.text());
}

#[test]
fn what_one_device_hands_over_the_other_reads() {
    let (_server, a, b) = three();
    for number in 0..20 {
        let value = number.to_string();
        let (from, to) = if number % 2 == 0 { (&a, &b) } else { (&b, &a) };
        from.kvass(&["set", "baton", &value, "--wait=20s"]).ok();
        assert_eq!(to.kvass(&["get", "baton", "--fresh=20s"]).ok().text(), value);
    }
}

#[test]
fn a_remote_that_is_away_ends_waits_by_their_time_and_the_value_stays() {
    let (mut server, a, _b) = three();
    a.kvass(&["set", "k", "1", "--wait"]).ok();
    let mut process = server.server.take().unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let url = a.status()["remote"].as_str().unwrap().to_owned();
    until("a link that waits", || a.status()["link"] == "waiting" && !a.status()["error"].is_null());
    let set = a.kvass(&["set", "k", "2", "--wait=1s"]);
    let mend = a.status()["mend"].as_str().unwrap().to_owned();
    let late = "'k' is stored here, but not at the remote within 1 s";
    set.fails(4, &format!("kvass: {late}: nothing answers at {url}\nhint: {mend}\n"));
    let got = a.kvass(&["get", "k", "--fresh=100ms"]);
    assert_eq!((got.code, got.text()), (4, ""));
    assert_eq!(a.kvass(&["get", "k"]).ok().text(), "2");
    assert_eq!(a.status()["pending"], 1);
    assert!(a.kvass(&["ls", "-l"]).ok().text().ends_with("pending  k\n"));
    let doctor = a.kvass(&["doctor"]);
    assert_eq!(doctor.code, 1);
    assert!(doctor.text().contains(&format!("!! remote: nothing answers at {url}; mend: ")), "{}", doctor.text());
}

#[test]
fn a_key_that_is_another_ends_waits_at_once() {
    let (server, a, _b) = three();
    run_with(kvass(&a.db()).args(["config", "key"]), "ab".repeat(32).as_bytes()).ok();
    until("a blocked link", || a.status()["link"] == "blocked");
    let refused = "the remote refuses: it has another key, or no protocol version in common";
    let noted = format!("kvass: not in step with the remote: {refused}; 'kvass status' tells more\n");
    let hint = format!("hint: {}\n", a.status()["mend"].as_str().unwrap());
    let set = a.kvass(&["set", "k", "1", "--wait=10m"]);
    set.fails(4, &format!("{noted}kvass: 'k' is stored here, but not at the remote: {refused}\n{hint}"));
    let get = a.kvass(&["get", "k", "--fresh=10m"]);
    get.fails(4, &format!("kvass: cannot take what the remote has: {refused}\n{hint}"));
    assert_eq!(a.kvass(&["get", "k"]).ok().text(), "1");
    assert_eq!(a.kvass(&["config", "remote", ""]).ok().text(), "");
    assert!(a.status()["remote"].is_null());
    a.kvass(&["set", "k", "2", "--wait"])
        .fails(4, "kvass: 'k' is stored here, but there is no remote\nhint: kvass config remote HOST\n");
    drop(server);
}

#[test]
fn a_store_joins_with_what_it_has_after_it_was_told_what_it_would_lose() {
    let (_server, a, b) = three();
    a.kvass(&["set", "shared", "theirs", "--wait"]).ok();
    let c = Device::new();
    c.kvass(&["set", "shared", "mine"]).ok();
    c.kvass(&["set", "only here", "1"]).ok();
    let line = a.kvass(&["-q", "pair"]).ok().stdout;
    let refused = run_with(kvass(&c.db()).arg("join"), &line);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("  this device's  shared\n"), "{}", refused.stderr);
    assert!(c.status()["remote"].is_null());
    let joined = run_with(kvass(&c.db()).args(["join", "-f"]), &line).ok();
    let fingerprint = a.status()["fingerprint"].as_str().unwrap().to_owned();
    assert!(joined.text().ends_with(&format!("Fingerprint: {fingerprint}\n")), "{}", joined.text());
    c.kvass(&["sync"]).ok();
    for device in [&a, &b] {
        assert_eq!(device.kvass(&["get", "shared", "--fresh"]).ok().text(), "mine");
        assert_eq!(device.kvass(&["get", "only here"]).ok().text(), "1");
    }
    let wrong = String::from_utf8(line).unwrap().trim().to_owned();
    let wrong = format!("{}{}", &wrong[..wrong.len() - 1], if wrong.ends_with('0') { '2' } else { '0' });
    assert_eq!(run_with(kvass(&b.db()).arg("join"), wrong.as_bytes()).code, 2);
}

#[test]
fn a_link_is_the_same_on_all_devices_and_begins_as_the_server_says() {
    let (server, a, b) = three();
    a.kvass(&["set", "photo", "x", "--wait"]).ok();
    let link = a.kvass(&["url", "photo"]).ok().text().to_owned();
    assert!(link.starts_with(&format!("{}/get?q=", server.url())), "{link}");
    a.kvass(&["sync"]).ok();
    b.kvass(&["sync"]).ok();
    assert_eq!(b.kvass(&["url", "photo"]).ok().text(), link);

    server.kvass(&["config", "public-url", "https://kvass.example.org/a"]).ok();
    let begins = "https://kvass.example.org/a/get?q=";
    // A server says it as a session begins.
    b.kvass(&["daemon", "restart"]).ok();
    until("what the server says", || b.kvass(&["url", "photo"]).ok().text().starts_with(begins));
    b.kvass(&["config", "public-url", "http://here.example"]).ok();
    assert!(b.kvass(&["url", "photo"]).ok().text().starts_with("http://here.example/get?q="));

    b.kvass(&["url", "--revoke", "photo"]).written();
    b.kvass(&["sync"]).ok();
    a.kvass(&["sync"]).ok();
    assert_eq!(a.kvass(&["url", "--list"]).ok().text(), "");
}
