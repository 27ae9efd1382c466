//! Beside the Go libraries, on the same lock: `tests/peers` has programs that send what the libraries send.
#![cfg(target_os = "linux")]

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use leasehold::{
    ErrorKind, Locker, Mode,
    azure::{Account, Names},
};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{
    common::{Actor, Dir, play, read_number, say},
    support::{KEY, LONG, NAME, SECOND, account, endpoint, fresh_container, kind, ms, timed},
};

/// The shortest that the service gives.
const TTL: Duration = Duration::from_secs(15);

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    play(|role, arguments| {
        // Some roles go on until they are told to end: not beyond the test, however that ends.
        set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
        let (locker, lock) = (Locker::open(arguments[0]).unwrap().ttl(TTL), arguments[1]);
        match role {
            "count" => {
                let [number, enough] = [2, 3].map(|i| Path::new(arguments[i]));
                count(&locker.poll(ms(20)..=ms(200)), lock, number, enough);
            }
            "hold" => {
                let _guard = locker.lock(lock).unwrap();
                say("held");
                thread::sleep(LONG);
            }
            other => panic!("no such role: {other}"),
        }
    });
}

/// A lock that a library and we share.
struct Shared {
    names: Names,
    container: String,
    lock: String,
}

impl Shared {
    /// One of goazurelocking. All its locks are in one container, so that the name is what is fresh.
    fn goazurelocking() -> Self {
        let container = "azlockcontainer".to_owned();
        Self { names: Names::GoAzureLocking, container, lock: fresh_container() }
    }

    /// One of go-azuremutex.
    fn azmutex() -> Self {
        Self { names: Names::AzMutex, container: fresh_container(), lock: "tenant/7: import".to_owned() }
    }

    fn both() -> [Self; 2] {
        [Self::goazurelocking(), Self::azmutex()]
    }

    fn locker(&self) -> Locker {
        let builder = account().container(&self.container).names(self.names).create_container(true);
        Locker::new(builder.build().unwrap()).ttl(TTL)
    }

    /// A process of ours, which has the lock from an address.
    fn ours(&self, role: &str, arguments: &[&str]) -> Actor {
        let address = match self.names {
            Names::GoAzureLocking => format!("azure:?names=goazurelocking&endpoint={}", endpoint()),
            _ => format!("azure:{}?endpoint={}&names=azmutex", self.container, endpoint()),
        };
        let mut command =
            Actor::command("peers::role", role, &[&[&*address, &*self.lock], arguments].concat());
        command.env_remove("AZURE_STORAGE_CONNECTION_STRING");
        command.env("AZURE_STORAGE_ACCOUNT", NAME).env("AZURE_STORAGE_KEY", KEY);
        Actor::run(command.stdin(Stdio::null()))
    }

    /// The library's program, with the pauses that the library has.
    fn theirs(&self, job: &[&str]) -> Actor {
        self.theirs_with(&[], job)
    }

    /// The library's program, with options in front.
    fn theirs_with(&self, options: &[&str], job: &[&str]) -> Actor {
        let mut command = match self.names {
            Names::GoAzureLocking => program("goazurelocking"),
            _ => program("azmutex"),
        };
        command.args(options).arg(endpoint());
        if self.names == Names::AzMutex {
            command.arg(&self.container);
        }
        command.arg(&self.lock).args(job);
        Actor::run(command.stdin(Stdio::piped()))
    }

    /// Whether the library finds the lock free.
    #[track_caller]
    fn is_free_to_them(&self) -> bool {
        let said = self.theirs(&["once"]).answers();
        assert!(["free", "busy"].contains(&&*said), "{said}");
        said == "free"
    }

    /// The blob, as an operator sees it and writes its metadata.
    #[track_caller]
    fn blob(&self, job: &[&str]) -> String {
        let blob = match self.names {
            Names::GoAzureLocking => format!("azlk-{}", self.lock),
            _ => self.lock.clone(),
        };
        let output =
            program("blob").arg(endpoint()).args([&self.container, &blob]).args(job).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

fn program(name: &str) -> Command {
    let programs =
        env::var("LEASEHOLD_PEERS").expect("`tests/run.sh peers` builds the programs and says where");
    Command::new(Path::new(&programs).join(name))
}

/// Adds to the number in a file until another file is there; says how often.
fn count(locker: &Locker, lock: &str, number: &Path, enough: &Path) {
    let mut times = 0;
    while !enough.exists() {
        let guard = locker.lock(lock).unwrap();
        let next = read_number(number) + 1;
        // Long enough for whoever is not kept out.
        thread::sleep(ms(3));
        // Cut and written: whoever reads meanwhile finds no number.
        fs::write(number, next.to_string()).unwrap();
        guard.unlock().unwrap();
        times += 1;
        // Without it the others, who ask more seldom, would hardly come in.
        thread::sleep(ms(200));
    }
    say(&times.to_string());
}

/// Four processes of each library count so often each, and four of ours as long as that takes.
fn four_of_each_count_exactly(libraries: &[&Shared]) {
    const TIMES: u64 = 10;
    let dir = Dir::new(&libraries[0].lock.replace('/', "-"));
    let (number, enough) = (dir.0.join("number"), dir.0.join("enough"));
    fs::write(&number, "0").unwrap();
    let [number_path, enough_path] = [&number, &enough].map(|path| path.to_str().unwrap());
    let job = ["count", number_path, &TIMES.to_string()];
    let (ours, took) = timed(|| {
        let mut ours: Vec<Actor> =
            (0..4).map(|_| libraries[0].ours("count", &[number_path, enough_path])).collect();
        // Their own pauses would make this minutes. Those of goazurelocking still grow.
        let theirs = libraries.iter().flat_map(|shared| {
            let pauses = if shared.names == Names::AzMutex { ["-poll", "300ms"] } else { ["-pause", "20ms"] };
            (0..4).map(move |_| shared.theirs_with(&pauses, &job))
        });
        theirs.collect::<Vec<Actor>>().iter_mut().for_each(Actor::ends_well);
        fs::write(&enough, "").unwrap();
        let times: Vec<u64> = ours.iter_mut().map(|actor| actor.hear().parse().unwrap()).collect();
        ours.iter_mut().for_each(Actor::ends_well);
        times
    });
    let names: Vec<Names> = libraries.iter().map(|shared| shared.names).collect();
    println!("four of each of {names:?} {TIMES} times each, four of ours {ours:?}: {took:?}");
    assert!(ours.iter().all(|times| *times > 0), "they were alone");
    let theirs = 4 * TIMES * libraries.len() as u64;
    assert_eq!(read_number(&number), theirs + ours.iter().sum::<u64>());
}

#[test]
#[ignore = "needs Azurite and Go programs: tests/run.sh peers"]
fn four_of_goazurelocking_and_four_of_ours_count_exactly() {
    four_of_each_count_exactly(&[&Shared::goazurelocking()]);
}

#[test]
#[ignore = "needs Azurite and Go programs: tests/run.sh peers"]
fn four_of_azmutex_and_four_of_ours_count_exactly() {
    four_of_each_count_exactly(&[&Shared::azmutex()]);
}

#[test]
#[ignore = "needs Azurite and Go programs: tests/run.sh peers"]
fn four_of_each_library_on_one_blob_and_four_of_ours_count_exactly() {
    let shared = Shared::goazurelocking();
    let (container, key) = (shared.container.clone(), format!("azlk-{}", shared.lock));
    let same = Shared { names: Names::AzMutex, container, lock: key };
    four_of_each_count_exactly(&[&shared, &same]);
}

#[test]
#[ignore = "needs Azurite and Go programs: tests/run.sh peers"]
fn they_keep_us_out_and_we_them() {
    for shared in Shared::both() {
        let (locker, lock) = (shared.locker(), &*shared.lock);
        assert!(shared.is_free_to_them());
        let mut theirs = shared.theirs(&["hold"]);
        assert_eq!(theirs.hear(), "held");
        assert!(locker.try_lock(lock).unwrap().is_none());
        assert_eq!(locker.status(lock).unwrap().mode(), Some(Mode::Exclusive));
        assert!(!shared.is_free_to_them(), "and they each other");
        theirs.hear_no_more();
        let (guard, took) = timed(|| locker.request(lock).timeout(LONG).lock().unwrap());
        assert!(took < 3 * SECOND, "a poll after their release: {took:?}");
        theirs.ends_well();

        assert!(!shared.is_free_to_them());
        let mut waiting = shared.theirs(&["hold"]);
        guard.renew().expect("what they do while they wait is nothing to our lease");
        guard.unlock().unwrap();
        assert_eq!(waiting.hear(), "held");
        assert!(locker.try_lock(lock).unwrap().is_none());
        waiting.hear_no_more();
        waiting.ends_well();
        assert!(shared.is_free_to_them());
        assert!(locker.try_lock(lock).unwrap().is_some());
    }
}

/// They know exclusive leases alone; a shared lock is one more of these.
#[test]
#[ignore = "needs Azurite and Go programs: tests/run.sh peers"]
fn our_readers_keep_them_out_and_they_our_readers() {
    for shared in Shared::both() {
        let (locker, lock) = (shared.locker(), &*shared.lock);
        let read = || locker.request(lock).shared().fenced();
        let readers = [read().lock().unwrap(), read().lock().unwrap()];
        assert!(readers[0].fencing_token() == readers[1].fencing_token());
        assert!(!shared.is_free_to_them());
        for reader in readers {
            reader.unlock().unwrap();
        }
        // The next writer of ours ends what the readers have left.
        locker.try_lock(lock).unwrap().unwrap().unlock().unwrap();
        let mut theirs = shared.theirs(&["hold"]);
        assert_eq!(theirs.hear(), "held");
        assert!(read().try_lock().unwrap().is_none());
        theirs.hear_no_more();
        theirs.ends_well();
        let _reader = read().lock().unwrap();
    }
}

/// All at once, since each is a wait for a TTL: go-azuremutex has 60 s.
#[test]
#[ignore = "needs Azurite and Go programs: tests/run.sh peers"]
fn who_is_killed_leaves_the_lock_to_the_other() {
    let ours_after_theirs = |shared: &Shared, ttl: Duration| {
        let mut theirs = shared.theirs(&["hold"]);
        assert_eq!(theirs.hear(), "held");
        theirs.dies();
        let locker = shared.locker();
        assert!(locker.try_lock(&shared.lock).unwrap().is_none());
        let (guard, took) = timed(|| locker.request(&shared.lock).timeout(LONG).lock().unwrap());
        println!("{:?}: ours {took:?} after theirs was killed, of a TTL of {ttl:?}", shared.names);
        assert!(guard.is_held() && took + 2 * SECOND > ttl && took <= ttl + ms(1500), "{took:?}");
    };
    // Their last pause before it is free: that of goazurelocking has grown to a third of the TTL by then.
    let theirs_after_ours = |shared: &Shared, last_pause: Duration| {
        let mut ours = shared.ours("hold", &[]);
        assert_eq!(ours.hear(), "held");
        ours.dies();
        assert!(!shared.is_free_to_them());
        let mut theirs = shared.theirs(&["hold"]);
        let (said, took) = timed(|| theirs.hear());
        println!("{:?}: theirs {took:?} after ours was killed, of a TTL of {TTL:?}", shared.names);
        assert_eq!(said, "held");
        assert!(took + 2 * SECOND > TTL && took <= TTL + last_pause + ms(1500), "{took:?}");
        theirs.hear_no_more();
        theirs.ends_well();
    };
    thread::scope(|scope| {
        scope.spawn(|| ours_after_theirs(&Shared::goazurelocking(), TTL));
        scope.spawn(|| ours_after_theirs(&Shared::azmutex(), 60 * SECOND));
        scope.spawn(|| theirs_after_ours(&Shared::goazurelocking(), 10 * SECOND));
        scope.spawn(|| theirs_after_ours(&Shared::azmutex(), 10 * SECOND));
    });
}

/// Before each of its locks goazurelocking puts an empty blob; go-azuremutex does before each try.
#[test]
#[ignore = "needs Azurite and Go programs: tests/run.sh peers"]
fn their_put_blob_spares_a_held_lock_and_wipes_the_metadata_of_a_free_one() {
    for shared in Shared::both() {
        let locker = shared.locker();
        let guard = locker.lock(&shared.lock).unwrap();
        shared.blob(&["set", "note", "ours", guard.lease_id().unwrap()]);
        assert!(!shared.is_free_to_them());
        assert_eq!(shared.blob(&["show"]), "leased note=ours");
        guard.renew().unwrap();
        guard.unlock().unwrap();
        assert_eq!(shared.blob(&["show"]), "available note=ours", "we do not");
        assert!(shared.is_free_to_them());
        assert_eq!(shared.blob(&["show"]), "available");
        let guard = locker.lock(&shared.lock).unwrap();
        guard.renew().unwrap();
        guard.unlock().unwrap();
    }
}

/// A lock of theirs that an operator breaks: goazurelocking learns it by its next renewal, as we do.
#[test]
#[ignore = "needs Azurite and Go programs: tests/run.sh peers"]
fn goazurelocking_learns_that_its_lock_was_broken() {
    let shared = Shared::goazurelocking();
    let mut theirs = shared.theirs(&["hold"]);
    assert_eq!(theirs.hear(), "held");
    let free_in = shared.locker().break_lock(&shared.lock, leasehold::Break::AfterNotice).unwrap().unwrap();
    let (said, took) = timed(|| theirs.hear());
    assert!(said == "lost" && took < free_in, "{said} after {took:?}, free in {free_in:?}");
}

#[test]
#[ignore = "needs Azurite and Go programs: tests/run.sh peers"]
fn each_name_is_the_same_blob_to_them_and_no_other() {
    let names = |names, container: &str, locks: &[&str]| {
        let shared = locks.iter().map(|lock| Shared {
            names,
            container: container.to_owned(),
            lock: (*lock).to_owned(),
        });
        shared.collect::<Vec<_>>()
    };
    let stem = fresh_container();
    let (capital, long) = (stem.to_uppercase(), format!("{stem:a<58}"));
    let keys = [
        "a",
        "A",
        "a/b",
        "a%2Fb",
        "a%252Fb",
        "a+b",
        "a b",
        "a%20b",
        "ü",
        "%C3%BC",
        "a?b#c&d=e",
        "a;b:@!$'()*,",
    ];
    for all in [
        names(Names::GoAzureLocking, "azlockcontainer", &[&stem, &capital, &long]),
        names(Names::AzMutex, &fresh_container(), &keys),
    ] {
        let (locker, mut held) = (all[0].locker(), Vec::new());
        for shared in &all {
            assert!(shared.is_free_to_them(), "{}: another's blob", shared.lock);
            let guard = locker.lock(&shared.lock).unwrap();
            assert!(!shared.is_free_to_them(), "{}: not the same blob", shared.lock);
            held.push(guard);
        }
    }
}

#[test]
fn what_names_go_with() {
    let account = Account::with_key("myaccount", "c2VjcmV0").unwrap();
    let elsewhere = account.container("locks").names(Names::GoAzureLocking).build().unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::Config);
    assert!(elsewhere.to_string().contains("azlockcontainer"), "{elsewhere}");
    let prefix = account.container("locks").names(Names::AzMutex).prefix("ci");
    assert_eq!(kind(prefix.build()), ErrorKind::Config);

    let store = account.container("azlockcontainer").names(Names::GoAzureLocking).build().unwrap();
    let error = Locker::new(store).lock("nightly_import").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Name);
    let text = error.to_string();
    assert!(text.contains("nightly_import") && text.contains("3 to 58 of `A-Z a-z 0-9`"), "{text}");
    let store = account.container("locks").names(Names::AzMutex).build().unwrap();
    let error = Locker::new(store).lock("a\\b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Name);
    assert!(error.to_string().contains("another key's blob"), "{error}");
}
