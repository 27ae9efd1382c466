//! A wait for one lock: what the waiter knows, and what ends its wait.

use std::{sync::Arc, time::Duration};

use crate::{
    Error, ErrorKind, Guard, Holder, Result,
    backend::{Busy, Clock},
    clock::{Limit, Stopwatch},
    error::Seconds,
    event::Event,
    queue::Line,
    settings::Order,
    signal,
};

/// One wait of a store is no longer than this.
pub(crate) const SLICE: Duration = Duration::from_secs(1);
/// How long `lock` waits for its first answer, with a shorter timeout too: so that a timeout of zero is one
/// whole try, and not none at all.
const FIRST_ANSWER: Duration = Duration::from_millis(500);
/// When a waiter is told of first, and how often after that.
const TOLD_FIRST: Duration = Duration::from_millis(500);
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// Whether the store is being asked, so that its silence counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    Yes,
    No,
}

pub(crate) struct Vigil<'a> {
    order: &'a Order,
    watch: Stopwatch,
    limit: Option<Duration>,
    /// What the end of the limit is called.
    at_limit: ErrorKind,
    answered: bool,
    /// When the store last answered as it should, and when the wait is told of next.
    heard: Duration,
    tell: Duration,
    pub(crate) line: Option<Arc<Line>>,
    holder: Option<Holder>,
    /// Why it is not to be had, where nobody holds it.
    reason: Option<String>,
    error: Option<Error>,
    /// What the store asked for before there was a line to keep it.
    retry_after: Option<Duration>,
}

impl<'a> Vigil<'a> {
    pub(crate) fn new(order: &'a Order, limit: Option<Duration>, at_limit: ErrorKind) -> Self {
        Self {
            order,
            watch: Stopwatch::start(&order.core.clock),
            limit,
            at_limit,
            answered: false,
            heard: Duration::ZERO,
            tell: TOLD_FIRST,
            line: None,
            holder: None,
            reason: None,
            error: None,
            retry_after: None,
        }
    }

    /// An error when no lock may be taken any more.
    pub(crate) fn begin(&self) -> Result<()> {
        if self.order.settings.is_shutting_down() {
            return Err(Error::bare(ErrorKind::Shutdown));
        }
        Ok(())
    }

    /// The line was stood in: the store's silence counts from here.
    pub(crate) fn asks_from_now(&mut self) {
        self.heard = self.watch.elapsed();
    }

    /// The store answered as it should.
    pub(crate) fn heard(&mut self) {
        self.heard = self.watch.elapsed();
        self.error = None;
    }

    /// The store answered that another holds the lock.
    pub(crate) fn busy(&mut self, busy: Busy) {
        self.heard();
        match &self.line {
            Some(line) => {
                line.set_holder(busy.holder.clone());
                line.pace.retry_after(busy.retry_after);
            }
            None => self.retry_after = busy.retry_after,
        }
        self.holder = busy.holder;
        self.reason = busy.reason;
    }

    /// The store failed: keeps why, to be told if the wait ends by it.
    pub(crate) fn failed(&mut self, error: Error) -> Error {
        let error = error.for_lock(&self.order.name).during(self.order.operation());
        if error.kind() == ErrorKind::Unavailable {
            log::debug!(target: "leasehold", "{error}");
            match &self.line {
                Some(line) => line.pace.retry_after(error.retry_after()),
                None => self.retry_after = error.retry_after(),
            }
            self.error = Some(error.clone());
        }
        error
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.watch.clock()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// The end of a try that begins now. The first begins with the wait, so that no clock is read for it.
    pub(crate) fn try_limit(&self, time: Duration) -> Limit {
        if self.answered { Limit::after(self.watch.clock(), time) } else { self.watch.limit(time) }
    }

    /// The first answer came, whatever it was.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }

    /// Goes to stand in line, with what is known.
    pub(crate) fn stand_in(&mut self, line: &Arc<Line>) {
        if self.holder.is_some() {
            line.set_holder(self.holder.clone());
        }
        if self.retry_after.is_some() {
            line.pace.retry_after(self.retry_after.take());
        }
        self.line = Some(line.clone());
    }

    /// How long to block now at most; an error when the wait is over.
    pub(crate) fn slice(&mut self, asking: Asking) -> Result<Duration> {
        let slice = self.stretch(asking)?;
        let watched = !self.order.settings.signals.is_empty();
        Ok(self.watch.clock().real(if watched { slice.min(signal::LOOK) } else { slice }))
    }

    /// How long nothing is to be done but what a signal may ask for, which can wait for so long.
    pub(crate) fn stretch(&mut self, asking: Asking) -> Result<Duration> {
        self.begin()?;
        let waited = self.watch.elapsed();
        let mut slice = SLICE;
        if let Some(limit) = self.limit {
            let first = asking == Asking::Yes && !self.answered;
            let limit = if first { limit.max(FIRST_ANSWER) } else { limit };
            if waited >= limit {
                return Err(self.over(self.at_limit, waited));
            }
            slice = slice.min(limit.saturating_sub(waited));
        }
        if asking == Asking::Yes
            && let Some(patience) = self.order.settings.patience
        {
            let patience = patience.max(FIRST_ANSWER);
            let silent = waited.saturating_sub(self.heard);
            if silent >= patience {
                return Err(self.over(ErrorKind::Unavailable, waited));
            }
            slice = slice.min(patience.saturating_sub(silent));
        }
        if waited >= self.tell {
            self.tell = waited + TOLD_AGAIN;
            self.order.settings.tell(&Event::Waiting {
                name: &self.order.name,
                waited,
                holder: self.holder().as_ref(),
                reason: self.reason.as_deref(),
                error: self.error.as_ref(),
            });
        }
        Ok(slice.min(self.tell.saturating_sub(waited)))
    }

    pub(crate) fn acquired(&self, guard: Guard) -> Guard {
        if self.order.no_expiry && self.order.core.abilities.ttl.is_some() {
            let name = &self.order.name;
            log::warn!(
                target: "leasehold",
                "lock {name:?} never runs out: if this process dies, it stays held until somebody breaks it"
            );
        }
        if self.order.settings.is_told(log::Level::Debug) {
            let waited = self.watch.elapsed();
            self.order.settings.tell(&Event::Acquired { name: &self.order.name, waited });
        }
        guard
    }

    fn holder(&self) -> Option<Holder> {
        self.holder.clone().or_else(|| self.line.as_ref().and_then(|line| line.holder()))
    }

    fn over(&mut self, kind: ErrorKind, waited: Duration) -> Error {
        match (kind, self.error.take()) {
            (ErrorKind::Unavailable, Some(error)) => error,
            (ErrorKind::Unavailable, None) => {
                let silent = Seconds(waited.saturating_sub(self.heard));
                Error::new(kind, format!("no answer for {silent}"))
            }
            (kind, error) => {
                let over = Error::bare(kind).caused_by(error).after(waited, self.holder());
                match &self.reason {
                    Some(reason) => over.because(reason),
                    None => over,
                }
            }
        }
    }
}
