//! How a lock is waited for: the one loop over tries and waits, and all that may end it.

use std::{
    sync::{Arc, mpsc::RecvTimeoutError},
    time::Duration,
};

use crate::{
    Error, ErrorKind, Guard, Holder, Result,
    backend::{Ask, Attempt, Busy, Grant, Moment},
    clock::{Clock, Limit},
    event::Event,
    guard::Link,
    keeper::{self, Answer, Command, Keeper, Slice},
    queue::Line,
    settings::Order,
    signal,
    term::{Start, Term},
};

/// One wait of a store is no longer than this.
const SLICE: Duration = Duration::from_secs(1);
/// One try is no longer than this.
const TRY: Duration = Duration::from_secs(10);
/// How long `try_lock` waits for its answer, and `lock` with a shorter timeout for its first.
const ONE_TRY: Duration = Duration::from_secs(1);
const FIRST_ANSWER: Duration = Duration::from_millis(500);
/// When a waiter is told of first, and how often after that.
const TOLD_FIRST: Duration = Duration::from_millis(500);
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// Waits until the lock is held.
pub(crate) fn lock(order: &Order) -> Result<Guard> {
    let order = order.checked()?;
    let mut vigil = Vigil::new(&order, order.timeout, ErrorKind::Timeout);
    wait_for(&order, &mut vigil).map_err(|e| e.for_lock(&order.name))
}

/// Asks once.
pub(crate) fn try_lock(order: &Order) -> Result<Option<Guard>> {
    let order = order.checked()?;
    let mut vigil = Vigil::new(&order, Some(ONE_TRY), ErrorKind::Unavailable);
    let mut once = || {
        vigil.begin()?;
        let mut asker = Asker::new(&order)?;
        match asker.try_once(&mut vigil, ONE_TRY)? {
            Tried::Granted(guard) => Ok(Some(vigil.acquired(guard))),
            Tried::Busy(_) => Ok(None),
        }
    };
    once().map_err(|e: Error| e.for_lock(&order.name))
}

fn wait_for(order: &Order, vigil: &mut Vigil<'_>) -> Result<Guard> {
    vigil.begin()?;
    let queues = &order.core.queues;
    let mut asker = None;
    if !queues.is_waited_for(&order.name) {
        let mut first = Asker::new(order)?;
        match first.try_in_vain(vigil, None)? {
            Some(guard) => return Ok(vigil.acquired(guard)),
            None => asker = Some(first),
        }
    }
    let place = queues.enter(&order.name);
    vigil.line = Some(place.line.clone());
    if let Some(holder) = vigil.holder.clone() {
        place.line.set_holder(Some(holder));
    }
    while !place.is_first(vigil.slice(Asking::No)?) {}
    vigil.heard();
    let mut asker = match asker {
        Some(asker) => asker,
        None => Asker::new(order)?,
    };
    // Who came first by waiting in line asks at once; who was told "busy" just now waits.
    let mut waits = vigil.answered;
    loop {
        if waits {
            asker.wait(vigil, &place.line)?;
        }
        if let Some(guard) = asker.try_in_vain(vigil, Some(&place.line))? {
            place.line.pace.reset();
            return Ok(vigil.acquired(guard));
        }
        waits = true;
    }
}

/// Whether the store is being asked, so that its silence counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    Yes,
    No,
}

/// What a waiter knows, and what ends its wait.
struct Vigil<'a> {
    order: &'a Order,
    clock: Clock,
    began: Moment,
    limit: Option<Limit>,
    /// What the end of the limit is called.
    at_limit: ErrorKind,
    first_answer: Limit,
    answered: bool,
    heard: Moment,
    tell: Limit,
    line: Option<Arc<Line>>,
    holder: Option<Holder>,
    error: Option<Error>,
}

impl<'a> Vigil<'a> {
    fn new(order: &'a Order, limit: Option<Duration>, at_limit: ErrorKind) -> Self {
        let clock = order.core.clock.clone();
        let now = clock.now();
        Self {
            order,
            began: now,
            limit: limit.map(|limit| Limit::after(&clock, limit)),
            at_limit,
            first_answer: Limit::after(&clock, FIRST_ANSWER),
            answered: false,
            heard: now,
            tell: Limit::after(&clock, TOLD_FIRST),
            line: None,
            holder: None,
            error: None,
            clock,
        }
    }

    fn begin(&self) -> Result<()> {
        if self.order.settings.is_shutting_down() {
            return Err(Error::bare(ErrorKind::Shutdown));
        }
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.clock.now().saturating_since(self.began)
    }

    /// The store answered as it should.
    fn heard(&mut self) {
        self.heard = self.clock.now();
        self.error = None;
    }

    fn holder(&self) -> Option<Holder> {
        self.holder.clone().or_else(|| self.line.as_ref().and_then(|line| line.holder()))
    }

    /// How long to block now at most; an error when the wait is over.
    fn slice(&mut self, asking: Asking) -> Result<Duration> {
        self.begin()?;
        let mut slice = SLICE;
        if let Some(limit) = &self.limit {
            let mut left = limit.remaining();
            if asking == Asking::Yes && !self.answered {
                // So that a timeout of zero is one whole try, and not none at all.
                left = left.max(self.first_answer.remaining());
            }
            if left.is_zero() {
                return Err(self.over(self.at_limit));
            }
            slice = slice.min(left);
        }
        if asking == Asking::Yes
            && let Some(patience) = self.order.settings.patience
        {
            let patience = patience.max(FIRST_ANSWER);
            let silent = self.clock.now().saturating_since(self.heard);
            if silent >= patience {
                return Err(self.over(ErrorKind::Unavailable));
            }
            slice = slice.min(patience.saturating_sub(silent));
        }
        if self.tell.passed() {
            self.tell = Limit::after(&self.clock, TOLD_AGAIN);
            self.order.settings.tell(&Event::Waiting {
                name: &self.order.name,
                waited: self.waited(),
                holder: self.holder().as_ref(),
                error: self.error.as_ref(),
            });
        }
        slice = slice.min(self.tell.remaining().max(Duration::from_millis(1)));
        if !self.order.settings.signals.is_empty() {
            slice = slice.min(signal::LOOK);
        }
        Ok(self.clock.real(slice))
    }

    fn over(&mut self, kind: ErrorKind) -> Error {
        let error = match (kind, self.error.take()) {
            (ErrorKind::Unavailable, Some(error)) => return error,
            (ErrorKind::Unavailable, None) => {
                let silent = crate::error::Seconds(self.clock.now().saturating_since(self.heard));
                return Error::new(kind, format!("no answer for {silent}"));
            }
            (kind, error) => Error::bare(kind).caused_by(error),
        };
        error.after(self.waited(), self.holder())
    }

    fn acquired(&self, guard: Guard) -> Guard {
        self.order.settings.tell(&Event::Acquired { name: &self.order.name, waited: self.waited() });
        guard
    }
}

enum Tried {
    Granted(Guard),
    Busy(Busy),
}

/// Who makes the calls: this thread, or a keeper.
enum Asker<'a> {
    Direct(&'a Order, Box<Ask>),
    Kept(&'a Order, Option<Keeper>),
}

impl<'a> Asker<'a> {
    fn new(order: &'a Order) -> Result<Self> {
        if order.is_direct() {
            Ok(Self::Direct(order, Box::new(order.ask())))
        } else {
            Ok(Self::Kept(order, Some(keeper::hire(order)?)))
        }
    }

    /// One try, borne if the store is not available: `None` then, and when the lock is busy.
    fn try_in_vain(&mut self, vigil: &mut Vigil<'_>, line: Option<&Line>) -> Result<Option<Guard>> {
        let busy = match self.try_once(vigil, TRY) {
            Ok(Tried::Granted(guard)) => return Ok(Some(guard)),
            Ok(Tried::Busy(busy)) => busy,
            Err(error) if error.kind() == ErrorKind::Unavailable && vigil.error.is_some() => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        vigil.heard();
        vigil.holder.clone_from(&busy.holder);
        if let Some(line) = line {
            line.set_holder(busy.holder);
            line.pace.retry_after(busy.retry_after);
        }
        Ok(None)
    }

    /// One try. What the store fails with is left in the vigil too, where it can be borne.
    fn try_once(&mut self, vigil: &mut Vigil<'_>, limit: Duration) -> Result<Tried> {
        let tried = match self {
            Self::Direct(order, ask) => {
                ask.prepare(limit);
                match order.core.backend.try_acquire(ask) {
                    Ok(Attempt::Granted(grant)) => direct_guard(order, grant).map(Tried::Granted),
                    Ok(Attempt::Busy(busy)) => Ok(Tried::Busy(busy)),
                    Err(error) => Err(error),
                }
            }
            Self::Kept(order, keeper) => match order_keeper(keeper.as_ref(), Command::Try(limit), vigil)? {
                Answer::Granted(term, thread) => {
                    let commands = keeper.take().expect("it answered just now").commands;
                    let link = Link { commands, thread };
                    Ok(Tried::Granted(Guard::new(order.clone(), term, Some(link))))
                }
                Answer::Busy(busy) => Ok(Tried::Busy(busy)),
                Answer::Failed(error) => Err(error),
                Answer::Waited(_) => Err(out_of_turn()),
            },
        };
        vigil.answered = true;
        tried.map_err(|error| vigil.failed(error))
    }

    /// Waits until another try makes sense.
    fn wait(&mut self, vigil: &mut Vigil<'_>, line: &Line) -> Result<()> {
        loop {
            let quietly = vigil.error.is_some();
            let waited = match self {
                Self::Direct(order, ask) => {
                    let time = vigil.slice(Asking::Yes)?;
                    ask.prepare_wait(time, Some(line.pace.clone()));
                    if quietly || ask.is_pausing() {
                        ask.pause();
                        Ok(!ask.is_pausing())
                    } else {
                        order.core.backend.wait(ask).map(|()| !ask.is_pausing())
                    }
                }
                Self::Kept(_, keeper) => {
                    let slice = Slice { time: SLICE, pace: line.pace.clone(), quietly };
                    match order_keeper(keeper.as_ref(), Command::Wait(slice), vigil)? {
                        Answer::Waited(waited) => waited,
                        _ => return Err(out_of_turn()),
                    }
                }
            };
            match waited {
                Ok(over) => {
                    if !quietly {
                        vigil.heard();
                    }
                    if over {
                        return Ok(());
                    }
                }
                Err(error) => {
                    let error = vigil.failed(error);
                    if error.kind() != ErrorKind::Unavailable {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Vigil<'_> {
    /// Keeps what the store failed with, to be told when the wait ends by it.
    fn failed(&mut self, error: Error) -> Error {
        let error = error.for_lock(&self.order.name).during("acquire");
        if error.kind() == ErrorKind::Unavailable {
            log::debug!(target: "leasehold", "{error}");
            self.error = Some(error.clone());
        }
        error
    }
}

/// Tells a keeper what to do, and waits for its answer for as long as the wait may last.
fn order_keeper(keeper: Option<&Keeper>, command: Command, vigil: &mut Vigil<'_>) -> Result<Answer> {
    let died = || Error::new(ErrorKind::Protocol, "the store's code panicked");
    let keeper = keeper.ok_or_else(out_of_turn)?;
    keeper.commands.send(command).map_err(|_| died())?;
    loop {
        let slice = vigil.slice(Asking::Yes)?;
        match keeper.answers.recv_timeout(slice) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(died()),
        }
    }
}

fn out_of_turn() -> Error {
    Error::new(ErrorKind::Protocol, "an answer out of turn")
}

/// A guard that holds its lease itself.
fn direct_guard(order: &Order, grant: Grant) -> Result<Guard> {
    let Grant { lease, token, id, .. } = grant;
    let no_token = order.fenced && token.is_none();
    let term = Term::new(Start {
        clock: order.core.clock.clone(),
        name: order.name.clone(),
        lease_id: id,
        token,
        settings: order.settings.clone(),
        valid_until: Moment::NEVER,
        direct: Some(lease),
    });
    let guard = Guard::new(order.clone(), Arc::new(term), None);
    if no_token {
        return Err(Error::unsupported("give this lock a fencing token"));
    }
    Ok(guard)
}
