//! Links in the store: what a token opens, where, how often, and when not any more.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod replica;

use std::sync::Barrier;

use kvassd::keys::Token;
use kvassd::record::{Clear, Kind, Record, RecordId, ValueHash};
use kvassd::seal;
use kvassd::share::{Grant, Reach};
use kvassd::stamp::Stamp;
use kvassd::store::{
    Condition, Gone, Linked, Opening, Outcome, ReadError, Reads, RunId, Share, ShareError, ShareOptions, Store,
    StoreId, Travelling, WriteError, repair,
};
use replica::{Replica, bytes, full_key, server_key};

const PLAIN: ShareOptions = ShareOptions { expiry_us: 0, reads: 0, pin: false };

fn share(replica: &Replica, name: &str, options: ShareOptions) -> Share {
    replica.store.share(name, options).unwrap().unwrap()
}

fn value(linked: Linked) -> Vec<u8> {
    let (size, mut reader, mut value) = (linked.size, linked.reader, Vec::new());
    while reader.next(&mut value).unwrap() {}
    assert_eq!(value.len() as u64, size);
    value
}

fn open(replica: &Replica, token: &Token) -> Vec<u8> {
    value(replica.store.open_share(token).unwrap())
}

/// Why a token opens nothing; `None` where there is no such link.
fn closed(store: &Store, token: &Token) -> Option<Gone> {
    match store.open_share(token) {
        Err(ShareError::Gone(gone)) => Some(gone),
        Err(ShareError::Unknown) => None,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the link is open"),
    }
}

fn check(store: &Store) {
    store.check(&mut |finding| panic!("{finding:?}")).unwrap();
}

/// A device, a blind and a full server that hold what it does, and what to call each.
fn servers(device: &Replica) -> [(&'static str, Replica); 2] {
    let (blind, full) = (Replica::new(&server_key(1)), Replica::new(&full_key(1)));
    blind.pull(device);
    full.pull(device);
    [("blind", blind), ("full", full)]
}

#[test]
fn a_link_follows_its_entry_and_leads_to_values_of_every_size_on_any_server() {
    let device = Replica::new(&full_key(1));
    for size in [0, 5, 4_096, 4_097, 200_000] {
        let name = format!("entry of {size}");
        device.set(&name, &bytes(size));
        let token = share(&device, &name, PLAIN).token;
        for (kind, server) in servers(&device) {
            let linked = server.store.open_share(&token).unwrap();
            assert_eq!((&linked.name, linked.locator), (&name, token.locator()), "{kind}");
            assert!(linked.reads.is_none());
            let tag = linked.tag;
            assert_eq!(value(linked), bytes(size));
            device.set(&name, b"newer");
            server.pull(&device);
            assert_eq!(open(&server, &token), b"newer", "{kind}");
            assert_ne!(server.store.open_share(&token).unwrap().tag, tag);
            device.set(&name, &bytes(size));
            check(&server.store);
        }
    }
}

#[test]
fn an_entry_has_one_plain_link_and_others_are_new() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    let plain = share(&device, "a", PLAIN);
    assert!(share(&device, "a", PLAIN).token == plain.token);
    let others = [
        ShareOptions { reads: 2, ..PLAIN },
        ShareOptions { expiry_us: u64::MAX, ..PLAIN },
        ShareOptions { pin: true, ..PLAIN },
    ];
    for options in others {
        let other = share(&device, "a", options);
        assert!(other.token != plain.token);
        assert_eq!((other.reads, other.expiry_us, other.pin), (options.reads, options.expiry_us, options.pin));
    }
    assert!(share(&device, "a", PLAIN).token == plain.token);
    assert_eq!(device.store.shares(Some("a")).unwrap().len(), 4);
    assert!(device.store.share("b", PLAIN).unwrap().is_none());
    assert!(device.store.share("a\n", PLAIN).is_err());
}

#[test]
fn many_who_ask_for_the_plain_link_at_once_get_the_same() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                share(&device, "a", PLAIN);
            });
        }
    });
    assert_eq!(device.store.shares(Some("a")).unwrap().len(), 1);
}

#[test]
fn removing_an_entry_revokes_its_links_also_those_of_another_device() {
    let (device, other) = (Replica::new(&full_key(1)), Replica::new(&full_key(1)));
    for name in ["a", "space/b", "space/c", "d"] {
        device.set(name, b"1");
    }
    other.pull(&device);
    let tokens: Vec<_> = ["a", "space/b", "space/c", "d"].map(|name| share(&other, name, PLAIN).token).into();
    let pinned = share(&other, "a", ShareOptions { pin: true, ..PLAIN }).token;
    device.pull(&other);
    device.store.remove(vec!["a".into()]).unwrap();
    assert_eq!(device.store.remove_prefix("space/").unwrap(), 2);
    assert_eq!(device.store.shares(None).unwrap().len(), 1);
    for (_, server) in servers(&device) {
        for token in tokens[..3].iter().chain([&pinned]) {
            assert_eq!(closed(&server.store, token), Some(Gone::Revoked));
        }
        assert_eq!(open(&server, &tokens[3]), b"1");
    }
    // A new entry of that name is another one.
    device.set("a", b"2");
    assert_eq!(closed(&device.store, &tokens[0]), Some(Gone::Revoked));
    assert!(share(&device, "a", PLAIN).token != tokens[0]);
}

#[test]
fn a_link_made_where_the_removal_was_not_known_does_not_come_to_life_again() {
    let (device, other) = (Replica::new(&full_key(1)), Replica::new(&full_key(1)));
    device.set("a", b"1");
    other.pull(&device);
    device.store.remove(vec!["a".into()]).unwrap();
    let token = share(&other, "a", PLAIN).token;
    device.pull(&other);
    assert_eq!(closed(&device.store, &token), Some(Gone::Removed));
    assert_eq!(device.store.shares(Some("a")).unwrap()[0].gone, Some(Gone::Removed));
    device.set("a", b"2");
    assert_eq!(closed(&device.store, &token), Some(Gone::Revoked));
}

/// Sets an entry that has expired.
fn set_expired(replica: &Replica, name: &str) {
    let mut writer = replica.store.writer(None).unwrap();
    writer.push(b"old").unwrap();
    replica.store.set(name, writer.finish().unwrap(), 1_000).unwrap();
}

#[test]
fn an_expired_entry_loses_its_links_once_it_is_removed_or_comes_again() {
    let device = Replica::new(&full_key(1));
    let names = ["removed", "space/with the others", "set", "imported"];
    let tokens = names.map(|name| {
        device.set(name, b"1");
        share(&device, name, PLAIN).token
    });
    for (name, token) in names.iter().zip(&tokens) {
        set_expired(&device, name);
        assert_eq!(closed(&device.store, token), Some(Gone::Expired));
    }
    assert_eq!(device.store.remove(vec!["removed".into()]).unwrap(), ["removed"], "it is there no more");
    assert_eq!(device.store.remove_prefix("space/").unwrap(), 0);
    device.set("set", b"2");
    import(&device, "imported", b"2");
    for (_, server) in servers(&device) {
        for (name, token) in names.iter().zip(&tokens) {
            assert_eq!(closed(&server.store, token), Some(Gone::Revoked), "{name}");
        }
    }
    assert!(device.store.shares(None).unwrap().is_empty());
}

fn import(replica: &Replica, name: &str, value: &[u8]) {
    let mut writer = replica.store.writer(None).unwrap();
    writer.push(value).unwrap();
    let condition = Condition { time_us: u64::MAX, force: false, dry_run: false };
    assert_eq!(replica.store.import(name, writer.finish().unwrap(), 0, condition).unwrap(), Outcome::Stored);
}

/// Right after a start, when most links are not known yet.
#[test]
fn a_gone_entry_that_comes_again_right_after_a_start_has_none_of_its_old_links() {
    let (mut device, other) = (Replica::new(&full_key(1)), Replica::new(&full_key(1)));
    let gone = ["set when removed", "imported when removed", "set when expired", "imported when expired"];
    for name in gone {
        device.set(name, b"1");
    }
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let device = &device;
            scope.spawn(move || (0..32).for_each(|number| device.set(&format!("{thread} {number}"), b"1")));
        }
    });
    other.pull(&device);
    let tokens = gone.map(|name| share(&other, name, PLAIN).token);
    device.store.remove(gone[..2].iter().map(ToString::to_string).collect()).unwrap();
    gone[2..].iter().for_each(|name| set_expired(&device, name));
    device.pull(&other);
    for (number, (name, token)) in gone.iter().zip(&tokens).enumerate() {
        device.restart_after(|_| ());
        match number % 2 {
            0 => device.set(name, b"2"),
            _ => import(&device, name, b"2"),
        }
        assert_eq!(closed(&device.store, token), Some(Gone::Revoked), "{name}");
    }
}

#[test]
fn links_are_revoked_one_by_one_or_all_of_an_entry() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    let more = ShareOptions { reads: 9, ..PLAIN };
    let [first, second, third] = [0; 3].map(|_| share(&device, "a", more).token);
    assert!(device.store.revoke(&first).unwrap());
    assert!(!device.store.revoke(&first).unwrap(), "it is revoked");
    assert!(!device.store.revoke(&Token::from_bytes(&[7; 16]).unwrap()).unwrap());
    assert_eq!(closed(&device.store, &first), Some(Gone::Revoked));
    assert_eq!(open(&device, &second), b"1");
    assert_eq!(device.store.revoke_all("a").unwrap(), 2);
    assert_eq!(device.store.revoke_all("a").unwrap(), 0);
    assert_eq!(closed(&device.store, &third), Some(Gone::Revoked));
    assert_eq!(device.content().len(), 1, "the entry stays");
}

#[test]
fn a_pinned_link_leads_to_its_version_and_to_no_other() {
    let device = Replica::new(&full_key(1));
    for size in [3, 9_000] {
        device.set("a", &bytes(size));
        let token = share(&device, "a", ShareOptions { pin: true, ..PLAIN }).token;
        let servers = servers(&device);
        servers.iter().for_each(|(kind, server)| assert_eq!(open(server, &token), bytes(size), "{kind}"));
        // The same bytes, but written anew.
        device.set("a", &bytes(size));
        for (kind, server) in &servers {
            server.pull(&device);
            assert_eq!(closed(&server.store, &token), Some(Gone::Replaced), "{kind}");
        }
    }
}

#[test]
fn links_and_entries_end_at_their_time() {
    let device = Replica::new(&full_key(1));
    let past = 1_000;
    device.set("a", b"1");
    let token = share(&device, "a", ShareOptions { expiry_us: past, ..PLAIN }).token;
    let plain = share(&device, "a", PLAIN).token;
    let mut writer = device.store.writer(None).unwrap();
    writer.push(b"2").unwrap();
    for (_, server) in servers(&device) {
        assert_eq!(closed(&server.store, &token), Some(Gone::Expired));
        assert_eq!(open(&server, &plain), b"1");
    }
    assert_eq!(
        device.store.shares(Some("a")).unwrap().iter().filter(|link| link.gone == Some(Gone::Expired)).count(),
        1
    );
    device.store.set("a", writer.finish().unwrap(), past).unwrap();
    for (_, server) in servers(&device) {
        assert_eq!(closed(&server.store, &plain), Some(Gone::Expired));
    }
    assert!(device.store.share("a", PLAIN).unwrap().is_none(), "an expired entry is none");
}

#[test]
fn twenty_readers_at_once_of_a_link_of_five_reads_are_five() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    let token = share(&device, "a", ShareOptions { reads: 5, ..PLAIN }).token;
    for (kind, mut server) in servers(&device) {
        let start = Barrier::new(20);
        let read = || {
            start.wait();
            match server.store.count_read(&token) {
                Ok(linked) => Some(linked.reads.unwrap().used),
                Err(ShareError::Gone(Gone::UsedUp)) => None,
                Err(error) => panic!("{error}"),
            }
        };
        let mut used: Vec<u64> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..20).map(|_| scope.spawn(read)).collect();
            readers.into_iter().filter_map(|reader| reader.join().unwrap()).collect()
        });
        used.sort_unstable();
        assert_eq!(used, [1, 2, 3, 4, 5], "{kind}");
        assert_eq!(closed(&server.store, &token), Some(Gone::UsedUp));
        server.restart();
        assert_eq!(closed(&server.store, &token), Some(Gone::UsedUp));
        check(&server.store);
    }
    assert_eq!(open(&device, &token), b"1", "each server counts for itself");
}

#[test]
fn looking_counts_nothing_and_a_link_without_limit_has_no_count() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    let (limited, plain) =
        (share(&device, "a", ShareOptions { reads: 1, ..PLAIN }).token, share(&device, "a", PLAIN).token);
    let commits = device.store.position();
    for _ in 0..3 {
        assert_eq!(device.store.open_share(&limited).unwrap().reads, Some(Reads { allowed: 1, used: 0 }));
        assert_eq!(device.store.count_read(&plain).unwrap().reads, None);
    }
    assert_eq!(device.store.count_read(&limited).unwrap().reads, Some(Reads { allowed: 1, used: 1 }));
    assert!(matches!(device.store.count_read(&limited), Err(ShareError::Gone(Gone::UsedUp))));
    assert_eq!(device.store.position(), commits, "a count is nobody's change");
}

/// A copy of the directory at any moment is what a power cut could leave, or more.
#[test]
fn a_read_that_was_answered_is_counted_in_whatever_a_crash_leaves() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    let token = share(&device, "a", ShareOptions { reads: 3, ..PLAIN }).token;
    for used in 1..=3 {
        assert_eq!(device.store.count_read(&token).unwrap().reads, Some(Reads { allowed: 3, used }));
        let crashed = tempfile::tempdir().unwrap();
        files::copy(device.path(), crashed.path());
        let store = replica::open(crashed.path());
        match store.open_share(&token) {
            Ok(linked) => assert_eq!(linked.reads, Some(Reads { allowed: 3, used })),
            Err(error) => assert!(used == 3 && matches!(error, ShareError::Gone(Gone::UsedUp))),
        }
        store.close();
    }
}

#[test]
fn links_show_nowhere_among_entries() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"12345");
    let before = device.store.position();
    let summary = device.store.summary().unwrap();
    let token = share(&device, "a", PLAIN).token;
    let (changes, after) = device.store.changes(before, 9).unwrap();
    assert!(changes.is_empty() && after != before);
    assert_eq!(device.content().len(), 1);
    for (kind, server) in servers(&device) {
        let now = server.store.summary().unwrap();
        assert_eq!((now.keys, now.value_bytes), (summary.keys, summary.value_bytes), "{kind}");
        assert_eq!(now.records, summary.records + 1);
    }
    device.store.revoke(&token).unwrap();
    assert!(device.store.changes(before, 9).unwrap().0.is_empty());
    let theirs = Replica::new(&full_key(2));
    theirs.set("other", b"1");
    share(&theirs, "other", PLAIN);
    let keys = match full_key(2).access() {
        kvassd::keys::Access::Full(keys) => keys,
        kvassd::keys::Access::Blind(_) => unreachable!(),
    };
    for record in theirs.records() {
        assert_eq!(device.store.differs(&keys, &record).unwrap(), None);
    }
}

#[test]
fn links_are_known_again_after_a_restart() {
    let mut device = Replica::new(&full_key(1));
    device.set("a", b"1");
    device.set("b", b"2");
    let (a, b) = (share(&device, "a", PLAIN).token, share(&device, "b", PLAIN).token);
    device.store.revoke(&b).unwrap();
    device.restart();
    check(&device.store);
    let links = device.store.shares(None).unwrap();
    assert!(links.len() == 1 && links[0].token == a && links[0].name == "a");
    assert!(share(&device, "a", PLAIN).token == a);
    assert_eq!(closed(&device.store, &b), Some(Gone::Revoked));
}

#[test]
fn a_blind_store_makes_and_lists_no_links() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    let token = share(&device, "a", PLAIN).token;
    let server = Replica::new(&server_key(1));
    server.pull(&device);
    let is_blind = |error: WriteError| matches!(error, WriteError::Read(ReadError::Blind));
    assert!(server.store.share("a", PLAIN).err().is_some_and(is_blind));
    assert!(server.store.revoke(&token).err().is_some_and(is_blind));
    assert!(server.store.revoke_all("a").err().is_some_and(is_blind));
    assert!(matches!(server.store.shares(None), Err(ReadError::Blind)));
}

#[test]
fn a_reader_goes_to_any_byte() {
    let device = Replica::new(&full_key(1));
    for size in [0, 1, 4_096, 4_097, 32_768, 65_536, 200_000] {
        device.set("a", &bytes(size));
        let token = share(&device, "a", PLAIN).token;
        for offset in [0, 1, 4_095, 32_767, 32_768, 40_000, 65_535, size.saturating_sub(1), size, size + 1, usize::MAX]
        {
            let mut reader = device.store.open_share(&token).unwrap().reader;
            let mut read = Vec::new();
            // Also after something was read.
            reader.next(&mut read).unwrap();
            reader.seek(offset as u64);
            read.clear();
            while reader.next(&mut read).unwrap() {}
            assert_eq!(read, bytes(size)[offset.min(size)..], "{offset} of {size}");
        }
    }
}

/// All that a store holds, in no order.
fn sorted(replica: &Replica) -> Vec<Vec<u8>> {
    let flat = |record: Travelling| {
        let Travelling { record, value } = record;
        [record.clear, record.sealed, record.auth.0.to_vec(), value.unwrap_or_default()].concat()
    };
    let mut all: Vec<_> = replica.records().into_iter().map(flat).collect();
    all.sort();
    all
}

#[test]
fn a_new_key_seals_links_anew_to_the_same_bytes_on_every_device() {
    let (device, mut other) = (Replica::new(&full_key(1)), Replica::new(&full_key(1)));
    device.set("a", &bytes(9_000));
    device.set("b", b"2");
    let limited = share(&device, "a", ShareOptions { reads: 3, ..PLAIN }).token;
    let pinned = share(&device, "b", ShareOptions { pin: true, ..PLAIN }).token;
    let ended = share(&device, "b", ShareOptions { pin: true, ..PLAIN }).token;
    let revoked = share(&device, "b", PLAIN).token;
    device.store.revoke(&revoked).unwrap();
    other.pull(&device);
    other.store.count_read(&limited).unwrap();
    let old = sorted(&device);
    for replica in [&device, &other] {
        replica.store.change_key(full_key(2), false).unwrap();
    }
    assert_eq!(sorted(&device), sorted(&other));
    assert_eq!(device.store.digest().unwrap(), other.store.digest().unwrap());
    assert!(sorted(&device).iter().all(|record| !old.contains(record)));

    other.restart();
    check(&other.store);
    assert_eq!(open(&device, &limited), bytes(9_000));
    assert_eq!(other.store.open_share(&limited).unwrap().reads, Some(Reads { allowed: 3, used: 1 }), "it counts on");
    assert_eq!(closed(&other.store, &revoked), Some(Gone::Revoked));
    let blind = Replica::new(&server_key(2));
    blind.pull(&device);
    assert_eq!((open(&blind, &limited), open(&blind, &pinned)), (bytes(9_000), b"2".to_vec()));
    device.set("b", b"3");
    blind.pull(&device);
    assert_eq!(closed(&blind.store, &ended), Some(Gone::Replaced));
    // Back under the first key it is what it was.
    let third = Replica::new(&full_key(2));
    third.pull(&other);
    third.store.change_key(full_key(1), false).unwrap();
    assert_eq!(sorted(&third), old);
}

/// Whoever has the server key and a token can open the grant and seal another one, and no device takes it.
#[test]
fn no_device_takes_what_a_holder_of_token_and_server_key_makes_up() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    device.set("secret", b"2");
    let token = share(&device, "a", PLAIN).token;
    let server = Replica::new(&server_key(1));
    server.pull(&device);
    let true_one = |kind| {
        let records = server.records().into_iter().map(|record| (Clear::parse(&record.record.clear).unwrap(), record));
        records.into_iter().find(|(clear, _)| clear.kind == kind).unwrap()
    };
    let (link, record) = true_one(Kind::LINK);
    let later = |clear: Clear| Clear { stamp: Stamp { time_us: clear.stamp.time_us + 1, ..clear.stamp }, ..clear };
    let made_up = |clear: Clear, value| {
        let record = Record { clear: clear.encode().to_vec(), ..record.record.clone() };
        Travelling { record, value }
    };
    let account = server.store.identity().1;
    let mut grant = Grant::open(&token, account, record.value.as_ref().unwrap()).unwrap();
    (grant.target, grant.reads) = (RecordId([7; 16]), 9);
    let other = grant.seal(&token, account);
    let removal = Clear { kind: Kind::REMOVAL, size: 0, value_hash: ValueHash::NONE, ..later(link) };
    let forged = [
        made_up(later(link), record.value.clone()),
        made_up(Clear { expiry_us: u64::MAX, ..link }, record.value.clone()),
        made_up(Clear { size: other.size, value_hash: other.hash, ..link }, Some(other.bytes.clone())),
        made_up(Clear { size: other.size, value_hash: other.hash, ..later(link) }, Some(other.bytes)),
        made_up(removal, None),
    ];
    for record in forged {
        let merged = device.store.merge(account, vec![record.clone()], server.store.opening(), None).unwrap();
        assert_eq!((merged.stored, merged.refused), (0, vec![0]));
        assert_eq!(open(&device, &token), b"1");
        // A blind server cannot tell, which costs nobody but those who ask it.
        let from = Opening { store: StoreId([9; 16]), run: RunId([9; 16]) };
        server.store.merge(account, vec![record], from, None).unwrap();
        let fresh = Replica::new(&full_key(1));
        fresh.pull(&server);
        assert_eq!(fresh.content().get("a").map(Vec::as_slice), Some(&b"1"[..]));
    }
    assert_eq!(device.store.refused(), 5);
    check(&device.store);
}

#[test]
fn a_link_opens_nothing_of_another() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    device.set("b", b"2");
    let more = ShareOptions { reads: 9, ..PLAIN };
    let tokens = ["a", "a", "b"].map(|name| share(&device, name, more).token);
    let account = device.store.identity().1;
    for record in device.records() {
        let clear = Clear::parse(&record.record.clear).unwrap();
        let Some(sealed) = &record.value else { continue };
        let opened = tokens.iter().filter(|token| Grant::open(token, account, sealed).is_ok()).count();
        assert_eq!(opened, usize::from(clear.kind == Kind::LINK), "each grant opens with one token, a value with none");
    }
    let keys = tokens.each_ref().map(|token| {
        let row = device.records().into_iter().find(|record| record.record.clear[2..18] == token.locator().0).unwrap();
        match Grant::open(token, account, &row.value.unwrap()).unwrap().reach {
            Reach::Entry(key) => key,
            Reach::Version { .. } => unreachable!(),
        }
    });
    assert!(keys[0] == keys[1] && keys[0] != keys[2]);
    for record in device.records() {
        let clear = Clear::parse(&record.record.clear).unwrap();
        let opened = keys.each_ref().map(|key| seal::open_by(key, &record.record).is_ok());
        assert!(opened == [false; 3] || clear.kind == Kind::VALUE && opened[0] != opened[2]);
    }
}

#[test]
fn links_and_their_counts_survive_a_repair() {
    let device = Replica::new(&full_key(1));
    device.set("a", &bytes(9_000));
    device.set("b", b"1");
    let limited = share(&device, "a", ShareOptions { reads: 2, ..PLAIN }).token;
    let revoked = share(&device, "b", PLAIN).token;
    device.store.revoke(&revoked).unwrap();
    let blind = Replica::new(&server_key(1));
    blind.pull(&device);
    for mut replica in [device, blind] {
        replica.store.count_read(&limited).unwrap();
        replica.restart_after(|directory| {
            let repaired = repair(directory, &mut |_| ()).unwrap();
            assert!(repaired.kept == 2 && repaired.lost.is_empty());
        });
        check(&replica.store);
        assert_eq!(replica.store.open_share(&limited).unwrap().reads, Some(Reads { allowed: 2, used: 1 }));
        assert_eq!(open(&replica, &limited), bytes(9_000));
        assert_eq!(closed(&replica.store, &revoked), Some(Gone::Revoked));
        if let Ok(links) = replica.store.shares(None) {
            assert!(links.len() == 1 && links[0].token == limited);
        }
    }
}

#[test]
fn links_stay_with_the_account_whatever_is_known_of_its_keys() {
    let device = Replica::new(&full_key(1));
    device.set("a", b"1");
    let token = share(&device, "a", ShareOptions { reads: 2, ..PLAIN }).token;
    device.store.count_read(&token).unwrap();
    device.store.change_key(server_key(1), true).unwrap();
    assert_eq!(device.store.open_share(&token).unwrap().reads, Some(Reads { allowed: 2, used: 1 }));
    device.store.change_key(full_key(1), false).unwrap();
    assert_eq!(device.store.shares(Some("a")).unwrap().len(), 1);
    assert_eq!(device.store.open_share(&token).unwrap().reads, Some(Reads { allowed: 2, used: 1 }));
    device.store.change_key(server_key(2), true).unwrap();
    assert_eq!(closed(&device.store, &token), None);
    device.store.change_key(full_key(2), true).unwrap();
    assert!(device.store.shares(None).unwrap().is_empty());
}

#[test]
fn a_public_url_stays_and_what_a_remote_said_goes_with_it() {
    let mut device = Replica::new(&full_key(1));
    assert_eq!(device.store.base_url(), None);
    device.store.set_remote("http://server:80".into()).unwrap();
    assert_eq!(device.store.base_url().as_deref(), Some("http://server"));
    device.store.meet_public_url("https://said.example/").unwrap();
    assert_eq!(device.store.base_url().as_deref(), Some("https://said.example"));
    device.restart();
    assert_eq!(device.store.base_url().as_deref(), Some("https://said.example"));
    device.store.set_public_url("https://own.example/kv/").unwrap();
    let refused = |url: &str| device.store.set_public_url(url).unwrap_err().to_string();
    assert!(refused("own.example").starts_with("a public URL is http:// or https://"));
    assert_eq!(refused(&format!("http://a/{}", "a".repeat(504))), "a public URL has at most 512 bytes");
    device.store.meet_public_url("nonsense").unwrap();
    device.store.meet_public_url("https://said.example").unwrap();
    device.restart();
    assert_eq!(device.store.base_url().as_deref(), Some("https://own.example/kv"));
    device.store.set_public_url("").unwrap();
    assert_eq!(device.store.base_url().as_deref(), Some("https://said.example"));
    device.store.meet_public_url("https://said.example/$(id)").unwrap();
    assert_eq!(device.store.base_url().as_deref(), Some("http://server"), "a shell would do what is in it");
    device.store.set_remote("http://other:8000".into()).unwrap();
    assert_eq!(device.store.base_url().as_deref(), Some("http://other:8000"));
    device.restart();
    assert_eq!(device.store.base_url().as_deref(), Some("http://other:8000"));
}
