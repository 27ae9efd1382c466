//! Between a keeper and its guard: whoever has something to do for a held lock takes it from here.

use std::{
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
};

use crate::{
    hold::{End, Hold},
    keeper::Command,
};

/// Where a held lock lies while nothing is due. Who takes it has it alone, so that no two calls of it race.
pub(crate) struct Desk(Mutex<Option<Box<Hold>>>);

impl Desk {
    pub(crate) fn new(hold: Box<Hold>) -> Self {
        Self(Mutex::new(Some(hold)))
    }

    /// `None` while it is in use, and when it has ended.
    pub(crate) fn take(&self) -> Option<Box<Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, hold: Box<Hold>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
    }

    /// A keeper's life with its lock: until that ends, or its guard has taken it.
    // Off the stack while the lock is asked for, of which each page that is ever touched stays.
    #[inline(never)]
    pub(crate) fn keep(&self, inbox: &Receiver<Command>) {
        while let Some(mut hold) = self.take() {
            let nap = match hold.act(inbox) {
                ControlFlow::Continue(nap) => nap,
                ControlFlow::Break(end) => return hold.end(end),
            };
            self.put(hold);
            let command = match inbox.recv_timeout(nap) {
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => None,
                Ok(command) => Some(command),
            };
            let Some(mut hold) = self.take() else { return };
            match command {
                Some(Command::Renew(reply)) => {
                    let renewed = hold.renew();
                    self.put(hold);
                    let _ = reply.send(renewed);
                }
                command => return hold.end(End::of(command)),
            }
        }
    }
}
