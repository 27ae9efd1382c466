use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

const OPERATIONS: [Operation; 11] = [
    Acquire,
    Renew,
    Change,
    Release,
    Break,
    CreateBlob,
    CreateContainer,
    Properties,
    WriteMetadata,
    Delete,
    List,
];

fn outcome(operation: Operation, status: u16, code: Option<&str>) -> Outcome {
    Answer { operation, status, code, marked: true, retry_after: None }.outcome()
}

const TAKEN: Outcome = Outcome::Lost(LostReason::Taken);
const BROKEN: Outcome = Outcome::Lost(LostReason::Broken);
const EXPIRED: Outcome = Outcome::Lost(LostReason::Expired);
const DELETED: Outcome = Outcome::Lost(LostReason::Deleted);
const NO_BLOB: Outcome = Outcome::Missing(Missing::Blob);
const NO_CONTAINER: Outcome = Outcome::Missing(Missing::Container);

/// The tables of "Lease Blob", cell by cell where cells differ, and what other pages and a server added.
#[rustfmt::skip]
const TABLE: &[(&[Operation], u16, &str, Outcome)] = &[
    // Lease operations by state.
    (&[Acquire], 201, "", Outcome::Done),
    (&[Acquire], 409, "LeaseAlreadyPresent", Outcome::Busy),
    (&[Acquire], 409, "LeaseIsBreakingAndCannotBeAcquired", Outcome::Breaking),
    (&[Renew], 200, "", Outcome::Done),
    (&[Renew], 409, "LeaseIdMismatchWithLeaseOperation", TAKEN),
    (&[Renew], 409, "LeaseIsBrokenAndCannotBeRenewed", BROKEN),
    (&[Change], 200, "", Outcome::Done),
    (&[Change], 409, "LeaseIdMismatchWithLeaseOperation", TAKEN),
    (&[Change], 409, "LeaseNotPresentWithLeaseOperation", EXPIRED),
    (&[Change], 409, "LeaseIsBreakingAndCannotBeChanged", BROKEN),
    (&[Release], 200, "", Outcome::Done),
    (&[Release], 409, "LeaseIdMismatchWithLeaseOperation", TAKEN),
    (&[Release], 409, "LeaseNotPresentWithLeaseOperation", EXPIRED),
    (&[Renew, Release], 409, "LeaseAlreadyBroken", BROKEN),
    (&[Break], 202, "", Outcome::Done),
    (&[Break], 409, "LeaseNotPresentWithLeaseOperation", Outcome::Free),
    (&[Break], 409, "LeaseAlreadyBroken", Outcome::Free),
    // What is missing.
    (&[Acquire, Break, Properties, WriteMetadata, Delete], 404, "BlobNotFound", NO_BLOB),
    (&[Acquire, Break, Properties, WriteMetadata, Delete], 404, "SoftDeletedBlobNotFound", NO_BLOB),
    (&[Acquire, Break, Properties, WriteMetadata, Delete], 404, "ResourceNotFound", NO_BLOB),
    (&[Acquire, Break, Properties, WriteMetadata, Delete], 404, "NewSortOfNotFound", NO_BLOB),
    (&[Acquire, Break, Properties, WriteMetadata, Delete], 404, "", NO_BLOB),
    (&[Acquire, Break, Properties, WriteMetadata, Delete, CreateBlob, List], 404, "ContainerNotFound",
        NO_CONTAINER),
    (&[CreateBlob, List], 404, "ResourceNotFound", NO_CONTAINER),
    (&[CreateBlob, List], 404, "", NO_CONTAINER),
    (&[CreateContainer], 404, "ResourceNotFound", Outcome::Config),
    (&[CreateContainer], 404, "", Outcome::Config),
    (&[Renew, Change, Release], 404, "BlobNotFound", DELETED),
    (&[Renew, Change, Release], 404, "SoftDeletedBlobNotFound", DELETED),
    (&[Renew, Change, Release], 404, "ResourceNotFound", DELETED),
    (&[Renew, Change, Release], 404, "ContainerNotFound", DELETED),
    (&[Renew, Change, Release], 404, "NewSortOfNotFound", DELETED),
    (&[Renew, Change, Release], 404, "", LATER),
    (&[Renew, Change, Release], 409, "ContainerBeingDeleted", DELETED),
    (&[Acquire, CreateBlob, CreateContainer, List], 409, "ContainerBeingDeleted",
        Outcome::ContainerBeingDeleted),
    // Creating.
    (&[CreateBlob, CreateContainer], 201, "", Outcome::Done),
    (&[CreateBlob], 409, "BlobAlreadyExists", Outcome::Exists),
    (&[CreateBlob], 412, "LeaseIdMissing", Outcome::Exists),
    (&[CreateBlob], 412, "ConditionNotMet", Outcome::Exists),
    (&[CreateBlob], 403, "UnauthorizedBlobOverwrite", Outcome::Exists),
    (&[CreateContainer], 409, "ContainerAlreadyExists", Outcome::Exists),
    // Blob operations by state.
    (&[Properties, WriteMetadata, List], 200, "", Outcome::Done),
    (&[Delete], 202, "", Outcome::Done),
    (&[WriteMetadata, Delete], 412, "LeaseIdMismatchWithBlobOperation", TAKEN),
    (&[WriteMetadata, Delete], 409, "LeaseIdMismatchWithBlobOperation", TAKEN),
    (&[WriteMetadata, Delete], 412, "LeaseNotPresentWithBlobOperation", EXPIRED),
    (&[WriteMetadata, Delete], 412, "LeaseLost", EXPIRED),
    (&[WriteMetadata, Delete], 412, "ConditionNotMet", Outcome::Changed),
    (&[WriteMetadata, Delete], 412, "LeaseIdMissing", Outcome::Busy),
    // Errors of any operation.
    (&OPERATIONS, 400, "InvalidHeaderValue", Outcome::Config),
    (&OPERATIONS, 400, "MissingRequiredHeader", Outcome::Config),
    (&OPERATIONS, 400, "InvalidUri", Outcome::Config),
    (&OPERATIONS, 400, "InvalidResourceName", Outcome::Config),
    (&OPERATIONS, 400, "OutOfRangeInput", Outcome::Config),
    (&OPERATIONS, 400, "InvalidQueryParameterValue", Outcome::Config),
    (&OPERATIONS, 400, "UnsupportedHeader", Outcome::Config),
    (&OPERATIONS, 400, "InvalidAuthenticationInfo", Outcome::Config),
    (&OPERATIONS, 400, "", Outcome::Config),
    (&OPERATIONS, 401, "NoAuthenticationInformation", Outcome::Unauthenticated),
    (&OPERATIONS, 401, "InvalidAuthenticationInfo", Outcome::Unauthenticated),
    (&OPERATIONS, 401, "", Outcome::Unauthenticated),
    (&OPERATIONS, 403, "AuthenticationFailed", Outcome::Unauthenticated),
    (&OPERATIONS, 403, "AuthorizationFailure", Outcome::Denied),
    (&OPERATIONS, 403, "AuthorizationPermissionMismatch", Outcome::Denied),
    (&OPERATIONS, 403, "AuthorizationResourceTypeMismatch", Outcome::Denied),
    (&OPERATIONS, 403, "KeyBasedAuthenticationNotPermitted", Outcome::Denied),
    (&OPERATIONS, 403, "InsufficientAccountPermissions", Outcome::Denied),
    (&OPERATIONS, 403, "AccountIsDisabled", Outcome::Denied),
    (&OPERATIONS, 403, "", Outcome::Denied),
    (&OPERATIONS, 405, "UnsupportedHttpVerb", Outcome::Config),
    (&OPERATIONS, 409, "BlobImmutableDueToPolicy", Outcome::Denied),
    (&OPERATIONS, 409, "ContainerDisabled", Outcome::Denied),
    (&OPERATIONS, 409, "BlobArchived", Outcome::Foreign),
    (&OPERATIONS, 409, "BlobBeingRehydrated", Outcome::Foreign),
    (&OPERATIONS, 409, "PendingCopyOperation", Outcome::Foreign),
    (&OPERATIONS, 409, "ResourceTypeMismatch", Outcome::Foreign),
    (&OPERATIONS, 409, "InvalidBlobType", Outcome::Foreign),
    (&OPERATIONS, 409, "SnapshotsPresent", Outcome::Foreign),
    (&OPERATIONS, 409, "AccountBeingCreated", LATER),
    (&OPERATIONS, 409, "NewSortOfConflict", Outcome::Protocol),
    (&OPERATIONS, 409, "", Outcome::Protocol),
    (&OPERATIONS, 411, "MissingContentLengthHeader", Outcome::Config),
    (&OPERATIONS, 412, "", Outcome::Protocol),
    (&OPERATIONS, 413, "RequestBodyTooLarge", Outcome::Config),
    (&[Acquire], 412, "InfiniteLeaseDurationRequired", Outcome::Config),
    (&OPERATIONS, 408, "", LATER),
    (&OPERATIONS, 429, "TooManyRequests", LATER),
    (&OPERATIONS, 500, "InternalError", LATER),
    (&OPERATIONS, 500, "OperationTimedOut", LATER),
    (&OPERATIONS, 502, "", LATER),
    (&OPERATIONS, 503, "ServerBusy", LATER),
    (&OPERATIONS, 504, "", LATER),
    (&OPERATIONS, 204, "", Outcome::Protocol),
    (&OPERATIONS, 304, "", Outcome::Protocol),
    // A success of another operation is none of this one.
    (&[Acquire, CreateBlob, CreateContainer, Break, Delete], 200, "", Outcome::Protocol),
    (&[Renew, Change, Release, Properties, Break, Delete], 201, "", Outcome::Protocol),
];

#[test]
fn every_row() {
    for &(operations, status, code, expected) in TABLE {
        let code = (!code.is_empty()).then_some(code);
        for &operation in operations {
            assert_eq!(outcome(operation, status, code), expected, "{operation:?} {status} {code:?}");
        }
    }
}

#[test]
fn every_code_of_the_module_is_tested() {
    for (operations, codes, expected) in CODES {
        for code in *codes {
            let tested = TABLE.iter().any(|row| {
                row.2 == *code
                    && row.3 == *expected
                    && (operations.is_empty() || operations.iter().any(|operation| row.0.contains(operation)))
            });
            assert!(tested, "{code}");
        }
    }
}

#[test]
fn waits() {
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
    for (milliseconds, header, expected) in [
        (None, None, None),
        (None, Some("3"), Some(3000)),
        (None, Some(" 0 "), Some(0)),
        (Some("250"), Some("3"), Some(250)),
        (Some("soon"), Some("3"), Some(3000)),
        (Some("-1"), None, None),
        (None, Some("1.5"), None),
        (None, Some("+1"), None),
        (None, Some(""), None),
        (None, Some("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10_000)),
        (None, Some("Sunday, 06-Nov-94 08:49:47 GMT"), Some(10_000)),
        (None, Some("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0)),
        (None, Some("Sat, 06 Nov 2094 08:49:07 GMT"), Some(3_600_000)),
        (None, Some("99999999999999999999999"), Some(3_600_000)),
        (Some("18446744073709551615"), None, Some(3_600_000)),
    ] {
        let expected = expected.map(Duration::from_millis);
        assert_eq!(retry_after(milliseconds, header, now), expected, "{milliseconds:?} {header:?}");
    }
    let wait = Some(Duration::from_secs(3));
    let answer =
        |status| Answer { operation: Renew, status, code: None, marked: true, retry_after: wait }.outcome();
    assert_eq!(answer(503), Outcome::Transient { retry_after: wait });
    assert_eq!(answer(200), Outcome::Done);
}

fn read(body: &str) -> Option<(String, String)> {
    error_body(body.as_bytes())
}

fn pair(code: &str, message: &str) -> (String, String) {
    (code.to_owned(), message.to_owned())
}

#[test]
fn bodies() {
    let full = "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<Error>\n  \
                <Code>LeaseAlreadyPresent</Code>\n  <Message>There is already a lease present.\n\
                RequestId:bba6b66d-6f5b-403e-b174-a40746004504\nTime:2026-11-21T01:09:16.936Z</Message>\n\
                </Error>";
    assert_eq!(read(full), Some(pair("LeaseAlreadyPresent", "There is already a lease present.")));
    for (body, code, message) in [
        ("<Error><Code>A</Code></Error>", "A", ""),
        ("<Error><Message>m</Message><Code> A </Code></Error>", "A", "m"),
        (
            "<Error><Code>A</Code><Message>a &lt;b&gt; &amp; &#99;&#x64; &x; e</Message></Error>",
            "A",
            "a <b> & cd \u{fffd} e",
        ),
        ("<Error><Code>A</Code><Message><![CDATA[a <b>]]></Message></Error>", "A", "a <b>"),
        ("<Error><Code>A</Code><Message>\n RequestId:1\nTime:2</Message></Error>", "A", ""),
        ("<Error><Code>A</Code><Message>\r\n one\r\ntwo</Message></Error>", "A", "one"),
        (
            "<Error><Code>A</Code><Message>a\u{7}b&#27;[31mc\u{202e}d\u{2028}e</Message></Error>",
            "A",
            "ab[31mcd",
        ),
        ("<Error><Code>A</Code><Message>m</Message><Code>B</Code><Message>n</Message></Error>", "A", "m"),
        ("<Error><X><Code>B</Code></X><Code>A</Code><Y/><Message>m<i>n</i>o</Message></Error>", "A", "mo"),
        (
            "<!DOCTYPE x [<!ENTITY y 'z'>]><Error><Code>A</Code><Message>&y;</Message></Error>",
            "A",
            "\u{fffd}",
        ),
        // Cut off behind the code.
        ("<Error><Code>A</Code>", "A", ""),
        ("<Error><Code>A</Code><Message>so f", "A", "so f"),
        ("<Error><Code>A</Code><Mess", "A", ""),
        ("<Error><Code>A</Code></Oops>", "A", ""),
        (
            "<Error><Code>A</Code><AuthenticationErrorDetail>secret</AuthenticationErrorDetail></Error>",
            "A",
            "",
        ),
    ] {
        assert_eq!(read(body), Some(pair(code, message)), "{body}");
    }
    for body in [
        "",
        "not found",
        "<html><body><Code>A</Code></body></html>",
        "<Code>A</Code>",
        "<Error><Code>A",
        "<Error><Code></Code></Error>",
        "<Error><Code/></Error>",
        "<Error><Code>A B</Code></Error>",
        "<Error><Code>A&#10;B</Code></Error>",
        "<Error/><Code>A</Code>",
        "{\"error\":{\"code\":\"A\"}}",
        "\u{feff}",
        "</Error>",
        "&amp;",
    ] {
        assert_eq!(read(body), None, "{body}");
    }
}

#[test]
fn long_bodies() {
    let body = format!("<Error><Code>A</Code><Message>{}</Message></Error>", "ü".repeat(100_000));
    assert_eq!(read(&body), Some(pair("A", &"ü".repeat(LONGEST_MESSAGE))));
    let body = format!("<Error>{}<Code>A</Code></Error>", " ".repeat(LONGEST_BODY));
    assert_eq!(read(&body), None);
    let body = format!("<Error><Code>{}</Code></Error>", "A".repeat(LONGEST_CODE + 1));
    assert_eq!(read(&body), None);
    assert_eq!(read(&"<Error>".repeat(20_000)), None);
}

/// Pieces of documents.
const PART: &str = "<Error>|</Error>|<Code>|</Code>|<Message>|</Message>|&#?x?[0-9a-f]{0,7};?|\
                    <!\\[CDATA\\[|\\]\\]>|<!--|\\PC{0,3}|[\r\n\t\0]";

fn operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(&OPERATIONS[..])
}

proptest! {
    #[test]
    fn nothing_counts_without_the_mark(
        status in 100_u16..600,
        operation in operation(),
        row in 0..CODES.len(),
    ) {
        for code in CODES[row].1.iter().copied().map(Some).chain([None]) {
            let answer = Answer { operation, status, code, marked: false, retry_after: None };
            prop_assert_eq!(answer.outcome(), LATER);
        }
    }

    #[test]
    fn a_loss_takes_a_client_error_and_a_code(
        status in 100_u16..600,
        code in "[A-Za-z]{0,9}",
        operation in operation(),
    ) {
        prop_assert!(!matches!(outcome(operation, status, None), Outcome::Lost(_)));
        let with_code = outcome(operation, status, Some(&code));
        prop_assert!(!matches!(with_code, Outcome::Lost(_)) || status == 404);
        prop_assert_eq!(with_code == Outcome::Done, status == operation.success());
        if status >= 500 || status == 408 || status == 429 {
            prop_assert_eq!(outcome(operation, status, Some("LeaseLost")), LATER);
        }
    }

    #[test]
    fn no_body_panics_and_no_message_harms(
        any in prop::collection::vec(any::<u8>(), 0..99),
        parts in prop::collection::vec(PART, 0..20),
    ) {
        let _ = error_body(&any);
        let text = parts.concat();
        let start = "<Error><Code>A</Code>";
        for body in [format!("{start}{text}"), format!("{start}<Message>{text}"), text] {
            if let Some((code, message)) = read(&body) {
                prop_assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
                prop_assert!(message.chars().count() <= LONGEST_MESSAGE);
                prop_assert!(!message.contains(char::is_control));
            }
        }
    }

    #[test]
    fn a_body_cut_anywhere_gives_its_code_or_nothing(cut in 0_usize..120) {
        let body = "\u{feff}<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code>\
                    <Message>ü &amp; ü\nTime:1</Message></Error>";
        let cut = error_body(&body.as_bytes()[..cut.min(body.len())]);
        prop_assert!(cut.is_none_or(|(code, message)| code == "BlobNotFound" && message.len() <= 8));
    }
}
