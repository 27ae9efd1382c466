//! A lock that is asked for, until it is had or nobody wants it any more.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, SyncSender},
    },
    time::Duration,
};

use crate::{
    Result,
    backend::{Ask, Attempt, Busy},
    clock::Limit,
    hold::{Hold, NO_EXPIRY_RELEASE},
    keeper::{Answer, Command, Retry, Slice},
    settings::Order,
};

/// A store that answered within this is expected to do so again.
const QUICK: Duration = Duration::from_millis(50);

/// What is asked for, and what came of it so far.
pub(crate) struct Seek {
    pub(crate) order: Arc<Order>,
    ask: Ask,
    /// A try failed that was perhaps carried out.
    unclear: bool,
}

impl Seek {
    pub(crate) fn new(order: &Arc<Order>) -> Box<Self> {
        // Not on the stack of a keeper, of which each page that is ever touched stays.
        Box::new(Self { ask: order.ask(), order: order.clone(), unclear: false })
    }

    /// Does what it is told until the lock is had (`Some`) or nobody wants it any more.
    pub(crate) fn serve(
        &mut self,
        inbox: &Receiver<Command>,
        outbox: &SyncSender<Answer>,
    ) -> Option<Box<Hold>> {
        while let Ok(command) = inbox.recv() {
            let answer = match command {
                Command::Try(limit) => match self.try_once(limit) {
                    Ok(Ok(hold)) => return Some(hold),
                    Ok(Err(busy)) => Answer::Busy(busy),
                    Err(error) => Answer::Failed(error),
                },
                Command::Wait(slice) => Answer::Waited(self.wait(slice)),
                Command::Renew(_) | Command::Stop(_) | Command::Detach(_) => continue,
            };
            if outbox.send(answer).is_err() {
                break;
            }
        }
        None
    }

    pub(crate) fn try_once(&mut self, limit: Duration) -> Result<Result<Box<Hold>, Busy>> {
        let core = &self.order.core;
        let asked = core.clock.now();
        self.ask.prepare(Limit::after(&core.clock, limit));
        let tried = self.order.try_once(&mut self.ask);
        let quick = core.clock.now().saturating_since(asked) < QUICK;
        core.quick.store(quick && tried.is_ok(), Ordering::Relaxed);
        match tried {
            Ok(Attempt::Granted(grant)) => {
                self.unclear = false;
                Hold::new(self.order.clone(), grant).map(|hold| Ok(Box::new(hold)))
            }
            Ok(Attempt::Busy(busy)) => Ok(Err(busy)),
            Err(error) => {
                self.unclear |= error.is_unclear();
                Err(error)
            }
        }
    }

    fn wait(&mut self, slice: Slice) -> Result<bool> {
        self.ask.prepare_wait(slice.time, Some(slice.pace));
        if slice.quietly || self.ask.is_pausing() {
            self.ask.pause();
        } else {
            self.order.core.backend.wait(&mut self.ask)?;
        }
        Ok(!self.ask.is_pausing())
    }

    /// The asking is over without a lock: takes back what perhaps came of it.
    // Off the stack while the lock is asked for.
    #[inline(never)]
    pub(crate) fn abandon(&mut self) {
        if !self.unclear && !self.ask.owes() {
            return;
        }
        let Order { core, settings, .. } = &*self.order;
        // What never runs out is given back for as long as it takes.
        let forever = self.order.no_expiry && core.abilities.ttl.is_some();
        let time = if forever { NO_EXPIRY_RELEASE } else { settings.release_budget };
        let limit = Limit::after(&core.clock, time);
        let name = self.order.name.clone();
        let mut retry = Retry::new(limit);
        while let Some(time) = retry.next() {
            self.ask.prepare(Limit::after(&core.clock, time));
            match core.backend.abandon(&mut self.ask) {
                Ok(()) => return,
                Err(e) if e.is_retryable() => {
                    retry.heed(&e);
                    log::debug!(target: "leasehold", "{e}");
                }
                Err(e) => return log::warn!(target: "leasehold", "lock {name:?}: {e}"),
            }
        }
    }
}
