//! Fencing tokens of stores that have no number of their own: a counter in a blob's metadata.
//!
//! With this library's names it is the lock's own blob, written under the lock's lease. go-azuremutex and
//! goazurelocking write that blob anew at each try, which wipes metadata, so that beside them the counter has a blob of
//! its own, written only if nobody has changed it since it was read.

use std::time::SystemTime;

use super::{
    answer::Outcome,
    blob::{Calls, Created},
    metadata::Metadata,
    store::Inner,
};
use crate::{Error, ErrorKind, Holder, Mode, Result, backend::Call, fencing};

/// Where the counter of a lock is.
pub(super) enum Counter<'a> {
    /// In the lock's own blob, which is leased with this id.
    Leased(Calls<'a>, &'a str),
    /// In a blob beside it.
    Beside(Calls<'a>),
}

impl<'a> Counter<'a> {
    /// That of a lock, whose blob is leased with this id; `beside` is where names that are others' have it.
    pub(super) fn of(store: &'a Inner, lock: &'a str, beside: &'a str, id: &'a str, call: &'a Call) -> Self {
        if store.names.are_others() {
            Self::Beside(store.calls(beside, call))
        } else {
            Self::Leased(store.calls(lock, call), id)
        }
    }

    /// The next token; with an exclusive one the holder is written, too. The lock is held meanwhile.
    ///
    /// # Errors
    /// `Unavailable` when the lease was lost before the token was written; `Foreign` for a counter that is none.
    pub(super) fn next(&self, mode: Mode, holder: &Holder) -> Result<u64> {
        let next = self.update(|metadata, now| {
            let last = metadata.token()?;
            let fence = fencing::next(last, mode, now)?;
            if last == Some(fence.counter) {
                return Ok(Edit::Keep(fence.token));
            }
            metadata.set_token(fence.counter);
            if mode == Mode::Exclusive {
                metadata.set_holder(holder, now);
            }
            Ok(Edit::Write(fence.token))
        });
        match next {
            Err(e) if e.kind() == ErrorKind::Lost => Err(Error::new(ErrorKind::Unavailable, e)),
            next => next,
        }
    }

    /// Writes who has it now, and leaves the token as it is.
    ///
    /// # Errors
    /// `Lost` when the lease was lost before that; else as [`next`](Self::next).
    pub(super) fn set_holder(&self, holder: &Holder) -> Result<()> {
        self.update(|metadata, now| {
            if metadata.token()?.is_none() {
                return Ok(Edit::Keep(()));
            }
            metadata.set_holder(holder, now);
            Ok(Edit::Write(()))
        })
    }

    /// Reads the metadata, and writes what is made of it. The time is the service's: with a counter that was lost,
    /// tokens still grow, whoever's clock is wrong.
    fn update<T>(&self, mut edit: impl FnMut(&mut Metadata, SystemTime) -> Result<Edit<T>>) -> Result<T> {
        let (Self::Leased(blob, _) | Self::Beside(blob)) = self;
        // Beside the lock's lease only a holder that has lost it can still write.
        for _ in 0..4 {
            let reply = blob.properties()?;
            let exists = reply.outcome == Outcome::Done;
            let mut metadata = if exists { Metadata::of(&reply.answer)? } else { Metadata::default() };
            let value = match edit(&mut metadata, blob.service.time_of(&reply))? {
                Edit::Keep(value) => return Ok(value),
                Edit::Write(value) => value,
            };
            let written = match (self, exists) {
                (Self::Leased(_, id), true) => blob.write_metadata(&metadata, ("x-ms-lease-id", id))?,
                (Self::Leased(..), false) => break,
                (Self::Beside(_), true) => {
                    let version = reply.answer.header("etag").unwrap_or_default();
                    blob.write_metadata(&metadata, ("If-Match", version))?
                }
                (Self::Beside(_), false) => match blob.create(&metadata)? {
                    Created::Made => true,
                    Created::Exists => false,
                    Created::NoContainer(error) => return Err(error),
                },
            };
            if written {
                return Ok(value);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the blob of the fencing counter was taken away or changed"))
    }
}

/// What is to become of metadata that was read.
enum Edit<T> {
    Keep(T),
    Write(T),
}
