//! `set --wait` and `get --fresh`, against daemons that follow a script.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test program")]

mod common;

use std::path::Path;

use common::{Fake, Script, error, inline, kvass, run, script, stored};
use kvass_proto::v1::link::State;
use kvass_proto::v1::sync::Goal;
use kvass_proto::v1::{self, Link, Syncing, error::Code, reply::Reply, request::Command};

fn link(state: State, error: &str) -> Link {
    Link { state: state.into(), error: error.into(), ..Link::default() }
}

fn syncing(link: Link) -> Reply {
    Reply::Syncing(Syncing { pending: 1, link: Some(link) })
}

fn stores() -> Script {
    script(|peer| {
        assert!(matches!(peer.request(), Command::Set(set) if set.key == "k"));
        peer.greet().reply(stored());
    })
}

/// What a daemon answers to a wait.
fn waits(goal: Goal, key: &'static str, replies: Vec<Reply>) -> Script {
    script(move |peer| {
        let expected = v1::Sync { goal: goal.into(), key: key.into() };
        assert!(matches!(peer.request(), Command::Sync(sync) if sync == expected));
        peer.greet();
        for reply in replies {
            peer.reply(reply);
        }
        peer.hold();
    })
}

fn holds(replies: Vec<Reply>) -> Fake {
    Fake::new(vec![stores(), waits(Goal::Held, "k", replies)])
}

fn none() -> Reply {
    let message = "there is no remote".into();
    Reply::Error(v1::Error { code: Code::NoRemote.into(), message, ..v1::Error::default() })
}

#[test]
fn a_set_that_waits_returns_once_the_remote_holds_the_value() {
    for wait in ["--wait", "--wait=5m"] {
        let fake = holds(vec![syncing(link(State::Connected, "")), Reply::Synced(v1::Synced {})]);
        assert_eq!(fake.kvass(&["set", wait, "k", "v"]).ok().text(), "");
        fake.done();
    }
}

#[test]
fn a_set_that_waits_goes_on_with_the_next_daemon_and_stores_once() {
    let fake = Fake::new(vec![
        stores(),
        script(|peer| _ = peer.greet().reply(syncing(link(State::Connected, "")))),
        script(|peer| _ = peer.greet().reply(error(Code::Stopping, "kvassd is stopping"))),
        waits(Goal::Held, "k", vec![Reply::Synced(v1::Synced {})]),
    ]);
    fake.kvass(&["set", "k", "v", "--wait"]).ok();
    fake.done();
}

#[test]
fn a_set_that_waited_in_vain_says_that_the_value_is_stored() {
    let set = |fake: Fake, wait: &str| fake.kvass(&["set", "k", "v", wait]);
    let waiting = || link(State::Waiting, "nothing answers at http://host:80");
    set(holds(vec![syncing(waiting())]), "--wait=200ms").fails(
        4,
        "kvass: 'k' is stored here, but not at the remote within 200 ms: nothing answers at http://host:80\n",
    );
    set(holds(vec![]), "--wait=1s").fails(4, "kvass: 'k' is stored here, but not at the remote within 1 s\n");
    let blocked = link(State::Blocked, "the remote has another key");
    let blocked = syncing(Link { hint: "compare the keys".into(), ..blocked });
    set(holds(vec![blocked]), "--wait=1h").fails(
        4,
        "kvass: 'k' is stored here, but not at the remote: the remote has another key\nhint: compare the keys\n",
    );
    set(holds(vec![none()]), "--wait")
        .fails(4, "kvass: 'k' is stored here, but there is no remote\nhint: name one: kvass config remote HOST\n");
    set(holds(vec![error(Code::Failed, "it failed")]), "--wait").fails(3, "kvass: it failed: a cause\nhint: a hint\n");
}

#[test]
fn a_set_that_fails_waits_for_nothing() {
    let full = Fake::answering(error(Code::DiskFull, "the disk is full"));
    full.kvass(&["set", "k", "v", "--wait"]).fails(3, "kvass: the disk is full: a cause\nhint: a hint\n");
}

#[test]
fn a_fresh_get_first_takes_what_the_remote_has() {
    for fresh in ["--fresh", "--fresh=5m"] {
        let fake = Fake::new(vec![
            waits(Goal::Taken, "", vec![syncing(link(State::Connecting, "")), Reply::Synced(v1::Synced {})]),
            script(|peer| {
                assert!(matches!(peer.request(), Command::Get(get) if get.key == "k"));
                peer.greet().reply(inline("k", b"new"));
            }),
        ]);
        assert_eq!(fake.kvass(&["get", "k", fresh]).ok().text(), "new");
        fake.done();
    }
}

#[test]
fn a_fresh_get_that_is_not_fresh_prints_nothing() {
    let get = |replies: Vec<Reply>, fresh: &str| {
        let fake = Fake::new(vec![waits(Goal::Taken, "", replies)]);
        let got = fake.kvass(&["get", "k", fresh, "--default", "d"]);
        assert_eq!(got.text(), "");
        got
    };
    let waiting = Link { hint: "is it on?".into(), ..link(State::Waiting, "no answer") };
    get(vec![syncing(waiting)], "--fresh=200ms")
        .fails(4, "kvass: what the remote has is not here within 200 ms: no answer\nhint: is it on?\n");
    get(vec![syncing(link(State::Blocked, "another key"))], "--fresh")
        .fails(4, "kvass: cannot take what the remote has: another key\n");
    get(vec![none()], "--fresh").fails(4, "kvass: there is no remote\nhint: name one: kvass config remote HOST\n");
}

#[test]
fn a_time_that_is_none_is_told() {
    let says = "kvass: 'soon' is no duration: write it as 500ms, 10s, 5m, 1h or 2d\n";
    let kvass = |arguments: &[&str]| run(kvass(Path::new("/nonexistent/kvass")).args(arguments));
    kvass(&["set", "k", "v", "--wait=soon"]).fails(2, &format!("{says}hint: kvass help set\n"));
    kvass(&["get", "k", "--fresh=soon"]).fails(2, &format!("{says}hint: kvass help get\n"));
}
