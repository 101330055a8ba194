//! What the tests of the program share: running it, and daemons that follow a script.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub, reason = "each test program uses some of it")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvass_proto::frame::{self, Kind};
use kvass_proto::v1::{self, Greeting, Reply, Request, greeting::State, reply};
use tempfile::TempDir;

/// The outcome of one run of the program.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    pub fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| 1_000 + output.status.signal().unwrap());
        Self { code, stdout: output.stdout, stderr: String::from_utf8(output.stderr).unwrap() }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// What it wrote, where it succeeded; its notes went elsewhere.
    #[track_caller]
    pub fn written(&self) -> &str {
        assert_eq!(self.code, 0);
        self.text()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""));
        self
    }

    #[track_caller]
    pub fn fails(self, code: i32, stderr: &str) -> Self {
        assert_eq!((self.stderr.as_str(), self.code), (stderr, code));
        self
    }
}

/// The program with a clean environment and nothing on standard input.
pub fn kvass(directory: &Path) -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_kvass")), directory)
}

pub fn program(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).arg("--db").arg(directory);
    for variable in ["KVASS_DB", "KVASS_SOCKET", "XDG_DATA_HOME", "KVASS_COMPLETE", "HOME"] {
        command.env_remove(variable);
    }
    command
}

pub fn run(command: &mut Command) -> Run {
    Run::of(command.output().unwrap())
}

/// Runs the program with bytes on standard input.
pub fn run_with(command: &mut Command, input: &[u8]) -> Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Run::of(output)
}

/// Runs the program on a terminal, types `typed` once `prompt` shows, and returns what the terminal shows.
pub fn on_terminal(fake: &Fake, arguments: &[&str], prompt: &str, typed: &str) -> (String, i32) {
    on_terminal_of((80, 24), fake, arguments, prompt, typed)
}

/// The same on a terminal of so many columns and rows.
pub fn on_terminal_of(
    (columns, rows): (u16, u16),
    fake: &Fake,
    arguments: &[&str],
    prompt: &str,
    typed: &str,
) -> (String, i32) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = kvass(fake.directory.path());
    let mut child = command.args(arguments).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    drop(command);
    drop(pty.slave);
    let mut master = fs::File::from(pty.master);
    let (mut shown, mut byte, mut typed) = (Vec::new(), [0], Some(typed));
    while let Ok(1) = master.read(&mut byte) {
        shown.push(byte[0]);
        if String::from_utf8_lossy(&shown).ends_with(prompt)
            && let Some(typed) = typed.take()
        {
            master.write_all(typed.as_bytes()).unwrap();
        }
    }
    (String::from_utf8_lossy(&shown).into_owned(), child.wait().unwrap().code().unwrap())
}

/// Waits until a condition holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a scripted daemon does on one connection.
pub type Script = Box<dyn FnOnce(&mut Peer) + Send>;

/// A daemon that follows a script for each connection, in order, and then is gone.
pub struct Fake {
    pub directory: TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub fn new(scripts: Vec<Script>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let thread = serve(&directory.path().join("kvassd.sock"), scripts);
        Self { directory, thread: Some(thread) }
    }

    /// One that answers one request with one message.
    pub fn answering(reply: impl Into<reply::Reply>) -> Self {
        let reply = reply.into();
        Self::new(vec![script(move |peer| {
            peer.greet().reply(reply);
        })])
    }

    pub fn kvass(&self, arguments: &[&str]) -> Run {
        run(kvass(self.directory.path()).args(arguments))
    }

    /// Waits for the script's end, and for what it asserts.
    pub fn done(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

pub fn serve(socket: &Path, scripts: Vec<Script>) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for script in scripts {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            script(&mut Peer { stream });
        }
    })
}

pub fn script(script: impl FnOnce(&mut Peer) + Send + 'static) -> Script {
    Box::new(script)
}

/// The daemon's end of a connection.
pub struct Peer {
    pub stream: UnixStream,
}

pub fn greeting() -> Greeting {
    Greeting {
        version: env!("CARGO_PKG_VERSION").into(),
        state: State::Serving.into(),
        process: 4_711,
        ..Greeting::default()
    }
}

impl Peer {
    pub fn greet(&mut self) -> &mut Self {
        self.reply(reply::Reply::Greeting(greeting()))
    }

    pub fn reply(&mut self, reply: impl Into<reply::Reply>) -> &mut Self {
        let _ = frame::write_message(&mut self.stream, &Reply { reply: Some(reply.into()) });
        self
    }

    pub fn data(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = frame::write_data(&mut self.stream, bytes);
        self
    }

    pub fn end(&mut self) -> &mut Self {
        let _ = frame::write_end(&mut self.stream);
        self
    }

    /// Says nothing until the client closes.
    pub fn hold(&mut self) {
        let _ = std::io::copy(&mut self.stream, &mut std::io::sink());
    }

    pub fn request(&mut self) -> v1::request::Command {
        self.whole_request().command.unwrap()
    }

    pub fn whole_request(&mut self) -> Request {
        let mut payload = Vec::new();
        assert_eq!(frame::read(&mut self.stream, &mut payload).unwrap(), Some(Kind::Message));
        frame::decode(&payload).unwrap()
    }

    /// The bytes of the data frames up to the end frame; `None` where the client closes before it.
    pub fn value(&mut self) -> Option<Vec<u8>> {
        let (mut all, mut payload) = (Vec::new(), Vec::new());
        loop {
            match frame::read(&mut self.stream, &mut payload).unwrap() {
                None => return None,
                Some(Kind::Data) => all.extend_from_slice(&payload),
                Some(Kind::End) => return Some(all),
                Some(Kind::Message) => panic!("a message among the data"),
            }
        }
    }
}

pub fn error(code: v1::error::Code, message: &str) -> reply::Reply {
    let (causes, hint) = (vec!["a cause".into()], "a hint".into());
    reply::Reply::Error(v1::Error { code: code.into(), message: message.into(), causes, hint })
}

pub fn entry(key: &str, size: usize) -> v1::Entry {
    v1::Entry { key: key.into(), size: size as u64, time_us: 951_782_399_000_001, ..v1::Entry::default() }
}

pub fn inline(key: &str, value: &[u8]) -> reply::Reply {
    reply::Reply::Value(v1::Value { entry: Some(entry(key, value.len())), inline: Some(value.to_vec()) })
}

pub fn streamed(key: &str, size: usize) -> reply::Reply {
    reply::Reply::Value(v1::Value { entry: Some(entry(key, size)), inline: None })
}

pub fn stored() -> reply::Reply {
    reply::Reply::Stored(v1::Stored::default())
}

/// The program installed beside a kvassd that does what a shell script says.
pub struct Installed {
    pub root: TempDir,
}

impl Installed {
    pub fn new(behaviour: &str) -> Self {
        let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let kvassd = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/kvassd");
        fs::hard_link(env!("CARGO_BIN_EXE_kvass"), root.path().join("kvass")).unwrap();
        std::os::unix::fs::symlink(kvassd, root.path().join("kvassd")).unwrap();
        fs::write(root.path().join("behaviour"), behaviour).unwrap();
        fs::create_dir(root.path().join("db")).unwrap();
        Self { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn command(&self) -> Command {
        program(&self.path("kvass"), &self.path("db"))
    }

    pub fn kvass(&self, arguments: &[&str]) -> Run {
        run(self.command().args(arguments))
    }
}
