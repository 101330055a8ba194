//! The life of the program: how it starts, gives way, takes over, complains and ends.
#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

mod common;

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Client, Process, directory, eventually, skip};
use kvass_proto::frame;
use kvass_proto::v1::request::Command as Ask;
use kvass_proto::v1::{self, greeting, reply::Reply};
use kvassd::keys::{EncryptionKey, Key, SyncKey};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

fn real(directory: &tempfile::TempDir) -> std::path::PathBuf {
    directory.path().canonicalize().unwrap()
}

fn serving(path: &Path) -> v1::Greeting {
    eventually("a daemon that serves", || {
        let mut client = Client::raw(path);
        match client.next() {
            Some(Reply::Greeting(greeting)) if greeting.state() == greeting::State::Serving => Some(greeting),
            _ => None,
        }
    })
}

#[test]
fn a_client_is_greeted_before_the_store_is_open() {
    let directory = directory();
    let path = real(&directory);
    let _daemon = Process::start(&path, &[]);
    let mut client = Client::raw(&path);
    let mut states = Vec::new();
    while states.last() != Some(&greeting::State::Serving) {
        let greeting = client.greeting();
        assert_eq!(greeting.directory, path.to_str().unwrap());
        states.push(greeting.state());
    }
    // Starting any number of times, then serving once.
    assert!(states.iter().rev().skip(1).all(|state| *state == greeting::State::Starting), "{states:?}");
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_replaced() {
    let directory = directory();
    let path = real(&directory);
    let mut killed = Process::start(&path, &[]);
    serving(&path);
    killed.child.kill().unwrap();
    killed.ended();
    assert!(path.join("kvassd.sock").exists());
    let _daemon = Process::start(&path, &[]);
    serving(&path);
}

#[test]
fn a_socket_that_a_daemon_had_not_put_in_its_place_when_it_was_killed_is_removed() {
    let directory = directory();
    let path = real(&directory);
    drop(UnixListener::bind(path.join(".4194305")).unwrap());
    std::fs::write(path.join(".4194306"), "no socket").unwrap();
    let _daemon = Process::start(&path, &[]);
    serving(&path);
    assert!(!path.join(".4194305").exists());
    assert!(path.join(".4194306").exists());
}

#[test]
fn of_twenty_started_on_demand_one_serves_and_the_others_leave_quietly() {
    let directory = directory();
    let path = real(&directory);
    let mut daemons: Vec<_> = (0..20).map(|_| Process::start(&path, &["--on-demand"])).collect();
    let pid = serving(&path).process;
    for daemon in daemons.iter_mut().filter(|daemon| daemon.child.id() != pid) {
        assert!(daemon.ended().success());
        assert_eq!(daemon.stderr(), "");
    }
    assert_eq!(serving(&path).process, pid);
    let lock = std::fs::read_to_string(path.join("lock")).unwrap();
    assert_eq!(lock.lines().next().unwrap(), pid.to_string());
}

#[test]
fn a_second_daemon_in_the_foreground_complains() {
    let directory = directory();
    let path = real(&directory);
    let first = Process::start(&path, &[]);
    serving(&path);
    let mut second = Process::start(&path, &[]);
    assert_eq!(second.ended().code(), Some(3));
    let pid = first.child.id();
    let text = second.stderr();
    assert!(text.contains(&format!("kvassd: another kvassd (pid {pid}) serves {}\n", path.display())), "{text}");
    assert!(text.contains("hint: kvass daemon stop\n"), "{text}");
    assert_eq!(serving(&path).process, pid);
}

#[test]
fn a_service_takes_over_from_a_daemon_started_on_demand() {
    let directory = directory();
    let path = real(&directory);
    let mut on_demand = Process::start(&path, &["--on-demand"]);
    assert!(serving(&path).on_demand);
    let service = Process::start(&path, &[]);
    assert!(on_demand.ended().success());
    let greeting = serving(&path);
    assert_eq!((greeting.on_demand, greeting.process), (false, service.child.id()));
}

#[test]
fn a_service_takes_over_also_where_a_command_has_started_another_daemon_meanwhile() {
    let directory = directory();
    let path = real(&directory);
    let mut first = Process::start(&path, &["--on-demand"]);
    let mut client = Client::connect(&path);
    client.request(Ask::Set(v1::Set { key: "k".into(), ..Default::default() }));
    let service = Process::start(&path, &[]);
    eventually("the stop", || {
        let state = Client::raw(&path).next();
        matches!(state, Some(Reply::Greeting(it)) if it.state() == greeting::State::Stopping).then_some(())
    });
    // The service does not come to it when the first one ends, and somebody else is faster.
    service.signal("STOP");
    waitpid(Pid::from_raw(service.child.id().cast_signed()), Some(WaitPidFlag::WUNTRACED)).unwrap();
    frame::write_end(&mut client.stream).unwrap();
    assert!(first.ended().success());
    let mut second = Process::start(&path, &["--on-demand"]);
    assert_eq!(serving(&path).process, second.child.id());
    service.signal("CONT");
    assert!(second.ended().success());
    assert_eq!(serving(&path).process, service.child.id());
}

#[test]
fn a_signal_ends_the_daemon_and_its_socket() {
    for signal in ["TERM", "INT"] {
        let directory = directory();
        let path = real(&directory);
        let mut daemon = Process::start(&path, &[]);
        serving(&path);
        daemon.signal(signal);
        assert!(daemon.ended().success());
        assert!(!path.join("kvassd.sock").exists());
        assert!(path.join("lock").exists());
    }
}

#[test]
fn a_request_that_has_begun_is_answered_after_the_signal() {
    let directory = directory();
    let path = real(&directory);
    let mut daemon = Process::start(&path, &[]);
    let mut client = Client::connect(&path);
    client.request(Ask::Set(v1::Set { key: "k".into(), ..Default::default() }));
    frame::write_data(&mut client.stream, &vec![7; 2 << 20]).unwrap();
    daemon.signal("TERM");
    eventually("the stop", || {
        let state = Client::raw(&path).next();
        matches!(state, Some(Reply::Greeting(it)) if it.state() == greeting::State::Stopping).then_some(())
    });
    frame::write_end(&mut client.stream).unwrap();
    assert!(matches!(client.reply(), Reply::Stored(_)));
    assert!(daemon.ended().success());
}

#[test]
fn a_socket_path_that_is_too_long_is_explained() {
    let base = directory();
    let path = real(&base).join("x".repeat(120));
    let mut daemon = Process::start(&path, &[]);
    assert_eq!(daemon.ended().code(), Some(3));
    let text = daemon.stderr();
    assert!(
        text.starts_with("kvassd: the socket path ") && text.contains("\nhint: ") && text.contains("--socket"),
        "{text}"
    );

    let elsewhere = real(&base).join("short.sock");
    let mut daemon = Process::start(&path, &["--socket", elsewhere.to_str().unwrap()]);
    eventually("the socket elsewhere", || UnixStream::connect(&elsewhere).ok());
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    assert!(!elsewhere.exists());
}

#[test]
fn a_directory_that_others_can_read_is_refused() {
    let directory = directory();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut daemon = Process::start(directory.path(), &["--on-demand"]);
    assert_eq!(daemon.ended().code(), Some(3));
    let path = real(&directory);
    let path = path.display();
    let text = daemon.stderr();
    let wanted =
        format!("kvassd: other users can look into the data directory {path} (mode 0755)\nhint: chmod 700 {path}\n");
    assert_eq!(text, wanted);
}

#[test]
fn what_the_system_says_comes_without_its_number() {
    let base = directory();
    let path = real(&base).join("none");
    let mut daemon = Process::start(&path, &["--repair"]);
    assert_eq!(daemon.ended().code(), Some(3));
    let wanted = format!("kvassd: the data directory {} cannot be used: No such file or directory\n", path.display());
    assert_eq!(daemon.stderr(), wanted);
}

#[test]
fn wrong_usage_is_one_line_and_exit_2() {
    let directory = directory();
    let mut daemon = Process::start(directory.path(), &["--nonsense"]);
    assert_eq!(daemon.ended().code(), Some(2));
    let text = daemon.stderr();
    assert!(text.starts_with("kvassd: ") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_store_that_does_not_open_is_told_to_the_starter_and_to_those_connected() {
    let directory = directory();
    let path = real(&directory);
    // A store whose index is no directory cannot be opened by anybody.
    std::fs::write(path.join("store"), "no directory").unwrap();
    let mut daemon = Process::start(&path, &["--on-demand"]);
    assert_eq!(daemon.ended().code(), Some(3));
    let text = daemon.stderr();
    assert!(text.starts_with("kvassd: ") && text.lines().count() <= 2, "{text}");
    assert!(!path.join("kvassd.sock").exists());
}

#[test]
fn clients_that_wait_for_a_store_that_does_not_open_read_why() {
    let directory = directory();
    std::fs::write(directory.path().join("store"), "no directory").unwrap();
    let (config, place) = common::claim(directory.path());
    let mut client = Client::raw(directory.path());
    let error = common::run(&config, place, Default::default()).unwrap_err();
    let answer = loop {
        match client.reply() {
            Reply::Greeting(greeting) => assert_eq!(greeting.state(), greeting::State::Starting),
            Reply::Error(answer) => break answer,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((answer.message.as_str(), answer.hint.as_str()), (error.to_string().as_str(), error.hint()));
    assert!(client.next().is_none());
    assert!(!directory.path().join("kvassd.sock").exists());
}

#[test]
fn what_a_daemon_started_on_demand_inherits_it_lets_go() {
    let directory = directory();
    let path = real(&directory);
    let (kept, given) = std::io::pipe().unwrap();
    // The shell passes the pipe on as descriptor 7.
    let pass = "exec 7>&0 </dev/null; exec \"$0\" --db \"$1\" --on-demand";
    let mut command = Command::new("sh");
    command.args(["-c", pass, env!("CARGO_BIN_EXE_kvassd"), path.to_str().unwrap()]);
    command.stdin(given).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = Process::spawn(&mut command);
    drop(command);
    serving(&path);
    // Both end although the daemon lives: it has closed the pipe, and given standard error back.
    assert_eq!(std::io::read_to_string(kept).unwrap(), "");
    assert_eq!(daemon.stderr(), "");
    assert!(daemon.child.try_wait().unwrap().is_none());
}

#[test]
fn a_daemon_started_on_demand_logs_to_a_file_of_its_own() {
    let directory = directory();
    let path = real(&directory);
    let _daemon = Process::start(&path, &["--on-demand"]);
    serving(&path);
    let log = path.join("kvassd.log");
    assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    eventually("a line in the log", || std::fs::read_to_string(&log).unwrap().contains("serving").then_some(()));
}

#[test]
fn the_service_manager_is_told_when_the_daemon_serves_and_when_it_stops() {
    let directory = directory();
    let path = real(&directory);
    let base = common::directory();
    let manager = UnixDatagram::bind(base.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let mut daemon = Process::spawn(Process::command(&path).env("NOTIFY_SOCKET", base.path().join("notify")));
    assert_eq!(told(&manager), "READY=1");
    daemon.signal("TERM");
    assert_eq!(told(&manager), "STOPPING=1");
    assert!(daemon.ended().success());
}

/// The next word of a daemon to its manager.
fn told(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    // A receive with a time limit may be interrupted.
    let length = eventually("a word to the manager", || manager.recv(&mut bytes).ok());
    String::from_utf8_lossy(&bytes[..length]).trim_end().into()
}

#[test]
fn a_daemon_that_is_watched_shows_again_and_again_that_it_lives() {
    let directory = directory();
    let path = real(&directory);
    let base = common::directory();
    let manager = UnixDatagram::bind(base.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let mut command = Process::command(&path);
    command.env("NOTIFY_SOCKET", base.path().join("notify")).env("WATCHDOG_USEC", "60000");
    let mut daemon = Process::spawn(&mut command);
    assert_eq!(told(&manager), "READY=1");
    for _ in 0..5 {
        assert_eq!(told(&manager), "WATCHDOG=1");
    }
    daemon.signal("TERM");
    let last = eventually("the last word", || Some(told(&manager)).filter(|word| word != "WATCHDOG=1"));
    assert_eq!(last, "STOPPING=1");
    assert!(daemon.ended().success());
}

/// The fingerprint of a daemon's store, and whether it is blind.
fn account(path: &Path) -> (String, bool) {
    let mut client = Client::connect(path);
    client.request(Ask::Status(v1::StatusQuery {}));
    match client.reply() {
        Reply::Status(status) => (status.fingerprint, status.blind),
        other => panic!("{other:?}"),
    }
}

/// A key as a file holds it.
fn key_file(directory: &Path, name: &str, key: &Key) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, format!("{}\n", *key.to_text())).unwrap();
    path
}

#[test]
fn a_new_store_gets_the_key_that_a_file_gives_and_an_old_one_keeps_its_own() {
    let (directory, base) = (directory(), common::directory());
    let path = real(&directory);
    let (own, other) = (EncryptionKey::new([1; 32]), EncryptionKey::new([2; 32]));
    let fingerprint = |key: &EncryptionKey| SyncKey::derive(key).account().fingerprint();
    let first = key_file(base.path(), "first", &Key::Encryption(own.clone()));
    let start = |file: &Path| Process::start(&path, &["--key-file", file.to_str().unwrap()]);
    for _ in 0..2 {
        let mut daemon = start(&first);
        assert_eq!(account(&path), (fingerprint(&own), false));
        daemon.signal("TERM");
        assert!(daemon.ended().success());
    }
    let second = key_file(base.path(), "second", &Key::Encryption(other.clone()));
    std::fs::set_permissions(&second, PermissionsExt::from_mode(0o644)).unwrap();
    let mut refused = start(&second);
    assert_eq!(refused.ended().code(), Some(3));
    let text = refused.stderr();
    let (given, kept) = (fingerprint(&other), fingerprint(&own));
    assert!(
        text.contains(&given) && text.contains(&kept) && text.contains("\nhint: put the store's own key back"),
        "{text}"
    );
    assert!(text.contains(&format!("everybody on this machine can read {}: chmod 600", second.display())), "{text}");
    let _daemon = Process::start(&path, &[]);
    assert_eq!(account(&path), (kept, false));
}

#[test]
fn a_new_store_with_a_server_key_among_the_credentials_is_blind() {
    let (directory, credentials) = (directory(), common::directory());
    let path = real(&directory);
    let key = SyncKey::derive(&EncryptionKey::new([3; 32]));
    key_file(credentials.path(), "kvass-key", &Key::Server(key.clone()));
    let _daemon = Process::spawn(Process::command(&path).env("CREDENTIALS_DIRECTORY", credentials.path()));
    assert_eq!(account(&path), (key.account().fingerprint(), true));
}

#[test]
fn where_the_key_that_is_given_cannot_be_read_no_store_is_made() {
    let (directory, base) = (directory(), common::directory());
    let path = real(&directory);
    std::fs::write(base.path().join("wrong"), "secret").unwrap();
    for name in ["missing", "wrong"] {
        let file = base.path().join(name);
        let mut daemon = Process::spawn(Process::command(&path).env("KVASS_KEY_FILE", &file));
        assert_eq!(daemon.ended().code(), Some(3));
        let text = daemon.stderr();
        assert!(text.contains(file.to_str().unwrap()) && !text.contains("secret"), "{text}");
        assert!(!path.join("key").exists() && !path.join("store").exists());
    }
}

/// Starts a daemon with `listener` as descriptor 3, as a service manager does.
fn activated(path: &Path, listener: UnixListener) -> Process {
    let pass = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --db \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", pass, env!("CARGO_BIN_EXE_kvassd"), path.to_str().unwrap()]);
    let listener = listener.as_fd().try_clone_to_owned().unwrap();
    command.stdin(Stdio::from(listener)).stdout(Stdio::null()).stderr(Stdio::piped());
    Process::spawn(&mut command)
}

#[test]
fn a_socket_of_the_service_manager_is_served_and_left_to_it() {
    let directory = directory();
    let path = real(&directory);
    let socket = path.join("kvassd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut daemon = activated(&path, listener.try_clone().unwrap());
    assert_eq!(serving(&path).process, daemon.child.id());
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    assert!(std::fs::metadata(&socket).unwrap().file_type().is_socket());
}

#[test]
fn a_daemon_with_the_managers_socket_asks_the_one_before_to_end() {
    let directory = directory();
    let path = real(&directory);
    let mut before = Process::start(&path, &[]);
    serving(&path);
    // The manager puts its socket in the place of the daemon's.
    std::fs::remove_file(path.join("kvassd.sock")).unwrap();
    let listener = UnixListener::bind(path.join("kvassd.sock")).unwrap();
    let daemon = activated(&path, listener);
    assert!(before.ended().success());
    assert_eq!(serving(&path).process, daemon.child.id());
}

#[test]
fn a_descriptor_that_is_no_listener_is_refused() {
    let directory = directory();
    let pass = "exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --db \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", pass, env!("CARGO_BIN_EXE_kvassd"), directory.path().to_str().unwrap()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = Process::spawn(&mut command);
    assert_eq!(daemon.ended().code(), Some(3));
    assert!(daemon.stderr().contains("no Unix stream socket"));
}

#[test]
fn another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can act as another user");
    }
    let other = |script: &str, argument: &Path| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-MIO::Socket::UNIX", "-e", script])
            .arg(argument)
            .output()
    };
    let enter = "exit(-x $ARGV[0] ? 0 : 1)";
    if !other(enter, &std::env::temp_dir()).is_ok_and(|output| output.status.success()) {
        return skip("setpriv, perl and a temporary directory that others may enter are needed to act as another user");
    }
    let directory = directory();
    let path = real(&directory);
    let base = common::directory();
    let socket = base.path().join("s");
    let _daemon = Process::start(&path, &["--socket", socket.to_str().unwrap()]);
    eventually("the socket", || UnixStream::connect(&socket).ok());
    // Modes that are wrong on purpose: the check must not depend on them.
    std::fs::set_permissions(base.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    let read = "print IO::Socket::UNIX->new(Peer => $ARGV[0])->getlines";
    let output = other(read, &socket).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("this store belongs to another user"), "{output:?}");
    assert!(!text.contains(path.to_str().unwrap()), "{text}");
}

#[test]
fn a_repair_beside_a_running_daemon_is_refused() {
    let directory = directory();
    let path = real(&directory);
    let _daemon = Process::start(&path, &[]);
    serving(&path);
    let mut repair = Process::start(&path, &["--repair"]);
    assert_eq!(repair.ended().code(), Some(3));
    let text = repair.stderr();
    assert!(text.contains("another kvassd") && text.contains("hint: kvass daemon stop"), "{text}");
}

#[test]
fn a_repair_without_the_key_says_what_helps_and_leaves_all_as_it_is() {
    let directory = directory();
    let path = real(&directory);
    let mut daemon = Process::start(&path, &[]);
    serving(&path);
    daemon.signal("TERM");
    daemon.ended();
    std::fs::remove_file(path.join("key")).unwrap();
    let mut repair = Process::start(&path, &["--repair"]);
    assert_eq!(repair.ended().code(), Some(3));
    let text = repair.stderr();
    let wanted =
        "is damaged: its key file is missing, and without it nothing can be read: put that of a backup back, or";
    assert!(text.contains(wanted), "{text}");
    assert!(path.join("store/sled/db").exists());
}

#[test]
fn no_core_can_be_dumped_and_sync_file_range_is_gone() {
    if !cfg!(target_os = "linux") {
        return skip("only Linux shows it");
    }
    let directory = directory();
    let path = real(&directory);
    let daemon = Process::start(&path, &[]);
    serving(&path);
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", daemon.child.id())).unwrap();
    let limits = read("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    assert!(read("status").lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])));
}

#[test]
fn a_start_that_fails_for_the_starter_alone_writes_nothing_else() {
    let base = directory();
    let file = real(&base).join("file");
    std::fs::File::create(&file).unwrap().write_all(b"precious").unwrap();
    let mut daemon = Process::start(&file, &["--on-demand"]);
    assert_eq!(daemon.ended().code(), Some(3));
    assert_eq!(daemon.stderr().lines().next().unwrap(), format!("kvassd: {} is no directory", file.display()));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}
