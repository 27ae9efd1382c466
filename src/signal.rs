//! The user's shutdown signal, latched.
//!
//! A `Receiver` cannot be waited for together with anything else, so it is looked at by whoever waits, in
//! slices of [`LOOK`]: no thread is needed, and none can be refused.

use std::{
    sync::{
        Mutex, OnceLock, TryLockError,
        mpsc::{Receiver, TryRecvError},
    },
    time::Duration,
};

use crate::clock::{Clock, Moment};

/// How often a waiter looks at the signal.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Signal {
    receiver: Mutex<Receiver<()>>,
    came: OnceLock<Moment>,
}

impl Signal {
    pub(crate) fn new(receiver: Receiver<()>) -> Self {
        Self { receiver: Mutex::new(receiver), came: OnceLock::new() }
    }

    /// When it was first seen, on the machine's clock. A message is one, and so is the end of its sender.
    pub(crate) fn came(&self) -> Option<Moment> {
        if self.came.get().is_none() {
            let receiver = match self.receiver.try_lock() {
                Ok(receiver) => receiver,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // Another thread is looking.
                Err(TryLockError::WouldBlock) => return None,
            };
            if receiver.try_recv() != Err(TryRecvError::Empty) {
                self.came.get_or_init(|| Clock::system().now());
            }
        }
        self.came.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_message_or_the_end_of_the_sender_is_the_signal_and_stays() {
        let (tx, rx) = mpsc::channel();
        let signal = Signal::new(rx);
        assert_eq!(signal.came(), None);
        tx.send(()).unwrap();
        let came = signal.came();
        assert!(came.is_some());
        assert_eq!(signal.came(), came);

        let (tx, rx) = mpsc::channel();
        let signal = Signal::new(rx);
        drop(tx);
        assert!(signal.came().is_some());
    }
}
