//! Links that lead nowhere, and why.

use kvassd::accept::UNKNOWN;
use kvassd::clock::now_us;
use kvassd::store::{Options, ShareOptions, Store};

use crate::site::Site;

#[test]
fn a_link_that_leads_nowhere_any_more_says_why() {
    let site = Site::start();
    let said = |link: &str| {
        let answer = site.get(link);
        assert_eq!((answer.status, answer.header("cache-control")), (410, "no-store"), "{answer:?}");
        answer.text().to_owned()
    };

    let revoked = site.share("revoked", b"value");
    site.store.revoke_all("revoked").unwrap();
    assert_eq!(said(&revoked), "This link was revoked\n");

    site.set("expired", b"value");
    let expired = site.link_with("expired", ShareOptions { expiry_us: now_us() - 1, ..ShareOptions::default() });
    assert_eq!(said(&expired), "This link has expired\n");

    let removed = site.share("removed", b"value");
    site.store.remove(vec!["removed".into()]).unwrap();
    assert_eq!(said(&removed), "This link was revoked\n");

    site.set("pinned", b"one");
    let pinned = site.link_with("pinned", ShareOptions { pin: true, ..ShareOptions::default() });
    assert_eq!(site.get(&pinned).body, b"one");
    site.set("pinned", b"two");
    assert_eq!(said(&pinned), "What this link led to was replaced\n");
}

#[test]
fn pages_are_html_for_browsers_and_kept_by_nobody() {
    let site = Site::start();
    let page = site.ask("GET", "/get?q=%3Cscript%3E", &[("Accept", "text/html")]);
    assert_eq!((page.status, page.header("content-type")), (404, "text/html; charset=utf-8"));
    assert!(page.text().contains("There is no such link") && !page.text().contains("3C"), "{}", page.text());
    let text = site.get("/get?q=x");
    assert_eq!((text.status, text.header("cache-control")), (404, "no-store"));
    assert!(text.text().starts_with("There is no such link\n"), "{}", text.text());
}

#[test]
fn who_tries_tokens_where_the_store_is_damaged_is_told_to_wait_as_well() {
    let (directory, link) = {
        let site = Site::start();
        let link = site.share("hello", b"world");
        (site.into_directory(), link)
    };
    let db = sled::open(directory.path().join("store/sled")).unwrap();
    let records = db.tree_names().into_iter().find(|name| name.starts_with(b"records/")).unwrap();
    let records = db.open_tree(records).unwrap();
    let id = kvassd::keys::Token::from_text(&link["/get?q=".len()..]).unwrap().locator();
    assert!(records.remove(id.0).unwrap().is_some());
    db.flush().unwrap();
    drop((records, db));
    let store = Store::open(directory.path(), Options { value_max: 1 << 30, reserve: 0 }, &|_| {}).unwrap();
    assert!(store.entries("", None, false, 1).is_err(), "the pass is over");
    let site = Site::serve(directory, store);
    let answers: Vec<_> = (0..40).map(|_| site.get(&link)).collect();
    assert!(answers[..UNKNOWN as usize].iter().all(|answer| answer.status == 503));
    assert_eq!(answers.last().unwrap().status, 429);
}

#[test]
fn who_tries_tokens_is_told_to_wait_and_still_gets_what_is_there() {
    let site = Site::start();
    let link = site.share("hello", b"world");
    let answers: Vec<_> = (0..40).map(|number| site.get(&format!("/get?q={number:026}"))).collect();
    assert!(answers[..UNKNOWN as usize].iter().all(|answer| answer.status == 404));
    let last = answers.last().unwrap();
    assert_eq!((last.status, last.header("cache-control")), (429, "no-store"));
    assert!(["1", "2"].contains(&last.header("retry-after")), "{last:?}");
    assert_eq!(site.get(&link).body, b"world");
}
