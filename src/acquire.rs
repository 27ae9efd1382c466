//! How a lock is waited for: the one loop over tries and waits, and all that may end it.

use std::{
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, SyncSender},
    },
    time::Duration,
};

use crate::{
    Error, ErrorKind, Guard, Result,
    backend::{Ask, Attempt, Busy, Grant, Moment},
    clock::Limit,
    guard::Link,
    keeper::{Answer, Command, Granted, Keeper, Recruit, Slice},
    queue::Line,
    seek::Seek,
    settings::Order,
    term::{Start, Term},
    vigil::{Asking, SLICE, Vigil},
};

/// One try is no longer than this.
const TRY: Duration = Duration::from_secs(10);
/// How long `try_lock` waits for its answer.
const ONE_TRY: Duration = Duration::from_secs(1);
/// How long `adopt` tries at most, and in how many tries: one that hangs must leave time for others.
const ADOPT: Duration = Duration::from_secs(10);
const ADOPT_TRIES: u32 = 4;

/// Waits until the lock is held.
pub(crate) fn lock(order: &Arc<Order>) -> Result<Guard> {
    let order = order.checked()?;
    let mut vigil = Vigil::new(&order, order.timeout, ErrorKind::Timeout);
    wait_for(&order, &mut vigil).map_err(|e| e.for_lock(&order.name))
}

/// Asks once.
pub(crate) fn try_lock(order: &Arc<Order>) -> Result<Option<Guard>> {
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

/// Takes over a detached lock. It is not stood in line for: it is held already.
pub(crate) fn adopt(order: Order) -> Result<Guard> {
    let order = Arc::new(order);
    // After a TTL there is nothing left to take over.
    let limit = order.ttl.map_or(ADOPT, |ttl| ttl.min(ADOPT));
    let mut vigil = Vigil::new(&order, Some(limit), ErrorKind::Unavailable);
    let line = Line::default();
    let mut take_over = || {
        vigil.begin()?;
        let mut asker = Asker::new(&order)?;
        loop {
            if let Some(guard) = asker.try_in_vain(&mut vigil, limit / ADOPT_TRIES)? {
                return Ok(vigil.acquired(guard));
            }
            asker.wait(&mut vigil, &line)?;
        }
    };
    take_over().map_err(|e: Error| e.for_lock(&order.name).during(order.operation()))
}

fn wait_for(order: &Arc<Order>, vigil: &mut Vigil<'_>) -> Result<Guard> {
    vigil.begin()?;
    let queues = &order.core.queues;
    let mut asker = None;
    if !queues.is_waited_for(&order.name) {
        let mut first = Asker::new(order)?;
        match first.try_in_vain(vigil, TRY)? {
            Some(guard) => return Ok(vigil.acquired(guard)),
            None => asker = Some(first),
        }
    }
    let place = queues.enter(&order.name);
    vigil.stand_in(&place.line);
    // Who was told "busy" just now waits before it asks again; who stood in line meanwhile asks at once.
    let mut waits = asker.is_some() && place.is_first(Duration::ZERO);
    while !place.is_first(vigil.slice(Asking::No)?) {}
    vigil.asks_from_now();
    let mut asker = match asker {
        Some(asker) => asker,
        None => Asker::new(order)?,
    };
    loop {
        if waits {
            asker.wait(vigil, &place.line)?;
        }
        if let Some(guard) = asker.try_in_vain(vigil, TRY)? {
            place.line.pace.reset();
            return Ok(vigil.acquired(guard));
        }
        waits = true;
    }
}

enum Tried {
    Granted(Guard),
    Busy(Busy),
}

/// Who makes the calls: this thread, or a keeper.
#[expect(clippy::large_enum_variant, reason = "lives on the stack of one call")]
enum Asker<'a> {
    Direct(&'a Arc<Order>, Ask),
    /// This thread, once; then the recruit.
    Quick(Option<(Box<Seek>, Recruit)>),
    Kept(Option<Keeper>),
}

impl<'a> Asker<'a> {
    fn new(order: &'a Arc<Order>) -> Result<Self> {
        if order.is_direct() {
            return Ok(Self::Direct(order, order.ask()));
        }
        let (recruit, seek) = (Recruit::new(order)?, Seek::new(order));
        if order.is_quick() {
            Ok(Self::Quick(Some((seek, recruit))))
        } else {
            Ok(Self::Kept(Some(recruit.ask(seek))))
        }
    }

    /// One try, borne if the store is not available: `None` then, and when the lock is busy.
    fn try_in_vain(&mut self, vigil: &mut Vigil<'_>, limit: Duration) -> Result<Option<Guard>> {
        match self.try_once(vigil, limit) {
            Ok(Tried::Granted(guard)) => Ok(Some(guard)),
            Ok(Tried::Busy(busy)) => {
                vigil.busy(busy);
                Ok(None)
            }
            // The wait was ended by the vigil itself if it has no failure to show.
            Err(error) if error.kind() == ErrorKind::Unavailable && vigil.has_failed() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One try. What the store fails with is left in the vigil too, where it can be borne.
    fn try_once(&mut self, vigil: &mut Vigil<'_>, limit: Duration) -> Result<Tried> {
        if let Self::Quick(first) = self
            && let Some((mut seek, recruit)) = first.take()
        {
            let time = vigil.stretch(Asking::Yes)?.min(limit);
            let time = Limit::after(vigil.clock(), time);
            let tried = match seek.try_once(time.remaining()) {
                Ok(Ok(hold)) => {
                    let (granted, commands) = recruit.keep(hold);
                    return Ok(Tried::Granted(granted.guard(commands)));
                }
                Ok(Err(busy)) => Ok(Tried::Busy(busy)),
                Err(error) => Err(error),
            };
            *self = Self::Kept(Some(recruit.ask(seek)));
            // Out of time it was too soon to give up: a keeper may take longer.
            if tried.is_ok() || !time.passed() {
                vigil.answered();
                return tried.map_err(|error| vigil.failed(error));
            }
        }
        let tried = match self {
            Self::Direct(order, ask) => {
                ask.prepare(vigil.try_limit(limit));
                match order.try_once(ask) {
                    Ok(Attempt::Granted(grant)) => direct_guard(order, grant).map(Tried::Granted),
                    Ok(Attempt::Busy(busy)) => Ok(Tried::Busy(busy)),
                    Err(error) => Err(error),
                }
            }
            Self::Kept(keeper) => match order_keeper(keeper.as_ref(), Command::Try(limit), vigil)? {
                Answer::Granted(granted) => {
                    let commands = keeper.take().expect("it answered just now").commands;
                    Ok(Tried::Granted(granted.guard(commands)))
                }
                Answer::Busy(busy) => Ok(Tried::Busy(busy)),
                Answer::Failed(error) => Err(error),
                Answer::Waited(_) => Err(out_of_turn()),
            },
            Self::Quick(_) => Err(out_of_turn()),
        };
        vigil.answered();
        tried.map_err(|error| vigil.failed(error))
    }

    /// Waits until another try makes sense.
    fn wait(&mut self, vigil: &mut Vigil<'_>, line: &Line) -> Result<()> {
        loop {
            let quietly = vigil.has_failed();
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
                Self::Quick(_) => return Err(out_of_turn()),
                Self::Kept(keeper) => {
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

impl Granted {
    fn guard(self, commands: SyncSender<Command>) -> Guard {
        let Self { term, desk, thread } = self;
        Guard::new(term, Some(Link { commands, desk, thread }))
    }
}

fn out_of_turn() -> Error {
    Error::new(ErrorKind::Protocol, "an answer out of turn")
}

/// A guard that holds its lease itself.
fn direct_guard(order: &Arc<Order>, grant: Grant) -> Result<Guard> {
    let Grant { lease, token, id, .. } = grant;
    let no_token = order.fenced && token.is_none();
    let term = Term::new(Start {
        order: order.clone(),
        lease_id: id,
        token,
        valid_until: Moment::NEVER,
        direct: Some(lease),
    });
    let guard = Guard::new(Arc::new(term), None);
    if no_token {
        return Err(Error::unsupported("give this lock a fencing token"));
    }
    Ok(guard)
}
