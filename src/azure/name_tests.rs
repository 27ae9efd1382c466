use proptest::prelude::*;

use super::*;

fn escaped(prefix: &str) -> Result<BlobNames> {
    BlobNames::new(Names::Escaped, prefix)
}

#[test]
fn readable_where_they_can_be() {
    let names = escaped("").unwrap();
    for (name, blob) in [
        ("migration", "migration"),
        ("DB-1.2_x", "DB-1.2_x"),
        ("..", ".~2E"),
        (".", "~2E"),
        ("a.", "a~2E"),
        ("../../etc/passwd", "..~2F..~2Fetc~2Fpasswd"),
        ("a b+c%2F", "a~20b~2Bc~252F"),
        ("a\\b", "a~5Cb"),
        ("~2F", "~7E2F"),
        ("~locks/x", "~7Elocks~2Fx"),
        ("nul\0", "nul~00"),
        ("ü", "~C3~BC"),
    ] {
        assert_eq!(names.blob(name).unwrap(), blob);
        assert_eq!(names.lock(blob).as_deref(), Some(name));
    }
}

#[test]
fn what_is_none_of_ours() {
    let names = escaped("").unwrap();
    for blob in ["", "a/b", "~2f", "~61", "~FF", "~2", "~", "~+2", "a.", "a b", "ü", "~locks/a/1"] {
        assert_eq!(names.lock(blob), None, "{blob}");
    }
    let names = escaped("x/y").unwrap();
    for blob in ["x/y", "x/y/", "x/yz", "x/y/z/a", "z", "X/Y/z", "x/y/~locks/z/1"] {
        assert_eq!(names.lock(blob), None, "{blob}");
    }
    assert_eq!(names.lock("x/y/z").as_deref(), Some("z"));
}

#[test]
fn prefixes() {
    for (prefix, blob) in [("", "db"), ("/", "db"), ("a", "a/db"), ("a/", "a/db"), (".a/B_-1", ".a/B_-1/db")]
    {
        let names = escaped(prefix).unwrap();
        assert_eq!(names.blob("db").unwrap(), blob);
        assert_eq!(names.prefix().len(), blob.len() - 2);
    }
    assert_eq!(escaped("a").unwrap().beside("d/b").unwrap(), "a/~locks/d~2Fb/");
    let long = "a".repeat(481);
    let deep = "a/".repeat(251);
    for prefix in ["//", "/a", "a//b", "a/./b", "a/../b", "a.", "a./b", "a b", "a\\b", "ü", "~", &long, &deep]
    {
        assert_eq!(escaped(prefix).unwrap_err().kind(), ErrorKind::Config, "{prefix}");
    }
}

#[test]
fn too_long_or_empty() {
    let names = escaped("abc").unwrap();
    assert!(names.blob(&"a".repeat(956)).is_ok() && names.check(&"a".repeat(956)).is_ok());
    let error = names.blob(&"a".repeat(957)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Name);
    assert!(error.to_string().contains("961") && error.to_string().contains("960"));
    assert_eq!(names.check(&"/".repeat(400)).unwrap_err().kind(), ErrorKind::Name);
    assert_eq!(names.check("").unwrap_err().kind(), ErrorKind::Name);
    assert!(names.beside(&"a".repeat(956)).unwrap().len() + 36 <= 1024);
}

#[test]
fn containers() {
    for name in ["abc", "a-b-c", "1locks", "0-0", &"a".repeat(63)] {
        assert!(check_container(name).is_ok(), "{name}");
    }
    for name in
        ["", "ab", "Abc", "a_b", "a.b", "-ab", "ab-", "a--b", "a/b", "äbc", "$root", "$web", &"a".repeat(64)]
    {
        assert_eq!(check_container(name).unwrap_err().kind(), ErrorKind::Config, "{name}");
    }
}

fn lock() -> impl Strategy<Value = String> {
    "\\PC{1,20}|[a-zA-Z./+%~\\\\\0]{1,9}|[~2F./]{1,5}"
}

fn prefix() -> impl Strategy<Value = String> {
    "([ab]{1,2}(/[ab]{1,2}){0,2})?"
}

proptest! {
    #[test]
    fn no_two_locks_meet(a in lock(), b in lock(), p in prefix(), q in prefix()) {
        let (p, q) = (escaped(&p).unwrap(), escaped(&q).unwrap());
        let blob = p.blob(&a).unwrap();
        prop_assert_eq!(p.lock(&blob), Some(a.clone()));
        if (&p, &a) != (&q, &b) {
            prop_assert_ne!(&blob, &q.blob(&b).unwrap());
            prop_assert_ne!(p.beside(&a).unwrap(), q.beside(&b).unwrap());
        }
        prop_assert!(!blob.starts_with(&q.beside(&b).unwrap()));
        prop_assert_eq!(q.lock(&format!("{}1", p.beside(&a).unwrap())), None);
    }

    #[test]
    fn every_blob_name_is_valid(name in lock(), p in prefix()) {
        let blob = escaped(&p).unwrap().blob(&name).unwrap();
        prop_assert!(blob.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b)));
        prop_assert!(blob.split('/').all(|part| !part.is_empty() && !part.ends_with('.')));
        prop_assert_eq!(blob.matches('/').count(), p.split('/').filter(|part| !part.is_empty()).count());
    }

    #[test]
    fn no_blob_name_is_taken_for_two_locks(blob in "[a-c~0-9A-F./]{0,9}") {
        let names = escaped("").unwrap();
        if let Some(name) = names.lock(&blob) {
            prop_assert_eq!(names.blob(&name).unwrap(), blob);
        }
    }

    #[test]
    fn the_check_agrees(length in 300_usize..1000, unit in prop::sample::select(vec!["a", "/", "ü"])) {
        let names = escaped("a/b").unwrap();
        let name = unit.repeat(length);
        prop_assert_eq!(names.check(&name).is_ok(), names.blob(&name).is_ok());
    }
}

#[test]
fn goazurelocking_names() {
    let names = BlobNames::new(Names::GoAzureLocking, "").unwrap();
    for name in ["abc", "Nightly-Job-7", "0-0", &"a".repeat(58)] {
        let blob = names.blob(name).unwrap();
        assert_eq!(blob, format!("azlk-{name}"));
        assert_eq!(names.lock(&blob).as_deref(), Some(name));
        assert!(names.check(name).is_ok());
    }
    // The last two are letters that its own check takes for `k` and `i`; not worth a blob name beyond ASCII.
    for name in [
        "",
        "ab",
        "a_b",
        "a b",
        "a.b",
        "a/b",
        "-ab",
        "ab-",
        "a--b",
        "äbc",
        &"a".repeat(59),
        "abc\u{212a}",
        "ab\u{130}",
    ] {
        let error = names.check(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Name, "{name}");
        assert!(error.to_string().contains("3 to 58"), "{error}");
        assert_eq!(names.lock(&format!("azlk-{name}")), None, "{name}");
    }
    for blob in ["abc", "azlk-", "azlk", "AZLK-abc", "~locks/abc/1"] {
        assert_eq!(names.lock(blob), None, "{blob}");
    }
    assert_eq!(names.beside("a-bc").unwrap(), "~locks/a-bc/");
}

#[test]
fn azmutex_names() {
    let names = BlobNames::new(Names::AzMutex, "").unwrap();
    for key in [
        "a",
        "orders/2026/7",
        "tenant:42",
        "a b",
        "100%",
        "a%2Fb",
        "?#&+=",
        "..a",
        "a~",
        "ключ",
        "a/~locks/b",
    ] {
        assert_eq!(names.blob(key).unwrap(), key);
        assert_eq!(names.lock(key).as_deref(), Some(key));
        assert!(names.check(key).is_ok());
    }
    let (long, deep) = ("a".repeat(961), "a/".repeat(250) + "a");
    for (key, says) in [
        ("", "empty"),
        ("a\\b", "another key's blob"),
        (".", "another key's blob"),
        ("..", "another key's blob"),
        ("a.", "another key's blob"),
        ("a/../b", "another key's blob"),
        ("a./b", "another key's blob"),
        ("a\0", "ASCII punctuation"),
        ("a\n", "ASCII punctuation"),
        ("\u{7f}", "ASCII punctuation"),
        ("\u{81}", "ASCII punctuation"),
        ("\u{e000}", "ASCII punctuation"),
        ("e\u{301}", "ASCII punctuation"),
        ("/a", "slashes"),
        ("a/", "slashes"),
        ("a//b", "slashes"),
        ("~locks/a/1", "`~` at the start"),
        ("~", "`~` at the start"),
        (&long, "shorten"),
        (&"ü".repeat(161), "shorten"),
        (&deep, "250 parts"),
    ] {
        let error = names.check(key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Name, "{key}");
        assert!(error.to_string().contains(says), "{key}: {error}");
        assert_eq!(names.lock(key), None, "{key}");
        assert!(names.beside(key).is_err(), "{key}");
    }
    assert_eq!(names.beside("a/b").unwrap(), "~locks/a~2Fb/", "not under what lies beside `a`");
}

#[test]
fn names_of_others_have_no_prefix() {
    for names in [Names::GoAzureLocking, Names::AzMutex] {
        assert!(BlobNames::new(names, "/").is_ok());
        let error = BlobNames::new(names, "ci").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("prefix"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_two_locks_of_the_go_libraries_meet(
        names in prop::sample::select(vec![Names::GoAzureLocking, Names::AzMutex]),
        a in "[aB0-]{1,5}|[ab/%~. ]{1,6}|\\PC{1,9}",
        b in "[aB0-]{1,5}|[ab/%~. ]{1,6}|\\PC{1,9}",
    ) {
        let names = BlobNames::new(names, "").unwrap();
        let (Ok(blob), Ok(other)) = (names.blob(&a), names.blob(&b)) else { return Ok(()) };
        prop_assert_eq!(names.lock(&blob), Some(a.clone()));
        let (beside, beside_other) = (names.beside(&a).unwrap(), names.beside(&b).unwrap());
        prop_assert_eq!(a == b, blob == other);
        prop_assert_eq!(a == b, beside.starts_with(&beside_other));
        prop_assert!(!other.starts_with(&beside));
        prop_assert_eq!(names.lock(&format!("{beside}1")), None);
    }
}
