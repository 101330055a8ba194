//! Links that may be opened a number of times.

use std::sync::atomic::{AtomicUsize, Ordering};

use kvassd::store::ShareOptions;

use crate::site::{Site, bytes};

fn limited(site: &Site, name: &str, value: &[u8], reads: u64) -> String {
    site.set(name, value);
    site.link_with(name, ShareOptions { reads, ..ShareOptions::default() })
}

#[test]
fn looking_never_counts_and_shows_nothing_of_the_value() {
    let site = Site::start();
    let link = limited(&site, "secret name.txt", b"the value", 1);
    for (method, headers) in [
        ("GET", &[][..]),
        ("GET", &[("Accept", "text/html")]),
        ("GET", &[("Purpose", "prefetch"), ("Sec-Purpose", "prefetch")]),
        ("GET", &[("Range", "bytes=0-")]),
        ("GET", &[("If-None-Match", "*")]),
        ("HEAD", &[]),
    ] {
        let answer = site.ask(method, &link, headers);
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{method} {headers:?}");
        assert!(answer.headers.iter().all(|(_, value)| !value.contains("secret")), "{answer:?}");
        assert!(!answer.text().contains("the value") && !answer.text().contains("secret"), "{answer:?}");
        assert!(!answer.text().contains(&link[7..]), "{answer:?}");
    }
    assert_eq!(site.ask("POST", &link, &[("Content-Length", "0")]).body, b"the value");
}

#[test]
fn a_browser_is_shown_a_button_and_curl_what_to_say() {
    let site = Site::start();
    let link = limited(&site, "secret", b"value", 3);
    let page = site.ask("GET", &link, &[("Accept", "text/html,*/*;q=0.8")]);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text().contains("<form method=\"post\"><button>"), "{}", page.text());
    assert!(page.text().contains("3 more times"), "{}", page.text());
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    let text = site.ask("GET", &link, &[("Accept", "*/*")]);
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert!(text.text().contains("curl -d ''"), "{}", text.text());
}

#[test]
fn each_opening_counts_and_after_the_last_it_is_gone() {
    let site = Site::start();
    for value in [&b"short"[..], &bytes(300_000)] {
        let link = limited(&site, "secret", value, 2);
        for _ in 0..2 {
            // As a form of a browser sends it, and with a range, which counts for nothing.
            let headers = [
                ("Content-Type", "application/x-www-form-urlencoded"),
                ("Content-Length", "0"),
                ("Range", "bytes=1-2"),
            ];
            let answer = site.ask("POST", &link, &headers);
            assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
            assert!(answer.body == value);
            assert_eq!((answer.header("etag"), answer.header("accept-ranges")), ("", "none"));
        }
        for method in ["POST", "GET", "HEAD"] {
            let answer = site.ask(method, &link, &[("Content-Length", "0")]);
            assert_eq!(answer.status, 410, "{method}");
        }
        assert!(site.get(&link).text().contains("as often as it could be"));
    }
}

/// Browsers fetch what they play once more by a GET, which gets no value.
#[test]
fn what_a_browser_would_play_is_saved_instead_so_that_the_read_is_not_lost() {
    let site = Site::start();
    let video = bytes(9_000);
    for (name, value, disposition) in [
        ("film.mp4", &video[..], "attachment; filename=\"film.mp4\""),
        ("song.mp3", b"song", "attachment; filename=\"song.mp3\""),
        ("song", b"OggS\0\x02", "attachment; filename=\"song\""),
        ("cat.png", b"cat", "inline; filename=\"cat.png\""),
        ("note.txt", b"note", "inline; filename=\"note.txt\""),
    ] {
        let answer = site.ask("POST", &limited(&site, name, value, 1), &[("Content-Length", "0")]);
        assert_eq!((answer.status, answer.header("content-disposition")), (200, disposition), "{name}");
        assert!(answer.body == value);
        assert!(site.get(&site.link(name)).header("content-disposition").starts_with("inline; "), "{name}");
    }
}

#[test]
fn many_at_once_get_exactly_as_many_as_there_are() {
    let site = Site::start();
    for (reads, value) in [(5, bytes(10)), (5, bytes(200_000))] {
        let link = limited(&site, "secret", &value, reads);
        let (opened, gone) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            for _ in 0..24 {
                threads.spawn(|| match site.ask("POST", &link, &[("Content-Length", "0")]) {
                    answer if answer.status == 200 => {
                        assert!(answer.body == value);
                        opened.fetch_add(1, Ordering::Relaxed);
                    }
                    answer => {
                        assert_eq!(answer.status, 410);
                        gone.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((opened.into_inner(), gone.into_inner()), (reads as usize, 24 - reads as usize));
    }
}
