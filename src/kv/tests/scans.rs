//! Pages: their edges, their order, their end.

use super::*;

fn filled() -> StateMachine {
    let mut log = Log::new(SMALL);
    for key in ["b", "a", "ab", "abc", "ac", "b\u{0}", "c"] {
        log.once(put(key, key));
    }
    log.map
}

fn found(page: &Page) -> Vec<&str> {
    page.pairs.iter().map(|pair| std::str::from_utf8(&pair.key).unwrap()).collect()
}

fn prefix(prefix: &str) -> Keys {
    Keys::Prefix(bytes(prefix))
}

fn range(start: &str, end: Option<&str>) -> Keys {
    Keys::Range { start: bytes(start), end: end.map(bytes) }
}

#[test]
fn a_scan_finds_its_keys_in_order() {
    let map = filled();
    let check = |keys: Keys, after: Option<&str>, limit: u32, expected: &[&str], more: bool| {
        let page = map.scan(&Scan { keys, after: after.map(bytes), limit });
        assert_eq!((found(&page), page.more), (expected.to_vec(), more));
        for pair in &page.pairs {
            assert_eq!(
                map.get(&pair.key),
                Some(&Versioned { value: pair.value.clone(), version: pair.version })
            );
        }
    };
    let all = ["a", "ab", "abc", "ac", "b", "b\u{0}", "c"];
    check(prefix(""), None, 100, &all, false);
    check(prefix(""), None, 7, &all, false);
    check(prefix(""), None, 6, &all[..6], true);
    check(prefix(""), None, 0, &all[..1], true);
    check(prefix(""), Some("ac"), 2, &["b", "b\u{0}"], true);
    check(prefix("a"), None, 100, &["a", "ab", "abc", "ac"], false);
    check(prefix("ab"), None, 1, &["ab"], true);
    check(prefix("ab"), Some("ab"), 1, &["abc"], false);
    check(prefix("ab"), Some("abc"), 1, &[], false);
    check(prefix("b"), Some("a"), 9, &["b", "b\u{0}"], false); // `after` before the first key cuts nothing
    check(range("ac", None), Some("a"), 2, &["ac", "b"], true);
    check(prefix("ab"), Some("z"), 9, &[], false);
    check(prefix("x"), None, 9, &[], false);
    check(range("", None), None, 100, &all, false);
    check(range("ab", Some("b")), None, 100, &["ab", "abc", "ac"], false);
    check(range("ab", Some("b")), None, 3, &["ab", "abc", "ac"], false);
    check(range("ab", Some("b\u{0}")), Some("ac"), 9, &["b"], false);
    check(range("aa", Some("aa")), None, 9, &[], false);
    check(range("c", Some("a")), None, 9, &[], false); // upside down
    check(range("b", None), None, 9, &["b", "b\u{0}", "c"], false);
    check(range("", Some("")), None, 9, &[], false);
}

#[test]
fn pages_are_bounded_in_bytes_and_each_makes_progress() {
    let mut log = Log::new(Limits::default());
    let value = "v".repeat(400 * 1024);
    for key in ["a", "b", "c", "d", "e"] {
        log.once(put(key, &value));
    }
    log.once(Command::Put { key: bytes("big"), value: Bytes::from(vec![1; 1024 * 1024]) });
    let mut after = None;
    let mut pages = Vec::new();
    // Bounded, so that a page without progress is a failure and not a test without end.
    while pages.len() < 10 {
        let page = log.map.scan(&Scan { keys: prefix(""), after, limit: 100 });
        pages.push(found(&page).join(" "));
        after = page.pairs.last().map(|pair| pair.key.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, ["a b", "big", "c d", "e"]);
}

#[test]
fn pages_are_bounded_in_pairs() {
    let mut map = StateMachine::new(Limits::default());
    for number in 0..u64::from(PAGE_PAIRS) + 1 {
        map.pairs.put(&number.to_be_bytes(), Bytes::new(), 1);
    }
    let page = map.scan(&Scan { keys: prefix(""), after: None, limit: u32::MAX });
    assert_eq!((page.pairs.len(), page.more), (PAGE_PAIRS as usize, true));
    assert!(crate::codec::encode(&page, SMALL.page_bytes()).is_ok());
    let after = page.pairs.last().map(|pair| pair.key.clone());
    let rest = map.scan(&Scan { keys: prefix(""), after, limit: u32::MAX });
    assert_eq!((rest.pairs.len(), rest.more), (1, false));
}
