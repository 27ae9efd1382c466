//! What an answer of the service means to who holds a lease or wants one.
//!
//! Statuses and codes are those of "Lease Blob" (outcomes of lease operations and of blob operations on
//! leased blobs by lease state), "Blob service error codes" and "Common REST API error codes". Some codes
//! that the service sends are in none of these lists, so a code that is not known here counts as its status
//! does.

use std::time::{Duration, SystemTime};

use quick_xml::{Reader, escape::resolve_predefined_entity, events::Event};

use self::Operation::{
    Acquire, Break, Change, CreateBlob, CreateContainer, Delete, List, Properties, Release, Renew,
    WriteMetadata,
};
use crate::{LostReason, shown::shown};

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Acquire,
    Renew,
    Change,
    Release,
    Break,
    /// Put Blob with `If-None-Match: *`.
    CreateBlob,
    CreateContainer,
    /// Get Blob Properties.
    Properties,
    /// Set Blob Metadata.
    WriteMetadata,
    /// Delete Blob, with a lease id or without.
    Delete,
    /// List Blobs.
    List,
}

/// An answer, as far as its meaning depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) operation: Operation,
    pub(super) status: u16,
    /// The header `x-ms-error-code`, or else the code in the body.
    pub(super) code: Option<&'a str>,
    /// Whether the service's own mark is there, the header `x-ms-request-id`. Others on the way have no such
    /// mark.
    pub(super) marked: bool,
    pub(super) retry_after: Option<Duration>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was carried out. Whether the lease is ours, the answer's `x-ms-lease-id` has to say.
    Done,
    /// To create: there is one already.
    Exists,
    /// Another has the lease.
    Busy,
    /// The lease with our id is being broken; nobody gets one until its time is up.
    Breaking,
    /// To break: there is no lease.
    Free,
    /// Our lease is gone. To a release that was sent before with no clear answer, this is success.
    Lost(LostReason),
    Missing(Missing),
    /// A container of this name cannot be made for half a minute or more.
    ContainerBeingDeleted,
    /// `If-Match`: it was changed since.
    Changed,
    /// Who we are was not believed: worth one more try with a new token, or with the service's time.
    Unauthenticated,
    /// It refuses, until somebody changes rights, a firewall or a policy.
    Denied,
    /// The request can never be right as it is.
    Config,
    /// The blob is of a kind that no lock is.
    Foreign,
    /// Not now, or no word of the service at all. It may have been carried out.
    Transient {
        retry_after: Option<Duration>,
    },
    /// What the service never says to this.
    Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Blob,
    Container,
}

/// Who sends the id of a lease.
const LEASED: &[Operation] = &[Renew, Change, Release, WriteMetadata, Delete];
/// To whom a missing blob is a lost lease.
const HELD: &[Operation] = &[Renew, Change, Release];
const ANY: &[Operation] = &[];

const LATER: Outcome = Outcome::Transient { retry_after: None };

/// The first row with operation and code counts.
#[rustfmt::skip]
const CODES: &[(&[Operation], &[&str], Outcome)] = &[
    (&[Acquire], &["LeaseAlreadyPresent"], Outcome::Busy),
    (&[Acquire], &["LeaseIsBreakingAndCannotBeAcquired"], Outcome::Breaking),
    (&[Acquire], &["InfiniteLeaseDurationRequired"], Outcome::Config),

    (LEASED, &["LeaseIdMismatchWithLeaseOperation", "LeaseIdMismatchWithBlobOperation"],
        Outcome::Lost(LostReason::Taken)),
    (LEASED, &["LeaseIsBrokenAndCannotBeRenewed", "LeaseIsBreakingAndCannotBeChanged", "LeaseAlreadyBroken"],
        Outcome::Lost(LostReason::Broken)),
    (LEASED, &["LeaseNotPresentWithLeaseOperation", "LeaseNotPresentWithBlobOperation", "LeaseLost"],
        Outcome::Lost(LostReason::Expired)),
    (HELD, &["BlobNotFound", "SoftDeletedBlobNotFound", "ResourceNotFound", "ContainerNotFound",
        "ContainerBeingDeleted"],
        Outcome::Lost(LostReason::Deleted)),

    (&[Break], &["LeaseNotPresentWithLeaseOperation", "LeaseAlreadyBroken"], Outcome::Free),
    // To create over a leased blob is `LeaseIdMissing` to the service, and `BlobAlreadyExists` to Azurite;
    // `UnauthorizedBlobOverwrite` is for a SAS that may create and not write.
    (&[CreateBlob], &["BlobAlreadyExists", "LeaseIdMissing", "ConditionNotMet", "UnauthorizedBlobOverwrite"],
        Outcome::Exists),
    (&[CreateContainer], &["ContainerAlreadyExists"], Outcome::Exists),
    (&[CreateContainer], &["ResourceNotFound"], Outcome::Config),
    (&[Delete], &["LeaseIdMissing"], Outcome::Busy),
    (&[WriteMetadata], &["LeaseIdMissing"], Outcome::Busy),
    (&[WriteMetadata, Delete], &["ConditionNotMet"], Outcome::Changed),

    (&[CreateBlob, List], &["ResourceNotFound"], Outcome::Missing(Missing::Container)),
    (ANY, &["ContainerNotFound"], Outcome::Missing(Missing::Container)),
    (ANY, &["ContainerBeingDeleted"], Outcome::ContainerBeingDeleted),
    (&[Acquire, Break, Properties, WriteMetadata, Delete],
        &["BlobNotFound", "SoftDeletedBlobNotFound", "ResourceNotFound"],
        Outcome::Missing(Missing::Blob)),

    (ANY, &["AuthenticationFailed"], Outcome::Unauthenticated),
    (ANY, &["BlobImmutableDueToPolicy", "ContainerDisabled", "AccountIsDisabled"], Outcome::Denied),
    (ANY, &["InvalidBlobType", "ResourceTypeMismatch", "BlobArchived", "BlobBeingRehydrated",
        "PendingCopyOperation", "SnapshotsPresent"], Outcome::Foreign),
    (ANY, &["AccountBeingCreated"], LATER),
];

impl Answer<'_> {
    pub(super) fn outcome(&self) -> Outcome {
        match self.bare() {
            Outcome::Transient { .. } => Outcome::Transient { retry_after: self.retry_after },
            outcome => outcome,
        }
    }

    fn bare(&self) -> Outcome {
        match self.status {
            _ if !self.marked => LATER,
            200..=299 if self.status == self.operation.success() => Outcome::Done,
            400..=499 => {
                if matches!(self.status, 408 | 429) {
                    return LATER;
                }
                self.by_code().unwrap_or_else(|| self.by_status())
            }
            500..=599 => LATER,
            _ => Outcome::Protocol,
        }
    }

    fn by_code(&self) -> Option<Outcome> {
        let code = self.code?;
        let row = CODES.iter().find(|(operations, codes, _)| {
            (operations.is_empty() || operations.contains(&self.operation)) && codes.contains(&code)
        });
        row.map(|(_, _, outcome)| *outcome)
    }

    fn by_status(&self) -> Outcome {
        match (self.status, self.operation) {
            (401, _) => Outcome::Unauthenticated,
            (403, _) => Outcome::Denied,
            // A loss is final, so it takes a code.
            (404, Renew | Change | Release) if self.code.is_none() => LATER,
            (404, Renew | Change | Release) => Outcome::Lost(LostReason::Deleted),
            (404, Acquire | Break | Properties | WriteMetadata | Delete) => Outcome::Missing(Missing::Blob),
            (404, CreateBlob | List) => Outcome::Missing(Missing::Container),
            (404, CreateContainer) | (400 | 405 | 406 | 411 | 413..=416, _) => Outcome::Config,
            _ => Outcome::Protocol,
        }
    }
}

impl Operation {
    /// The status of success ("Status code" on the page of each operation).
    fn success(self) -> u16 {
        match self {
            Acquire | CreateBlob | CreateContainer => 201,
            Renew | Change | Release | Properties | WriteMetadata | List => 200,
            Break | Delete => 202,
        }
    }
}

impl Operation {
    /// What a SAS has to allow for it ("Create a service SAS", "Create an account SAS").
    pub(super) fn permission(self) -> &'static str {
        match self {
            Acquire | Renew | Change | Release | Break | WriteMetadata => "write (`w`)",
            CreateBlob => "create (`c`)",
            CreateContainer => "create (`c`, of an account SAS for containers)",
            Properties => "read (`r`)",
            Delete => "delete (`d`)",
            List => "list (`l`)",
        }
    }
}

/// The longest that an answer can make us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How long to wait, from the headers `x-ms-retry-after-ms` and `Retry-After` (seconds or a date; RFC 9110,
/// section 10.2.3). `now` is the answer's own `Date`, so that no clock of ours is in it.
pub(super) fn retry_after(
    milliseconds: Option<&str>,
    header: Option<&str>,
    now: SystemTime,
) -> Option<Duration> {
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // What is too large a number is a long wait too.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let from_header = |text: &str| match number(text) {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    };
    let milliseconds = milliseconds.and_then(|text| number(text.trim())).map(Duration::from_millis);
    let wait = milliseconds.or_else(|| from_header(header?.trim()))?;
    Some(wait.min(LONGEST_WAIT))
}

/// As much of a body as is read for an error.
pub(super) const LONGEST_BODY: usize = 64 * 1024;
const LONGEST_MESSAGE: usize = 300;
const LONGEST_CODE: usize = 100;

/// Code and message of an error's body: `<Error><Code>..</Code><Message>..</Message></Error>` ("Status and
/// error codes"). Of the message only its first line, fit for people; it may be empty. `None` for any other
/// body.
pub(super) fn error_body(body: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST_BODY)]);
    let mut reader = Reader::from_str(&text);
    let mut fields = ["Code", "Message"].map(Field::new);
    let mut inside = None;
    let mut depth = 0_usize;
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => {
                depth += 1;
                match (depth, tag.name().into_inner()) {
                    (1, "Error") => {}
                    (1, _) => return None,
                    (2, name) => inside = fields.iter().position(|field| field.name == name && !field.ended),
                    _ => {}
                }
            }
            Ok(Event::End(_)) => {
                depth = depth.saturating_sub(1);
                match depth {
                    0 => break,
                    1 => {
                        if let Some(field) = inside.take() {
                            fields[field].ended = true;
                        }
                    }
                    _ => {}
                }
            }
            Ok(Event::Eof) | Err(_) => break,
            Ok(event) if depth == 2 => {
                let Some(field) = inside else { continue };
                let text = &mut fields[field].text;
                match event {
                    Event::Text(part) => text.push_str(&part),
                    Event::CData(part) => text.push_str(&part),
                    Event::GeneralRef(name) => match name.resolve_char_ref() {
                        Ok(Some(character)) => text.push(character),
                        _ => text.push_str(resolve_predefined_entity(&name).unwrap_or("\u{fffd}")),
                    },
                    _ => {}
                }
            }
            Ok(_) => {}
        }
    }
    let [code, message] = fields;
    let name = code.text.trim();
    // A code that was cut off would be another code.
    let whole = code.ended && !name.is_empty() && name.len() <= LONGEST_CODE;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (whole && plain).then(|| (name.to_owned(), first_line(&message.text)))
}

struct Field {
    name: &'static str,
    text: String,
    ended: bool,
}

impl Field {
    fn new(name: &'static str) -> Self {
        Self { name, text: String::new(), ended: false }
    }
}

/// The first line, fit for people, unless it is one of those that say what the headers say better.
pub(super) fn first_line(message: &str) -> String {
    let line = message.trim_start().split(['\n', '\r', '\u{2028}', '\u{2029}']).next().unwrap_or_default();
    if line.starts_with("RequestId:") || line.starts_with("Time:") {
        return String::new();
    }
    shown(line, LONGEST_MESSAGE).trim_end().to_owned()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
