//! Daemons for tests: one inside the test's process, and the real program.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test program uses a part")]

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvass_proto::frame::{self, Kind};
use kvass_proto::v1::{self, greeting, reply::Reply, request};
use kvassd::config::Config;
use kvassd::daemon::DaemonError;
use kvassd::socket::{self, Place};
use kvassd::store::Options;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The greatest value that test daemons take, in bytes.
pub const VALUE_MAX: u64 = 8 << 20;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `ready` gives something.
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// An empty directory that only its owner may look into.
pub fn directory() -> TempDir {
    tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o700)).tempdir().unwrap()
}

/// A directory whose socket is bound, with nobody who accepts yet.
pub fn claim(directory: &Path) -> (Config, Place) {
    let path = directory.canonicalize().unwrap();
    let config = Config {
        socket: path.join("kvassd.sock"),
        directory: path,
        log: tracing::Level::INFO,
        options: Options { value_max: VALUE_MAX, reserve: 4 << 20 },
        key_file: None,
        bind: None,
        port: kvassd::config::Port::default(),
        authorities: None,
        watchdog: None,
        on_demand: false,
        repair: false,
        arguments: vec!["--flag".into()],
    };
    let claimed = socket::claim(&config, false).unwrap().unwrap();
    let place = socket::listen(&config, claimed, Vec::new()).unwrap();
    (config, place)
}

/// Runs a daemon to its end.
pub fn run(config: &Config, place: Place, stop: CancellationToken) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(kvassd::daemon::run(config, place, None, stop, |_| ()))
}

/// A daemon on threads of this process. It binds before it starts, and drains when it is dropped.
pub struct TestDaemon {
    directory: TempDir,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl TestDaemon {
    pub fn start() -> Self {
        Self::in_directory(directory())
    }

    pub fn in_directory(directory: TempDir) -> Self {
        let (config, place) = claim(directory.path());
        let stop = CancellationToken::new();
        let token = stop.clone();
        let thread = std::thread::spawn(move || run(&config, place, token).unwrap());
        Self { directory, stop, thread: Some(thread) }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("kvassd.sock")
    }

    /// A connection to a daemon that serves.
    pub fn connect(&self) -> Client {
        Client::connect(&self.path())
    }

    /// The first reply to a request.
    pub fn ask(&self, command: request::Command) -> Reply {
        let mut client = self.connect();
        client.request(command);
        client.reply()
    }

    pub fn set(&self, key: &str, value: &[u8]) {
        let set = v1::Set { key: key.into(), value: Some(value.to_vec()), ..Default::default() };
        assert!(matches!(self.ask(request::Command::Set(set)), Reply::Stored(_)));
    }

    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut client = self.connect();
        client.request(request::Command::Get(v1::Get { key: key.into() }));
        match client.reply() {
            Reply::Value(v1::Value { inline: Some(value), .. }) => Some(value.to_vec()),
            Reply::Value(_) => Some(client.data()),
            Reply::Error(error) if error.code() == v1::error::Code::NoSuchKey => None,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// One connection.
pub struct Client {
    pub stream: UnixStream,
    pub directory: String,
}

impl Client {
    /// Connects and reads greetings until the daemon serves.
    pub fn connect(directory: &Path) -> Self {
        let mut client = Self::raw(directory);
        loop {
            match client.reply() {
                Reply::Greeting(greeting) if greeting.state() == greeting::State::Serving => {
                    return client;
                }
                Reply::Greeting(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Connects, waiting for the socket to appear, and reads nothing.
    pub fn raw(directory: &Path) -> Self {
        let socket = directory.join("kvassd.sock");
        let stream = eventually("a socket", || UnixStream::connect(&socket).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, directory: directory.to_str().unwrap().into() }
    }

    pub fn request(&mut self, command: request::Command) {
        let request = v1::Request {
            directory: self.directory.clone(),
            version: "0".into(),
            command: Some(command),
            ..v1::Request::default()
        };
        frame::write_message(&mut self.stream, &request).unwrap();
    }

    /// The next frame; `None` where the daemon has closed.
    pub fn frame(&mut self) -> Option<(Kind, Vec<u8>)> {
        let mut payload = Vec::new();
        match frame::read(&mut self.stream, &mut payload) {
            Ok(kind) => kind.map(|kind| (kind, payload)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn next(&mut self) -> Option<Reply> {
        let (kind, payload) = self.frame()?;
        assert_eq!(kind, Kind::Message);
        Some(frame::decode::<v1::Reply>(&payload).unwrap().reply.unwrap())
    }

    pub fn reply(&mut self) -> Reply {
        self.next().expect("the daemon closed")
    }

    pub fn greeting(&mut self) -> v1::Greeting {
        match self.reply() {
            Reply::Greeting(greeting) => greeting,
            other => panic!("{other:?}"),
        }
    }

    pub fn error(&mut self) -> v1::Error {
        match self.reply() {
            Reply::Error(error) => error,
            other => panic!("{other:?}"),
        }
    }

    /// Data frames up to the end frame.
    pub fn data(&mut self) -> Vec<u8> {
        let mut value = Vec::new();
        loop {
            match self.frame().expect("the daemon closed") {
                (Kind::Data, part) => value.extend(part),
                (Kind::End, _) => return value,
                (Kind::Message, payload) => panic!("{:?}", frame::decode::<v1::Reply>(&payload)),
            }
        }
    }
}

/// `kvassd` as a program, killed when it is dropped.
pub struct Process {
    pub child: Child,
    stderr: Option<BufReader<std::process::ChildStderr>>,
}

impl Process {
    pub fn command(directory: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvassd"));
        // What the surroundings of a test say to services and to the user's own daemon.
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if ["KVASS_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "CREDENTIALS_"].iter().any(|of| text.starts_with(of)) {
                command.env_remove(&variable);
            }
        }
        command.arg("--db").arg(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().map(BufReader::new);
        Self { child, stderr }
    }

    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::spawn(Self::command(directory).args(arguments))
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn ended(&mut self) -> ExitStatus {
        eventually("the end of the daemon", || self.child.try_wait().unwrap())
    }

    /// What it wrote to standard error up to its end, or until it let go of it.
    pub fn stderr(&mut self) -> String {
        let mut text = String::new();
        io::Read::read_to_string(self.stderr.as_mut().unwrap(), &mut text).unwrap();
        text
    }

    pub fn stderr_line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The key of daemons that sync.
pub const KEY: [u8; 32] = [9; 32];

/// A daemon as a program, which syncs with others.
pub struct Daemon {
    pub directory: TempDir,
    pub process: Process,
}

impl Daemon {
    pub fn device() -> Self {
        Self::started(directory(), &[], KEY)
    }

    pub fn server() -> Self {
        Self::started(directory(), &["--server", "--bind", "127.0.0.1:0"], KEY)
    }

    pub fn started(directory: TempDir, arguments: &[&str], key: [u8; 32]) -> Self {
        let arguments = [arguments, &["--log", "error"]].concat();
        let process = Process::start(directory.path(), &arguments);
        let daemon = Self { directory, process };
        assert!(matches!(
            daemon.ask(request::Command::SetKey(v1::SetKey { key: key.to_vec(), ..v1::SetKey::default() })),
            Reply::Config(_)
        ));
        daemon
    }

    /// Killed and started again, as after a power cut.
    pub fn again(mut self, arguments: &[&str]) -> Self {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
        Self::started(self.directory, arguments, KEY)
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.path())
    }

    pub fn ask(&self, command: request::Command) -> Reply {
        let mut client = self.connect();
        client.request(command);
        client.reply()
    }

    pub fn status(&self) -> v1::Status {
        match self.ask(request::Command::Status(v1::StatusQuery {})) {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub fn link(&self) -> v1::Link {
        self.status().link.unwrap()
    }

    pub fn set_remote(&self, remote: &str) -> v1::RemoteSet {
        match self.ask(request::Command::SetRemote(v1::SetRemote { remote: remote.into() })) {
            Reply::RemoteSet(set) => set,
            other => panic!("{other:?}"),
        }
    }

    pub fn follow(&self, server: &Self) {
        let set = self.set_remote(&format!("http://{}", server.status().bind));
        assert!(set.reached, "{set:?}");
    }

    pub fn set(&self, key: &str, value: &[u8]) {
        let mut client = self.connect();
        client.request(request::Command::Set(v1::Set { key: key.into(), ..v1::Set::default() }));
        kvass_proto::frame::write_data(&mut client.stream, value).unwrap();
        kvass_proto::frame::write_end(&mut client.stream).unwrap();
        assert!(matches!(client.reply(), Reply::Stored(_)));
    }

    pub fn remove(&self, key: &str) {
        let remove = v1::Remove { keys: vec![key.into()], prefix: None };
        assert!(matches!(self.ask(request::Command::Remove(remove)), Reply::Removed(_)));
    }

    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut client = self.connect();
        client.request(request::Command::Get(v1::Get { key: key.into() }));
        match client.reply() {
            Reply::Value(v1::Value { inline: Some(value), .. }) => Some(value),
            Reply::Value(_) => Some(client.data()),
            Reply::Error(error) if error.code() == v1::error::Code::NoSuchKey => None,
            other => panic!("{other:?}"),
        }
    }

    /// Stopped and started again.
    pub fn restarted(mut self, arguments: &[&str]) -> Self {
        assert!(matches!(self.ask(request::Command::Stop(v1::Stop {})), Reply::Stopping(_)));
        self.process.ended();
        Self::started(self.directory, arguments, KEY)
    }

    /// What `kvass sync` does.
    pub fn sync(&self) {
        self.reach(v1::Sync::default());
    }

    /// What `kvass set --wait` does once the value is stored.
    pub fn wait_held(&self, key: &str) {
        self.reach(v1::Sync { goal: v1::sync::Goal::Held.into(), key: key.into() });
    }

    /// What `kvass get --fresh` does before it reads.
    pub fn take(&self) {
        self.reach(v1::Sync { goal: v1::sync::Goal::Taken.into(), ..v1::Sync::default() });
    }

    pub fn reach(&self, sync: v1::Sync) {
        let mut client = self.connect();
        client.request(request::Command::Sync(sync));
        loop {
            match client.reply() {
                Reply::Synced(_) => return,
                Reply::Syncing(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether the list says that the remote holds it.
    pub fn is_synced(&self, key: &str) -> bool {
        let list = v1::List { prefix: key.into(), detail: v1::list::Detail::Entries.into(), ..v1::List::default() };
        match self.ask(request::Command::List(list)) {
            Reply::Listing(listing) => listing.entries[0].sync() == v1::entry::Sync::Synced,
            other => panic!("{other:?}"),
        }
    }

    pub fn sees(&self, key: &str, value: Option<&[u8]>) {
        eventually(key, || (self.get(key).as_deref() == value).then_some(()));
    }
}

/// Says aloud that a test could not run here.
pub fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {why}");
}
