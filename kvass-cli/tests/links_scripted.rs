//! `url`, `qr` and `config public-url`, against daemons that follow a script.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test program")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Fake, Run, Script, error, kvass, on_terminal, on_terminal_of, run, script};
use kvass_proto::v1::revoke_shares::Which;
use kvass_proto::v1::share::State;
use kvass_proto::v1::{self, MakeShare, Share, Shares, error::Code, reply::Reply, request::Command};

const TOKEN: &str = "000g40r40m30e209185gr38e1w";
const LINK: &str = "http://host.example:8000/get?q=000g40r40m30e209185gr38e1w";

fn token() -> Vec<u8> {
    (0..16).collect()
}

fn share(key: &str) -> Share {
    Share { key: key.into(), url: LINK.into(), time_us: 951_782_399_000_001, token: token(), ..Share::default() }
}

fn shares(shares: &[Share]) -> Reply {
    Reply::Shares(Shares { shares: shares.to_vec(), last: true })
}

fn makes() -> Fake {
    Fake::answering(shares(&[share("photo")]))
}

/// Runs the program with nothing that could answer.
fn bare(arguments: &[&str]) -> Run {
    run(kvass(Path::new("/nonexistent/kvass")).args(arguments))
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Makes a link, and looks at the request.
fn asked(arguments: &[&str], check: impl FnOnce(MakeShare) + Send + 'static) {
    let fake = Fake::new(vec![script(move |peer| {
        let Command::MakeShare(make) = peer.request() else { panic!("no link asked for") };
        check(make);
        peer.greet().reply(shares(&[share("photo")]));
    })]);
    assert_eq!(fake.kvass(arguments).ok().text(), format!("{LINK}\n"));
    fake.done();
}

#[test]
fn a_link_is_one_line_and_its_limits_are_asked_for() {
    let plain = MakeShare { key: "photo".into(), ..MakeShare::default() };
    let expected = plain.clone();
    asked(&["url", "photo"], move |make| assert_eq!(make, expected));
    let expected = MakeShare { reads: 3, pin: true, ..plain };
    asked(&["url", "--pin", "photo", "--reads", "3"], move |make| assert_eq!(make, expected));
    let begun = now_us();
    asked(&["url", "photo", "--expires", "1h"], move |make| {
        assert!((begun..=now_us()).contains(&(make.expiry_us - 3_600_000_000)));
    });
}

#[test]
fn a_link_that_does_not_work_yet_is_noted_beside_it() {
    let late = || Fake::answering(shares(&[Share { waiting: "the remote is not connected".into(), ..share("photo") }]));
    let made = late().kvass(&["url", "photo"]);
    let says = "kvass: the link does not work yet: the remote is not connected\n";
    assert_eq!((made.written(), made.stderr.as_str()), (format!("{LINK}\n").as_str(), says));
    assert_eq!(late().kvass(&["-q", "url", "photo"]).ok().text(), format!("{LINK}\n"));
}

#[test]
fn a_link_that_cannot_be_made_is_told_why() {
    let refuses = |code| Fake::answering(error(code, "it cannot be")).kvass(&["url", "photo"]);
    refuses(Code::NoSuchKey).fails(1, "kvass: no such key: photo\n");
    refuses(Code::NoBase).fails(2, "kvass: it cannot be: a cause\nhint: a hint\n");
    refuses(Code::Blind).fails(2, "kvass: it cannot be: a cause\nhint: a hint\n");
    refuses(Code::DiskFull).fails(3, "kvass: it cannot be: a cause\nhint: a hint\n");
    let old =
        v1::Error { code: Code::UnknownRequest.into(), message: "no such request".into(), ..v1::Error::default() };
    Fake::answering(Reply::Error(old))
        .kvass(&["url", "photo"])
        .fails(3, "kvass: no such request\nhint: kvassd is older than this kvass: `kvass daemon restart`\n");
}

#[test]
fn a_change_whose_answer_is_lost_is_not_asked_for_again() {
    let lost = || {
        Fake::new(vec![script(|peer| {
            peer.request();
            peer.greet();
        })])
    };
    for arguments in [&["url", "photo"][..], &["url", "--revoke", "photo"], &["config", "public-url", "http://h"]] {
        lost().kvass(arguments).fails(
            3,
            "kvass: kvassd went away without an answer; the change may have been stored\n\
             hint: try again; `kvass doctor` looks into it\n",
        );
    }
}

#[test]
fn what_cannot_be_asked_for_is_told_in_one_line() {
    let hint = "hint: kvass help url\n";
    bare(&["url"]).fails(2, &format!("kvass: the following required arguments were not provided: <KEY>\n{hint}"));
    bare(&["url", "--revoke"])
        .fails(2, &format!("kvass: the following required arguments were not provided: <KEY>\n{hint}"));
    bare(&["url", ""]).fails(2, &format!("kvass: a key cannot be empty\n{hint}"));
    bare(&["url", "a", "b"]).fails(2, &format!("kvass: unexpected argument 'b' found\n{hint}"));
    bare(&["url", "-x"]).fails(
        2,
        "kvass: unexpected argument '-x' found\nhint: a key that begins with '-' stands after '--': kvass url -- -x\n",
    );
    for (option, value, says) in [
        ("--reads", "0", "'0' is no number of reads: that is from 1 to 4294967295"),
        ("--reads", "-1", "'-1' is no number of reads: that is from 1 to 4294967295"),
        ("--reads", "many", "'many' is no number of reads: that is from 1 to 4294967295"),
        ("--expires", "soon", "'soon' is no duration: write it as 500ms, 10s, 5m, 1h or 2d"),
        ("--expires", "-1h", "'-1h' is no duration: write it as 500ms, 10s, 5m, 1h or 2d"),
        ("--expires", "", "'' is no duration: write it as 500ms, 10s, 5m, 1h or 2d"),
        ("--expires", "0s", "'0s' is no time for a link: it would end at once"),
        ("--expires", "9000000d", "'9000000d' is too long: a link ends in the year 9999 at the latest"),
    ] {
        for command in ["url", "qr"] {
            bare(&[command, "photo", option, value]).fails(2, &format!("kvass: {says}\nhint: kvass help {command}\n"));
        }
    }
    let both = |one: &str, other: &str| format!("kvass: the argument '{one}' cannot be used with '{other}'\n{hint}");
    bare(&["url", "a", "--list", "--pin"]).fails(2, &both("--list", "--pin"));
    bare(&["url", "a", "--revoke", "--reads", "2"]).fails(2, &both("--revoke", "--reads <N>"));
    bare(&["url", "a", "--revoke", "--list"]).fails(2, &both("--revoke", "--list"));
    bare(&["url", "a", "--json"])
        .fails(2, &format!("kvass: the following required arguments were not provided: --list\n{hint}"));
}

fn list() -> Fake {
    Fake::new(vec![script(|peer| {
        assert_eq!(peer.request(), Command::ListShares(v1::ListShares { key: "p".into() }));
        let limited =
            Share { expiry_us: 951_782_400_000_000, reads: 3, state: State::Expired.into(), ..share("photo") };
        let pinned = Share { pin: true, url: String::new(), state: State::UsedUp.into(), ..share("a b") };
        peer.greet().reply(Reply::Shares(Shares { shares: vec![share("photo"), limited], last: false }));
        peer.reply(shares(&[pinned]));
    })])
}

#[test]
fn links_are_listed_in_columns_or_fields() {
    let bare = format!("{TOKEN}{}", " ".repeat(LINK.len() - TOKEN.len()));
    assert_eq!(
        list().kvass(&["url", "--list", "p"]).ok().text(),
        format!(
            "{LINK}  photo  never                   any  follows\n\
             {LINK}  photo  2000-02-29T00:00:00Z      3  follows  expired\n\
             {bare}  a b    never                   any  pinned   used-up\n"
        )
    );
    let time = "\"time\":\"2000-02-28T23:59:59.000001Z\"";
    assert_eq!(
        list().kvass(&["url", "p", "--list", "--json"]).ok().text(),
        format!(
            "{{\"url\":\"{LINK}\",\"key\":\"photo\",{time},\"pinned\":false,\"state\":\"valid\"}}\n\
             {{\"url\":\"{LINK}\",\"key\":\"photo\",{time},\"expires\":\"2000-02-29T00:00:00.000000Z\",\"reads\":3,\
             \"pinned\":false,\"state\":\"expired\"}}\n\
             {{\"url\":\"{TOKEN}\",\"key\":\"a b\",{time},\"pinned\":true,\"state\":\"used-up\"}}\n"
        )
    );
}

#[test]
fn no_links_are_an_empty_list_and_a_missing_key_is_named() {
    let fake = Fake::new(vec![script(|peer| {
        assert_eq!(peer.request(), Command::ListShares(v1::ListShares::default()));
        peer.greet().reply(shares(&[]));
    })]);
    assert_eq!(fake.kvass(&["url", "--list"]).ok().text(), "");
    Fake::answering(error(Code::NoSuchKey, "gone")).kvass(&["url", "--list", "p"]).fails(1, "kvass: no such key: p\n");
}

fn revokes(which: Which, reply: Reply) -> Script {
    script(move |peer| {
        assert_eq!(peer.request(), Command::RevokeShares(v1::RevokeShares { which: Some(which) }));
        peer.greet().reply(reply);
    })
}

fn revoked(count: u64) -> Reply {
    Reply::Revoked(v1::Revoked { count, ..v1::Revoked::default() })
}

#[test]
fn a_link_that_still_works_where_the_remote_is_not_connected_is_noted() {
    for (count, says) in [(1, "1 link\nkvass: the link still works"), (3, "3 links\nkvass: the links still work")] {
        let late = || Reply::Revoked(v1::Revoked { count, waiting: "the remote is not connected".into() });
        let run = Fake::new(vec![revokes(Which::Key("photo".into()), late())]).kvass(&["url", "--revoke", "photo"]);
        let wanted = format!("kvass: revoked {says}: the remote is not connected\n");
        assert_eq!((run.written(), run.stderr.as_str()), ("", wanted.as_str()));
        let quiet = Fake::new(vec![revokes(Which::Key("photo".into()), late())]);
        assert_eq!(quiet.kvass(&["-q", "url", "--revoke", "photo"]).ok().stderr, "");
    }
}

#[test]
fn a_link_is_revoked_by_itself_and_a_key_loses_all() {
    for what in [TOKEN, LINK, &TOKEN.to_uppercase(), &format!("{LINK}&utm_source=chat")] {
        let fake = Fake::new(vec![revokes(Which::Token(token()), revoked(1))]);
        let run = fake.kvass(&["url", "--revoke", what]);
        assert_eq!((run.written(), run.stderr.as_str()), ("", "kvass: revoked 1 link\n"));
        fake.done();
    }
    let fake = Fake::new(vec![revokes(Which::Key("photo".into()), revoked(3))]);
    assert_eq!(fake.kvass(&["url", "photo", "--revoke"]).stderr, "kvass: revoked 3 links\n");
    Fake::new(vec![revokes(Which::Key("photo".into()), revoked(1))]).kvass(&["-q", "url", "--revoke", "photo"]).ok();
    // A key that looks like a token.
    let unknown = error(Code::NoSuchLink, "no such link");
    let fake = Fake::new(vec![revokes(Which::Token(token()), unknown), revokes(Which::Key(TOKEN.into()), revoked(2))]);
    assert_eq!(fake.kvass(&["url", "--revoke", TOKEN]).stderr, "kvass: revoked 2 links\n");
    fake.done();
}

#[test]
fn what_is_no_link_cannot_be_revoked() {
    let hint = "hint: kvass url --list shows all links\n";
    for reply in [|| error(Code::NoSuchKey, "gone"), || error(Code::NoSuchLink, "gone"), || revoked(0)] {
        let fake = Fake::new(vec![revokes(Which::Key("photo".into()), reply())]);
        fake.kvass(&["url", "--revoke", "photo"]).fails(1, &format!("kvass: there is no link to 'photo'\n{hint}"));
        let fake = Fake::new(vec![revokes(Which::Token(token()), reply()), revokes(Which::Key(LINK.into()), reply())]);
        fake.kvass(&["url", "--revoke", LINK]).fails(1, &format!("kvass: no such link: {LINK}\n{hint}"));
    }
    Fake::answering(error(Code::Blind, "blind"))
        .kvass(&["url", "--revoke", "photo"])
        .fails(2, "kvass: blind: a cause\nhint: a hint\n");
}

#[test]
fn a_public_url_is_shown_and_set() {
    let config =
        |public_url: &str| Reply::Config(v1::Config { public_url: public_url.into(), ..v1::Config::default() });
    let shown = |url| Fake::answering(config(url)).kvass(&["config", "public-url"]).ok().stdout;
    assert_eq!(shown("https://kvass.example.org"), b"https://kvass.example.org\n");
    assert_eq!(shown(""), b"(None)\n");
    for (given, sent) in [("HTTPS://Kvass.example.org:443/", "https://kvass.example.org"), ("", "")] {
        let fake = Fake::new(vec![script(move |peer| {
            assert_eq!(peer.request(), Command::SetPublicUrl(v1::SetPublicUrl { url: sent.into() }));
            peer.greet().reply(config(sent));
        })]);
        assert_eq!(fake.kvass(&["config", "public-url", given]).ok().text(), "");
        fake.done();
    }
    bare(&["config", "public-url", "kvass.example.org"]).fails(
        2,
        "kvass: 'kvass.example.org' is no public URL: that begins with http:// or https://\nhint: kvass help config\n",
    );
    bare(&["config", "public-url", "https://host/get?q=x"]).fails(
        2,
        "kvass: '/get?q=x' cannot be in a public URL: that is a scheme, a host, perhaps a port and a path\n\
         hint: kvass help config\n",
    );
}

#[test]
fn a_terminal_shows_the_code_in_colours_of_its_own() {
    let (shown, code) = on_terminal(&makes(), &["qr", "photo"], "\0", "");
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!((code, lines.len()), (0, 21), "{shown}");
    assert!(
        lines.iter().all(|line| line.starts_with("\u{1b}[38;5;16;48;5;231m    ") && line.ends_with("    \u{1b}[0m"))
    );
}

#[test]
fn elsewhere_the_code_is_text_without_colours() {
    let drawn = makes().kvass(&["qr", "photo"]).ok();
    assert_eq!(drawn.text().lines().count(), 21);
    assert!(drawn.text().chars().all(|character| "█▀▄ \n".contains(character)));
}

#[test]
fn a_terminal_that_is_too_small_shows_the_link_and_says_what_is_needed() {
    for size in [(40, 24), (80, 21)] {
        let (shown, code) = on_terminal_of(size, &makes(), &["qr", "photo"], "\0", "");
        let says = format!(
            "{LINK}\nkvass: the terminal is too small for the QR code: it needs 41 columns and 22 rows, and this has \
             {} and {}\nhint: make it larger, or write a picture: kvass qr photo -o code.svg (or .png)\n",
            size.0, size.1
        );
        assert_eq!((code, shown.replace('\r', "")), (2, says));
    }
    assert_eq!(on_terminal_of((41, 22), &makes(), &["qr", "photo"], "\0", "").1, 0);
}

#[test]
fn a_limited_link_that_was_not_shown_is_not_led_back_to_the_plain_one() {
    let hint =
        "hint: kvass url --revoke LINK ends this one; then again in a larger terminal, or with -o code.svg (or .png)";
    for options in [&["--expires", "1d"][..], &["--reads", "1"], &["--pin"]] {
        let (shown, code) = on_terminal_of((40, 24), &makes(), &[&["qr", "photo"], options].concat(), "\0", "");
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!((code, lines.first(), lines.last()), (2, Some(&LINK), Some(&hint)), "{shown}");
    }
}

#[test]
fn a_picture_is_what_the_end_of_its_name_says() {
    let directory = tempfile::tempdir().unwrap();
    let written = |name: &str| {
        let path = directory.path().join(name);
        assert_eq!(makes().kvass(&["qr", "photo", "-o", path.to_str().unwrap()]).ok().text(), "");
        fs::read(path).unwrap()
    };
    assert!(written("a.svg").starts_with(b"<?xml") && written("b.PNG").starts_with(b"\x89PNG\r\n"));
    assert_eq!(written("a.png"), written("b.PNG"));
    // Whoever reads it has the link.
    let mode = fs::metadata(directory.path().join("a.svg")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    for name in ["a.jpg", "svg", "-", "a.svg.gz"] {
        bare(&["qr", "photo", "-o", name]).fails(
            2,
            &format!(
                "kvass: {name} ends neither in .svg nor in .png\n\
                 hint: the end of the name says what is written: FILE.svg or FILE.png\n"
            ),
        );
    }
    let path = directory.path().join("no/such/a.svg");
    bare(&["qr", "photo", "-o", path.to_str().unwrap()])
        .fails(2, &format!("kvass: cannot write {}: No such file or directory\n", path.display()));
    let path = directory.path().join("a.svg");
    let missing = Fake::answering(error(Code::NoSuchKey, "gone"));
    let before = fs::read(&path).unwrap();
    missing.kvass(&["qr", "nothing", "-o", path.to_str().unwrap()]).fails(1, "kvass: no such key: nothing\n");
    assert_eq!((fs::read(&path).unwrap(), fs::read_dir(directory.path()).unwrap().count()), (before, 3));
}

#[test]
fn a_link_that_is_too_long_for_a_code_is_shown() {
    let link = format!("{LINK}{}", "x".repeat(2_400));
    let long = Share { url: link.clone(), ..share("photo") };
    Fake::answering(shares(&[long]))
        .kvass(&["qr", "photo"])
        .fails(2, &format!("kvass: the link is too long for a QR code: {link}\n"));
}
