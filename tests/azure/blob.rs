//! The lease of one blob by hand, on Azurite.

use leasehold::{
    ErrorKind, LostReason, Result,
    azure::{Account, Acquired},
};

use crate::support::{KEY, NAME, SECOND, account, by_hand, fresh_container, kind, ms, until};

const A: &str = "5a0ef1b5-2cf0-4d5c-9c2b-1f7a5e2d8c01";
const B: &str = "5a0ef1b5-2cf0-4d5c-9c2b-1f7a5e2d8c02";

#[track_caller]
fn lost(result: Result<()>) -> LostReason {
    result.unwrap_err().lost_reason().unwrap()
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn each_call_and_what_comes_of_it() {
    let container = fresh_container();
    let store = account().container(&container).create_container(true).build().unwrap();
    // Its name and no other, whatever can be in a URL.
    let blob = store.blob("data/ü %2F?#.csv").unwrap();
    assert!(matches!(blob.acquire(A, None).unwrap(), Acquired::NoContainer(_)));
    assert_eq!(kind(blob.create()), ErrorKind::Config);
    leasehold::Locker::new(store.clone()).lock("makes the container").unwrap().unlock().unwrap();

    assert!(matches!(blob.acquire(A, None).unwrap(), Acquired::NoBlob));
    assert!(blob.create().unwrap() && !blob.create().unwrap());
    assert!(matches!(blob.acquire(A, Some(15 * SECOND)).unwrap(), Acquired::Granted));
    assert!(matches!(blob.acquire(B, Some(60 * SECOND)).unwrap(), Acquired::Busy));
    assert!(!blob.create().unwrap(), "a leased one is there, too");
    blob.renew(A).unwrap();
    assert_eq!(lost(blob.renew(B)), LostReason::Taken);
    blob.change(A, B).unwrap();
    blob.change(A, B).expect("a repeated change is none");
    assert_eq!(lost(blob.renew(A)), LostReason::Taken);
    assert_eq!(blob.break_lease(Some(60 * SECOND)).unwrap().unwrap().as_secs().div_ceil(15), 1);
    assert!(matches!(blob.acquire(B, None).unwrap(), Acquired::Breaking));
    assert_eq!(lost(blob.renew(B)), LostReason::Broken);
    blob.release(B).unwrap();
    assert_eq!(lost(blob.release(B)), LostReason::Taken);
    assert_eq!(blob.break_lease(None).unwrap(), None);
}

#[test]
fn what_cannot_be_is_said_before_anything_is_sent() {
    let store = Account::with_key(NAME, KEY).unwrap().container("abc").build().unwrap();
    let blob = store.blob("x").unwrap();
    for id in ["", "x", "5a0ef1b52cf04d5c9c2b1f7a5e2d8c01", "{5a0ef1b5-2cf0-4d5c-9c2b-1f7a5e2d8c01}"] {
        assert_eq!(kind(blob.acquire(id, None)), ErrorKind::Config);
        assert_eq!(kind(blob.renew(id)), ErrorKind::Config);
    }
    for wrong in [0, 14, 61] {
        assert_eq!(kind(blob.acquire(A, Some(wrong * SECOND))), ErrorKind::Config);
    }
    for name in ["", "a/", "a.", "a//b", "../a", "a\\b", "a\nb"] {
        assert_eq!(kind(store.blob(name)), ErrorKind::Name);
    }
    assert_eq!(store.blob_name("a b").unwrap(), "a~20b");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_renewal_that_is_of_another_lease_is_none() {
    let container = fresh_container();
    let store = account().container(&container).create_container(true).build().unwrap();
    leasehold::Locker::new(store.clone()).lock("x").unwrap().unlock().unwrap();
    let blob = store.blob("x").unwrap();
    blob.acquire(A, Some(15 * SECOND)).unwrap();
    blob.break_lease(Some(ms(0))).unwrap();
    blob.acquire(B, Some(15 * SECOND)).unwrap();
    let state = || by_hand("HEAD", &format!("{container}/x"), "").to_ascii_lowercase();
    until("the second one ran out", || state().contains("x-ms-lease-state: expired"));
    // The service refuses it; Azurite renews, and says in its answer whose lease it is.
    let error = blob.renew(A).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Lost | ErrorKind::Protocol), "{error}");
}
