//! Fencing tokens of stores that have no number of their own: a counter in a blob's metadata.
//!
//! With this library's names it is the lock's own blob, written under the lock's lease. go-azuremutex and
//! goazurelocking write that blob anew at each try, which wipes metadata, so that beside them the counter has a blob of
//! its own, written only if nobody has changed it since it was read.

use super::{
    answer::Outcome,
    blob::{Calls, Created},
    metadata::Metadata,
};
use crate::{Error, ErrorKind, Holder, Mode, Result, fencing};

/// Where the counter of a lock is.
pub(super) enum Counter<'a> {
    /// In the lock's own blob, which is leased with this id.
    Leased(Calls<'a>, &'a str),
    /// In a blob beside it.
    Beside(Calls<'a>),
}

impl Counter<'_> {
    /// The next token; with an exclusive one the holder is written, too. The lock is held meanwhile.
    ///
    /// # Errors
    /// `Unavailable` when the lease was lost before the token was written; `Foreign` for a counter that is none.
    pub(super) fn next(&self, mode: Mode, holder: &Holder) -> Result<u64> {
        let (Self::Leased(blob, _) | Self::Beside(blob)) = self;
        // Beside the lock's lease only a holder that has lost it can still write.
        for _ in 0..4 {
            let reply = blob.properties()?;
            let exists = reply.outcome == Outcome::Done;
            let mut metadata = if exists { Metadata::of(&reply.answer)? } else { Metadata::default() };
            // The service's clock: with a counter that was lost, tokens still grow, whoever's clock is wrong.
            let now = blob.service.time_of(&reply);
            let last = metadata.token()?;
            let fence = fencing::next(last, mode, now)?;
            if last == Some(fence.counter) {
                return Ok(fence.token);
            }
            metadata.set_token(fence.counter);
            if mode == Mode::Exclusive {
                metadata.set_holder(holder, now);
            }
            let written = match (self, exists) {
                (Self::Leased(_, id), true) => blob.write_metadata(&metadata, ("x-ms-lease-id", id)),
                (Self::Leased(..), false) => break,
                (Self::Beside(_), true) => {
                    let version = reply.answer.header("etag").unwrap_or_default();
                    blob.write_metadata(&metadata, ("If-Match", version))
                }
                (Self::Beside(_), false) => match blob.create(&metadata)? {
                    Created::Made => Ok(true),
                    Created::Exists => Ok(false),
                    Created::NoContainer(error) => Err(error),
                },
            };
            match written {
                Ok(true) => return Ok(fence.token),
                Ok(false) => {}
                Err(e) if e.kind() == ErrorKind::Lost => return Err(Error::new(ErrorKind::Unavailable, e)),
                Err(e) => return Err(e),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the blob of the fencing counter was taken away or changed"))
    }
}
