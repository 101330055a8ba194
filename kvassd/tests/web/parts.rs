//! Parts of values.

use proptest::prelude::*;

use crate::site::{Site, bytes};

#[test]
fn any_part_is_the_bytes_that_stand_there() {
    let site = Site::start();
    let lengths = [1, 100, 4_096, 4_097, 32_768, 32_769, 524_288, 524_289, 1_500_000];
    let values: Vec<_> = lengths
        .iter()
        .map(|length| {
            let value = bytes(*length);
            (site.share(&format!("of {length}"), &value), value)
        })
        .collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 200, ..ProptestConfig::default() });
    let strategy = (
        0..values.len(),
        any::<proptest::sample::Index>(),
        prop_oneof![Just(0_usize), 0..40_000_usize, Just(usize::MAX >> 1)],
    );
    runner
        .run(&strategy, |(which, first, more)| {
            let (link, value) = &values[which];
            let first = first.index(value.len());
            let answer = site.ask("GET", link, &[("Range", &format!("bytes={first}-{}", first + more))]);
            let end = (first + more + 1).min(value.len());
            prop_assert_eq!(answer.status, 206);
            prop_assert!(answer.body == value[first..end], "{} of {}", first, value.len());
            prop_assert_eq!(answer.header("content-range"), format!("bytes {first}-{}/{}", end - 1, value.len()));
            prop_assert_eq!(answer.length(), end - first);
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_end_of_a_value_the_rest_of_it_and_what_it_does_not_have() {
    let site = Site::start();
    let value = bytes(100_000);
    let link = site.share("value", &value);
    for (range, part) in
        [("bytes=-5", 99_995..100_000), ("bytes=70000-", 70_000..100_000), ("bytes=-200000", 0..100_000)]
    {
        let answer = site.ask("GET", &link, &[("Range", range)]);
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == value[part], "{range}");
    }
    for range in ["bytes=100000-", "bytes=100000-100001", "bytes=-0"] {
        let answer = site.ask("GET", &link, &[("Range", range)]);
        assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */100000"), "{range}");
    }
    for range in ["bytes=1-2,5-6", "bytes=2-1", "lines=1-2", "bytes"] {
        let answer = site.ask("GET", &link, &[("Range", range)]);
        assert_eq!((answer.status, answer.header("content-range")), (200, ""), "{range}");
        assert!(answer.body == value);
    }
    assert_eq!(site.ask("HEAD", &link, &[("Range", "bytes=1-2")]).status, 200);
}

#[test]
fn a_download_goes_on_only_with_the_version_that_it_began_with() {
    let site = Site::start();
    let link = site.share("value", b"abcdef");
    let tag = site.get(&link).header("etag").to_owned();
    let rest = |tag: &str| site.ask("GET", &link, &[("Range", "bytes=3-"), ("If-Range", tag)]);
    assert_eq!((rest(&tag).status, rest(&tag).body), (206, b"def".to_vec()));
    site.set("value", b"ABCDEF");
    assert_eq!((rest(&tag).status, rest(&tag).body), (200, b"ABCDEF".to_vec()));
    assert_eq!(rest("Tue, 24 Nov 2026 12:00:00 GMT").status, 200);
}
