//! What the program says without a daemon: help, errors of usage, the environment.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test program")]

mod common;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use common::{Fake, Run, kvass, run};

fn bare(arguments: &[&str]) -> Run {
    run(kvass(Path::new("/nonexistent/kvass")).args(arguments))
}

#[test]
fn without_a_command_there_is_a_cheat_sheet_even_without_a_home() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvass"));
    let sheet = run(command.env_remove("HOME")).ok();
    assert!(sheet.text().starts_with("kvass - a personal key-value store\n"));
    assert!(sheet.text().contains("kvass set KEY [VALUE]"));
    assert!(sheet.text().lines().all(|line| line.chars().count() <= 80), "{}", sheet.text());
}

#[test]
fn help_and_version_go_to_standard_output() {
    assert!(bare(&["--help"]).ok().text().contains("Usage: kvass"));
    assert!(bare(&["help", "set"]).ok().text().contains("kvass set answer -42"));
    assert_eq!(bare(&["--version"]).ok().text(), format!("kvass {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["set", "get", "run", "rm", "wait", "sync", "serve", "url", "qr"] {
        assert!(bare(&[command, "-h"]).ok().text().contains("Example"), "{command}");
    }
}

#[test]
fn a_value_that_begins_with_a_dash_is_told_its_way() {
    bare(&["set", "key", "-foo"]).fails(
        2,
        "kvass: unexpected argument '-f' found\n\
         hint: a value that begins with '-' stands after '--': kvass set KEY -- -foo\n",
    );
    bare(&["set", "key", "-two words"]).fails(
        2,
        "kvass: unexpected argument '-t' found\n\
         hint: a value that begins with '-' stands after '--': kvass set KEY -- '-two words'\n",
    );
    bare(&["get", "--key"]).fails(
        2,
        "kvass: unexpected argument '--key' found\n\
         hint: a key that begins with '-' stands after '--': kvass get -- --key\n",
    );
}

#[test]
fn errors_of_usage_are_one_sentence_and_a_hint() {
    bare(&["set"]).fails(2, "kvass: the following required arguments were not provided: <KEY>\nhint: kvass help set\n");
    bare(&["get", "a", "b"]).fails(2, "kvass: unexpected argument 'b' found\nhint: kvass help get\n");
    bare(&["frobnicate"])
        .fails(2, "kvass: no such command: frobnicate\nhint: kvass without a command shows what there is\n");
    bare(&["config"]).fails(
        2,
        "kvass: config needs one of: show, key, server-key, pid, remote, public-url\nhint: kvass help config\n",
    );
    bare(&["get", ""]).fails(2, "kvass: a key cannot be empty\nhint: kvass help get\n");
    bare(&["rm", "a", "b\tc"])
        .fails(2, "kvass: a key cannot hold control characters: U+0009 at byte 1\nhint: kvass help rm\n");
    bare(&["get", &"k".repeat(1_025)])
        .fails(2, "kvass: a key of 1025 bytes is too long: the most is 1024\nhint: kvass help get\n");
    bare(&["wait", "a", "--timeout", "soon"])
        .fails(2, "kvass: 'soon' is no duration: write it as 500ms, 10s, 5m, 1h or 2d\nhint: kvass help wait\n");
    bare(&["run", "-e", "A", "--", "true"]).fails(2, "kvass: 'A' is not of the form VAR=KEY\nhint: kvass help run\n");
    bare(&["wait", "a", "--timeout", "-1s"])
        .fails(2, "kvass: '-1s' is no duration: write it as 500ms, 10s, 5m, 1h or 2d\nhint: kvass help wait\n");
    for wrong in ["0", "-1", "x", "4294967296"] {
        let said = format!("kvass: '{wrong}' is no process id: that is a number from 1 to 4294967295\n");
        bare(&["config", "pid", wrong]).fails(2, &format!("{said}hint: kvass help config\n"));
    }
}

#[test]
fn what_was_meant_is_guessed() {
    let more = "kvass without a command shows what there is";
    for (typed, meant, more) in [
        (&["gte", "a"][..], "get", more),
        (&["mr", "a"], "rm", more),
        (&["statsu"], "status", more),
        (&["daemon", "statr"], "start", "kvass help daemon"),
        (&["config", "show", "--quite"], "--quiet", "kvass help config"),
    ] {
        let hint = format!("hint: did you mean '{meant}'? {more}\n");
        let told = bare(typed);
        assert!(told.code == 2 && told.stderr.ends_with(&hint), "{typed:?}: {}", told.stderr);
    }
    bare(&["run", "true"]).fails(
        2,
        "kvass: unexpected argument 'true' found\n\
         hint: the program stands after '--': kvass run -e VAR=KEY -- true\n",
    );
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvass"));
    command.arg("--help").stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    run(&mut command).fails(3, "kvass: cannot write standard output: No space left on device\n");
}

#[test]
fn a_key_that_is_not_utf8_is_refused() {
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    run(kvass(Path::new("/nonexistent")).arg("get").arg(name))
        .fails(2, "kvass: an argument is not UTF-8\nhint: keys are UTF-8; values may be any bytes\n");
}

#[test]
fn without_a_home_the_flag_is_hinted_at() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvass"));
    command.env_remove("HOME").env_remove("XDG_DATA_HOME").env("KVASS_DB", "").env_remove("KVASS_SOCKET");
    run(command.args(["get", "a"])).fails(
        3,
        "kvass: the home directory is not known: HOME is not set\n\
         hint: set HOME, or name the data directory: kvass --db DIR …\n",
    );
}

#[test]
fn a_home_that_depends_on_the_current_directory_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvass"));
    command.env("HOME", "relative").env_remove("XDG_DATA_HOME").env_remove("KVASS_DB").env_remove("KVASS_SOCKET");
    run(command.args(["set", "a", "b"]).current_dir(directory.path())).fails(
        3,
        "kvass: the home directory is not known: HOME is no absolute path\n\
         hint: set HOME, or name the data directory: kvass --db DIR …\n",
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_one_is_named_with_the_reason() {
    let hint = "hint: name another with --db DIR or KVASS_DB\n";
    for (path, reason) in [
        (&b"/dev/null/x"[..], "Not a directory"),
        (b"/nonexistent/../x", "No such file or directory"),
        (b"/\xff", "a request can name only a path that is UTF-8"),
    ] {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let said = format!("kvass: {} cannot be the data directory: {reason}\n{hint}", path.display());
        run(kvass(path).args(["set", "a", "b"])).fails(3, &said);
    }
}

#[test]
fn a_store_in_the_other_default_place_stops_a_second_one() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    let there = home.join(".local/share/kvass");
    std::fs::create_dir_all(there.join("store")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvass"));
    command.env("HOME", &home).env("XDG_DATA_HOME", home.join("xdg"));
    command.env_remove("KVASS_DB").env_remove("KVASS_SOCKET");
    let refused = run(command.args(["set", "a", "b"]));
    assert_eq!(refused.code, 3);
    assert!(refused.stderr.contains(&format!("there is one at {}", there.display())), "{}", refused.stderr);
    assert!(refused.stderr.contains("xdg/kvass"), "{}", refused.stderr);
}

#[test]
fn a_socket_path_that_is_too_long_is_named_with_the_way_out() {
    let long = format!("/{}", "x".repeat(120));
    let refused = run(kvass(Path::new(&long)).args(["get", "a"]));
    assert_eq!(refused.code, 3);
    assert!(refused.stderr.contains("has 133 bytes"), "{}", refused.stderr);
    assert!(refused.stderr.ends_with("hint: name a shorter one with --socket PATH or KVASS_SOCKET\n"));
}

#[test]
fn flags_stand_before_or_after_the_command_and_beat_the_environment() {
    let fake = Fake::answering(common::inline("a", b"1"));
    let socket = fake.directory.path().join("kvassd.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvass"));
    command.env("KVASS_SOCKET", "/nonexistent/x").env("KVASS_DB", "/nonexistent");
    command.args(["get", "a", "-q", "--db"]).arg(fake.directory.path()).arg("--socket").arg(&socket);
    assert_eq!(run(&mut command).ok().text(), "1");
    bare(&["--db", "", "get", "a"]);
}

#[test]
fn a_variable_of_other_programs_does_not_turn_a_command_into_completion() {
    let fake = Fake::answering(common::inline("a", b"1"));
    assert_eq!(run(kvass(fake.directory.path()).args(["get", "a"]).env("COMPLETE", "bash")).ok().text(), "1");
}

#[test]
fn manuals_and_scripts_need_no_store() {
    let directory = tempfile::tempdir().unwrap();
    bare(&["man", directory.path().to_str().unwrap()]).ok();
    for page in ["kvass.1", "kvass-set.1", "kvass-config-key.1", "kvass-url.1", "kvass-config-public-url.1"] {
        assert!(directory.path().join(page).exists(), "{page}");
    }
    assert!(bare(&["man"]).ok().text().contains(".TH kvass 1"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(bare(&["completions", shell]).ok().text().contains("KVASS_COMPLETE"), "{shell}");
    }
    assert_eq!(bare(&["completions", "csh"]).code, 2);
}
