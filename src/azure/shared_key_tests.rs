//! The vectors are of three kinds: what the REST documentation shows, what the service's JavaScript library
//! is tested with, and signatures that an Azurite 3.37.0 took.

use proptest::prelude::*;

use super::*;

const DATE: (&str, &str) = ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
const VERSION: (&str, &str) = ("x-ms-version", "2021-12-02");
const LEASE: &str = "1f812371-a41d-49e6-b123-f4b542e851c5";
const EMULATOR: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const MINE: &str = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU2Nzg5QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVorLw==";

type Headers = &'static [(&'static str, &'static str)];

/// Method, path, query, headers beside date and version, signature for the emulator, signature for
/// `myaccount`.
#[rustfmt::skip]
const SIGNED: [(&str, &str, &str, Headers, &str, &str); 10] = [
    ("PUT", "/locks", "restype=container", &[],
     "LHU2Z0Rtw4/SyWDketb6xtUDV8nhJXRwC68F3KmRp9M=", "RIaJIvd1q3C8cDk4wjKce8vqt/h4ZSAp6mBKiZPrcwA="),
    ("PUT", "/locks/my-lock", "", &[("x-ms-blob-type", "BlockBlob"), ("If-None-Match", "*")],
     "I/Nx085uUzcgz+cWAWNsGzfGF9k4FwpGU9XwWk2Bb7M=", "PVYrMlP97gYW0RTXmuD6ZdWCYlEC6O2yogQyNrNYbB0="),
    ("PUT", "/locks/my-lock", "comp=lease",
     &[("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "30"), ("x-ms-proposed-lease-id", LEASE),
       ("x-ms-client-request-id", "req-1")],
     "sLaAuiL2w6phyjxgbjZgVscu7kSQv166JGHfdDKGd1I=", "db8JYYOVuIe/P/jBKP+rbh9wXrBNUYq937uWSsm/nVA="),
    ("PUT", "/locks/my-lock", "comp=lease&timeout=10",
     &[("x-ms-lease-action", "renew"), ("x-ms-lease-id", LEASE)],
     "2BbrIBZl/4vOGh4W+EvpoSqvONTmAAhVpo+5TYh9V00=", "m12/TLRS28okQB6zwB2rKuehFgOWZHfZPeVzjI/AqUM="),
    ("PUT", "/locks/my-lock", "comp=metadata", &[("x-ms-lease-id", LEASE), ("x-ms-meta-owner", "host 1")],
     "Z9YQ0sEhXqVUYBhySElGBJ0J0qE8DJF0aLsV6URNXY8=", "0zy0P1kWLZ7+U0DRIr7Zr5DUD9idjAWaSrqFQycv7OE="),
    ("HEAD", "/locks/my-lock", "", &[],
     "QqBP4okdw+WYbzOjSJBlDOMWEUVxvyLPJBp9Ahnex+E=", "qTmatXyq04rrUpy30ZfzitqO67sr+GWClJ0K6YW8Nek="),
    ("PUT", "/locks/my-lock", "",
     &[("Content-Length", "5"), ("Content-Type", "text/plain"), ("x-ms-blob-type", "BlockBlob"),
       ("x-ms-lease-id", LEASE)],
     "BN7UBb3pZMU8pV0DbitDrNP8hRRXxhf2Lt7NNMxItSQ=", "8S2GS87/iMbGTTeZGNp7B6CsIBD8EyCvydYorzJ8I1w="),
    ("PUT", "/locks/my-lock", "comp=lease", &[("x-ms-lease-action", "release"), ("x-ms-lease-id", LEASE)],
     "Qrw8BYJBo44idKdTHeORIGUsJl6tdIsjHI8btBqE8ZE=", "iRoeyozu1+C5NB/TsPBWuAn5/mtD8ow45J2E1xF9enQ="),
    ("PUT", "/locks/a%20b/%C3%A9%2Bz", "", &[("x-ms-blob-type", "BlockBlob")],
     "XvrTvzyXJoTVFcM1WIrYLLSZ6mzvAuwdn/cM0cvB73Q=", "+K7ho30AI1YM0Mksj31ut+IggQQHJ9G0U5pUK2JTwWM="),
    ("GET", "/locks", "restype=container&comp=list&prefix=a%20b%2F&include=metadata", &[],
     "nlizZfCclmppO8eg+vXnVPVUTLOXpvR6IKhdRuIRHJo=", "5WT+UGaf/QTWA1cdQODM4NDh3L58ABAeIplnIyGGKnE="),
];

#[test]
fn signatures_that_a_server_took() {
    let emulator = Key::from_base64(EMULATOR).unwrap();
    let mine = Key::from_base64(MINE).unwrap();
    for (n, (method, path, query, more, for_emulator, for_mine)) in SIGNED.into_iter().enumerate() {
        let headers: Vec<_> = [DATE, VERSION].into_iter().chain(more.iter().copied()).collect();
        let request = Request { method, path, query, headers: &headers };
        assert_eq!(mine.signature(&string_to_sign("myaccount", &request)), for_mine, "{}", n + 1);
        let path = format!("/devstoreaccount1{path}");
        let request = Request { path: &path, ..request };
        assert_eq!(
            emulator.authorization("devstoreaccount1", &request),
            format!("SharedKey devstoreaccount1:{for_emulator}"),
            "{}",
            n + 1
        );
    }
}

fn text(method: &'static str, path: &str, query: &str, headers: &[(&str, &str)]) -> String {
    string_to_sign("myaccount", &Request { method, path, query, headers })
}

#[test]
fn strings_to_sign_as_documented() {
    assert_eq!(
        text(
            "GET",
            "/mycontainer",
            "comp=metadata&restype=container&timeout=20",
            &[DATE, ("x-ms-version", "2015-02-21")]
        ),
        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
         /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    );
    let acquire = [
        ("x-ms-lease-action", "acquire"),
        ("x-ms-lease-duration", "30"),
        ("x-ms-proposed-lease-id", LEASE),
        ("x-ms-client-request-id", "req-1"),
        VERSION,
        DATE,
        ("Content-Length", "0"),
    ];
    let path = "/devstoreaccount1/locks/my-lock";
    let request = Request { method: "PUT", path, query: "comp=lease", headers: &acquire };
    assert_eq!(
        string_to_sign("devstoreaccount1", &request),
        "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-client-request-id:req-1\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\n\
         x-ms-lease-action:acquire\nx-ms-lease-duration:30\n\
         x-ms-proposed-lease-id:1f812371-a41d-49e6-b123-f4b542e851c5\nx-ms-version:2021-12-02\n\
         /devstoreaccount1/devstoreaccount1/locks/my-lock\ncomp:lease"
    );
    assert!(text("PUT", "/c/b", "", &[("If-None-Match", "*")]).starts_with("PUT\n\n\n\n\n\n\n\n\n*\n\n\n/"));
    let body = [("content-length", "5"), ("Content-Type", "text/plain")];
    assert!(text("PUT", "/c/b", "", &body).starts_with("PUT\n\n\n5\n\ntext/plain\n\n\n\n\n\n\n/"));
}

#[test]
fn each_slot_has_its_line() {
    let all = [
        ("Range", "range"),
        ("If-Unmodified-Since", "unmodified"),
        ("If-None-Match", "none"),
        ("If-Match", "match"),
        ("If-Modified-Since", "modified"),
        ("Date", "never"),
        ("Content-Type", "type"),
        ("Content-MD5", "md5"),
        ("Content-Length", "1024"),
        ("Content-Language", "language"),
        ("Content-Encoding", "encoding"),
    ];
    assert_eq!(
        text("PUT", "/container/blob.txt", "", &all),
        "PUT\nencoding\nlanguage\n1024\nmd5\ntype\n\nmodified\nmatch\nnone\nunmodified\nrange\n\
         /myaccount/container/blob.txt"
    );
    assert!(text("PUT", "/c", "", &[("Content-Length", "0")]).starts_with("PUT\n\n\n\n"));
}

#[test]
fn headers() {
    for (given, expected) in [
        (&[("X-Ms-Version", "2"), ("x-ms-DATE", "1"), ("Host", "h")][..], "x-ms-date:1\nx-ms-version:2\n"),
        (&[("x-ms-meta-x", "   spaced   ")], "x-ms-meta-x:spaced\n"),
        (&[("x-ms-meta-x", "a \r\n b\tc  d")], "x-ms-meta-x:a b c  d\n"),
        (&[("x-ms-meta-x", "")], "x-ms-meta-x:\n"),
        (&[("x-ms-meta-x", "1"), ("X-MS-META-X", "2")], "x-ms-meta-x:1\n"),
        (
            &[("x-ms-meta-a-b", "4"), ("x-ms-meta-ab", "3"), ("x-ms-meta-a_b", "2"), ("x-ms-meta-a", "1")],
            "x-ms-meta-a:1\nx-ms-meta-a_b:2\nx-ms-meta-ab:3\nx-ms-meta-a-b:4\n",
        ),
        (
            &[("x-ms-meta-ab", "4"), ("x-ms-meta-aa", "3"), ("x-ms-meta-a_b", "1"), ("x-ms-meta-a1", "2")],
            "x-ms-meta-a_b:1\nx-ms-meta-a1:2\nx-ms-meta-aa:3\nx-ms-meta-ab:4\n",
        ),
    ] {
        let mut text = String::new();
        canonical_headers(&mut text, given);
        assert_eq!(text, expected);
    }
}

#[test]
fn resources() {
    let list = "restype=container&comp=list&include=snapshots&include=metadata&include=uncommittedblobs";
    for (path, query, expected) in [
        (
            "/mycontainer",
            list,
            "/mycontainer\ncomp:list\ninclude:metadata,snapshots,uncommittedblobs\nrestype:container",
        ),
        ("/mycontainer/myblob", "", "/mycontainer/myblob"),
        ("/c", "SnapShot=s&comp=metadata&Timeout=30", "/c\ncomp:metadata\nsnapshot:s\ntimeout:30"),
        ("/c", "prefix=a%20b%2Fc", "/c\nprefix:a b/c"),
        ("/c", "Foo=z&foo=a&FOO=m", "/c\nfoo:a,m,z"),
        ("/c", "prefix=x+y", "/c\nprefix:x+y"),
        ("/c", "marker=abc==", "/c\nmarker:abc=="),
        ("/c", "comp=list&empty=", "/c\ncomp:list\nempty:"),
        ("/c", "bare", "/c\nbare:"),
        ("/c", "prefix=%2525", "/c\nprefix:%25"),
        ("/c", "prefix=1%&b=%zz&c=%F", "/c\nb:%zz\nc:%F\nprefix:1%"),
        ("/with%20spaces%20and%20%2Bplus.txt", "", "/with%20spaces%20and%20%2Bplus.txt"),
        ("/", "", "/"),
        ("", "", "/"),
    ] {
        let mut text = String::new();
        canonical_resource(&mut text, "myaccount", path, query);
        assert_eq!(text, format!("/myaccount{expected}"));
    }
}

#[test]
fn keys() {
    assert_eq!(format!("{:?}", Key::from_base64(EMULATOR).unwrap()), "Key(..)");
    assert!(Key::from_base64(" c2VjcmV0\n").is_ok());
    for (text, why) in [
        ("", "empty"),
        ("  ", "empty"),
        ("c2Vjc#V0", "character 6"),
        ("c2VjcmV0c2", "length"),
        ("c2VjcmV0c2VjcmV=", "end was changed"),
        ("c2VjcmV0-_", "character 9"),
    ] {
        let error = Key::from_base64(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let shown = error.to_string();
        assert!(shown.contains(why) && !shown.contains("c2Vj"), "{text}: {shown}");
    }
}

fn name() -> impl Strategy<Value = String> {
    "x-ms-(meta-)?[a-z0-9_-]{1,6}"
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02x}"))
}

proptest! {
    #[test]
    fn order_case_and_padding_of_headers_change_nothing(
        headers in prop::collection::btree_map(name(), "[!-~]{0,5}", 0..6),
        shuffle in any::<prop::sample::Index>(),
    ) {
        let plain: Vec<_> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut other: Vec<_> =
            headers.iter().rev().map(|(k, v)| (k.to_ascii_uppercase(), format!(" {v} "))).collect();
        if !other.is_empty() {
            let by = shuffle.index(other.len());
            other.rotate_left(by);
        }
        let other: Vec<_> = other.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = text("PUT", "/c", "", &plain);
        prop_assert_eq!(&text("PUT", "/c", "", &other), &expected);
        // Repeats of a header add nothing.
        prop_assert_eq!(&text("PUT", "/c", "", &[&plain[..], &plain[..]].concat()), &expected);
        prop_assert_eq!(expected.lines().count(), 12 + plain.len() + 1);
    }

    #[test]
    fn the_order_of_names_is_total(a in name(), b in name(), c in name()) {
        prop_assert_eq!(collate(&a, &b), collate(&b, &a).reverse());
        prop_assert_eq!(collate(&a, &b) == Ordering::Equal, a == b);
        if collate(&a, &b).is_le() && collate(&b, &c).is_le() {
            prop_assert!(collate(&a, &c).is_le());
        }
    }

    #[test]
    fn no_header_reaches_into_another_line(value in "\\PC{0,4}[\r\n\t ]{0,3}\\PC{0,4}") {
        let mut text = String::new();
        canonical_headers(&mut text, &[("x-ms-a", &value), ("x-ms-b", "1")]);
        prop_assert_eq!(text.matches(['\n', '\r', '\t']).count(), 2);
    }

    #[test]
    fn order_case_and_encoding_of_parameters_change_nothing(
        parameters in prop::collection::vec(("[a-c]{1,2}", "\\PC{0,4}"), 0..6),
        by in 0_usize..6,
    ) {
        let query = |pairs: &[(String, String)], upper: bool| {
            let part = |(name, value): &(String, String)| {
                let name = if upper { name.to_ascii_uppercase() } else { name.clone() };
                let name = if upper { encode(&name) } else { name };
                format!("{name}={}", encode(value))
            };
            pairs.iter().map(part).collect::<Vec<_>>().join("&")
        };
        let expected = text("GET", "/c", &query(&parameters, false), &[]);
        let mut other = parameters.clone();
        let by = by % other.len().max(1);
        other.rotate_left(by);
        prop_assert_eq!(&text("GET", "/c", &query(&other, true), &[]), &expected);
        // Each value is in it, decoded, and each name once.
        let names: std::collections::BTreeSet<_> = parameters.iter().map(|(name, _)| name).collect();
        for (name, value) in &parameters {
            let start = format!("\n{name}:");
            let (_, line) = expected.split_once(&start).expect("the name is there");
            prop_assert!(line.contains(value.as_str()));
        }
        prop_assert!(expected.matches('\n').count() >= 12 + names.len());
    }

    #[test]
    fn decoding_undoes_encoding_once_and_takes_anything(any in "\\PC{0,9}", loose in "[%0-9a-f+]{0,9}") {
        let encoded = encode(&any);
        prop_assert_eq!(decode_any(&encoded), any);
        let once = decode_any(&loose).into_owned();
        prop_assert!(once.len() <= loose.len() * 3);
    }
}
