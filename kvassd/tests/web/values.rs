//! Plain links: the value, what it is, and what a browser may do with it.

use kvassd::keys::Key;
use kvassd::store::{Options, Store};
use kvassd::sync::remote::{Remote, Trust};
use tokio_util::sync::CancellationToken;

use crate::site::{Answer, PATIENCE, Site, bytes, send};

#[test]
fn a_link_gives_the_value_of_its_key_and_says_what_it_is() {
    let site = Site::start();
    for (name, value, media) in [
        ("hello", &b"world\n"[..], "text/plain; charset=utf-8"),
        ("empty", b"", "text/plain; charset=utf-8"),
        ("photos/cat.jpeg", b"\xff\xd8\xff", "image/jpeg"),
        ("data.json", b"{}", "application/json"),
        ("blob", &bytes(4_097), "application/octet-stream"),
        ("film.webm", &bytes(700_000), "video/webm"),
        ("long.txt", "é".repeat(300_000).as_bytes(), "text/plain; charset=utf-8"),
    ] {
        let link = site.share(name, value);
        let answer = site.get(&link);
        assert_eq!((answer.status, answer.header("content-type")), (200, media), "{name}");
        assert!(answer.body == value, "{name}");
        assert_eq!(answer.length(), value.len());
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("x-dns-prefetch-control"), "off");
    }
}

#[test]
fn a_link_follows_its_key_and_so_does_its_tag() {
    let site = Site::start();
    let link = site.share("hello", b"one");
    let first = site.get(&link);
    assert_eq!(site.get(&link).header("etag"), first.header("etag"));
    site.set("hello", &bytes(100_000));
    let second = site.get(&link);
    assert!(second.body == bytes(100_000));
    assert_ne!(second.header("etag"), first.header("etag"));
    assert!(first.header("etag").starts_with('"') && first.header("etag").len() == 34, "{}", first.header("etag"));
}

#[test]
fn a_head_says_what_a_get_does_and_gives_nothing() {
    let site = Site::start();
    for (name, value) in [("short", bytes(100)), ("long", bytes(600_000)), ("empty", Vec::new())] {
        let link = site.share(name, &value);
        let (get, head) = (site.get(&link), site.ask("HEAD", &link, &[]));
        let without_date =
            |headers: &[(String, String)]| headers.iter().filter(|it| it.0 != "date").cloned().collect::<Vec<_>>();
        assert_eq!((get.status, head.status), (200, 200));
        assert_eq!(without_date(&get.headers), without_date(&head.headers), "{name}");
    }
    let (get, head) = (site.get("/get?q=0"), site.ask("HEAD", "/get?q=0", &[]));
    assert_eq!((get.status, head.status, get.length()), (404, 404, head.length()));
}

#[test]
fn who_has_the_value_already_gets_nothing() {
    let site = Site::start();
    let link = site.share("hello", b"world");
    let tag = site.get(&link).header("etag").to_owned();
    for method in ["GET", "HEAD"] {
        let answer = site.ask(method, &link, &[("If-None-Match", &format!("\"other\", W/{tag}"))]);
        assert_eq!((answer.status, answer.header("etag")), (304, &*tag));
        assert_eq!(answer.header("cache-control"), "private, no-cache");
    }
    assert_eq!(site.ask("GET", &link, &[("If-Match", "\"other\"")]).status, 412);
    site.set("hello", b"new");
    assert_eq!(site.ask("GET", &link, &[("If-None-Match", &tag)]).body, b"new");
}

#[test]
fn what_could_run_something_is_a_document_without_scripts_origin_and_network() {
    let site = Site::start();
    for name in ["page.html", "drawing.svg", "feed.xml", "page.xhtml", "app.js", "style.css", "data.json", "tool.exe"] {
        let answer = site.get(&site.share(name, b"<html><script>alert(1)</script>\0"));
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("sandbox; default-src 'none';") && !policy.contains("script"), "{name}: {policy}");
        let is_shown = answer.header("content-disposition").starts_with("inline; ");
        assert_eq!(is_shown, name != "tool.exe", "{name}");
    }
    // These have viewers of the browser's own, which a sandbox would break.
    for name in ["a.pdf", "a.png", "a.mp4", "a.mp3", "a.txt"] {
        let answer = site.get(&site.share(name, b"something"));
        assert_eq!(answer.header("content-security-policy"), "", "{name}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{name}");
        assert!(answer.header("content-disposition").starts_with("inline; "), "{name}");
    }
}

#[test]
fn nothing_in_a_key_reaches_out_of_the_name_of_the_file() {
    let site = Site::start();
    for (name, disposition) in [
        ("a/b/c.txt", "inline; filename=\"c.txt\""),
        ("x\"; filename=evil.exe", "inline; filename=\"x_; filename=evil.exe\""),
        ("..", "inline; filename=\"value\""),
        (".profile", "inline; filename=\"_profile\""),
        ("a\\..\\b", "inline; filename=\"a_.._b\""),
        ("cod\u{202e}fdp.exe", "attachment; filename=\"cod_fdp.exe\""),
        ("\u{2028}Set-Cookie: a=b", "inline; filename=\"_Set-Cookie_ a=b\""),
        ("👋.png", "inline; filename=\"_.png\"; filename*=UTF-8''%F0%9F%91%8B.png"),
    ] {
        let value: &[u8] = if name.ends_with(".exe") && !name.contains('"') { b"\0" } else { b"text" };
        let answer = site.get(&site.share(name, value));
        assert_eq!(answer.header("content-disposition"), disposition, "{name}");
        assert_eq!(answer.header("set-cookie"), "");
    }
}

#[test]
fn only_the_path_and_the_token_count() {
    let site = Site::start();
    let link = site.share("hello", b"world");
    let token = link.strip_prefix("/get?q=").unwrap();
    for path in [format!("/get?utm=1&q={token}&x=y"), format!("/get?q={}", token.to_uppercase())] {
        assert_eq!(site.get(&path).body, b"world", "{path}");
    }
    for path in [
        format!("/get/?q={token}"),
        format!("/Get?q={token}"),
        format!("/get?Q={token}"),
        format!("/get?q={token}0"),
        format!("/get?q={}", &token[1..]),
        format!("/get?token={token}"),
        "/get".into(),
        "/get?".into(),
        "/get?q=".into(),
        "/get?q=%00".into(),
        format!("/get?q={}", "0".repeat(26)),
    ] {
        assert_eq!(site.get(&path).status, 404, "{path}");
    }
}

#[test]
fn a_link_is_only_read() {
    let site = Site::start();
    let link = site.share("hello", b"world");
    for (method, allowed) in [
        ("POST", "GET, HEAD"),
        ("PUT", "GET, HEAD, POST"),
        ("DELETE", "GET, HEAD, POST"),
        ("OPTIONS", "GET, HEAD, POST"),
    ] {
        let answer = site.ask(method, &link, &[("Content-Length", "0")]);
        assert_eq!((answer.status, answer.header("allow")), (405, allowed), "{method}");
    }
}

#[test]
fn a_connection_serves_several_links() {
    let site = Site::start();
    let (short, long) = (site.share("short", b"short"), site.share("long", &bytes(500_000)));
    let mut wire = site.connect();
    for (path, value) in [(&short, b"short".to_vec()), (&long, bytes(500_000)), (&short, b"short".to_vec())] {
        send(&mut wire, "GET", path, &[]);
        assert!(Answer::read(&mut wire, false).body == value);
    }
}

/// A server that has the server key alone.
#[test]
fn a_server_that_cannot_read_serves_the_same_bytes() {
    let full = Site::start();
    let (short, long) = (full.share("a/note.txt", b"short"), full.share("a/film.mp4", &bytes(300_000)));
    let server_key = full.store.sync_key();
    let directory = tempfile::tempdir().unwrap();
    let blind = Store::open(directory.path(), Options { value_max: 1 << 20, reserve: 0 }, &|_| {}).unwrap();
    blind.change_key(Key::Server(server_key), true).unwrap();
    let blind = Site::serve(directory, blind);
    assert_eq!(blind.get(&short).status, 404);
    sync(&full, &blind);
    for link in [short, long] {
        let (one, other) = (full.get(&link), blind.get(&link));
        assert_eq!((one.status, other.status), (200, 200));
        assert!(one.body == other.body);
        for header in ["content-type", "content-disposition", "etag", "content-length"] {
            assert_eq!(one.header(header), other.header(header), "{header}");
        }
    }
    assert!(blind.store.readable().is_err());
}

/// Brings what `from` has to `to`, as a device does.
fn sync(from: &Site, to: &Site) {
    from.store.set_remote(format!("http://{}", to.address)).unwrap();
    let remote = Remote::new(from.store.clone(), Trust { file: None });
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    threads.block_on(async {
        let stop = CancellationToken::new();
        let running = tokio::spawn(remote.run(stop.clone()));
        let synced = async {
            let mut commits = to.store.commits();
            while from.store.summary().unwrap().records != to.store.summary().unwrap().records {
                commits.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, synced).await.expect("in step");
        stop.cancel();
        running.await.unwrap().unwrap();
    });
}
